import type { Command } from 'commander'
import type { Client, Lock, PulledPack, PullProgress } from '../client/client.ts'
import { PacksError } from '../client/failure.ts'
import { connect } from './connect.ts'
import { bytesText, pathText } from './output.ts'
import { openProgress, type Progress } from './progress.ts'
import { parseReference } from './reference.ts'
import { countText, type ResolveFlags, readLock, resolveRoots } from './resolve.ts'
import { type CommonFlags, common, type Here, type Run, run } from './run.ts'
import { replaceFile } from './temporary.ts'

type Flags = CommonFlags & ResolveFlags & { frozen?: string; into: string; lockOut?: string; deps: boolean }

export function addPull(packs: Command, here: Here): void {
  const command = packs
    .command('pull')
    .description('fetch packs and all they need; every byte is verified')
    .argument('[packs...]', 'id, or id@ and a version, a range or a channel')
    .option('--frozen <lock>', 'fetch exactly what this lock has, and resolve nothing')
    .option('--into <folder>', 'folder to put <id>/<file> in', 'packs')
    .option('--runner <version>', 'only what this runner can run')
    .option('--channel <name>', 'prefer what this channel points at, for every pack that has it')
    .option('--lock <file>', 'prefer what this lock has: what need not change does not')
    .option('--lock-out <file>', 'write the lock of what is fetched to this file')
    .option('--no-deps', 'fetch the packs named, and not what they need')
  const example =
    'packs pull net-policy@^1.2 --runner 1.5.0 --lock-out packs.lock.json\npacks pull --frozen packs.lock.json'
  common(command, example).action((texts: string[], flags: Flags) => run(here, flags, (at) => pull(at, texts, flags)))
}

async function pull(at: Run, texts: string[], flags: Flags): Promise<void> {
  requireSense(texts, flags)
  const { into, frozen, lockOut } = flags
  const client = await connect(at)
  const progress = await openProgress(at.output, { start: 'pulling', end: 'pulled' })
  const options = { into, signal: at.signal, onProgress: (moved: PullProgress) => show(progress, moved) }
  let pulled: PulledPack[]
  try {
    if (!flags.deps) pulled = await pullNamed(at, client, texts, flags, options)
    else {
      const { lock, bytes } = frozen ? { lock: await readLock(frozen) } : await resolveRoots(at, client, texts, flags)
      pulled = await client.pull(lock, options)
      if (lockOut && bytes) await replaceFile(lockOut, bytes)
      if (!frozen) await warnOfDeprecated(at, client, lock)
    }
  } finally {
    progress.end()
  }
  const size = pulled.reduce((sum, pack) => sum + pack.size, 0)
  at.output.note(`${countText(pulled.length)}, ${bytesText(size)}, verified, in ${into}`)
  at.output.result({ packs: pulled, ...(lockOut ? { lock: lockOut } : {}) }, () =>
    pulled.map(({ packId, version, file }) => `${packId} ${version} ${pathText(file)}`).join('\n'),
  )
}

function requireSense(texts: string[], { frozen, runner, channel, lock, lockOut, deps }: Flags): void {
  const usage = (message: string) => new PacksError('USAGE', message)
  if (!frozen && texts.length === 0)
    throw usage('name the packs to fetch, or a lock: packs pull --frozen packs.lock.json')
  if (frozen && texts.length > 0) throw usage('--frozen fetches what the lock has: it goes without names of packs')
  if (frozen && (runner || channel || lock || lockOut || !deps))
    throw usage('--frozen resolves nothing: it goes without --runner, --channel, --lock, --lock-out and --no-deps')
  if (!deps && (channel || lock || lockOut))
    throw usage('--no-deps resolves nothing: it goes without --channel, --lock and --lock-out')
}

function show(progress: Progress, { packId, version, receivedBytes, totalBytes }: PullProgress): void {
  progress.moved(`${packId} ${version}`, receivedBytes, totalBytes)
}

type PullOptions = { into: string; signal: AbortSignal; onProgress: (moved: PullProgress) => void }

async function pullNamed(
  { signal }: Run,
  client: Client,
  texts: string[],
  { runner }: Flags,
  options: PullOptions,
): Promise<PulledPack[]> {
  const pulled: PulledPack[] = []
  for (const text of texts) {
    const { packId, selector } = parseReference(text)
    const pack = await client.pack(packId, { version: selector, runner, signal })
    pulled.push(await client.pullOne(pack, options))
  }
  return pulled
}

/** A deprecated version still does what it did; whoever asked for it by name learns what to use instead. */
async function warnOfDeprecated({ output, signal }: Run, client: Client, { roots, packs }: Lock): Promise<void> {
  if (output.quiet) return
  for (const { packId } of roots) {
    const version = packs.find((pack) => pack.packId === packId)?.version
    // What was to be done is done: a warning that cannot be had is no failure.
    const pack = await client.pack(packId, { version, signal }).catch(() => undefined)
    if (pack?.state !== 'deprecated') continue
    const { message, replacedBy } = pack
    const why = [message && `: ${message}`, replacedBy && `. Use ${replacedBy} instead`].filter(Boolean).join('')
    output.note(`warning: ${packId} ${version} is deprecated${why}`)
  }
}
