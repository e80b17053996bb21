import { basename } from 'node:path'
import type { Command } from 'commander'
import { inventoryBytes, inventoryOfList } from '../bundles/inventory.ts'
import type { BundlePlan, BundleProblem, BundleRequest, Client, PlannedBundle } from '../client/client.ts'
import { PacksError } from '../client/failure.ts'
import { inWords } from './bundle.ts'
import { connect } from './connect.ts'
import { readNamed } from './document.ts'
import { aligned, bytesText, table } from './output.ts'
import { openProgress } from './progress.ts'
import { receiveBundle } from './receive.ts'
import { countText, type ResolveFlags, readLock, rootsOf } from './resolve.ts'
import { type CommonFlags, common, type Here, type Run, run } from './run.ts'
import { parseSize } from './size.ts'
import type { Received } from './volumes.ts'

type Flags = CommonFlags &
  ResolveFlags & {
    all?: true
    referrers: boolean
    channels: boolean
    since?: string
    plan?: true
    split?: string
    async?: true
    output?: string
  }

export function addExport(packs: Command, here: Here): void {
  const command = packs
    .command('export')
    .description('write packs and all they need into one file, to be carried over an air gap')
    .argument('[packs...]', 'id, or id@ and a version, a range or a channel')
    .option('-o, --output <file>', 'the file to write, such as packs.tar')
    .option('--all', 'every version of every pack')
    .option('--runner <version>', 'only what this runner can run')
    .option('--channel <name>', 'prefer what this channel points at, for every pack that has it')
    .option('--lock <file>', 'prefer what this lock has; without packs named, its own roots')
    .option('--no-referrers', 'leave signatures, SBOMs and whatever else hangs on packs')
    .option('--no-channels', 'leave the channels that point at what goes in')
    .option('--since <inventory>', 'leave out what the receiver has: the file that "packs inventory" wrote there')
    .option('--plan', 'say what would go in, and write nothing')
    .option('--async', 'have it made in the background and kept for a while: see "packs exports"')
    .option('--split <size>', 'write volumes of this size, such as 4GiB, with a file of their checksums')
  const example =
    'packs export net-policy@^1.2 --runner 1.5.0 -o packs.tar\n' +
    'packs export --all --since inventory.json --split 4GiB -o site.tar\n' +
    'packs export --all --async'
  common(command, example).action((texts: string[], flags: Flags) =>
    run(here, flags, (at) => inWords(() => exportPacks(at, texts, flags))),
  )
}

async function exportPacks(at: Run, texts: string[], flags: Flags): Promise<void> {
  requireSense(texts, flags)
  const volumeBytes =
    flags.split === undefined ? undefined : parseSize(flags.split, { least: 4096, leastText: '4 KiB' })
  const client = await connect(at)
  if (flags.async) {
    const made = await client.exports.request(await requestOf(at, client, texts, flags), { signal: at.signal })
    at.output.note(`it is ${made.state}; fetch it by: packs exports download ${made.id} -o packs.tar`)
    return at.output.result({ export: made }, () => made.id)
  }
  const plan = await client.bundles.plan(await requestOf(at, client, texts, flags), { signal: at.signal })
  const { file, problems } = plan
  if (!file) throw refused(problems)
  if (flags.plan) return at.output.result(plan, () => planText(plan, file))
  const { output = '' } = flags
  const target = { output, volumeBytes, id: file.id, size: file.size }
  const read = (from: number) => client.bundles.read(file, { from, signal: at.signal })
  const progress = await openProgress(at.output, { start: 'exporting', end: 'exported' })
  const received = await receiveBundle(at, { index: file.index, sha256: file.sha256, read }, target, (bytes) =>
    progress.moved(basename(output), bytes, file.size),
  ).finally(() => progress.end())
  at.output.note(summaryOf(plan, file))
  const { id, size, index } = file
  at.output.result(
    { file: output, ...received, size, id, index, packs: plan.packs.length, signedBy: plan.signedBy },
    () => receivedText(output, received),
  )
}

function requireSense(texts: string[], flags: Flags): void {
  const { all, lock, runner, channel, plan, output, split } = flags
  const usage = (message: string) => new PacksError('USAGE', message)
  if (all && texts.length > 0) throw usage('--all takes every pack: it goes without names of packs')
  if (all && (lock || runner || channel))
    throw usage('--all resolves nothing: it goes without --runner, --channel and --lock')
  if (!all && texts.length === 0 && !lock) throw usage('name the packs to export, or a --lock, or take --all')
  if (flags.async) {
    if (plan || output || split) throw usage('--async writes no file here: it goes without --plan, --split and -o')
    return
  }
  if (!plan && !output) throw usage('name the file to write: -o packs.tar. Or see what would go in: --plan')
  if (plan && split) throw usage('--plan writes nothing: it goes without --split')
}

async function requestOf(at: Run, client: Client, texts: string[], flags: Flags): Promise<BundleRequest> {
  const { all, runner, channel, referrers, channels, since } = flags
  const inventory = since === undefined ? undefined : await readInventoryFile(since)
  const lock = flags.lock === undefined ? undefined : await readLock(flags.lock)
  const named = all || texts.length > 0 ? await rootsOf(at, client, texts, { runner }) : undefined
  return {
    ...(all ? { all } : { roots: named ?? lock?.roots ?? [] }),
    ...(runner ? { runner } : {}),
    ...(channel ? { channel } : {}),
    ...(lock ? { lock } : {}),
    ...(inventory === undefined ? {} : { inventory }),
    ...{ referrers, channels },
  }
}

/** A registry's inventory, or what `packs bundle inventory --json` says of a file that the receiver has taken. */
async function readInventoryFile(file: string): Promise<unknown> {
  const text = (await readNamed(file)).toString()
  const document = parsed(file, text)
  const listed = inventoryOfList(document)
  return listed ? JSON.parse(inventoryBytes(listed, []).toString()) : document
}

function parsed(file: string, text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw notJson(file, error)
  }
}

function notJson(file: string, cause: unknown): PacksError {
  return new PacksError('INVENTORY_INVALID', `${file} is not JSON: ${(cause as Error).message}`, { cause })
}

/** Everything that keeps the bundle from being made, at once. */
function refused(problems: readonly BundleProblem[]): PacksError {
  const [first] = problems
  const words = problems.map(({ detail }) => detail)
  const message =
    words.length === 1
      ? String(words[0])
      : `${words.length} things are wrong:\n${words.map((word) => `- ${word}`).join('\n')}`
  return new PacksError(first?.code ?? 'ANSWER_INVALID', message, { about: { problems } })
}

function planText({ packs, channels, referrers, leftOut, signedBy }: BundlePlan, file: PlannedBundle): string {
  const facts = aligned([
    ['file', `${bytesText(file.size)} (${file.size} bytes)`],
    ['sha256', file.sha256 ?? 'known when it is written'],
    ['blobs', `${file.blobs}, ${bytesText(file.bytes)}`],
    ...(leftOut.blobs > 0
      ? [['left out', `${leftOut.blobs} blobs, ${bytesText(leftOut.bytes)}, which the receiver has`]]
      : []),
    ['signed by', signedBy.join(', ') || 'nobody; make a key: packs keys create NAME'],
  ])
  const versions = packs.map((pack) => [pack.packId, pack.version, pack.type, bytesText(pack.size)])
  const named = channels.map(({ packId, channel, manifestDigest }) => [packId, channel, manifestDigest])
  const hanging = referrers.map(({ artifactType, subject }) => [artifactType ?? '', subject])
  const tables = [
    table(['PACK', 'VERSION', 'TYPE', 'CONTENT'], versions),
    table(['PACK', 'CHANNEL', 'MANIFEST'], named),
    table(['REFERRER', 'OF'], hanging),
  ]
  return [facts, ...tables.filter(Boolean)].join('\n')
}

function summaryOf({ packs, referrers, leftOut, signedBy }: BundlePlan, { size }: PlannedBundle): string {
  const count = countText(packs.length).replace('pack', 'version')
  return [
    `${count}, ${bytesText(size)}, verified`,
    ...(referrers.length > 0 ? [`${referrers.length} referrers`] : []),
    ...(leftOut.blobs > 0 ? [`${leftOut.blobs} blobs left out`] : []),
    signedBy.length > 0 ? `signed by ${signedBy.length === 1 ? 'one key' : `${signedBy.length} keys`}` : 'not signed',
  ].join(', ')
}

export function receivedText(output: string, { sha256, volumes, sums }: Received): string {
  const own = `${sha256}  ${output}`
  if (!sums) return own
  return [
    own,
    ...volumes,
    `Where they are to be read: cat ${output}.[0-9][0-9][0-9] > ${output}`,
    `and, to be sure: sha256sum --check ${sums}`,
  ].join('\n')
}
