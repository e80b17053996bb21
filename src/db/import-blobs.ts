import { type ObjectKey, storedKey } from '../blobs/keys.ts'
import type { Digest } from '../oci/digest.ts'
import type { Sql } from './client.ts'
import type { Attempt } from './imports.ts'

/** A blob of an import. See the table. */
export type ImportBlob = {
  digest: Digest
  size: number
  key: ObjectKey | undefined
  payload: Buffer | undefined
  stored: boolean
}

/**
 * Notes blobs of an import. An object that was noted for one before, and did not get whole, is queued for deletion.
 * False where another connection has taken the import over.
 */
export async function noteBlobs(sql: Sql, { id, attempt }: Attempt, blobs: readonly ImportBlob[]): Promise<boolean> {
  const rows = await sql`
    with mine as (
      select id from imports where id = ${id} and attempt = ${attempt} for key share
    ), given as materialized (
      select g.digest, g.size, g.key, decode(g.payload, 'base64') as payload, g.stored
      from unnest(${blobs.map((blob) => blob.digest as string)}::text[], ${blobs.map((blob) => blob.size)}::bigint[],
        ${blobs.map((blob) => blob.key ?? null)}::text[],
        ${blobs.map((blob) => blob.payload?.toString('base64') ?? null)}::text[],
        ${blobs.map((blob) => String(blob.stored))}::text[]::boolean[]) as g (digest, size, key, payload, stored)
    ), replaced as (
      -- Locked: another import may be taking it over in this moment, and then it is not ours to throw away.
      select b.storage_key from mine join import_blobs b on b.import_id = mine.id
      join given g on g.digest = b.digest collate "C"
      where b.storage_key is not null and b.storage_key is distinct from g.key
      order by b.digest for update of b
    ), spare as (
      insert into blob_deletions (storage_key) select storage_key from replaced on conflict do nothing
    ), noted as (
      insert into import_blobs (import_id, digest, size, storage_key, payload, stored)
      select mine.id, g.digest, g.size, g.key, g.payload, g.stored from mine, given g order by g.digest collate "C"
      on conflict (import_id, digest) do update set size = excluded.size, storage_key = excluded.storage_key,
        payload = coalesce(excluded.payload, import_blobs.payload), stored = excluded.stored
    )
    select 1 from mine`
  return rows.length > 0
}

/** These objects of an import are whole. */
export async function markStored(sql: Sql, id: string, digests: readonly Digest[]): Promise<void> {
  await sql`
    update import_blobs set stored = true
    where import_id = ${id} and digest = any(${digests as readonly string[]}::text[])`
}

/** What need not be stored again. No `key`: the registry holds it, and will as long as the import has a row of it. */
export type Known = { digest: Digest; key: ObjectKey | undefined }

/**
 * Which of these blobs are there already: held by the registry, stored by this import before, or left by one that failed
 * or was left behind, from which they are taken over.
 *
 * What is held gets its row here, under the lock of the blob: the collector has deleted the blob before, and then it is
 * not held, or it comes after, and finds the row.
 */
export async function claimBlobs(
  sql: Sql,
  { id, attempt }: Attempt,
  digests: readonly Digest[],
  graceSeconds: number,
): Promise<Known[]> {
  const rows = await sql<{ digest: Digest; key: string | null }[]>`
    with wanted as materialized (
      select d collate "C" as digest from unnest(${digests as readonly string[]}::text[]) as d
    ), mine as (
      select id from imports where id = ${id} and attempt = ${attempt} for key share
    ), held as (
      update blobs b set review_at = now() + make_interval(secs => ${graceSeconds})
      from (
        select digest from blobs where digest in (select digest from wanted) and damaged_at is null
        order by digest for no key update
      ) as locked
      where b.digest = locked.digest returning b.digest, b.size
    ), relied_on as (
      insert into import_blobs (import_id, digest, size, stored)
      select mine.id, h.digest, h.size, true from mine, held h order by h.digest
      on conflict do nothing
    ), own as (
      select b.digest, b.storage_key from mine join import_blobs b on b.import_id = mine.id
      join wanted w on w.digest = b.digest
      where b.stored and b.storage_key is not null and b.digest not in (select digest from held)
    ), left_behind as (
      select distinct on (b.digest) b.import_id, b.digest from wanted w
      join import_blobs b on b.digest = w.digest and b.storage_key is not null and b.stored
      join imports i on i.id = b.import_id and i.state in ('receiving', 'verifying', 'failed') and i.leased_until < now()
      where i.id <> ${id} and b.digest not in (select digest from held) and not exists (
        select from import_blobs m where m.import_id = ${id} and m.digest = b.digest)
      order by b.digest, b.import_id
    ), taken as (
      update import_blobs b set import_id = mine.id from mine, left_behind l
      where b.import_id = l.import_id and b.digest = l.digest
      returning b.digest, b.storage_key
    )
    select digest, null as key from held
    union all select digest, storage_key from own
    union all select digest, storage_key from taken`
  return rows.map(({ digest, key }) => ({ digest, key: key === null ? undefined : storedKey(key) }))
}

/** Everything that an import has received and is whole. */
export async function receivedBlobs(sql: Sql, id: string): Promise<ImportBlob[]> {
  const rows = await sql<{ digest: Digest; size: number; key: string | null; payload: Buffer | null }[]>`
    select digest, size, storage_key as key, payload from import_blobs where import_id = ${id} and stored`
  return rows.map(({ digest, size, key, payload }) => ({
    ...{ digest, size, stored: true },
    key: key === null ? undefined : storedKey(key),
    payload: payload ?? undefined,
  }))
}
