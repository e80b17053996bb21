import type { RepositoryName } from '../oci/name.ts'
import type { Sql, Transaction } from './client.ts'

export type MirrorDirection = 'push' | 'pull'

/** A mirror as it is kept. Times are ISO 8601 in UTC. `selection` and `options` are the caller's own. */
export type MirrorRow<Selection = object, Options = object> = {
  id: string
  name: string
  direction: MirrorDirection
  url: string
  prefix: RepositoryName
  selection: Selection
  schedule: string | null
  credentials: Buffer | null
  options: Options
  createdAt: string
}

export type NewMirror = Omit<MirrorRow, 'id' | 'createdAt'>

const columns = (sql: Sql | Transaction) => sql`
  id, name, direction, url, prefix, selection, schedule, credentials, options,
  to_char(created_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as "createdAt"`

/** Undefined where the name is taken. */
export async function insertMirror(sql: Sql, mirror: NewMirror): Promise<MirrorRow | undefined> {
  const { name, direction, url, prefix, selection, schedule, credentials, options } = mirror
  const [row] = await sql<MirrorRow[]>`
    insert into mirrors (name, direction, url, prefix, selection, schedule, credentials, options)
    values (${name}, ${direction}, ${url}, ${prefix}, ${sql.json(selection as never)}, ${schedule}, ${credentials},
      ${sql.json(options as never)})
    on conflict (name) do nothing
    returning ${columns(sql)}`
  return row
}

/** Replaces what a mirror is, but for its name and direction. False where it is gone. */
export async function updateMirror(
  sql: Sql,
  id: string,
  mirror: Omit<NewMirror, 'name' | 'direction'>,
): Promise<boolean> {
  const { url, prefix, selection, schedule, credentials, options } = mirror
  const rows = await sql`
    update mirrors set url = ${url}, prefix = ${prefix}, selection = ${sql.json(selection as never)},
      schedule = ${schedule}, credentials = ${credentials}, options = ${sql.json(options as never)}, updated_at = now()
    where id = ${id} returning id`
  return rows.length > 0
}

export async function findMirror(
  sql: Sql | Transaction,
  key: { id: string; name?: undefined } | { name: string; id?: undefined },
): Promise<MirrorRow | undefined> {
  const [row] = await sql<MirrorRow[]>`
    select ${columns(sql)} from mirrors
    where ${key.id === undefined ? sql`name = ${key.name}` : sql`id = ${key.id}`}`
  return row
}

/** Keeps a mirror from being deleted until the transaction ends; false where it is gone. */
export async function lockMirror(tx: Transaction, id: string): Promise<boolean> {
  return (await tx`select from mirrors where id = ${id} for key share`).length > 0
}

export async function listMirrors(sql: Sql): Promise<MirrorRow[]> {
  const rows = await sql<MirrorRow[]>`select ${columns(sql)} from mirrors order by name limit 10000`
  return [...rows]
}

/** With its runs. False where there was none. */
export async function deleteMirror(sql: Sql | Transaction, id: string): Promise<boolean> {
  return (await sql`delete from mirrors where id = ${id} returning id`).length > 0
}

/** Schedules of mirrors, and since when each is as it is. */
export async function mirrorSchedules(sql: Sql): Promise<{ id: string; schedule: string; since: Date }[]> {
  const rows = await sql<{ id: string; schedule: string; since: Date }[]>`
    select id, schedule, updated_at as since from mirrors where schedule is not null`
  return [...rows]
}

export type RunState = 'waiting' | 'running' | 'completed' | 'failed'

/** A run as it is kept and shown. */
export type RunRow = {
  id: string
  dryRun: boolean
  state: RunState
  createdAt: string
  startedAt: string | null
  finishedAt: string | null
  progress: Record<string, unknown>
  report: object | null
  error: string | null
}

const runColumns = (sql: Sql | Transaction) => sql`${toldColumns(sql)}, report`

const toldColumns = (sql: Sql | Transaction) => sql`
  id, dry_run as "dryRun", state, progress, error,
  to_char(created_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as "createdAt",
  to_char(started_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as "startedAt",
  to_char(finished_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as "finishedAt"`

export async function insertRun(sql: Sql | Transaction, mirrorId: string, dryRun: boolean): Promise<RunRow> {
  const [row] = await sql<RunRow[]>`
    insert into mirror_runs (mirror_id, dry_run) values (${mirrorId}, ${dryRun}) returning ${runColumns(sql)}`
  return row as RunRow
}

/** The run of a mirror to be taken next: the oldest that has not ended, be it that it was cut. */
export async function nextRun(sql: Sql, mirrorId: string): Promise<RunRow | undefined> {
  const [row] = await sql<RunRow[]>`
    select ${runColumns(sql)} from mirror_runs where mirror_id = ${mirrorId} and state in ('waiting', 'running')
    order by created_at limit 1`
  return row
}

/** A run like that which waits already. */
export async function waitingRun(
  sql: Sql | Transaction,
  mirrorId: string,
  dryRun: boolean,
): Promise<RunRow | undefined> {
  const [row] = await sql<RunRow[]>`
    select ${runColumns(sql)} from mirror_runs
    where mirror_id = ${mirrorId} and state = 'waiting' and dry_run = ${dryRun} order by created_at limit 1`
  return row
}

export async function beginRun(sql: Sql, id: string): Promise<void> {
  await sql`
    update mirror_runs set state = 'running', started_at = coalesce(started_at, now()), error = null where id = ${id}`
}

/** A run that could not go on waits for the next try. */
export async function pauseRun(sql: Sql | Transaction, id: string, error: string): Promise<void> {
  await sql`update mirror_runs set state = 'waiting', error = ${error} where id = ${id}`
}

/** False where the run is gone, with its mirror. */
export async function noteProgress(sql: Sql, id: string, progress: object): Promise<boolean> {
  const rows = await sql`
    update mirror_runs set progress = ${sql.json(progress as never)} where id = ${id} returning id`
  return rows.length > 0
}

export async function endRun(
  sql: Sql | Transaction,
  id: string,
  { report, error }: { report?: object; error?: string },
): Promise<void> {
  await sql`
    update mirror_runs set state = ${error === undefined ? 'completed' : 'failed'}, finished_at = now(),
      error = ${error ?? null}, report = coalesce(${report ? sql.json(report as never) : null}::jsonb, report)
    where id = ${id}`
}

/** Ends the runs of a mirror that wait or were cut, and that nobody will go on with; answers them. */
export async function endOpenRuns(
  tx: Transaction,
  mirrorId: string,
  error: string,
): Promise<{ id: string; name: string; direction: MirrorDirection }[]> {
  const rows = await tx<{ id: string; name: string; direction: MirrorDirection }[]>`
    update mirror_runs r set state = 'failed', finished_at = now(), error = ${error}
    from mirrors m
    where m.id = r.mirror_id and m.id::text = ${mirrorId} and r.state in ('waiting', 'running')
    returning r.id, m.name, m.direction`
  return [...rows]
}

/** A run without its report; of that only whether it was clean. */
export type ListedRun = Omit<RunRow, 'report'> & { clean: boolean | null }

/** The runs of a mirror, the newest first. Their reports, which may be megabytes each, are not read out. */
export async function listRuns(sql: Sql, mirrorId: string, limit: number): Promise<ListedRun[]> {
  const rows = await sql<ListedRun[]>`
    select ${toldColumns(sql)}, report -> 'clean' as clean from mirror_runs
    where mirror_id = ${mirrorId} order by created_at desc limit ${limit}`
  return [...rows]
}

/** Forgets the oldest runs of a mirror that have ended, but for so many, and for the newest that has a report. */
export async function forgetRuns(sql: Sql, mirrorId: string, kept: number): Promise<void> {
  await sql`
    delete from mirror_runs where id in (
      select id from mirror_runs where mirror_id = ${mirrorId} and state in ('completed', 'failed')
      order by created_at desc, id desc offset ${kept}
    ) and id is distinct from (
      select id from mirror_runs where mirror_id = ${mirrorId} and report is not null
      order by finished_at desc nulls last limit 1)`
}

/** The newest run that has a report. */
export async function lastReport(sql: Sql, mirrorId: string): Promise<RunRow | undefined> {
  const [row] = await sql<RunRow[]>`
    select ${runColumns(sql)} from mirror_runs where mirror_id = ${mirrorId} and report is not null
    order by finished_at desc nulls last limit 1`
  return row
}
