import type { Command } from 'commander'
import type { Key } from '../client/client.ts'
import { connect } from './connect.ts'
import { readNamed } from './document.ts'
import { aligned, table } from './output.ts'
import { type CommonFlags, common, type Here, type Run, run } from './run.ts'
import { replaceFile } from './temporary.ts'

type Flags = CommonFlags & { expires?: string; comment?: string }

/** The commands for the keys of a registry: what it signs bundles with, and whose bundles it takes. */
export function addKeys(packs: Command, here: Here): void {
  const keys = packs.command('keys').description('keys: what bundles are signed with, and whose bundles are taken')
  keys.addHelpText('after', '\nExample:\n  packs keys create release\n  packs keys export release -o release.pem')
  const key = ['key', 'its name, or its key id (sha256:…)'] as const
  const expires = [
    '--expires <time>',
    'from when on nothing by it is taken: 2027-01-31, or 2027-01-31T12:00:00Z',
  ] as const
  const comment = ['--comment <text>', 'whose it is, and what for'] as const
  const add = (name: string, description: string) => keys.command(name).description(description)

  const list = add('list', 'show every key, those in use first')
  common(list, 'packs keys list').action((flags: Flags) => run(here, flags, listKeys))
  const create = add('create', 'make a key; bundles are signed with it from now on')
    .argument('<name>', 'what to call it, such as release')
    .option(...expires)
    .option(...comment)
  common(create, 'packs keys create release --expires 2028-01-01').action((name: string, flags: Flags) =>
    run(here, flags, (at) => createKey(at, name, flags)),
  )
  const rotate = add('rotate', 'put a new key in the place of one that signs; what the old one signed is still taken')
    .argument(...key)
    .option(...expires)
  common(rotate, 'packs keys rotate release').action((id: string, flags: Flags) =>
    run(here, flags, (at) => rotateKey(at, id, flags)),
  )
  const trust = add('trust', "take bundles that another site's key has signed")
    .argument('<name>', 'what to call it here, such as headquarters')
    .argument('<file>', 'its public key (PEM), which "packs keys export" writes there')
    .option(...expires)
    .option(...comment)
  common(trust, 'packs keys trust headquarters headquarters.pem').action((name: string, file: string, flags: Flags) =>
    run(here, flags, (at) => trustKey(at, name, file, flags)),
  )
  const distrust = add('distrust', 'take nothing any more that a key has signed, and sign nothing with it').argument(
    ...key,
  )
  common(distrust, 'packs keys distrust headquarters').action((id: string, flags: Flags) =>
    run(here, flags, (at) => distrustKey(at, id)),
  )
  const write = add('export', 'write the public part of a key, for other sites to trust')
    .argument(...key)
    .option('-o, --output <file>', 'where to write it (default: standard output)')
  common(write, 'packs keys export release -o release.pem').action((id: string, flags: Flags & { output?: string }) =>
    run(here, flags, (at) => exportKey(at, id, flags)),
  )
}

async function listKeys(at: Run): Promise<void> {
  const client = await connect(at)
  const keys = await client.keys.list({ signal: at.signal })
  at.output.result({ keys }, () => {
    const rows = keys.map((key) => [key.name, key.state, key.own ? 'own' : 'other', key.expiresAt ?? '', key.keyid])
    return table(['NAME', 'STATE', 'WHOSE', 'EXPIRES', 'KEY ID'], rows) || 'no keys; make one: packs keys create NAME'
  })
}

async function createKey(at: Run, name: string, { expires, comment }: Flags): Promise<void> {
  const client = await connect(at)
  const key = await client.keys.create(name, { expires, comment, signal: at.signal })
  at.output.result({ key }, () => `${factsOf(key)}\nOther sites trust it by its public part: packs keys export ${name}`)
}

async function rotateKey(at: Run, id: string, { expires }: Flags): Promise<void> {
  const client = await connect(at)
  const key = await client.keys.rotate(id, { expires, signal: at.signal })
  at.output.result(
    { key },
    () =>
      `${factsOf(key)}\nOther sites have to trust the new key before they take what it signs: packs keys export ${key.name}`,
  )
}

async function trustKey(at: Run, name: string, file: string, { expires, comment }: Flags): Promise<void> {
  const pem = (await readNamed(file)).toString()
  const client = await connect(at)
  // Only for a word about it: whoever may not list keys may trust one all the same.
  const before = await client.keys.list({ signal: at.signal }).catch(() => [])
  const key = await client.keys.trust(name, pem, { expires, comment, signal: at.signal })
  const fallen = before.find(({ keyid, state }) => keyid === key.keyid && state === 'distrusted')
  if (fallen)
    at.output.note(
      `warning: this key was distrusted here on ${fallen.distrustedAt?.slice(0, 10)}, as ${fallen.name}, and is trusted again now; if that is not meant: packs keys distrust ${name}`,
    )
  at.output.result({ key }, () => `${factsOf(key)}\nCompare the key id with whoever sent it, by another way.`)
}

async function distrustKey(at: Run, id: string): Promise<void> {
  const client = await connect(at)
  const key = await client.keys.distrust(id, { signal: at.signal })
  at.output.result({ key }, () => `nothing by ${key.name} (${key.keyid}) is taken any more`)
}

async function exportKey(at: Run, id: string, { output }: { output?: string }): Promise<void> {
  const client = await connect(at)
  const key = await client.keys.get(id, { signal: at.signal })
  if (output !== undefined) await replaceFile(output, key.publicKey)
  at.output.result({ key, ...(output === undefined ? {} : { file: output }) }, () =>
    output === undefined ? key.publicKey : `${key.keyid}\nwritten to ${output}`,
  )
}

function factsOf(key: Key): string {
  return aligned([
    ['name', key.name],
    ['key id', key.keyid],
    ['state', key.state],
    ['expires', key.expiresAt ?? 'never'],
  ])
}
