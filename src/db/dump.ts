import type { Readable, Writable } from 'node:stream'
import type { ObjectKey } from '../blobs/keys.ts'
import type { Digest } from '../oci/digest.ts'
import type { Sql, Transaction } from './client.ts'

// A copy of all tables, as PostgreSQL's own COPY writes and reads them: its text form is the same in every version.

/** A table and its columns, but for those that are computed from others. */
export type DumpedTable = { name: string; columns: string[] }
/** A sequence and the last number it gave; null: none yet. */
export type DumpedSequence = { name: string; last: number | null }

/**
 * What is not worth keeping: work under way, which begins anew, and what is only true of the database that it is in.
 * Jobs (schema pgboss) are not dumped either: their schedules make them again.
 */
const leftOut = [
  ...['schema_migrations', 'uploads', 'import_blobs', 'exports', 'export_parts', 'blob_deletions', 'scrub_runs'],
  ...['scrub_findings', 'backup_holds'],
]

/** The tables of the schema that outlive a crash, each after those that it refers to. */
export async function dumpedTables(sql: Sql | Transaction): Promise<DumpedTable[]> {
  const tables = await sql<(DumpedTable & { needs: string[] })[]>`
    select c.relname::text as name,
      array(select a.attname::text from pg_attribute a
        where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
        order by a.attnum) as columns,
      array(select distinct f.relname::text from pg_constraint k join pg_class f on f.oid = k.confrelid
        where k.conrelid = c.oid and k.contype = 'f' and k.confrelid <> c.oid) as needs
    from pg_class c
    where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' and c.relpersistence = 'p'
      and c.relname <> all(${leftOut})
    order by c.relname`
  const sorted: DumpedTable[] = []
  const waiting = new Map(tables.map((table) => [table.name, table]))
  while (waiting.size > 0) {
    const ready = [...waiting.values()].filter(({ needs }) => !needs.some((name) => waiting.has(name)))
    if (ready.length === 0) throw new Error(`tables refer to each other in a circle: ${[...waiting.keys()].join(', ')}`)
    for (const { name, columns } of ready) {
      sorted.push({ name, columns })
      waiting.delete(name)
    }
  }
  return sorted
}

export async function dumpedSequences(sql: Sql | Transaction): Promise<DumpedSequence[]> {
  const rows = await sql<DumpedSequence[]>`
    select sequencename::text as name, last_value as last from pg_sequences where schemaname = 'public' order by 1`
  return [...rows]
}

/** The migrations that were applied. */
export async function appliedMigrations(sql: Sql | Transaction): Promise<{ number: number; name: string }[]> {
  const [table] = await sql<{ found: boolean }[]>`select to_regclass('public.schema_migrations') is not null as found`
  if (!table?.found) return []
  const rows = await sql<{ number: number; name: string }[]>`
    select number, name from schema_migrations order by number`
  return [...rows]
}

/** The rows of a table, in pieces of any length. */
export async function* copyOut(tx: Transaction, { name, columns }: DumpedTable): AsyncGenerator<Buffer> {
  const rows: Readable = await tx
    .unsafe(`copy ${quoted(name)} (${columns.map(quoted).join(', ')}) to stdout`)
    .readable()
  yield* rows
  // The driver pauses its socket while much is waiting to be read, and goes on when more is asked for: never, where the
  // end had come already. The next statement would wait for ever.
  rows._read(0)
}

/** Takes what `copyOut` gave. */
export function copyIn(tx: Transaction, { name, columns }: DumpedTable): Promise<Writable> {
  return tx.unsafe(`copy ${quoted(name)} (${columns.map(quoted).join(', ')}) from stdin`).writable()
}

function quoted(name: string): string {
  if (!/^[a-z_][a-z0-9_]*$/.test(name)) throw new Error(`${JSON.stringify(name)} is no name of a table or column`)
  return `"${name}"`
}

/** Every blob, by digest, some at a time. */
export function dumpedBlobs(
  tx: Transaction,
): AsyncIterable<{ digest: Digest; size: number; key: ObjectKey; damaged: boolean }[]> {
  return tx<{ digest: Digest; size: number; key: ObjectKey; damaged: boolean }[]>`
    select digest, size, storage_key as key, damaged_at is not null as damaged from blobs order by digest`.cursor(500)
}

/** What migrations or the first start write by themselves: rows there are nobody's. */
const seeded = ['secrets', 'token_keys', 'event_horizon']

/** The first table that has rows of somebody's; undefined where the database is as migrations leave it. */
export async function firstFilled(sql: Sql | Transaction): Promise<string | undefined> {
  for (const { name } of await dumpedTables(sql)) {
    if (seeded.includes(name)) continue
    const rows = await sql`select 1 from ${sql(name)} limit 1`
    if (rows.length > 0) return name
  }
  return undefined
}

/** Whether there is anything in the database that is not ours. */
export async function hasTables(sql: Sql): Promise<boolean> {
  const rows = await sql`
    select 1 from pg_class c where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'v') limit 1`
  return rows.length > 0
}

/**
 * Empties all tables and switches off what writes by itself, until `endLoad`. An unlogged table, which older backups name
 * too, is not truncated: PostgreSQL that is killed right after a transaction that did, and was rolled back, cannot start
 * any more ("could not create file": it makes the table's empty file anew beside the old one).
 */
export async function beginLoad(tx: Transaction, tables: readonly DumpedTable[]): Promise<void> {
  const rows = await tx<{ name: string }[]>`
    select relname::text as name from pg_class where relnamespace = 'public'::regnamespace and relpersistence = 'u'`
  const unlogged = new Set(rows.map(({ name }) => name))
  const emptied = tables.filter(({ name }) => !unlogged.has(name))
  await tx.unsafe(`truncate ${emptied.map(({ name }) => quoted(name)).join(', ')} cascade`)
  for (const { name } of tables) await tx.unsafe(`alter table ${quoted(name)} disable trigger user`)
}

/** Puts triggers and sequences in order again, and ends what was under way when the backup was made. */
export async function endLoad(
  tx: Transaction,
  tables: readonly DumpedTable[],
  sequences: readonly DumpedSequence[],
): Promise<void> {
  for (const { name, last } of sequences)
    if (last !== null) await tx`select setval(${`public.${quoted(name)}`}::text::regclass, ${last}::bigint)`
  await tx`
    update imports set state = 'failed', resume_at = 0, index_json = null, envelope = null, leased_until = now(),
      finished_at = coalesce(finished_at, now())
    where state in ('receiving', 'verifying', 'publishing')`
  for (const { name } of tables) await tx.unsafe(`alter table ${quoted(name)} enable trigger user`)
}

/** Where the content of a digest is to be. */
export async function keyOfBlob(
  sql: Sql | Transaction,
  digest: Digest,
): Promise<{ key: ObjectKey; size: number } | undefined> {
  const [row] = await sql<{ key: ObjectKey; size: number }[]>`
    select storage_key as key, size from blobs where digest = ${digest}`
  return row
}
