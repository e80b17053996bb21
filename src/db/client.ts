import postgres from 'postgres'
import { Failure, unavailable } from '../errors.ts'
import { socketHost } from './embedded-url.ts'
import { type Gate, type GateLimits, type Kind, openGate } from './gate.ts'
import { refusedByQuota } from './overrun.ts'
import { guardTransactions } from './transactions.ts'

/** What a statement is run on: the pool or a transaction alike. 64-bit integers arrive as numbers. */
export type Sql = postgres.Sql<{ bigint: number }>
export type Transaction = postgres.TransactionSql<{ bigint: number }>
/** A piece of a statement, to be put into another. */
export type Fragment = postgres.PendingQuery<postgres.Row[]>

/** The pools and the gates before them. Get at PostgreSQL through `ask` and its like, so that outages become 503s. */
export type Database = {
  /** Durable: what a statement on it returned is on disk. */
  readonly sql: Sql
  /** Commits without waiting for the disk: for rows whose loss costs a client one retry, such as a new upload session. */
  readonly relaxed: Sql
  readonly gates: { readonly sql: Gate; readonly relaxed: Gate }
  readonly limits: Limits
  /** Connections in use, statements that wait for one, and how many connections there are, for the metrics. */
  readonly use: { readonly active: number; readonly waiting: number; readonly max: number }
  /** Told of every finished statement: its duration in seconds. */
  onAnswer: (seconds: number) => void
  /** Told after a statement or transaction that may have written events. */
  onEvents: () => void
  close(): Promise<void>
}

/** How long things may take, see `openDatabase`. */
export type Limits = GateLimits & {
  /** How long a statement may take before the client is told to come back. */
  answerMs: number
  /** How long it may wait for a lock that another transaction has: each time that it waits. */
  lockMs: number
  /**
   * How long a transaction may stand still between two statements. A process that is frozen in one keeps its locks no
   * longer than that.
   */
  idleMs: number
}

const defaultLimits: Limits = { waitMs: 3_000, answerMs: 10_000, maxWaiting: 2_000, lockMs: 3_000, idleMs: 30_000 }

/** Options for every connection this program opens. `backoff`: a server that is back is used again within a moment. */
export function connect(url: string, options: postgres.Options<{ bigint: postgres.PostgresType<number> }> = {}): Sql {
  const sql = postgres(url, {
    ...socketHost(url),
    connect_timeout: 5,
    backoff: () => 0.1,
    onnotice: () => undefined,
    types: { bigint: { to: 20, from: [20], parse: Number, serialize: String } },
    ...options,
  })
  guardTransactions(sql as unknown as Sql)
  return sql as unknown as Sql
}

/**
 * Relaxed statements that one connection has under way: the driver sends them one behind the other without waiting for
 * answers, and they are short. With one for each connection a loaded server took 6 s, not 0.13, to tell a webhook (p99).
 */
const pipelined = 4

/** Opens the pools; nothing is connected until it is first asked. `max` connections in all, at least 2. */
export function openDatabase(url: string, { max = 12, limits: given = {} as Partial<Limits> } = {}): Database {
  const limits = { ...defaultLimits, ...given }
  const relaxedMax = Math.max(1, Math.floor(max / 4))
  const durableMax = Math.max(1, max - relaxedMax)
  const settings = {
    application_name: 'packs-registry',
    statement_timeout: 30_000,
    lock_timeout: limits.lockMs,
    idle_in_transaction_session_timeout: limits.idleMs,
    plan_cache_mode: 'force_generic_plan',
    // What is looked for is found along an index and in memory. By default PostgreSQL takes a disk's seek into account and
    // reads all of a table of 60,000 blobs for the 500 that garbage collection locks: five times the processor time.
    random_page_cost: 1.1,
  }
  const sql = connect(url, { max: durableMax, idle_timeout: 300, connection: settings })
  const relaxed = connect(url, {
    max: relaxedMax,
    idle_timeout: 300,
    connection: { ...settings, synchronous_commit: 'off' },
  })
  const gates = {
    sql: openGate({ max: durableMax, spared: Math.min(2, Math.floor(durableMax / 2)) }, limits),
    relaxed: openGate({ max: relaxedMax * pipelined, spared: 0 }, limits),
  }
  return {
    sql,
    relaxed,
    gates,
    limits,
    get use() {
      const active = gates.sql.active + Math.min(relaxedMax, gates.relaxed.active)
      return { active, waiting: gates.sql.waiting + gates.relaxed.waiting, max: durableMax + relaxedMax }
    },
    onAnswer: () => undefined,
    onEvents: () => undefined,
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

/** `answerMs`: for work that is known to take longer. */
type AskOptions = { answerMs?: number }

/**
 * Runs statements with a bound on the wait for a connection, for locks, and on the answer.
 * Throws Failure('UNAVAILABLE') when the pool stays exhausted, the server is down, it does not answer in time, or others
 * keep what is needed, QUOTA_EXCEEDED where the statement would add more than a quota allows;
 * every other error of PostgreSQL is passed on as it is.
 */
export function ask<T>(db: Database, run: (sql: Sql) => Promise<T>, options?: AskOptions): Promise<T> {
  return enter(db, 'sql', 'write', run, options)
}

/** The same for what writes nothing and locks nothing: it finds a connection however many wait for locks. */
export function askRead<T>(db: Database, run: (sql: Sql) => Promise<T>, options?: AskOptions): Promise<T> {
  return enter(db, 'sql', 'read', run, options)
}

/** The same as `ask`, for rows whose loss costs a client one retry. */
export function askRelaxed<T>(db: Database, run: (relaxed: Sql) => Promise<T>, options?: AskOptions): Promise<T> {
  return enter(db, 'relaxed', 'write', run, options)
}

async function enter<T>(
  db: Database,
  pool: 'sql' | 'relaxed',
  kind: Kind,
  run: (sql: Sql) => Promise<T>,
  { answerMs = db.limits.answerMs }: AskOptions = {},
): Promise<T> {
  const gate = db.gates[pool]
  const wait = gate.enter(kind)
  if (wait) await wait
  const started = performance.now()
  const notedBefore = eventsNoted
  // The slot is given back when the statement ends, not when its caller gives up: it counts real connections.
  const answer = run(db[pool]).finally(() => {
    db.onAnswer((performance.now() - started) / 1000)
    gate.leave(kind)
    // Those of others count too: to relay once too often does no harm.
    if (eventsNoted !== notedBefore) db.onEvents()
  })
  try {
    return await within(answer, answerMs)
  } catch (error) {
    throw isOutage(error) ? unavailable('database', error) : (refusedByQuota(error) ?? error)
  }
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
/**
 * Classes: connection trouble, out of resources, operator intervention. 25006: a standby after a failover. 25P03: the
 * transaction stood still for too long. 55P03, 40P01: others kept what was needed.
 */
const outage = /^(?:08|53|57)|^25(?:006|P03)$|^40(?:001|P01)$|^55P03$/

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
