import { type ObjectKey, storedKey } from '../blobs/keys.ts'
import type { Digest } from '../oci/digest.ts'
import type { Sql, Transaction } from './client.ts'

/** A blob that is here, and repositories (some of them) from which it can be had. */
export type HeldBlob = { digest: Digest; size: number; repositories: string[] }

/** As many repositories as are looked at to find one that may be read. */
const mostRepositories = 100

/** Which of these are blobs or manifests here, where, and of which size. */
export async function findHeld(sql: Sql | Transaction, digests: readonly Digest[]): Promise<HeldBlob[]> {
  const rows = await sql<HeldBlob[]>`
    select w.digest, found.size, found.repositories
    from unnest(${digests as readonly string[]}::text[]) as w (digest),
    lateral (
      select max(place.size)::bigint as size, array_agg(r.name) as repositories from (
        (select b.size, l.repository_id from blobs b join repository_blobs l on l.digest = b.digest
          where b.digest = w.digest and b.damaged_at is null limit ${mostRepositories})
        union all
        (select m.size, m.repository_id from manifests m where m.digest = w.digest limit ${mostRepositories})
      ) place join repositories r on r.id = place.repository_id
    ) found
    where found.size is not null`
  return [...rows]
}

/** Those that are manifests here, and how many bytes each has. */
export async function heldManifestSizes(
  sql: Sql | Transaction,
  digests: readonly Digest[],
): Promise<{ digest: Digest; size: number }[]> {
  const rows = await sql<{ digest: Digest; size: number }[]>`
    select w.digest, m.size from unnest(${digests as readonly string[]}::text[]) as w (digest),
    lateral (select size from manifests where digest = w.digest limit 1) m`
  return [...rows]
}

/** The bytes of those that are manifests here. The caller knows how many they are together. */
export async function heldManifests(
  sql: Sql | Transaction,
  digests: readonly Digest[],
): Promise<{ digest: Digest; payload: Buffer }[]> {
  const rows = await sql<{ digest: Digest; payload: Buffer }[]>`
    select w.digest, m.payload from unnest(${digests as readonly string[]}::text[]) as w (digest),
    lateral (select payload from manifests where digest = w.digest limit 1) m`
  return [...rows]
}

/** Where the content of those that are blobs here is. */
export async function heldKeys(sql: Sql, digests: readonly Digest[]): Promise<Map<Digest, ObjectKey>> {
  const rows = await sql<{ digest: Digest; key: string }[]>`
    select digest, storage_key as key from blobs where digest = any(${digests as readonly string[]}::text[])`
  return new Map(rows.map(({ digest, key }) => [digest, storedKey(key)]))
}
