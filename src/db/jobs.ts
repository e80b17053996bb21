import type { Fragment, Sql, Transaction } from './client.ts'

// Who runs a job. A run is one attempt at it: `(name, id, attempt)`. Taking a job makes it active, counts the attempt
// and starts its lease (started_on + expire_in, on the database's clock). The worker prolongs the lease by a heartbeat
// while it runs. When a lease is over, whoever notices makes the job wait again, and the next one to take it has the next
// attempt. Every statement of a run names its attempt, so a worker that was taken for dead changes nothing any more; it
// learns so from its next heartbeat. A handler may thus run twice at once for a moment, as after any crash: it must be
// written so that this does no harm.

/** An attempt at a job by a worker. */
export type Run = {
  readonly name: string
  readonly id: string
  /** 0 the first time. */
  readonly attempt: number
  readonly data: unknown
  /** Seconds the lease lasts after each heartbeat. */
  readonly lease: number
}
type RunKey = Pick<Run, 'name' | 'id' | 'attempt'>

/**
 * Takes the next due job of these queues, the highest priority and then the oldest first; undefined where there is none.
 * Of an exclusive queue, one whose key is running is passed over. Two workers that take two jobs of one key in the same
 * moment: the unique index lets one through, the other gets a unique violation.
 */
export async function takeJob(sql: Sql, names: readonly string[]): Promise<Run | undefined> {
  const [run] = await sql<Run[]>`
    with next as (
      select j.name, j.id from pgboss.job j
      where j.name = any(${names as string[]}) and j.state < 'active' and j.start_after <= now()
        and (j.policy is distinct from 'stately' or not exists (
          select from pgboss.job a
          where a.name = j.name and a.state = 'active' and a.policy = 'stately'
            and coalesce(a.singleton_key, '') = coalesce(j.singleton_key, '')))
      order by j.priority desc, j.created_on, j.id
      limit 1 for update of j skip locked
    )
    update pgboss.job j set
      state = 'active', started_on = now(), expire_in = make_interval(secs => q.expire_seconds),
      retry_count = j.retry_count + (j.started_on is not null)::int
    from next join pgboss.queue q on q.name = next.name
    where j.name = next.name and j.id = next.id
    returning j.name, j.id, j.retry_count as attempt, j.data, q.expire_seconds as lease`
  return run
}

/** Prolongs the lease and notes the progress; false where the job is not this run's any more. */
export async function heartbeat(sql: Sql, run: Run, progress: object | undefined): Promise<boolean> {
  const noted = progress === undefined ? {} : { progress }
  const rows = await sql`
    update pgboss.job set
      expire_in = now() - started_on + make_interval(secs => ${run.lease}),
      output = coalesce(output, '{}') || ${sql.json(noted as never)}
    where ${isRun(sql, run)}
    returning id`
  return rows.length > 0
}

/** Locks the job for its end; false where it is not this run's any more. `last`: no further try follows a failure. */
export async function holdRun(tx: Transaction, run: RunKey, { last = false } = {}): Promise<boolean> {
  const rows = await tx`
    update pgboss.job set retry_limit = case when ${last} then retry_count else retry_limit end
    where ${isRun(tx, run)}
    returning id`
  return rows.length > 0
}

/**
 * Makes the job of a run wait again, as if this attempt had not been: a worker that stops gives back what it has. Where
 * another job of its key waits to be tried again, it fails instead.
 */
export async function giveBack(sql: Sql, run: RunKey): Promise<void> {
  await sql`
    update pgboss.job j set
      state = case when ${isAlone(sql)} then 'retry' else 'failed' end::pgboss.job_state,
      completed_on = case when ${isAlone(sql)} then null else now() end,
      retry_limit = retry_limit + 1, start_after = now(),
      output = coalesce(output, '{}') || '{"error": "its worker was stopped"}'
    where ${isRun(sql, run)}`
}

/** Ends the runs whose lease is over; each job waits for the next worker, or has failed where it has no try left. */
export async function endLostRuns(sql: Sql): Promise<{ name: string; id: string; failed: boolean }[]> {
  const rows = await sql<{ name: string; id: string; failed: boolean }[]>`
    update pgboss.job j set
      state = case when retry_count < retry_limit and ${isAlone(sql)} then 'retry' else 'failed' end::pgboss.job_state,
      completed_on = case when retry_count < retry_limit and ${isAlone(sql)} then null else now() end,
      start_after = now(),
      output = coalesce(output, '{}') || '{"error": "its worker ended in the middle of it, or could not be heard of"}'
    where state = 'active' and started_on + expire_in < now()
    returning name, id, state = 'failed' as failed`
  return [...rows]
}

function isRun(sql: Sql | Transaction, { name, id, attempt }: RunKey): Fragment {
  return sql`name = ${name} and id = ${id} and state = 'active' and retry_count = ${attempt}`
}

/** Whether `j` may wait for another try: of an exclusive queue only one job of a key does. */
function isAlone(sql: Sql): Fragment {
  return sql`(j.policy is distinct from 'stately' or not exists (
    select from pgboss.job o where o.name = j.name and o.state = 'retry' and o.policy = 'stately'
      and coalesce(o.singleton_key, '') = coalesce(j.singleton_key, '')))`
}

export const jobStates = ['waiting', 'running', 'completed', 'failed', 'cancelled'] as const
export type JobState = (typeof jobStates)[number]

/** A job as it is shown. Times are ISO 8601 in UTC with microseconds; what does not apply is null. */
export type JobRow = {
  id: string
  name: string
  state: JobState
  key: string | null
  priority: number
  /** Attempts begun so far, and how many there may be. */
  attempts: number
  maxAttempts: number
  createdAt: string
  /** A waiting job is not begun before this. */
  startAfter: string
  startedAt: string | null
  finishedAt: string | null
  data: unknown
  progress: object | null
  result: unknown
  error: string | null
}

export type JobQuery = {
  name?: string | undefined
  state?: JobState | undefined
  after?: { createdAt: string; id: string } | undefined
  limit: number
}

const columns = (sql: Sql) => sql`
  j.id, j.name, ${stateOf(sql)} as state, j.singleton_key as key, j.priority,
  case when j.started_on is null then 0 else j.retry_count + 1 end as attempts, j.retry_limit + 1 as "maxAttempts",
  ${iso(sql, sql`j.created_on`)} as "createdAt", ${iso(sql, sql`j.start_after`)} as "startAfter",
  ${iso(sql, sql`j.started_on`)} as "startedAt", ${iso(sql, sql`j.completed_on`)} as "finishedAt",
  j.data, j.output -> 'progress' as progress, j.output -> 'result' as result, j.output ->> 'error' as error`

function stateOf(sql: Sql): Fragment {
  return sql`case when j.state < 'active' then 'waiting' when j.state = 'active' then 'running' else j.state::text end`
}

function iso(sql: Sql, time: Fragment): Fragment {
  return sql`to_char(${time} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`
}

/** Jobs, the newest first. */
export async function listJobs(sql: Sql, { name, state, after, limit }: JobQuery): Promise<JobRow[]> {
  const rows = await sql<JobRow[]>`
    select ${columns(sql)} from pgboss.job j
    where true ${name === undefined ? sql`` : sql`and j.name = ${name}`}
      ${state === undefined ? sql`` : sql`and ${stateOf(sql)} = ${state}`}
      ${after === undefined ? sql`` : sql`and (j.created_on, j.id) < (${after.createdAt}::text::timestamptz, ${after.id})`}
    order by j.created_on desc, j.id desc limit ${limit}`
  return [...rows]
}

export async function findJob(sql: Sql, id: string): Promise<JobRow | undefined> {
  const [row] = await sql<JobRow[]>`select ${columns(sql)} from pgboss.job j where j.id = ${id}`
  return row
}

/**
 * Makes a failed job wait again, now, with all its queue's tries; false where there is none of this id that has failed.
 * Throws a violation of unique where another job of its key waits already.
 */
export async function retryJob(sql: Sql, id: string): Promise<boolean> {
  const rows = await sql`
    update pgboss.job j set
      state = 'retry', completed_on = null, start_after = now(), retry_limit = j.retry_count + 1 + q.retry_limit,
      keep_until = greatest(j.keep_until, now() + interval '30 days')
    from pgboss.queue q
    where q.name = j.name and j.id = ${id} and j.state in ('failed', 'cancelled')
    returning pg_notify('packs_jobs', j.name)`
  return rows.length > 0
}

/** Takes a job out of its queue that nobody has begun: what it is about has been done. */
export async function dropWaiting(sql: Sql | Transaction, name: string, key: string): Promise<void> {
  await sql`delete from pgboss.job where name = ${name} and singleton_key = ${key} and state < 'active'`
}

/** How many jobs each queue has in each state; `waitedSeconds`: how long the oldest that is due has waited. */
export async function countJobs(
  sql: Sql,
): Promise<{ name: string; state: JobState; count: number; waitedSeconds: number }[]> {
  const rows = await sql<{ name: string; state: JobState; count: number; waitedSeconds: number }[]>`
    select j.name, ${stateOf(sql)} as state, count(*)::int as count,
      coalesce(extract(epoch from now() - min(j.start_after) filter (where j.state < 'active' and j.start_after < now())), 0)
        ::float8 as "waitedSeconds"
    from pgboss.job j group by 1, 2`
  return [...rows]
}
