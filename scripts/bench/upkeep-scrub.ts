import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { promisify } from 'node:util'
import { readConfig } from '../../src/config.ts'
import { startEmbedded } from '../../src/db/embedded.ts'
import { migrate } from '../../src/db/migrate.ts'
import { closeDeps, type Deps, openDeps } from '../../src/deps.ts'
import { openLog } from '../../src/log.ts'
import { digestOf } from '../../src/oci/digest.ts'
import { storeContent } from '../../src/registry/blobs.ts'
import { scrub } from '../../src/registry/scrub.ts'
import { atEnd, scratchFolder } from './cleanup.ts'
import { median } from './figures.ts'
import type { Options } from './main.ts'
import type { Verdict } from './verdicts.ts'

const run = promisify(execFile)
const leastShare = 0.7
const MiB = 1 << 20

/** What is stored: few large files, and many small ones. */
const stocks = [
  { title: 'full scrub of a folder, 16 × 64 MiB', count: 16, bytes: 64 * MiB },
  { title: 'full scrub of a folder, 2,000 × 256 KiB', count: 2_000, bytes: 256 * 1024 },
]

/** A full scrub without a limit, beside `sha256sum` over the same files, in turn. */
export async function scrubStore({ rounds, dir }: Options): Promise<Verdict[]> {
  const lines: Verdict[] = []
  for (const stock of stocks) lines.push(await compareOne(stock, rounds, dir))
  return lines
}

async function compareOne(
  { title, count, bytes }: (typeof stocks)[number],
  rounds: number,
  dir: string | undefined,
): Promise<Verdict> {
  const folder = await scratchFolder(dir)
  const database = await startEmbedded({ dataDir: join(folder, 'database') })
  atEnd(() => database.stop())
  await migrate(database.url)
  const config = readConfig({ BLOB_STORE: `file:${join(folder, 'blobs')}` })
  const deps = await openDeps(config, database.url, openLog('silent'))
  await fill(deps, count, bytes)
  const [ours, theirs]: [number[], number[]] = [[], []]
  for (let round = 0; round < rounds; round++) {
    theirs.push(
      await timed(() =>
        run('sh', ['-c', `find ${join(folder, 'blobs', 'blobs')} -type f | xargs sha256sum`], { maxBuffer: 64 * MiB }),
      ),
    )
    ours.push(
      await timed(async () => {
        const done = await scrub(deps, { mode: 'full', rate: 0 })
        if (done?.blobs !== count || done.found > 0) throw new Error(`scrub saw ${JSON.stringify(done)}`)
      }),
    )
  }
  await closeDeps(deps)
  const perSecond = (seconds: number) => Math.round((count * bytes) / 1e6 / seconds)
  const share = median(theirs) / median(ours)
  return {
    title,
    target: `≥ ${leastShare} × sha256sum`,
    figure: `${perSecond(median(ours))} MB/s, sha256sum ${perSecond(median(theirs))}: ${share.toFixed(2)}`,
    met: share >= leastShare,
  }
}

async function fill(deps: Deps, count: number, bytes: number): Promise<void> {
  for (let at = 0; at < count; at++) {
    const content = randomBytes(bytes)
    const body = { stream: Readable.from([content]), length: bytes }
    await storeContent(deps, { repository: 'bench/scrub' as never, digest: digestOf(content), body })
  }
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const started = performance.now()
  await work()
  return (performance.now() - started) / 1000
}
