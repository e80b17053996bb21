import { type Command, Option } from 'commander'
import type { PublicKey } from '../bundles/keys.ts'
import type { VerifyPolicy } from '../bundles/signature.ts'
import type { Survey } from '../bundles/survey.ts'
import type { Facts } from '../bundles/told.ts'
import { PacksError } from '../client/failure.ts'
import { Failure, failures } from '../errors.ts'
import { readNamed } from './document.ts'
import { aligned, bytesText, table } from './output.ts'
import { type CommonFlags, common, type Here, type Run, run } from './run.ts'

const policies: readonly VerifyPolicy[] = ['always', 'if-present', 'never']

type VerifyFlags = CommonFlags & { key?: string[]; policy?: VerifyPolicy }

/** The commands that look into a bundle file, or any OCI layout. They need no registry and no network. */
export function addBundle(packs: Command, here: Here): void {
  const bundle = packs.command('bundle').description('bundle files: look into them, without a registry or a network')
  bundle.addHelpText('after', '\nExample:\n  packs bundle verify packs.tar --key headquarters.pem')
  const file = ['file', 'a bundle, or any OCI image layout: a folder, .tar, .tar.gz or .tar.zst'] as const
  const add = (name: string, description: string, example: string) =>
    common(bundle.command(name).description(description), example, { registry: false })

  add('inspect', 'show what is in it; whether it is to be trusted says "verify"', 'packs bundle inspect packs.tar')
    .argument(...file)
    .action((path: string, flags: CommonFlags) => run(here, flags, (at) => inWords(() => inspect(at, path))))
  add(
    'verify',
    'check all of it: structure, digests, sizes, whether it is complete, the lock and the signature',
    'packs bundle verify packs.tar --key headquarters.pem',
  )
    .argument(...file)
    .option('--key <file>', 'a public key (PEM) whose signature is taken; may be given again', collect)
    .addOption(
      new Option(
        '--policy <policy>',
        'always: it has to be signed; if-present: only a wrong signature is refused; never: it is not looked at (default: always with --key, else if-present)',
      ).choices(policies),
    )
    .action((path: string, flags: VerifyFlags) => run(here, flags, (at) => inWords(() => verifyFile(at, path, flags))))
  add('diff', 'show what came, went and changed from one to another', 'packs bundle diff january.tar february.tar')
    .argument('<from>', file[1])
    .argument('<to>', file[1])
    .action((from: string, to: string, flags: CommonFlags) =>
      run(here, flags, (at) => inWords(() => diff(at, from, to))),
    )
  add('inventory', 'list the digests that it holds', 'packs bundle inventory packs.tar --json > inventory.json')
    .argument(...file)
    .action((path: string, flags: CommonFlags) => run(here, flags, (at) => inWords(() => inventory(at, path))))
}

function collect(value: string, before: string[] = []): string[] {
  return [...before, value]
}

/** What the rules of bundles throw, as what the commands report. */
export async function inWords(work: () => Promise<void>): Promise<void> {
  try {
    await work()
  } catch (error) {
    throw error instanceof Failure ? reported(error) : error
  }
}

function reported(failure: Failure): PacksError {
  const { key, detail, about } = failure
  const words = typeof detail === 'string' ? detail : failures[key].title
  return new PacksError(key, words, { cause: failure, ...(about ? { about } : {}) })
}

// What reads a file is loaded when it is read: other commands start faster without it.
async function look({ signal }: Run, path: string): Promise<Survey> {
  const { survey } = await import('../bundles/survey.ts')
  return survey(path, { signal })
}

async function inspect(at: Run, path: string): Promise<void> {
  const read = await look(at, path)
  const { factsOf } = await import('../bundles/told.ts')
  const { parseEnvelope } = await import('../bundles/dsse.ts')
  const facts = factsOf(read)
  const { envelope } = read.layout
  const signedBy = envelope ? parseEnvelope(envelope).signatures.map(({ keyid }) => keyid ?? '(not named)') : []
  at.output.result({ ...facts, signedBy }, () => {
    const signature = signedBy.length > 0 ? `says it is by ${signedBy.join(', ')}; not checked here` : 'none'
    return `${aboutOf(facts)}${aligned([['signature', signature]])}\n${contentsOf(facts)}`
  })
}

function aboutOf({ kind, index, lock, base, leftOut, blobs, size }: Facts): string {
  return aligned([
    ['kind', kind === 'bundle' ? (base ? 'incremental bundle' : 'bundle') : 'OCI image layout, made by another tool'],
    ['index', index],
    ...(lock ? [['lock', lock]] : []),
    ...(base ? [['base', `${base}, which has the ${leftOut} blobs that are left out`]] : []),
    ['blobs', `${blobs}, ${bytesText(size)}`],
  ])
}

function contentsOf({ packs, channels, referrers, attachments, images }: Facts): string {
  const versions = packs.map((pack) => [pack.packId, pack.version, bytesText(pack.size), pack.manifestDigest])
  const named = channels.map(({ packId, channel, manifestDigest }) => [packId, channel, manifestDigest])
  const attached = referrers.map(({ artifactType, subject, digest }) => [artifactType ?? '', subject, digest])
  const tagged = attachments.map(({ packId, tag, digest }) => [packId, tag, digest])
  const others = images.map(({ name, mediaType, digest }) => [name ?? '', mediaType, digest])
  return [
    table(['PACK', 'VERSION', 'CONTENT', 'MANIFEST'], versions),
    table(['PACK', 'CHANNEL', 'MANIFEST'], named),
    table(['REFERRER', 'OF', 'MANIFEST'], attached),
    table(['PACK', 'ATTACHED', 'MANIFEST'], tagged),
    table(['NAME', 'TYPE', 'MANIFEST'], others),
  ]
    .filter(Boolean)
    .join('\n')
}

async function verifyFile(at: Run, path: string, { key = [], policy }: VerifyFlags): Promise<void> {
  const keys = await Promise.all(key.map(keyIn))
  const read = await look(at, path)
  const { verify } = await import('../bundles/verify.ts')
  const { factsOf } = await import('../bundles/told.ts')
  const { signature, unnamed } = verify(read, { keys, policy, now: new Date() })
  const facts = factsOf(read)
  const signedBy = signature.kind === 'verified' ? signature.by.map(({ keyid, name }) => ({ keyid, file: name })) : []
  at.output.result({ valid: true, signature: signature.kind, signedBy, unnamed, ...facts }, () => {
    const by = {
      verified: `good, by ${signedBy.map(({ keyid, file }) => `${keyid} (${file})`).join(', ')}`,
      missing: 'none: nobody vouches for it',
      refused: 'not looked at',
    }[signature.kind]
    const extra = unnamed.length > 0 ? [['not named', `${unnamed.length} blobs that nothing in it refers to`]] : []
    return `${aboutOf(facts)}${aligned([['signature', by], ...extra])}complete and unchanged: ${facts.packs.length} packs`
  })
}

async function keyIn(file: string): Promise<PublicKey> {
  const { readPublicKey } = await import('../bundles/keys.ts')
  const pem = (await readNamed(file)).toString()
  try {
    return { ...readPublicKey(pem), name: file }
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    throw new Failure(error.key, { detail: `${file}: ${error.detail}`, cause: error })
  }
}

async function diff(at: Run, one: string, other: string): Promise<void> {
  // One after the other: both may be large, and they may stand on the same disk.
  const from = await look(at, one)
  const to = await look(at, other)
  const { differencesOf } = await import('../bundles/told.ts')
  const difference = differencesOf(from, to)
  at.output.result(difference, () => {
    const { added, removed, changed } = difference.packs
    const rows = [
      ...added.map((pack) => ['+', pack.name, pack.digest]),
      ...removed.map((pack) => ['-', pack.name, pack.digest]),
      ...changed.map((pack) => ['~', pack.name, `${pack.from} → ${pack.to}`]),
    ]
    const { blobs } = difference
    if (rows.length === 0 && blobs.added.length === 0 && blobs.removed.length === 0) return 'no difference'
    const sum = (list: readonly { size: number }[]) =>
      `${list.length} (${bytesText(list.reduce((total, { size }) => total + size, 0))})`
    return `${aligned(rows)}blobs: ${sum(blobs.added)} added, ${sum(blobs.removed)} removed`
  })
}

async function inventory(at: Run, path: string): Promise<void> {
  const { blobs } = await look(at, path)
  const digests = [...blobs].map(([digest, size]) => ({ digest, size })).sort((a, b) => (a.digest < b.digest ? -1 : 1))
  at.output.result({ digests }, () => digests.map(({ digest, size }) => `${digest} ${size}`).join('\n'))
}
