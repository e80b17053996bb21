import { type ObjectKey, storedKey } from '../blobs/keys.ts'
import type { Sql, Transaction } from './client.ts'

export const exportStates = ['waiting', 'running', 'ready', 'failed'] as const
export type ExportState = (typeof exportStates)[number]

/** An export as it is told. `written`: bytes that are safe. `file`: JSON text. Times are ISO 8601 in UTC. */
export type ExportRow = {
  id: string
  principal: string
  state: ExportState
  size: number
  written: number
  file: string
  sha256: string | null
  error: string | null
  createdAt: string
  finishedAt: string | null
  expiresAt: string
}

function columns(sql: Sql | Transaction) {
  const time = (name: string) => sql`to_char(${sql(name)} at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`
  return sql`id, principal, state, size, file::text as file, sha256, error,
    (select coalesce(sum(p.size), 0)::bigint from export_parts p where p.export_id = exports.id and p.stored) as written,
    ${time('created_at')} as "createdAt", ${time('finished_at')} as "finishedAt", ${time('expires_at')} as "expiresAt"`
}

type NewExport = Pick<ExportRow, 'id' | 'principal' | 'size' | 'file'>

/** Asks for an export. One that is there already is kept for so long again, and begins anew where it had failed. */
export async function insertExport(
  tx: Transaction,
  { id, principal, size, file }: NewExport,
  lifeSeconds: number,
): Promise<ExportRow> {
  const [row] = await tx<ExportRow[]>`
    insert into exports (id, principal, size, file, expires_at)
    values (${id}, ${principal}, ${size}, ${file}::text::json, now() + make_interval(secs => ${lifeSeconds}))
    on conflict (id) do update set
      state = case when exports.state = 'failed' then 'waiting' else exports.state end,
      error = case when exports.state = 'failed' then null else exports.error end,
      finished_at = case when exports.state = 'failed' then null else exports.finished_at end,
      expires_at = greatest(exports.expires_at, excluded.expires_at)
    returning ${columns(tx)}`
  return row as ExportRow
}

export async function findExport(sql: Sql, id: string): Promise<ExportRow | undefined> {
  const [row] = await sql<ExportRow[]>`select ${columns(sql)} from exports where id = ${id}`
  return row
}

/** The newest exports that were asked for before a position; at most `limit`. */
export async function listExports(
  sql: Sql,
  after: { createdAt: string; id: string } | undefined,
  limit: number,
): Promise<ExportRow[]> {
  const rows = await sql<ExportRow[]>`
    select ${columns(sql)} from exports
    where ${after === undefined ? sql`true` : sql`(created_at, id) < (${after.createdAt}::text::timestamptz, ${after.id})`}
    order by created_at desc, id desc limit ${limit}`
  return [...rows]
}

/** False where it is made already, or is gone. One that has failed is begun anew: somebody has retried its job. */
export async function beginExport(sql: Sql, id: string): Promise<boolean> {
  const rows = await sql`
    update exports set state = 'running', error = null, finished_at = null where id = ${id} and state <> 'ready'
    returning id`
  return rows.length > 0
}

export type ExportPart = { number: number; size: number; key: ObjectKey }

/** The parts that are whole, in order. */
export async function storedParts(sql: Sql, id: string): Promise<ExportPart[]> {
  const rows = await sql<{ number: number; size: number; key: string }[]>`
    select number, size, storage_key as key from export_parts where export_id = ${id} and stored order by number`
  return rows.map(({ key, ...part }) => ({ ...part, key: storedKey(key) }))
}

/**
 * Notes the object that a part is about to be written to. One that was noted before and did not get whole is queued for
 * deletion: the row is locked first, for it may be getting whole just now. False where the part is whole already, or the
 * export is not being made any more.
 */
export async function claimPart(sql: Sql, id: string, { number, size, key }: ExportPart): Promise<boolean> {
  const rows = await sql`
    with mine as (
      select id from exports where id = ${id} and state = 'running' for key share
    ), unfinished as materialized (
      select p.storage_key from mine join export_parts p on p.export_id = mine.id
      where p.number = ${number} and not p.stored
      for update of p
    ), spare as (
      insert into blob_deletions (storage_key) select storage_key from unfinished on conflict do nothing
    )
    insert into export_parts (export_id, number, size, storage_key)
    select id, ${number}, ${size}, ${key} from mine where (select count(*) from unfinished) >= 0
    on conflict (export_id, number) do update set size = excluded.size, storage_key = excluded.storage_key
      where not export_parts.stored
    returning number`
  return rows.length > 0
}

/** The object is whole. Where nobody wants it any more, it is queued for deletion: false. */
export async function keepPart(sql: Sql, id: string, { number, key }: Omit<ExportPart, 'size'>): Promise<boolean> {
  const [row] = await sql<{ kept: boolean }[]>`
    with kept as (
      update export_parts set stored = true
      where export_id = ${id} and number = ${number} and storage_key = ${key}
      returning number
    ), spare as (
      insert into blob_deletions (storage_key) select ${key} where not exists (select from kept) on conflict do nothing
    )
    select exists (select from kept) as kept`
  return row?.kept ?? false
}

/** All parts are there. False where it is not being made any more. */
export async function endExport(sql: Sql, id: string, sha256: string, lifeSeconds: number): Promise<boolean> {
  const rows = await sql`
    update exports set state = 'ready', sha256 = ${sha256}, finished_at = now(), error = null,
      expires_at = greatest(expires_at, now() + make_interval(secs => ${lifeSeconds}))
    where id = ${id} and state = 'running'
      and size = (select sum(p.size) from export_parts p where p.export_id = exports.id and p.stored)
    returning id`
  return rows.length > 0
}

/** What could not be made now waits for the job's next try. */
export async function pauseExport(sql: Sql, id: string, error: string): Promise<void> {
  await sql`update exports set state = 'waiting', error = ${error} where id = ${id} and state = 'running'`
}

/** It cannot be made: what there is of it goes. */
export async function failExport(sql: Sql | Transaction, id: string, error: string): Promise<void> {
  await sql`
    with failed as (
      update exports set state = 'failed', error = ${error}, finished_at = now()
      where id = ${id} and state in ('waiting', 'running') returning id
    ), gone as (
      delete from export_parts p using failed where p.export_id = failed.id returning p.storage_key
    )
    insert into blob_deletions (storage_key) select storage_key from gone on conflict do nothing`
}

/** Removes an export with what it has stored. False where there was none. */
export async function deleteExport(sql: Sql, id: string): Promise<boolean> {
  const [row] = await sql<{ deleted: boolean }[]>`
    with one as (select id from exports where id = ${id} for update), parts as (
      insert into blob_deletions (storage_key)
      select p.storage_key from one join export_parts p on p.export_id = one.id on conflict do nothing
    ), gone as (delete from exports e using one where e.id = one.id returning e.id)
    select exists (select from gone) as deleted`
  return row?.deleted ?? false
}

/** Removes exports whose time is over, up to `limit`. Answers how many. */
export async function expireExports(sql: Sql, limit: number): Promise<number> {
  const rows = await sql`
    with due as (
      select id from exports where expires_at <= now() order by expires_at limit ${limit} for update skip locked
    ), parts as (
      insert into blob_deletions (storage_key)
      select p.storage_key from due join export_parts p on p.export_id = due.id on conflict do nothing
    )
    delete from exports e using due where e.id = due.id returning e.id`
  return rows.length
}

/** Exports whose time is over, for a person to see, after one of them; at most `limit`. See expireExports. */
export async function expiredExports(
  sql: Sql,
  { until, after, limit }: { until: string; after: { id: string } | undefined; limit: number },
): Promise<{ id: string; size: number; since: Date }[]> {
  const rows = await sql<{ id: string; size: number; since: Date }[]>`
    select id, size, expires_at as since from exports
    where expires_at <= ${until}::text::timestamptz and ${after ? sql`id > ${after.id}` : sql`true`}
    order by id limit ${limit}`
  return [...rows]
}
