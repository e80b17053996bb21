import { type ObjectKey, storedKey } from '../blobs/keys.ts'
import type { Fragment, Sql, Transaction } from './client.ts'

/** An object that no row names any more. `due`: when it is to be deleted next, to the microsecond. */
export type Deletion = { key: ObjectKey; due: string }

/**
 * Queues objects for deletion: the caller knows that it has named them nowhere. Left out is what a blob names all the same,
 * because its row was made of the object meanwhile (registry/rebuild-store.ts). Answers what is queued now and was not.
 */
export async function queueDeletions(sql: Sql | Transaction, keys: readonly ObjectKey[]): Promise<ObjectKey[]> {
  if (keys.length === 0) return []
  const rows = await sql<{ key: string }[]>`
    insert into blob_deletions (storage_key)
    select g.key from unnest(${[...keys]}::text[]) as g (key)
    where not exists (select from blobs b where b.storage_key = g.key)
    on conflict do nothing
    returning storage_key as key`
  return rows.map(({ key }) => storedKey(key))
}

/** These objects are deleted. Rows that somebody else is about to forget or to postpone, having done the same, are left to them. */
export async function forgetDeletions(sql: Sql, keys: readonly ObjectKey[]): Promise<void> {
  await sql`
    with free as materialized (${freeDeletions(sql, keys)})
    delete from blob_deletions d using free where d.storage_key = free.storage_key`
}

/** Those of these that nobody else has locked, locked: two who have the same ones, in whatever order, never wait for each other. */
function freeDeletions(sql: Sql, keys: readonly ObjectKey[]): Fragment {
  return sql`
    select storage_key from blob_deletions where storage_key = any(${[...keys]}::text[]) for update skip locked`
}

/** The store would not delete these, and why: they are tried again later and later, up to an hour. */
export async function postponeDeletions(sql: Sql, reasons: ReadonlyMap<ObjectKey, string>): Promise<void> {
  await sql`
    with free as materialized (${freeDeletions(sql, [...reasons.keys()])})
    update blob_deletions d set attempts = d.attempts + 1, error = g.error,
      retry_at = now() + least(interval '1 hour', interval '10 seconds' * 2 ^ least(d.attempts, 10))
    from unnest(${[...reasons.keys()]}::text[], ${[...reasons.values()]}::text[]) as g (key, error)
    join free on free.storage_key = g.key
    where d.storage_key = g.key`
}

/**
 * The next queued objects that are due by `until`; none while a backup is made (db/backup-holds.ts). They stay queued until
 * `forgetDeletions`; twice does no harm.
 */
export async function dueDeletions(
  sql: Sql,
  { until, after, limit }: { until: string; after: Deletion | undefined; limit: number },
): Promise<Deletion[]> {
  // As one text, for unpacking rows keeps the process, which serves others meanwhile, for several times as long; as JSON,
  // for a foreign object may have any name.
  const [row] = await sql<{ due: [key: string, due: string][] | null }[]>`
    with page as (
      select storage_key, retry_at from blob_deletions
      where retry_at <= ${until}::text::timestamptz and not exists (select from backup_holds where until > now())
        and ${after ? sql`(retry_at, storage_key) > (${after.due}::text::timestamptz, ${after.key})` : sql`true`}
      order by retry_at, storage_key limit ${limit}
    )
    select json_agg(json_build_array(storage_key, retry_at::text) order by retry_at, storage_key) as due from page`
  return row?.due?.map(([key, due]) => ({ key: storedKey(key), due })) ?? []
}
