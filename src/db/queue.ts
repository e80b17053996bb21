import { createRequire } from 'node:module'
import type PgBoss from 'pg-boss'
import type { Sql, Transaction } from './client.ts'
import type { QueueOptions } from './queues.ts'

// Jobs are rows in the schema `pgboss`, which pg-boss makes, migrates and writes to. It works on our connections, so a
// job is sent inside our transactions. It is used as a library of statements and never started: what it does by timers
// of its own (fetch, expire, schedule) does not outlive an outage of the database, knows no heartbeat, and lets a
// worker that lost its job end the next one's. Those parts are `db/jobs.ts` and `worker/`.

/** The number of the schema that this version of pg-boss works with. */
const ours: number = createRequire(import.meta.url)('pg-boss/version.json').schema

const day = 24 * 60 * 60
/** Finished jobs can be looked at for so long. */
const keptSeconds = { completed: 7 * day, failed: 30 * day, waiting: 365 * day }

/** On this channel PostgreSQL tells every worker that a job is there. */
export const wakeChannel = 'packs_jobs'
/** On this one it tells them the id of a job that is to be cancelled. */
export const cancelChannel = 'packs_jobs_cancelled'

/** pg-boss as statements on this connection. */
async function bossOn(sql: Sql | Transaction): Promise<PgBoss> {
  const { default: Boss } = await import('pg-boss')
  return new Boss({
    db: { executeSql: async (text, values) => ({ rows: await execute(sql, text, values) }) },
    archiveCompletedAfterSeconds: keptSeconds.completed,
    archiveFailedAfterSeconds: keptSeconds.failed,
    retentionHours: keptSeconds.waiting / 3600,
    // What it has taken out of the queue nobody asks for.
    deleteAfterHours: 1,
    supervise: false,
    schedule: false,
  })
}

async function execute(sql: Sql | Transaction, text: string, values?: unknown[]): Promise<unknown[]> {
  // postgres.js refuses undefined where pg takes it for null.
  if (values) return sql.unsafe(text, values.map((value) => value ?? null) as never[])
  if (!('reserve' in sql)) return sql.unsafe(text)
  // Texts without values may be several statements with their own begin and commit. They take one connection for
  // themselves, and one that failed between the two must not go back to the pool in the middle of a transaction.
  const connection = await sql.reserve()
  try {
    return await connection.unsafe(text)
  } catch (error) {
    await connection.unsafe('rollback').catch(() => undefined)
    throw error
  } finally {
    connection.release()
  }
}

/**
 * Brings the queue's schema up to this version and makes the queues. Call it on a connection of its own, under the lock
 * of `migrate`. Answers what was done, in words. Where nothing is to be done, that is one statement.
 * Throws an Error in words when the schema was made by a newer version.
 */
export async function prepareQueues(sql: Sql, wanted: Record<string, QueueOptions>): Promise<string[]> {
  const before = await schemaNumber(sql)
  if (before !== undefined && before > ours)
    throw new Error(
      `The database's job queue (schema ${before}) is newer than this version knows (${ours}). Start the newer version again.`,
    )
  const existing = before === ours ? await queueSettings(sql) : new Map<string, string>()
  const stale = Object.entries(wanted).filter(([name, options]) => existing.get(name) !== settingsOf(options))
  if (before === ours && stale.length === 0) return []
  const boss = await bossOn(sql)
  if (before !== ours) await boss.start()
  try {
    for (const [name, options] of stale) {
      await boss.createQueue(name, { name, ...bossOptions(options) })
      await boss.updateQueue(name, { name, ...bossOptions(options) })
    }
  } finally {
    await boss.stop({ graceful: false })
  }
  return [...(before === ours ? [] : [`job queue ${ours}`]), ...stale.map(([name]) => `queue ${name}`)]
}

async function schemaNumber(sql: Sql): Promise<number | undefined> {
  const [table] = await sql<{ found: boolean }[]>`select to_regclass('pgboss.version') is not null as found`
  if (!table?.found) return undefined
  const [row] = await sql<{ version: number }[]>`select version from pgboss.version`
  return row?.version
}

/** The settings of the queues there are, as texts to compare. */
async function queueSettings(sql: Sql): Promise<Map<string, string>> {
  const rows = await sql<{ name: string; settings: string }[]>`
    select name, concat_ws(' ', policy, retry_limit, retry_delay, retry_backoff, expire_seconds) as settings
    from pgboss.queue`
  return new Map(rows.map(({ name, settings }) => [name, settings]))
}

function settingsOf(options: QueueOptions): string {
  const { policy, retryLimit, retryDelay, expireInSeconds } = bossOptions(options)
  return `${policy} ${retryLimit} ${retryDelay} t ${expireInSeconds}`
}

function bossOptions({ retries, retryDelay, lease, exclusive = false }: QueueOptions) {
  return {
    policy: exclusive ? ('stately' as const) : ('standard' as const),
    retryLimit: retries,
    retryDelay,
    retryBackoff: true,
    expireInSeconds: lease,
  }
}

export type SendOptions = {
  /** A job with an id that was there already is not sent again. */
  id?: string
  /** What the job is about, such as the id of a mirror; see `exclusive`. */
  key?: string
  /** Of the jobs that wait, the highest goes first: 0 unless given. */
  priority?: number
  /** From now on by the database's clock, like all times of jobs. */
  startAfterSeconds?: number
}

/**
 * Puts a job in a queue. On a transaction, it is there when that commits, and never if it does not. Workers hear of it
 * at once. `data` is stored and shown as it is: nothing secret. Answers its id; undefined where it was not taken: the
 * id was used before, or one with its key waits already.
 * Throws an Error when there is no such queue.
 */
export async function send(
  sql: Sql | Transaction,
  queue: string,
  data: object,
  { id, key, priority = 0, startAfterSeconds }: SendOptions = {},
): Promise<string | undefined> {
  const boss = await bossOn(sql)
  const sent = await boss.send(queue, data, {
    ...(id === undefined ? {} : { id }),
    ...(key === undefined ? {} : { singletonKey: key }),
    ...(startAfterSeconds === undefined ? {} : { startAfter: startAfterSeconds }),
    priority,
  })
  if (sent !== null) {
    await sql`select pg_notify(${wakeChannel}, ${queue})`
    return sent
  }
  const [known] = await sql`select 1 from pgboss.queue where name = ${queue}`
  if (!known) throw new Error(`There is no queue ${queue}: add it to src/db/queues.ts, and migrate.`)
  return undefined
}

/** Ends an active job well. The caller holds it; see `holdRun`. */
export async function completeJob(tx: Transaction, name: string, id: string, output: object): Promise<void> {
  await (await bossOn(tx)).complete(name, id, output)
}

/** Ends an active job with an error: it waits for its next try, or where it has none left it stays failed. */
export async function failJob(tx: Transaction, name: string, id: string, output: object): Promise<void> {
  await (await bossOn(tx)).fail(name, id, output)
}

/** Takes finished jobs out of the queue when their time is over. Any number may call it. */
export async function forgetOldJobs(sql: Sql): Promise<void> {
  const boss = (await bossOn(sql)) as PgBoss & { drop(): Promise<void> }
  await boss.archive()
  await boss.drop()
}
