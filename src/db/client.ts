import postgres from 'postgres'
import { Failure, unavailable } from '../errors.ts'
import { socketHost } from './embedded-url.ts'
import { refusedByQuota } from './overrun.ts'

/** What a statement is run on: the pool or a transaction alike. 64-bit integers arrive as numbers. */
export type Sql = postgres.Sql<{ bigint: number }>
export type Transaction = postgres.TransactionSql<{ bigint: number }>
/** A piece of a statement, to be put into another. */
export type Fragment = postgres.PendingQuery<postgres.Row[]>

/** The pools and the gate before them. Get at PostgreSQL through `ask`, so that its outages become 503s. */
export type Database = {
  /** Durable: what a statement on it returned is on disk. */
  readonly sql: Sql
  /** Commits without waiting for the disk: for rows whose loss costs a client one retry, such as a new upload session. */
  readonly relaxed: Sql
  readonly limits: Limits
  /** Statements under way and waiting, for the metrics. */
  readonly use: { active: number; waiting: number; readonly max: number }
  /** Told of every finished statement: its duration in seconds. */
  onAnswer: (seconds: number) => void
  /** Told after a statement or transaction that may have written events. */
  onEvents: () => void
  readonly queue: (() => void)[]
  close(): Promise<void>
}

type Limits = {
  /** How long a statement may wait for a free connection before the client is told to come back. */
  waitMs: number
  /** How long a statement may take before the client is told to come back. */
  answerMs: number
  /** How many statements may wait at once. */
  maxWaiting: number
}

const defaultLimits: Limits = { waitMs: 3_000, answerMs: 10_000, maxWaiting: 2_000 }

/** Options for every connection this program opens. `backoff`: a server that is back is used again within a moment. */
export function connect(url: string, options: postgres.Options<{ bigint: postgres.PostgresType<number> }> = {}): Sql {
  return postgres(url, {
    ...socketHost(url),
    connect_timeout: 5,
    backoff: () => 0.1,
    onnotice: () => undefined,
    types: { bigint: { to: 20, from: [20], parse: Number, serialize: String } },
    ...options,
  }) as unknown as Sql
}

/** Opens the pools; nothing is connected until it is first asked. `max` connections in all. */
export function openDatabase(url: string, { max = 12, limits = {} as Partial<Limits> } = {}): Database {
  const relaxedMax = Math.max(1, Math.floor(max / 4))
  const settings = {
    application_name: 'packs-registry',
    statement_timeout: 30_000,
    plan_cache_mode: 'force_generic_plan',
    // What is looked for is found along an index and in memory. By default PostgreSQL takes a disk's seek into account and
    // reads all of a table of 60,000 blobs for the 500 that garbage collection locks: five times the processor time.
    random_page_cost: 1.1,
  }
  const sql = connect(url, { max: Math.max(1, max - relaxedMax), idle_timeout: 300, connection: settings })
  const relaxed = connect(url, {
    max: relaxedMax,
    idle_timeout: 300,
    connection: { ...settings, synchronous_commit: 'off' },
  })
  return {
    sql,
    relaxed,
    limits: { ...defaultLimits, ...limits },
    use: { active: 0, waiting: 0, max },
    onAnswer: () => undefined,
    onEvents: () => undefined,
    queue: [],
    async close() {
      await Promise.all([sql.end({ timeout: 5 }), relaxed.end({ timeout: 5 })])
    },
  }
}

/**
 * Has the driver learn the types of the server, once. Else it asks for them on every new connection, in a promise that
 * nobody waits for: a connection that was cut in that moment would end the process.
 */
export async function learnTypes({ sql, relaxed }: Pick<Database, 'sql' | 'relaxed'>): Promise<void> {
  for (const pool of [sql, relaxed]) {
    await pool`select 1`
    pool.options.fetch_types = false
  }
}

let eventsNoted = 0

/** Says that events are being written: when what is under way has ended, they are to be relayed. */
export function noteEvents(): void {
  eventsNoted++
}

/**
 * Runs statements with a bound on the wait for a connection and on the answer.
 * Throws Failure('UNAVAILABLE') when the pool stays exhausted, the server is down, or it does not answer in time,
 * QUOTA_EXCEEDED where the statement would add more than a quota allows;
 * every other error of PostgreSQL is passed on as it is. `answerMs`: for work that is known to take longer.
 */
export async function ask<T>(
  db: Database,
  run: (sql: Sql, relaxed: Sql) => Promise<T>,
  { answerMs = db.limits.answerMs } = {},
): Promise<T> {
  if (db.use.active >= db.use.max) await freeConnection(db)
  else db.use.active++
  const started = performance.now()
  const notedBefore = eventsNoted
  // The slot is given back when the statement ends, not when its caller gives up: it counts real connections.
  const answer = run(db.sql, db.relaxed).finally(() => {
    db.onAnswer((performance.now() - started) / 1000)
    release(db)
    // Those of others count too: to relay once too often does no harm.
    if (eventsNoted !== notedBefore) db.onEvents()
  })
  try {
    return await within(answer, answerMs)
  } catch (error) {
    throw isOutage(error) ? unavailable('database', error) : (refusedByQuota(error) ?? error)
  }
}

function release(db: Database): void {
  const next = db.queue.shift()
  if (next) next()
  else db.use.active--
}

function freeConnection(db: Database): Promise<void> {
  if (db.queue.length >= db.limits.maxWaiting) throw unavailable('database', new Error('connection pool exhausted'))
  return new Promise((resolve, reject) => {
    const go = () => {
      clearTimeout(timer)
      db.use.waiting--
      resolve()
    }
    const timer = setTimeout(() => {
      db.queue.splice(db.queue.indexOf(go), 1)
      db.use.waiting--
      reject(unavailable('database', new Error('connection pool exhausted')))
    }, db.limits.waitMs)
    db.use.waiting++
    db.queue.push(go)
  })
}

async function within<T>(answer: Promise<T>, ms: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const tooLate = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(unavailable('database', new Error(`no answer within ${ms} ms`))), ms)
  })
  try {
    return await Promise.race([answer, tooLate])
  } finally {
    clearTimeout(timer)
  }
}

const driverCodes = new Set([
  ...['CONNECTION_CLOSED', 'CONNECTION_DESTROYED', 'CONNECTION_ENDED', 'CONNECT_TIMEOUT'],
  ...['ECONNREFUSED', 'ECONNRESET', 'ENOENT', 'EPIPE', 'ETIMEDOUT', 'EHOSTUNREACH', 'ENOTFOUND', 'EAI_AGAIN'],
])
/** Classes: connection trouble, out of resources, operator intervention. 25006: a standby after a failover. */
const outage = /^(?:08|53|57)|^25006$|^40(?:001|P01)$|^55P03$/

/** Whether the error says that the server, not the statement, is at fault. Source: PostgreSQL, appendix A. */
function isOutage(error: unknown): boolean {
  if (error instanceof Failure || !(error instanceof Error)) return false
  const { code } = error as { code?: string }
  return code !== undefined && (driverCodes.has(code) || outage.test(code))
}

/** Which constraint an error of PostgreSQL is about: `{ kind: 'foreign_key', constraint: 'tags_…_fkey' }`. */
export function violated(error: unknown): string | undefined {
  if (!(error instanceof postgres.PostgresError) || !error.code.startsWith('23')) return undefined
  return error.constraint_name
}

/** Whether a statement has ended because others held what it needed (lock_not_available, deadlock_detected). */
export function isInTheWay(error: unknown): boolean {
  return error instanceof postgres.PostgresError && (error.code === '55P03' || error.code === '40P01')
}
