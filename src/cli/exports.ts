import { basename } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Command } from 'commander'
import type { Client, Export } from '../client/client.ts'
import { PacksError } from '../client/failure.ts'
import { inWords } from './bundle.ts'
import { connect } from './connect.ts'
import { receivedText } from './export.ts'
import { aligned, bytesText, table } from './output.ts'
import { openProgress } from './progress.ts'
import { receiveBundle } from './receive.ts'
import { type CommonFlags, common, type Here, type Run, run } from './run.ts'
import { parseSize } from './size.ts'

type DownloadFlags = CommonFlags & { output: string; split?: string }

/** Bundle files that the registry makes in the background, by `packs export --async`. */
export function addExports(packs: Command, here: Here): void {
  const exports = packs.command('exports').description('bundle files that the registry made: "packs export --async"')
  exports.addHelpText('after', '\nExample:\n  packs exports list')
  const listing = exports.command('list').description('list them, the newest first')
  common(listing, 'packs exports list').action((flags: CommonFlags) => run(here, flags, list))
  const showing = exports.command('show').description('say how far one is').argument('<id>', 'its id, or how it begins')
  common(showing, 'packs exports show 9834876dcfb0').action((id: string, flags: CommonFlags) =>
    run(here, flags, async (at) => {
      const client = await connect(at)
      const found = await find(at, client, id)
      at.output.result({ export: found }, () => aligned(factsOf(found)))
    }),
  )
  const downloading = exports
    .command('download')
    .description('fetch and verify one; waits until it is ready, and goes on where it was interrupted')
    .argument('<id>', 'its id, or how it begins')
    .requiredOption('-o, --output <file>', 'the file to write, such as packs.tar')
    .option('--split <size>', 'write volumes of this size, such as 4GiB, with a file of their checksums')
  common(downloading, 'packs exports download 9834876dcfb0 -o packs.tar').action((id: string, flags: DownloadFlags) =>
    run(here, flags, (at) => inWords(() => download(at, id, flags))),
  )
  const removing = exports
    .command('remove')
    .description('remove one before its time')
    .argument('<id>', 'its id, or how it begins')
  common(removing, 'packs exports remove 9834876dcfb0').action((id: string, flags: CommonFlags) =>
    run(here, flags, async (at) => {
      const client = await connect(at)
      const found = await find(at, client, id)
      const removed = await client.exports.remove(found.id, { signal: at.signal })
      at.output.result({ removed }, () => `removed ${found.id}`)
    }),
  )
}

async function list(at: Run): Promise<void> {
  const client = await connect(at)
  const found: Export[] = []
  for await (const one of client.exports.list({ signal: at.signal })) found.push(one)
  at.output.result({ exports: found }, () =>
    table(
      ['EXPORT', 'STATE', 'SIZE', 'VERSIONS', 'BY', 'UNTIL'],
      found.map(({ id, state, size, packs, by, expiresAt }) => [
        ...[id.slice(0, 12), state, bytesText(size), String(packs), by, expiresAt.replace(/\..*$/, 'Z')],
      ]),
    ),
  )
  if (!at.output.json && found.length === 0) at.output.note('there is none')
}

/** Throws EXPORT_UNKNOWN, and USAGE where several begin like this. */
async function find({ signal }: Run, client: Client, id: string): Promise<Export> {
  if (id.length === 64) return client.exports.show(id, { signal })
  const found: Export[] = []
  for await (const one of client.exports.list({ signal })) if (one.id.startsWith(id)) found.push(one)
  const [first] = found
  if (!first) throw new PacksError('EXPORT_UNKNOWN', `there is no export ${JSON.stringify(id)}`)
  if (found.length > 1) throw new PacksError('USAGE', `${found.length} exports begin with ${id}`)
  return first
}

function factsOf(made: Export): string[][] {
  return Object.entries(made).map(([name, value]) => [name, Array.isArray(value) ? value.join(', ') : String(value)])
}

const lookMs = 500

async function download(at: Run, id: string, { output, split }: DownloadFlags): Promise<void> {
  const volumeBytes = split === undefined ? undefined : parseSize(split, { least: 4096, leastText: '4 KiB' })
  const client = await connect(at)
  const { signal } = at
  const made = await ready(at, client, await find(at, client, id))
  const target = { output, volumeBytes, id: made.id, size: made.size }
  const read = (from: number) => client.exports.read(made, { from, signal })
  const progress = await openProgress(at.output, { start: 'downloading', end: 'downloaded' })
  const received = await receiveBundle(at, { index: made.index, sha256: made.sha256, read }, target, (bytes) =>
    progress.moved(basename(output), bytes, made.size),
  ).finally(() => progress.end())
  at.output.result({ file: output, ...received, size: made.size, id: made.id, index: made.index }, () =>
    receivedText(output, received),
  )
}

/** Throws EXPORT_NOT_READY where it cannot be made. */
async function ready(at: Run, client: Client, first: Export): Promise<Export> {
  const { signal } = at
  let made = first
  const progress = await openProgress(at.output, { start: 'being made:', end: 'made' })
  try {
    for (; made.state !== 'ready'; made = await client.exports.show(made.id, { signal })) {
      if (made.state === 'failed')
        throw new PacksError('EXPORT_NOT_READY', `${made.error ?? 'it cannot be made'}. Ask for it again`)
      progress.moved(made.id.slice(0, 12), made.written, made.size)
      await sleep(lookMs, undefined, { signal })
    }
  } finally {
    progress.end()
  }
  return made
}
