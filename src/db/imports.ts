import type { Digest } from '../oci/digest.ts'
import type { PackId } from '../packs/pack.ts'
import type { Version } from '../packs/version.ts'
import type { Sql, Transaction } from './client.ts'

/** An import as one connection works at it: what is written for an older attempt finds no row. */
export type Attempt = { id: string; attempt: number }

export const importStates = ['receiving', 'verifying', 'publishing', 'published', 'failed'] as const
export type ImportState = (typeof importStates)[number]

/** How long a process may be silent before its import counts as left behind, in seconds. */
const leaseSeconds = 15

type Life = { principal: string; total: number | undefined; lifeSeconds: number }

/** Begins an import. Undefined where there is one of this id. */
export async function insertImport(
  sql: Sql,
  id: string,
  { principal, total, lifeSeconds }: Life,
): Promise<Attempt | undefined> {
  const rows = await sql<{ attempt: number }[]>`
    insert into imports (id, principal, total, leased_until, expires_at)
    values (${id}, ${principal}, ${total ?? null}, now() + make_interval(secs => ${leaseSeconds}),
      now() + make_interval(secs => ${lifeSeconds}))
    on conflict (id) do nothing
    returning attempt`
  return rows[0] && { id, attempt: rows[0].attempt }
}

/** An import that is gone on with. */
export type Resumed = { attempt: number; resumeAt: number; index: Buffer | null; envelope: Buffer | null }

/**
 * Takes an import over from whatever connection had it. Undefined where it is somebody else's, or all of it is here: then
 * it is published, or about to be. From byte 0 on another file may come: nothing of what came before is a part of that.
 */
export async function resumeImport(
  sql: Sql,
  id: string,
  { principal, total, lifeSeconds, offset }: Life & { offset: number },
): Promise<Resumed | undefined> {
  const goesOn = offset > 0
  const [row] = await sql<Resumed[]>`
    with taken as (
      update imports set attempt = attempt + 1, state = 'receiving', error = null, report = null, finished_at = null,
        resume_at = case when ${goesOn}::boolean then resume_at else 0 end,
        index_json = case when ${goesOn}::boolean then index_json end,
        envelope = case when ${goesOn}::boolean then envelope end,
        total = ${total ?? null}, leased_until = now() + make_interval(secs => ${leaseSeconds}),
        expires_at = now() + make_interval(secs => ${lifeSeconds})
      where id = ${id} and principal = ${principal} and state in ('receiving', 'verifying', 'failed')
      returning id, attempt, resume_at, index_json, envelope
    ), gone as (
      delete from import_blobs b using taken where not ${goesOn}::boolean and b.import_id = taken.id returning b.storage_key
    ), spare as (
      insert into blob_deletions (storage_key) select storage_key from gone where storage_key is not null
      on conflict do nothing
    )
    select attempt, resume_at as "resumeAt", index_json as index, envelope from taken`
  return row
}

/** Says how far an import is, and that its process lives. False where another connection has taken it over. */
export async function touchImport(
  sql: Sql,
  { id, attempt }: Attempt,
  progress: { received: number; blobs: number; resumeAt: number; lifeSeconds: number },
): Promise<boolean> {
  const rows = await sql`
    update imports set received = ${progress.received}, blobs = ${progress.blobs}, resume_at = ${progress.resumeAt},
      leased_until = now() + make_interval(secs => ${leaseSeconds}),
      expires_at = now() + make_interval(secs => ${progress.lifeSeconds})
    where id = ${id} and attempt = ${attempt} and state in ('receiving', 'verifying')
    returning id`
  return rows.length > 0
}

/** Keeps the index, or the signature, of a file that is under way. */
export async function keepHead(
  sql: Sql,
  { id, attempt }: Attempt,
  { index, indexDigest, envelope }: { index?: Buffer; indexDigest?: Digest; envelope?: Buffer },
): Promise<void> {
  await sql`
    update imports set index_json = coalesce(${index ?? null}, index_json),
      index_digest = coalesce(${indexDigest ?? null}, index_digest), envelope = coalesce(${envelope ?? null}, envelope)
    where id = ${id} and attempt = ${attempt}`
}

/** The file is whole. From here on nobody says that the process lives: it has so long to judge it. */
export async function beginVerifying(sql: Sql, { id, attempt }: Attempt, leaseSeconds: number): Promise<void> {
  await sql`
    update imports set state = 'verifying', leased_until = now() + make_interval(secs => ${leaseSeconds})
    where id = ${id} and attempt = ${attempt} and state = 'receiving'`
}

/** The connection has gone, or a part of the registry is down: whoever began it can go on with it at once. */
export async function leaveImport(sql: Sql, { id, attempt }: Attempt, error: object): Promise<void> {
  await sql`
    update imports set state = 'receiving', leased_until = now(), error = ${JSON.stringify(error)}::text::json
    where id = ${id} and attempt = ${attempt} and state in ('receiving', 'verifying')`
}

/** The file was judged and refused. What was stored of it stays for a while: the next try is cheaper for it. */
export async function failImport(
  sql: Sql,
  { id, attempt }: Attempt,
  { error, report, lifeSeconds }: { error: object; report: object | undefined; lifeSeconds: number },
): Promise<void> {
  await sql`
    update imports set state = 'failed', leased_until = now(), finished_at = now(), resume_at = 0,
      error = ${JSON.stringify(error)}::text::json, report = ${report ? JSON.stringify(report) : null}::text::json,
      expires_at = now() + make_interval(secs => ${lifeSeconds})
    where id = ${id} and attempt = ${attempt} and state in ('receiving', 'verifying')`
}

/** How a whole and verified import is to be published. `counts`: of what was stored. `by`: for the audit. */
export type Publishing = {
  force?: { reason: string }
  runner?: Version
  pack?: PackId
  counts: { stored: number; storedBytes: number; held: number }
  by: { kind: string; tokenId?: string; address: string; requestId: string }
}

/** From here on any process may publish it. False where another connection has taken it over. */
export async function handOver(
  tx: Transaction,
  { id, attempt }: Attempt,
  publishing: Publishing,
  lifeSeconds: number,
): Promise<boolean> {
  const rows = await tx`
    update imports set state = 'publishing', publishing = ${JSON.stringify(publishing)}::text::json, error = null,
      leased_until = now(), expires_at = now() + make_interval(secs => ${lifeSeconds})
    where id = ${id} and attempt = ${attempt} and state = 'verifying'
    returning id`
  return rows.length > 0
}

/** An import that waits to be published, with all that is needed for it. */
export type Whole = { principal: string; publishing: Publishing; index: Buffer; envelope: Buffer | null }

/** Undefined where it is over, and where a process publishes it at this moment: that one has its row locked. */
export async function findWhole(sql: Sql, id: string): Promise<Whole | undefined> {
  const [row] = await sql<(Omit<Whole, 'publishing'> & { publishing: string })[]>`
    select principal, publishing::text as publishing, index_json as index, envelope from imports
    where id = ${id} and state = 'publishing' for update skip locked`
  return row && { ...row, publishing: JSON.parse(row.publishing) as Publishing }
}

/** The import, locked until it is published; false where it is over. Whoever else would publish it waits here. */
export async function lockWhole(tx: Transaction, id: string): Promise<boolean> {
  return (await tx`select id from imports where id = ${id} and state = 'publishing' for update`).length > 0
}

/** What is published in the meantime is in its way. */
export async function refuseWhole(
  tx: Transaction,
  id: string,
  { error, report, lifeSeconds }: { error: object; report: string; lifeSeconds: number },
): Promise<boolean> {
  const rows = await tx`
    update imports set state = 'failed', finished_at = now(), resume_at = 0, report = ${report}::text::json,
      error = ${JSON.stringify(error)}::text::json, expires_at = now() + make_interval(secs => ${lifeSeconds})
    where id = ${id} and state = 'publishing' returning id`
  return rows.length > 0
}

/** Content of it went away: it has to be sent again, from its start. */
export async function reopenWhole(sql: Sql, id: string, error: object): Promise<void> {
  await sql`
    update imports set state = 'receiving', leased_until = now(), resume_at = 0, index_json = null, envelope = null,
      error = ${JSON.stringify(error)}::text::json
    where id = ${id} and state = 'publishing'`
}

/**
 * Ends an import that was handed over and that nobody will publish: it has to be sent again. One that a process has
 * locked is being published after all, and is left alone.
 */
export async function abandonWhole(tx: Transaction, id: string, error: object): Promise<void> {
  await tx`
    update imports i set state = 'failed', finished_at = now(), resume_at = 0, error = ${JSON.stringify(error)}::text::json
    from (select id from imports where id::text = ${id} and state = 'publishing' for update skip locked) mine
    where i.id = mine.id`
}

/** An import as it is told. `alive`: a process is at it, or will be by itself. `report`, `error`: JSON text. */
export type ImportRow = {
  id: string
  state: ImportState
  principal: string
  alive: boolean
  received: number
  total: number | null
  resumeAt: number
  blobs: number
  indexDigest: Digest | null
  report: string | null
  error: string | null
  startedAt: string
  finishedAt: string | null
  expiresAt: string
}

export async function findImport(sql: Sql, id: string): Promise<ImportRow | undefined> {
  const [row] = await sql<ImportRow[]>`select ${columns(sql)}, report::text as report from imports where id = ${id}`
  return row
}

/** The newest imports, without their reports, that began before a position; at most `limit`. */
export async function listImports(
  sql: Sql,
  {
    state,
    after,
    limit,
  }: { state: ImportState | undefined; after: { startedAt: string; id: string } | undefined; limit: number },
): Promise<ImportRow[]> {
  const rows = await sql<ImportRow[]>`
    select ${columns(sql)}, null as report from imports
    where (${state ?? null}::text is null or state = ${state ?? null})
      and ${after === undefined ? sql`true` : sql`(started_at, id) < (${after.startedAt}::text::timestamptz, ${after.id}::uuid)`}
    order by started_at desc, id desc limit ${limit}`
  return [...rows]
}

function columns(sql: Sql) {
  const time = (name: string) => sql`to_char(${sql(name)} at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`
  return sql`id, state, principal, received, total,
    state = 'publishing' or (leased_until > now() and state in ('receiving', 'verifying')) as alive,
    resume_at as "resumeAt", blobs, index_digest as "indexDigest", error::text as error,
    ${time('started_at')} as "startedAt", ${time('finished_at')} as "finishedAt", ${time('expires_at')} as "expiresAt"`
}

/**
 * Throws away what up to `limit` imports have stored and nobody came back for; their rows stay, with their reports.
 * Answers how many. Any number of processes may call it.
 */
export async function expireImports(sql: Sql, limit: number): Promise<number> {
  const rows = await sql`
    with due as (
      select i.id from imports i where i.expires_at <= now() and i.leased_until <= now()
        and exists (select from import_blobs b where b.import_id = i.id)
      order by i.expires_at limit ${limit} for update skip locked
    ), gone as (
      delete from import_blobs b using due where b.import_id = due.id returning b.storage_key
    ), ended as (
      update imports i set state = 'failed', attempt = i.attempt + 1, resume_at = 0, index_json = null,
        envelope = null, finished_at = coalesce(i.finished_at, now())
      from due where i.id = due.id and i.state <> 'published'
    ), spare as (
      insert into blob_deletions (storage_key) select storage_key from gone where storage_key is not null
      on conflict do nothing
    )
    select 1 from due`
  return rows.length
}

/** Forgets imports, with their reports, that ended so long ago; up to `limit`. Answers how many. */
export async function forgetImports(sql: Sql, afterSeconds: number, limit: number): Promise<number> {
  const rows = await sql`
    delete from imports where id in (
      select i.id from imports i
      where i.expires_at <= now() - make_interval(secs => ${afterSeconds})
        and not exists (select from import_blobs b where b.import_id = i.id)
      limit ${limit})
    returning id`
  return rows.length
}

/** Imports whose content is to be thrown away, for a person to see, after one of them; at most `limit`. See expireImports. */
export async function expiredImports(
  sql: Sql,
  { until, after, limit }: { until: string; after: { id: string } | undefined; limit: number },
): Promise<{ id: string; size: number; since: Date }[]> {
  const rows = await sql<{ id: string; size: number; since: Date }[]>`
    select i.id, sum(b.size)::bigint as size, i.expires_at as since from imports i
    join import_blobs b on b.import_id = i.id
    where i.expires_at <= ${until}::text::timestamptz and i.leased_until <= ${until}::text::timestamptz
      and ${after ? sql`i.id > ${after.id}` : sql`true`}
    group by i.id order by i.id limit ${limit}`
  return [...rows]
}
