import type { Sql, Transaction } from './client.ts'
import { type EndedJob, endedColumns } from './jobs.ts'
import { cancelChannel } from './queue.ts'

// A dead letter is a job that has failed: it stays where it is, with its data and its last error, until somebody retries
// or discards it, or its time is over. The states of jobs, and who ends them how: jobs.ts.

/** How many jobs a kind has, and since when the oldest waits or is dead; in seconds, 0 where there is none. */
export type JobCounts = {
  name: string
  waiting: number
  running: number
  failed: number
  completed: number
  cancelled: number
  oldestDueSeconds: number
  oldestFailedSeconds: number
}

/** Every kind that there is a queue for. */
export async function countJobs(sql: Sql): Promise<JobCounts[]> {
  const rows = await sql<JobCounts[]>`
    select q.name,
      count(*) filter (where j.state < 'active')::int as waiting,
      count(*) filter (where j.state = 'active')::int as running,
      count(*) filter (where j.state = 'failed')::int as failed,
      count(*) filter (where j.state = 'completed')::int as completed,
      count(*) filter (where j.state = 'cancelled')::int as cancelled,
      greatest(0, coalesce(extract(epoch from now() - min(j.start_after) filter (where j.state < 'active')), 0))::float8
        as "oldestDueSeconds",
      coalesce(extract(epoch from now() - min(j.completed_on) filter (where j.state = 'failed')), 0)::float8
        as "oldestFailedSeconds"
    from pgboss.queue q left join pgboss.job j on j.name = q.name group by q.name order by q.name`
  return [...rows]
}

/**
 * Cancels a job: one that waits has ended thereby, one that runs is about to, and its worker is told. Undefined where
 * there is none of this id that waits or runs.
 */
export async function cancelJob(tx: Transaction, id: string): Promise<EndedJob | 'running' | undefined> {
  const [row] = await tx<(Omit<EndedJob, 'state'> & { state: 'cancelled' | 'active' })[]>`
    update pgboss.job j set
      state = case when j.state = 'active' then j.state else 'cancelled' end,
      completed_on = case when j.state = 'active' then null else now() end,
      output = coalesce(j.output, '{}') || case when j.state = 'active' then '{"cancel": true}' else '{}'::jsonb end
    where j.id = ${id} and j.state <= 'active'
    returning ${endedColumns(tx)}`
  if (row?.state !== 'active') return row as EndedJob | undefined
  await tx`select pg_notify(${cancelChannel}, ${id})`
  return 'running'
}

/**
 * Takes a dead letter from the list of them. It is kept as cancelled for a while: were it gone, a worker that starts
 * would take the time of its schedule for one that was missed. False where there is none of this id that has failed.
 */
export async function discardJob(sql: Sql, id: string): Promise<boolean> {
  const rows = await sql`
    update pgboss.job set state = 'cancelled', completed_on = now() where id = ${id} and state = 'failed' returning id`
  return rows.length > 0
}

/** The dead letters of a kind, the oldest first. */
export async function listDeadLetters(sql: Sql, name: string, limit: number): Promise<string[]> {
  const rows = await sql<{ id: string }[]>`
    select id from pgboss.job where name = ${name} and state = 'failed' order by created_on, id limit ${limit}`
  return rows.map(({ id }) => id)
}

/** Whether another job of this one's kind (and key, where the kind's keys are told apart) waits or runs. */
export async function hasSuccessor(
  tx: Transaction,
  { id, name, key }: Pick<EndedJob, 'id' | 'name' | 'key'>,
  { ofKey = true } = {},
): Promise<boolean> {
  const rows = await tx`
    select 1 from pgboss.job
    where name = ${name} and state <= 'active' and id <> ${id}
      and (${!ofKey} or coalesce(singleton_key, '') = ${key ?? ''}) limit 1`
  return rows.length > 0
}

/** Jobs of a kind and key that wait or run, those that run first. */
export async function openJobs(
  sql: Sql | Transaction,
  name: string,
  key: string | undefined,
): Promise<{ id: string; isRunning: boolean }[]> {
  const rows = await sql<{ id: string; isRunning: boolean }[]>`
    select id, state = 'active' as "isRunning" from pgboss.job
    where name = ${name} and state <= 'active' and coalesce(singleton_key, '') = ${key ?? ''}
    order by state desc, created_on`
  return [...rows]
}
