import { type ObjectKey, storedKey } from '../blobs/keys.ts'
import type { Sql, Transaction } from './client.ts'

/** An object that no row names any more. `due`: when it is to be deleted next, to the microsecond. */
export type Deletion = { key: ObjectKey; due: string }

/** Queues objects for deletion: no row names them. */
export async function queueDeletions(sql: Sql | Transaction, keys: readonly ObjectKey[]): Promise<void> {
  if (keys.length === 0) return
  await sql`insert into blob_deletions (storage_key) select unnest(${[...keys]}::text[]) on conflict do nothing`
}

/** These objects are deleted. */
export async function forgetDeletions(sql: Sql, keys: readonly ObjectKey[]): Promise<void> {
  await sql`delete from blob_deletions where storage_key = any(${[...keys]}::text[])`
}

/** The store would not delete these, and why: they are tried again later and later, up to an hour. */
export async function postponeDeletions(sql: Sql, reasons: ReadonlyMap<ObjectKey, string>): Promise<void> {
  await sql`
    update blob_deletions d set attempts = d.attempts + 1, error = g.error,
      retry_at = now() + least(interval '1 hour', interval '10 seconds' * 2 ^ least(d.attempts, 10))
    from unnest(${[...reasons.keys()]}::text[], ${[...reasons.values()]}::text[]) as g (key, error)
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
  const rows = await sql<{ key: string; due: string }[]>`
    select storage_key as key, retry_at::text as due from blob_deletions
    where retry_at <= ${until}::text::timestamptz and not exists (select from backup_holds where until > now())
      and ${after ? sql`(retry_at, storage_key) > (${after.due}::text::timestamptz, ${after.key})` : sql`true`}
    order by retry_at, storage_key limit ${limit}`
  return rows.map(({ key, due }) => ({ key: storedKey(key), due }))
}
