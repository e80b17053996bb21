import { freeBytes, scratchFolder } from './cleanup.ts'
import { startPacks } from './contestants.ts'
import { drive } from './driver.ts'
import type { Options } from './main.ts'
import { memoryOf, peakOf, resetPeaks } from './processes.ts'
import { type BenchStore, openS3ForBench } from './s3.ts'

const mebibyte = 1 << 20

/** The most that one process may take while it receives `uploads` at once, in megabytes (10^6 bytes). */
const limits = { file: 400, s3: 700 }

/**
 * Many large uploads at once into one process, by POST and a streamed PATCH, cancelled when all of them are in; prints
 * the peak of its resident memory. Where the store has no room for all of them at full size, they are cut into several
 * rounds, and that is said. Gives whether every peak stayed within its limit.
 */
export async function uploadMemory(options: Options): Promise<boolean> {
  const folder = await scratchFolder(options.dir)
  let within = true
  for (const kind of options.stores) {
    const store = kind === 's3' ? await openS3ForBench(options.s3) : await folderStore(folder)
    if (store === undefined) console.log('s3: left out, no S3 server to be had (name one with --s3, or install Ceph)')
    else within = (await measure(kind, folder, store, options)) && within
  }
  return within
}

async function folderStore(folder: string): Promise<BenchStore> {
  return { env: {}, room: (await freeBytes(folder)) * 0.6, frees: true }
}

async function measure(
  kind: 'file' | 's3',
  folder: string,
  store: BenchStore,
  { uploads, size = 1024 }: Options,
): Promise<boolean> {
  const server = await startPacks({ folder, label: `memory-${kind}`, processes: 1, env: store.env })
  const idle = await memoryOf(server, 'Rss')
  const bytes = Math.min(size, Math.max(1, Math.floor(store.room / uploads / mebibyte))) * mebibyte
  const repeats = store.frees ? Math.ceil((size * mebibyte) / bytes) : 1
  await resetPeaks(server)
  const started = performance.now()
  const { rate } = await drive({ kind: 'uploads', origin: server.origin, clients: uploads, bytes, repeats })
  const seconds = (performance.now() - started) / 1000
  const peak = await peakOf(server)
  const after = await memoryOf(server, 'Rss')
  await server.stop()
  const times = repeats === 1 ? '' : `, ${repeats} times in a row`
  const why = bytes < size * mebibyte ? ` (the store has no room for ${size} MiB)` : ''
  const amount = `${bytes / mebibyte} MiB each${times}${why}`
  const round = (value: number) => `${Math.round(value)} MB`
  console.log(`${kind}: ${uploads} uploads at once, ${amount}, ${Math.round(rate)} MB/s for ${Math.round(seconds)} s`)
  console.log(`  one process: ${round(idle.own)} idle, ${round(peak.own)} at its peak, ${round(after.own)} afterwards`)
  console.log(`  its PostgreSQL: ${round(peak.postgres)} at its peak (shared memory counted in every process)`)
  const verdict = peak.own < limits[kind]
  console.log(`  target < ${limits[kind]} MB: ${verdict ? 'met' : 'MISSED'}`)
  return verdict
}
