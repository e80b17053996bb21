import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect, type Sql } from '../../src/db/client.ts'
import { startEmbedded } from '../../src/db/embedded.ts'
import { send } from '../../src/db/queue.ts'
import { atEnd, scratchFolder } from './cleanup.ts'
import { startPacks } from './contestants.ts'
import { type Latency, latencyUntil } from './latency.ts'
import type { Options } from './main.ts'
import { acceptFor } from './oci.ts'
import { makeSamples, pathsOf, pushSamples } from './samples.ts'
import type { Verdict } from './verdicts.ts'

const leastRate = 5_000
const mostSlower = 1.5
/** Rows of a registry that are needed, beside those that are not. */
const neededShare = 5

/**
 * Garbage collection of rows without objects, by the job as the settings have it by default, while manifests are read at
 * a steady pace; and the same reads before and after it.
 */
export async function collectGarbage({ rows, processes, seconds, dir }: Options): Promise<Verdict[]> {
  const folder = await scratchFolder(dir)
  const database = await startEmbedded({ dataDir: join(folder, 'database') })
  atEnd(() => database.stop())
  const { origin } = await startPacks({ folder, label: 'gc', processes, env: { DATABASE_URL: database.url } })
  const sql = connect(database.url, { max: 1 })
  const samples = makeSamples()
  await pushSamples(origin, samples)
  await fill(sql, rows)
  const url = origin + pathsOf(samples).byTag
  const read = (until: Promise<unknown>) => latencyUntil(until, url, { accept: acceptFor(url) })
  await read(sleep(2_000))
  const before = await read(sleep(seconds * 2_000))
  const started = performance.now()
  const passed = collected(sql)
  const during = await read(passed)
  const { rowsGone, ended } = await passed
  const rowSeconds = (rowsGone - started) / 1000
  const after = await read(sleep(seconds * 2_000))
  await sql.end()
  return verdicts(rows, { rowSeconds, objectSeconds: (ended - started) / 1000 - rowSeconds }, { before, during, after })
}

type Times = { rowSeconds: number; objectSeconds: number }
type Reads = { before: Latency; during: Latency; after: Latency }

function verdicts(rows: number, { rowSeconds, objectSeconds }: Times, { before, during, after }: Reads): Verdict[] {
  const rate = rows / rowSeconds
  const quiet = Math.max(before.p99, after.p99)
  const count = (value: number) => Math.round(value).toLocaleString('en-US')
  const ms = ({ p50, p99 }: Latency) => `${p50.toFixed(2)} / ${p99.toFixed(2)} ms`
  return [
    {
      title: `GC of ${count(rows)} unreferenced blobs`,
      target: `≥ ${count(leastRate)} rows/s`,
      figure: `${count(rate)} rows/s, then ${count(rows / objectSeconds)} objects/s`,
      met: rate >= leastRate,
    },
    {
      title: '  manifest GETs meanwhile, p50 / p99',
      target: `p99 ≤ ${mostSlower} × quiet`,
      figure: `${ms(during)}; before ${ms(before)}, after ${ms(after)}: ${(during.p99 / quiet).toFixed(2)}`,
      met: during.p99 <= quiet * mostSlower,
    },
  ]
}

/** Blobs that nobody has, due since some time in the last hour; and others that a manifest needs. */
async function fill(sql: Sql, rows: number): Promise<void> {
  await sql`
    insert into blobs (digest, size, storage_key, review_at)
    select 'sha256:' || encode(sha256(n::text::bytea), 'hex'), 1000,
      'blobs/sha256/' || substr(encode(sha256(n::text::bytea), 'hex'), 1, 2) || '/' || n || '.stub',
      now() - random() * interval '1 hour'
    from generate_series(1, ${rows}::int) n`
  await sql`
    with needed as (
      insert into blobs (digest, size, storage_key)
      select 'sha256:' || encode(sha256(('needed' || n)::bytea), 'hex'), 1000, 'blobs/stub/needed/' || n
      from generate_series(1, ${Math.ceil(rows / neededShare)}::int) n
      returning digest
    ), linked as (
      insert into repository_blobs (repository_id, digest)
      select (select id from repositories order by id limit 1), digest from needed
      returning repository_id, digest
    )
    insert into manifest_blobs (repository_id, manifest_digest, blob_digest)
    select l.repository_id, (select m.digest from manifests m where m.repository_id = l.repository_id limit 1), l.digest
    from linked l`
  await sql`vacuum analyze`
}

/**
 * One pass; when it had deleted its last row, and when it ended. What is asked meanwhile is found by its key: a look
 * for any row that is left would go over all that were deleted, ten times a second.
 */
async function collected(sql: Sql): Promise<{ rowsGone: number; ended: number }> {
  const [last] = await sql<{ digest: string }[]>`
    select digest from blobs where review_at <= now() order by review_at desc, digest desc limit 1`
  const job = (await send(sql, 'gc', {}, { key: 'bench' })) ?? ''
  await untilNone(() => sql`select from blobs where digest = ${last?.digest ?? ''}`)
  const rowsGone = performance.now()
  await untilNone(() => sql`select from pgboss.job where name = 'gc' and id = ${job} and state <> 'completed'`)
  const ended = performance.now()
  const [left] = await sql<{ rows: number }[]>`
    select (select count(*) from blobs where review_at <= now())::int + (select count(*) from blob_deletions)::int as rows`
  if (left?.rows) throw new Error(`garbage collection left ${left.rows} rows`)
  return { rowsGone, ended }
}

async function untilNone(ask: () => PromiseLike<readonly unknown[]>): Promise<void> {
  while ((await ask()).length > 0) await sleep(100)
}
