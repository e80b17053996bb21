import type { RepositoryName } from '../oci/name.ts'
import type { Sql, Transaction } from './client.ts'

/** A policy as it is kept; `document` is the caller's own. Times are ISO 8601 in UTC. */
export type PolicyRow<Document = object> = {
  name: string
  document: Document
  enabled: boolean
  updatedBy: string
  updatedAt: string
}

function iso(sql: Sql | Transaction, column: string) {
  return sql`to_char(${sql(column)} at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`
}

const policyColumns = (sql: Sql | Transaction) => sql`
  name, document, enabled, updated_by as "updatedBy", ${iso(sql, 'updated_at')} as "updatedAt"`

export async function putPolicy(
  sql: Sql,
  { name, document, enabled, updatedBy }: Omit<PolicyRow, 'updatedAt'>,
): Promise<PolicyRow> {
  const [row] = await sql<PolicyRow[]>`
    insert into retention_policies (name, document, enabled, updated_by)
    values (${name}, ${JSON.stringify(document)}::text::json, ${enabled}, ${updatedBy})
    on conflict (name) do update set document = excluded.document, enabled = excluded.enabled,
      updated_by = excluded.updated_by, updated_at = now()
    returning ${policyColumns(sql)}`
  return row as PolicyRow
}

/** False where there was none. */
export async function deletePolicy(sql: Sql, name: string): Promise<boolean> {
  return (await sql`delete from retention_policies where name = ${name} returning name`).length > 0
}

export async function listPolicies(sql: Sql | Transaction): Promise<PolicyRow[]> {
  const rows = await sql<PolicyRow[]>`select ${policyColumns(sql)} from retention_policies order by name limit 1000`
  return [...rows]
}

export const runStates = ['waiting', 'planning', 'removing', 'completed', 'failed'] as const

/** A run as it is kept. `tally`: how many things were kept, by why. `policy`: null: all that are enabled. */
export type RunRow = {
  id: string
  policy: string | null
  askedBy: string
  state: (typeof runStates)[number]
  createdAt: string
  startedAt: string | null
  finishedAt: string | null
  plannedTo: string
  tally: Record<string, number>
  freedBytes: number
  error: string | null
  /** Decisions to remove something: how many there were, and what became of them. */
  planned: number
  removed: number
  spared: number
  gone: number
}

const runColumns = (sql: Sql | Transaction) => sql`
  id, policy, asked_by as "askedBy", state, planned_to as "plannedTo", tally, freed_bytes as "freedBytes", error,
  ${iso(sql, 'created_at')} as "createdAt", ${iso(sql, 'started_at')} as "startedAt", ${iso(sql, 'finished_at')} as "finishedAt",
  counted.*`

const counted = (sql: Sql | Transaction) => sql`
  lateral (
    select count(*)::int as planned, count(*) filter (where outcome = 'removed')::int as removed,
      count(*) filter (where outcome = 'kept')::int as spared, count(*) filter (where outcome = 'gone')::int as gone
    from retention_removals d where d.run_id = r.id
  ) counted`

export async function insertRun(
  sql: Sql | Transaction,
  { policy, askedBy }: { policy: string | undefined; askedBy: string },
): Promise<string> {
  const [row] = await sql<{ id: string }[]>`
    insert into retention_runs (policy, asked_by) values (${policy ?? null}, ${askedBy}) returning id`
  return (row as { id: string }).id
}

export async function findRun(sql: Sql | Transaction, id: string): Promise<RunRow | undefined> {
  const [row] = await sql<RunRow[]>`
    select ${runColumns(sql)} from retention_runs r, ${counted(sql)} where id = ${id}`
  return row
}

/** The newest first. */
export async function listRuns(sql: Sql, limit: number): Promise<RunRow[]> {
  const rows = await sql<RunRow[]>`
    select ${runColumns(sql)} from retention_runs r, ${counted(sql)} order by created_at desc, id desc limit ${limit}`
  return [...rows]
}

/** The run to be taken next: the oldest that has not ended, be it that it was cut. Answers its id. */
export async function nextRun(sql: Sql): Promise<string | undefined> {
  const [row] = await sql<{ id: string }[]>`
    select id from retention_runs where state in ('waiting', 'planning', 'removing') order by created_at limit 1`
  return row?.id
}

/** A run that waits and was asked for with the same policy. */
export async function waitingRun(sql: Sql | Transaction, policy: string | undefined): Promise<string | undefined> {
  const [row] = await sql<{ id: string }[]>`
    select id from retention_runs where state = 'waiting' and policy is not distinct from ${policy ?? null}
    order by created_at limit 1`
  return row?.id
}

export async function beginPlanning(sql: Sql, id: string): Promise<void> {
  await sql`
    update retention_runs set state = 'planning', started_at = coalesce(started_at, now())
    where id = ${id} and state = 'waiting'`
}

/** Moves a run on from what it was seen to be; false where somebody else has, or it has ended. */
export async function advancePlanning(
  tx: Transaction,
  id: string,
  { from, to, tally }: { from: string; to: string; tally: Readonly<Record<string, number>> },
): Promise<boolean> {
  const rows = await tx`
    update retention_runs set planned_to = ${to}, tally = (
      select coalesce(jsonb_object_agg(key, n), '{}') from (
        select key, sum(value::bigint) as n from (
          select * from jsonb_each_text(tally) union all select * from jsonb_each_text(${tx.json(tally)}::jsonb)
        ) counts group by key
      ) sums)
    where id = ${id} and state = 'planning' and planned_to = ${from} returning id`
  return rows.length > 0
}

/** All is planned. Changes nothing where it was no longer being planned. */
export async function endPlanning(sql: Sql, id: string): Promise<void> {
  await sql`update retention_runs set state = 'removing' where id = ${id} and state = 'planning'`
}

/** Ends a run that is planned, and none of whose decisions waits. False where that is not so, or it had ended. */
export async function completeRun(tx: Transaction, id: string): Promise<boolean> {
  const rows = await tx`
    update retention_runs set state = 'completed', finished_at = now() where id = ${id} and state = 'removing'
      and not exists (select from retention_removals where run_id = ${id} and outcome is null) returning id`
  return rows.length > 0
}

/** Ends a run before its time, and says why. */
export async function failRun(sql: Sql, id: string, error: string): Promise<void> {
  await sql`
    update retention_runs set state = 'failed', finished_at = now(), error = ${error}
    where id = ${id} and state in ('waiting', 'planning', 'removing')`
}

/** Ends all runs that wait or were cut, and that nobody will go on with. */
export async function failOpenRuns(tx: Transaction, error: string): Promise<void> {
  await tx`
    update retention_runs set state = 'failed', finished_at = now(), error = ${error}
    where state in ('waiting', 'planning', 'removing')`
}

/** Forgets the oldest runs that have ended, but for so many. */
export async function forgetRuns(sql: Sql, kept: number): Promise<void> {
  await sql`
    delete from retention_runs where id in (
      select id from retention_runs where state in ('completed', 'failed') order by created_at desc, id desc offset ${kept})`
}

export type RemovalKind = 'version' | 'prerelease' | 'tag' | 'untagged'
export type RemovalOutcome = 'removed' | 'kept' | 'gone'

/** A decision to remove something. */
export type NewRemoval = {
  repository: RepositoryName
  kind: RemovalKind
  name: string
  policy: string
  reason: string
}
export type Removal = NewRemoval & {
  number: number
  outcome: RemovalOutcome | null
  outcomeReason: string | null
  decidedAt: string | null
}

/** Writes decisions down, in this order, behind those that the run has. The run's row is locked. */
export async function insertRemovals(tx: Transaction, id: string, removals: readonly NewRemoval[]): Promise<void> {
  if (removals.length === 0) return
  const texts = (key: keyof NewRemoval) => removals.map((removal) => removal[key] as string)
  await tx`
    insert into retention_removals (run_id, number, repository, kind, name, policy, reason)
    select ${id}, coalesce((select max(number) from retention_removals where run_id = ${id}), 0) + d.i, d.repository, d.kind,
      d.name, d.policy, d.reason
    from unnest(${texts('repository')}::text[], ${texts('kind')}::text[], ${texts('name')}::text[], ${texts('policy')}::text[],
      ${texts('reason')}::text[]) with ordinality as d (repository, kind, name, policy, reason, i)`
}

const removalColumns = (sql: Sql | Transaction) => sql`
  number, repository, kind, name, policy, reason, outcome, outcome_reason as "outcomeReason", ${iso(sql, 'decided_at')} as "decidedAt"`

/** Decisions of a run after `last`, at most `limit`; `waiting`: only those that nothing has come of yet. */
export async function listRemovals(
  sql: Sql,
  id: string,
  { last, limit, waiting = false }: { last: number; limit: number; waiting?: boolean },
): Promise<Removal[]> {
  const rows = await sql<Removal[]>`
    select ${removalColumns(sql)} from retention_removals
    where run_id = ${id} and number > ${last} ${waiting ? sql`and outcome is null` : sql``}
    order by number limit ${limit}`
  return [...rows]
}

/** Those of these decisions that still wait, locked until the transaction ends. */
export async function lockRemovals(tx: Transaction, id: string, numbers: readonly number[]): Promise<Set<number>> {
  const rows = await tx<{ number: number }[]>`
    select number from retention_removals
    where run_id = ${id} and number = any(${numbers as number[]}::int[]) and outcome is null
    order by number for update`
  return new Set(rows.map((row) => row.number))
}

/** What came of decisions, in the transaction that carries them out. `freedBytes` is added to the run's. */
export async function markRemovals(
  tx: Transaction,
  id: string,
  marks: readonly { number: number; outcome: RemovalOutcome; reason?: string | undefined }[],
  freedBytes: number,
): Promise<void> {
  await tx`
    with marked as (
      update retention_removals d set outcome = m.outcome, outcome_reason = m.reason, decided_at = clock_timestamp()
      from unnest(${marks.map(({ number }) => number)}::int[], ${marks.map(({ outcome }) => outcome as string)}::text[],
        ${marks.map(({ reason }) => reason ?? null) as string[]}::text[]) as m (number, outcome, reason)
      where d.run_id = ${id} and d.number = m.number
    )
    update retention_runs set freed_bytes = freed_bytes + ${freedBytes} where id = ${id}`
}
