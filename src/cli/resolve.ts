import type { Command } from 'commander'
import type { Client, Lock } from '../client/client.ts'
import { PacksError } from '../client/failure.ts'
import { parseLock } from '../client/lock.ts'
import { connect } from './connect.ts'
import { readNamed } from './document.ts'
import { isRange, parseReference } from './reference.ts'
import { type CommonFlags, common, type Here, type Run, run } from './run.ts'
import { replaceFile } from './temporary.ts'

/** What a resolution may be told beside its roots. */
export type ResolveFlags = { runner?: string | undefined; channel?: string | undefined; lock?: string | undefined }

export function addResolve(packs: Command, here: Here): void {
  const command = packs
    .command('resolve')
    .description('choose exact versions of packs and of all they need, as a lock')
    .argument('<packs...>', 'id, or id@ and a version, a range or a channel')
    .option('--runner <version>', 'only what this runner can run')
    .option('--channel <name>', 'prefer what this channel points at, for every pack that has it')
    .option('--lock <file>', 'prefer what this lock has: what need not change does not')
    .option('-o, --output <file>', 'write the lock to this file')
  const example = 'packs resolve net-policy@^1.2 --runner 1.5.0 -o packs.lock.json\npacks pull --frozen packs.lock.json'
  common(command, example).action((roots: string[], flags: CommonFlags & ResolveFlags & { output?: string }) =>
    run(here, flags, (at) => resolve(at, roots, flags)),
  )
}

async function resolve(at: Run, texts: string[], flags: ResolveFlags & { output?: string }): Promise<void> {
  const { lock, bytes } = await resolveRoots(at, await connect(at), texts, flags)
  const { output: file } = flags
  if (!file) {
    // The lock's own bytes, so that the file they are sent to has the lock's digest.
    process.stdout.write(bytes)
    if (process.stdout.isTTY) process.stdout.write('\n')
    return
  }
  await replaceFile(file, bytes)
  const chosen = lock.packs.map(({ packId, version }) => ({ packId, version }))
  at.output.result({ file, packs: chosen }, () => `${file} has ${countText(chosen.length)}`)
}

export function countText(count: number): string {
  return `${count} pack${count === 1 ? '' : 's'}`
}

/** The closure of packs as they are written on the command line. */
export async function resolveRoots(
  { signal }: Run,
  client: Client,
  texts: readonly string[],
  { runner, channel, lock: file }: ResolveFlags,
): Promise<{ lock: Lock; bytes: Uint8Array }> {
  const roots = await rootsOf({ signal }, client, texts, { runner })
  const lock = file === undefined ? undefined : await readLock(file)
  const request = { roots, ...(runner ? { runner } : {}), ...(channel ? { channel } : {}), ...(lock ? { lock } : {}) }
  return client.resolve(request, { signal })
}

/** Packs as they are written on the command line, with ranges: that of a channel is the version it points at. */
export async function rootsOf(
  { signal }: Pick<Run, 'signal'>,
  client: Client,
  texts: readonly string[],
  { runner }: Pick<ResolveFlags, 'runner'>,
): Promise<{ packId: string; version: string }[]> {
  const roots: { packId: string; version: string }[] = []
  for (const text of texts) {
    const { packId, selector = '*' } = parseReference(text)
    const version = isRange(selector)
      ? selector
      : `=${(await client.pack(packId, { version: selector, runner, signal })).version}`
    roots.push({ packId, version })
  }
  const twice = roots.find(({ packId }, i) => roots.findIndex((other) => other.packId === packId) !== i)
  if (twice)
    throw new PacksError('USAGE', `${twice.packId} is named twice; one version of a pack is resolved at a time`)
  return roots
}

/** Throws LOCK_INVALID with everything that is wrong with it. */
export async function readLock(file: string): Promise<Lock> {
  const bytes = await readNamed(file)
  try {
    return parseLock(bytes)
  } catch (error) {
    throw error instanceof PacksError ? named(file, error) : error
  }
}

function named(file: string, cause: PacksError): PacksError {
  const { code, message, about } = cause
  return new PacksError(code, `${file}: ${message}`, { cause, ...(about ? { about } : {}) })
}
