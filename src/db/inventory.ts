import type { Digest } from '../oci/digest.ts'
import type { PackId } from '../packs/pack.ts'
import type { Version } from '../packs/version.ts'
import type { Sql } from './client.ts'

/** `sha256`: digests of 32 bytes each, in order. `others`: those by another algorithm. `last`: where the next page begins. */
export type HeldPage = { count: number; sha256: Buffer; others: Digest[]; last: Digest | null }

/** Undamaged blobs that manifests of these packs need, after `after` by digest. They arrive packed: a million of them is 32 MB. */
export async function heldBlobs(sql: Sql, packIds: readonly PackId[], after: string, limit: number): Promise<HeldPage> {
  const [page] = await sql<HeldPage[]>`
    with readable as materialized (
      select repository_id from packs where pack_id = any(${packIds as readonly string[]}::text[])
    )
    select count(*)::int as count, max(digest) as last,
      coalesce(string_agg(decode(substr(digest, 8), 'hex'), ''::bytea order by digest)
        filter (where digest like 'sha256:%'), ''::bytea) as sha256,
      coalesce(array_agg(digest::text order by digest) filter (where digest not like 'sha256:%'), '{}') as others
    from (
      select b.digest from blobs b
      where b.digest > ${after} and b.damaged_at is null and exists (
        select from repository_blobs l
        join manifest_blobs e on e.repository_id = l.repository_id and e.blob_digest = l.digest
        where l.digest = b.digest and l.repository_id in (select repository_id from readable))
      order by b.digest limit ${limit}
    ) held`
  return page ?? { count: 0, sha256: Buffer.alloc(0), others: [], last: null }
}

export type HeldVersion = { packId: PackId; version: Version; manifestDigest: Digest }

/** Versions that are not deleted, by pack and then from the lowest to the highest: those after `after`. */
export async function heldVersions(
  sql: Sql,
  after: { packId: string; precedence: string },
  limit: number,
): Promise<(HeldVersion & { precedence: string })[]> {
  const rows = await sql<(HeldVersion & { precedence: string })[]>`
    select p.pack_id as "packId", v.version, v.manifest_digest as "manifestDigest", v.precedence
    from packs p join pack_versions v on v.repository_id = p.repository_id and v.deleted_at is null
    where (p.pack_id, v.precedence) > (${after.packId}, ${after.precedence})
    order by p.pack_id, v.precedence limit ${limit}`
  return [...rows]
}
