import type { Fragment, Sql, Transaction } from './client.ts'

// Who runs a job. A run is one attempt at it: `(name, id, attempt)`. Taking a job makes it active, counts the attempt
// and starts its lease (started_on + expire_in, on the database's clock). The worker prolongs the lease by a heartbeat
// while it runs. When a lease is over, whoever notices makes the job wait again, and the next one to take it has the next
// attempt. Every statement of a run names its attempt, so a worker that was taken for dead changes nothing any more; it
// learns so from its next heartbeat. A handler may thus run twice at once for a moment, as after any crash: it must be
// written so that this does no harm.
//
// Who ends it. A job ends as completed, as failed (a dead letter: its tries are spent, or trying again is no use) or as
// cancelled. Whoever ends it as failed or cancelled has its row locked, and tells what hangs on it in the same
// transaction (registry/jobs.ts). A job that waits is cancelled at once. One that runs gets `cancel` written into its
// output, and its worker is told on a channel; should that be missed, by its next heartbeat. The worker aborts the
// handler, and what the handler then throws ends the job as cancelled; what it finishes all the same is completed. The
// lease holds until then, so no other job of its key begins beside it; where the worker is dead, the end of the lease
// is the end of the job.

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

/** Prolongs the lease and notes the progress; undefined where the job is not this run's any more. */
export async function heartbeat(
  sql: Sql,
  run: Run,
  progress: object | undefined,
): Promise<{ isCancelled: boolean } | undefined> {
  const noted = progress === undefined ? {} : { progress }
  const [row] = await sql<{ isCancelled: boolean }[]>`
    update pgboss.job set
      expire_in = now() - started_on + make_interval(secs => ${run.lease}),
      output = coalesce(output, '{}') || ${sql.json(noted as never)}
    where ${isRun(sql, run)}
    returning output ? 'cancel' as "isCancelled"`
  return row
}

/**
 * Locks the job for its end; undefined where it is not this run's any more. `last`: no further try follows a failure.
 */
export async function holdRun(
  tx: Transaction,
  run: RunKey,
  { last = false } = {},
): Promise<{ isCancelled: boolean } | undefined> {
  const [row] = await tx<{ isCancelled: boolean }[]>`
    update pgboss.job set retry_limit = case when ${last} then retry_count else retry_limit end
    where ${isRun(tx, run)}
    returning coalesce(output ? 'cancel', false) as "isCancelled"`
  return row
}

/** What a job that has ended without success was. */
export type EndedJob = {
  id: string
  name: string
  key: string | null
  data: unknown
  attempts: number
  state: 'failed' | 'cancelled'
  error: string | null
}

export function endedColumns(sql: Sql | Transaction): Fragment {
  return sql`
    j.id, j.name, j.singleton_key as key, j.data, j.state, j.output ->> 'error' as error,
    case when j.started_on is null then 0 else j.retry_count + 1 end as attempts`
}

/** How a job that a run has failed is now, where that was its end. */
export async function deadRun(tx: Transaction, { name, id }: RunKey): Promise<EndedJob | undefined> {
  const [row] = await tx<EndedJob[]>`
    select ${endedColumns(tx)} from pgboss.job j where name = ${name} and id = ${id} and state = 'failed'`
  return row
}

/** Ends the job of a run as cancelled. The caller holds it. */
export async function cancelRun(tx: Transaction, run: RunKey, output: object): Promise<EndedJob | undefined> {
  const [row] = await tx<EndedJob[]>`
    update pgboss.job j set state = 'cancelled', completed_on = now(), output = ${tx.json(output as never)}
    where ${isRun(tx, run)} returning ${endedColumns(tx)}`
  return row
}

/**
 * Makes the job of a run wait again, as if this attempt had not been: a worker that stops gives back what it has. Where
 * another job of its key waits to be tried again, it fails instead; where it was to be cancelled, it is. Answers it where
 * it has ended thereby.
 */
export async function giveBack(tx: Transaction, run: RunKey): Promise<EndedJob | undefined> {
  const [row] = await tx<EndedJob[]>`
    update pgboss.job j set
      state = case when output ? 'cancel' then 'cancelled' when ${isAlone(tx)} then 'retry' else 'failed' end::pgboss.job_state,
      completed_on = case when output ? 'cancel' or not ${isAlone(tx)} then now() end,
      retry_limit = retry_limit + 1, start_after = now(),
      output = coalesce(output, '{}') - 'cancel' || '{"error": "its worker was stopped"}'
    where ${isRun(tx, run)} returning ${endedColumns(tx)}`
  return row && isEnd(row) ? row : undefined
}

/**
 * Ends the runs whose lease is over, at most a thousand; each job waits for the next worker, or has ended where it has no
 * try left or was to be cancelled.
 */
export async function endLostRuns(tx: Transaction): Promise<(Omit<EndedJob, 'state'> & { state: string })[]> {
  const again = tx`retry_count < retry_limit and ${isAlone(tx)}`
  const rows = await tx<EndedJob[]>`
    with lost as (
      select l.name, l.id from pgboss.job l where l.state = 'active' and l.started_on + l.expire_in < now()
      limit 1000 for update of l skip locked
    )
    update pgboss.job j set
      state = case when output ? 'cancel' then 'cancelled' when ${again} then 'retry' else 'failed' end::pgboss.job_state,
      completed_on = case when output ? 'cancel' or not (${again}) then now() end,
      start_after = now(),
      output = coalesce(output, '{}') - 'cancel'
        || '{"error": "its worker ended in the middle of it, or could not be heard of"}'
    from lost where j.name = lost.name and j.id = lost.id
    returning ${endedColumns(tx)}`
  return [...rows]
}

/** Whether a job has ended without success. */
export function isEnd<T extends { state: string }>(job: T): job is T & { state: EndedJob['state'] } {
  return job.state === 'failed' || job.state === 'cancelled'
}

function isRun(sql: Sql | Transaction, { name, id, attempt }: RunKey): Fragment {
  return sql`name = ${name} and id = ${id} and state = 'active' and retry_count = ${attempt}`
}

/** Whether `j` may wait for another try: of an exclusive queue only one job of a key does. */
function isAlone(sql: Sql | Transaction): Fragment {
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
  /** Of a running job: it is about to be cancelled. */
  isCancelled: boolean
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
  j.state = 'active' and coalesce(j.output ? 'cancel', false) as "isCancelled",
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
      keep_until = greatest(j.keep_until, now() + interval '30 days'), output = coalesce(j.output, '{}') - 'cancel'
    from pgboss.queue q
    where q.name = j.name and j.id = ${id} and j.state in ('failed', 'cancelled')
    returning pg_notify('packs_jobs', j.name)`
  return rows.length > 0
}

/** Takes a job out of its queue that nobody has begun: what it is about has been done. */
export async function dropWaiting(sql: Sql | Transaction, name: string, key: string): Promise<void> {
  await sql`delete from pgboss.job where name = ${name} and singleton_key = ${key} and state < 'active'`
}
