import type { ObjectKey } from '../blobs/keys.ts'
import type { Digest } from '../oci/digest.ts'
import type { Sql, Transaction } from './client.ts'

// Blobs whose object is known to be missing or wrong (`damaged_at`). Every statement names the object that it speaks of:
// a row that points at another one by now is left alone.

/**
 * Says that the object of a blob is not what it should be. Undefined where the blob is gone or points elsewhere: then
 * nothing is wrong. `isNew`: nobody knew.
 */
export async function markDamaged(
  sql: Sql | Transaction,
  { digest, key }: { digest: Digest; key: ObjectKey },
): Promise<{ isNew: boolean } | undefined> {
  const [row] = await sql<{ isNew: boolean }[]>`
    with before as (
      select digest, damaged_at from blobs where digest = ${digest} and storage_key = ${key} for no key update
    )
    update blobs b set damaged_at = coalesce(b.damaged_at, now()), verified_at = null
    from before where b.digest = before.digest
    returning before.damaged_at is null as "isNew"`
  return row
}

/** These objects hash to their digests. */
export async function markVerified(
  sql: Sql | Transaction,
  blobs: readonly { digest: Digest; key: ObjectKey }[],
): Promise<void> {
  await sql`
    update blobs b set verified_at = now(), damaged_at = null
    from (
      select b.digest from unnest(${blobs.map(({ digest }) => digest as string)}::text[],
        ${blobs.map(({ key }) => key as string)}::text[]) as g (digest, key)
      join blobs b on b.digest = g.digest and b.storage_key = g.key
      order by b.digest for no key update of b
    ) as locked
    where b.digest = locked.digest`
}

/** The size of a blob as its bytes have it. */
export async function correctSize(
  sql: Sql | Transaction,
  { digest, key, size }: { digest: Digest; key: ObjectKey; size: number },
): Promise<boolean> {
  const rows = await sql`
    update blobs set size = ${size} where digest = ${digest} and storage_key = ${key} returning digest`
  return rows.length > 0
}

/** Points a blob from one object at another, which was verified. False where it points elsewhere by now. */
export async function repoint(
  sql: Sql | Transaction,
  { digest, from, to, size }: { digest: Digest; from: ObjectKey; to: ObjectKey; size: number },
): Promise<boolean> {
  const rows = await sql`
    update blobs set storage_key = ${to}, size = ${size}, verified_at = now(), damaged_at = null
    where digest = ${digest} and storage_key = ${from}
    returning digest`
  return rows.length > 0
}

/**
 * Gives damaged blobs the object that has just been stored for each. What nobody needs, because another push was first,
 * is queued for deletion. A statement of its own: what names `storage_key`, as this does, locks rows more strongly than
 * pushes of the same content should lock each other.
 */
export async function healBlobs(
  sql: Sql | Transaction,
  stored: readonly { digest: Digest; size: number; key: ObjectKey }[],
): Promise<void> {
  await sql`
    with given as materialized (
      select distinct on (g.digest) g.* from unnest(${stored.map(({ digest }) => digest as string)}::text[],
        ${stored.map(({ size }) => size)}::bigint[], ${stored.map(({ key }) => key as string)}::text[]) as g (digest, size, key)
      order by g.digest
    ), locked as (
      select b.digest from given g join blobs b on b.digest = g.digest where b.damaged_at is not null
      order by b.digest for update of b
    ), healed as (
      update blobs b set storage_key = g.key, size = g.size, verified_at = now(), damaged_at = null
      from given g join locked l on l.digest = g.digest where b.digest = g.digest
      returning b.storage_key
    )
    insert into blob_deletions (storage_key)
    select g.key from unnest(${stored.map(({ key }) => key as string)}::text[]) as g (key)
    where g.key not in (select storage_key from healed)
      -- Healed by the same object: its row was made of the store (registry/rebuild-store.ts).
      and not exists (select from blobs b where b.storage_key = g.key)
    on conflict do nothing`
}
