import { type ObjectKey, storedKey } from '../blobs/keys.ts'
import type { Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Member } from '../packs/artifact.ts'
import type { PackId } from '../packs/pack.ts'
import { releaseOf, type Version } from '../packs/version.ts'
import type { Fragment, Sql, Transaction } from './client.ts'
import { reviewOfDoomed } from './manifests.ts'

/** A manifest of a closure. `size` and `mediaType` are null where it is listed, but is not in the repository. */
export type ClosureManifest = { digest: Digest; size: number | null; mediaType: string | null }

/** Everything that manifests of a repository list, at any depth, themselves included; by digest. */
export async function closureManifests(
  sql: Sql | Transaction,
  repository: RepositoryName,
  roots: readonly Digest[],
): Promise<ClosureManifest[]> {
  const rows = await sql<ClosureManifest[]>`
    with recursive ${closure(sql, repository, roots)}
    select c.digest, m.size, m.media_type as "mediaType"
    from closure c left join manifests m on m.repository_id = c.repository_id and m.digest = c.digest
    order by c.digest`
  return [...rows]
}

/** The blobs that those manifests need; by digest. */
export async function closureBlobs(
  sql: Sql | Transaction,
  repository: RepositoryName,
  roots: readonly Digest[],
): Promise<{ digest: Digest; size: number; key: ObjectKey }[]> {
  const rows = await sql<{ digest: Digest; size: number; key: string }[]>`
    with recursive ${closure(sql, repository, roots)}, needed as (
      select distinct e.blob_digest from closure c
      join manifest_blobs e on e.repository_id = c.repository_id and e.manifest_digest = c.digest
    )
    select b.digest, b.size, b.storage_key as key from needed n join blobs b on b.digest = n.blob_digest
    order by b.digest`
  return rows.map(({ digest, size, key }) => ({ digest, size, key: storedKey(key) }))
}

function closure(sql: Sql | Transaction, repository: RepositoryName, roots: readonly Digest[]): Fragment {
  return sql`closure (repository_id, digest) as (
      select r.id, d collate "C" from repositories r, unnest(${roots as readonly string[]}::text[]) as d
      where r.name = ${repository}
      union
      select e.repository_id, e.child_digest from closure c
      join manifest_children e on e.repository_id = c.repository_id and e.manifest_digest = c.digest
    )`
}

/** The bytes of manifests of a repository, in no promised order. */
export async function manifestPayloads(
  sql: Sql | Transaction,
  repository: RepositoryName,
  digests: readonly Digest[],
): Promise<{ digest: Digest; payload: Buffer }[]> {
  const rows = await sql<{ digest: Digest; payload: Buffer }[]>`
    select m.digest, m.payload from repositories r join manifests m on m.repository_id = r.id
    where r.name = ${repository} and m.digest = any(${digests as readonly string[]}::text[])`
  return [...rows]
}

/** The bytes of manifests of any repositories, in no promised order; a digest comes once for each that was asked. */
export async function storedPayloads(
  sql: Sql | Transaction,
  wanted: readonly { repository: RepositoryName; digest: Digest }[],
): Promise<{ digest: Digest; payload: Buffer }[]> {
  const rows = await sql<{ digest: Digest; payload: Buffer }[]>`
    select m.digest, m.payload
    from unnest(${wanted.map((w) => w.repository as string)}::text[], ${wanted.map((w) => w.digest as string)}::text[])
      as w (repository, digest)
    join repositories r on r.name = w.repository join manifests m on m.repository_id = r.id and m.digest = w.digest`
  return [...rows]
}

/** Published versions as members of a bundle, by pack. Left out where there is no such version. */
export async function findMembers(
  sql: Sql | Transaction,
  wanted: readonly { packId: PackId; version: Version }[],
): Promise<Member[]> {
  const rows = await sql<Member[]>`
    select p.pack_id as "packId", found.*
    from unnest(${wanted.map((w) => w.packId as string)}::text[], ${wanted.map((w) => releaseOf(w.version) as string)}::text[],
      ${wanted.map((w) => w.version as string)}::text[]) as w (pack_id, release, version)
    join packs p on p.pack_id = w.pack_id,
    -- One by one, along the primary keys: left to join as it likes, the planner may begin with all that are 1.0.0.
    lateral (
      select v.version, m.digest as "manifestDigest", m.size as "manifestSize", m.media_type as "mediaType"
      from pack_versions v join manifests m on m.repository_id = v.repository_id and m.digest = v.manifest_digest
      where v.repository_id = p.repository_id and v.release = w.release and v.version = w.version
        and v.deleted_at is null
      limit 1
    ) found
    order by p.pack_id`
  return [...rows]
}

/**
 * Makes manifests readable in another repository, which is there: everything they list, at any depth, with their edges
 * and the links to their blobs. What is there already stays as it is.
 *
 * The edges' foreign key keeps the collector off the links, as with any push: where it was faster, the statement fails
 * on `manifest_blobs_link` (and on `repository_blobs_digest_fkey` where the content itself went), and the next try
 * sees what is left. Rows are inserted in the order of their digests, as everywhere, so two writers never wait for each
 * other.
 */
export async function mountManifests(
  tx: Transaction,
  members: readonly Pick<Member, 'packId' | 'manifestDigest'>[],
  to: RepositoryName,
): Promise<void> {
  await tx`
    with recursive target as (
      select id from repositories where name = ${to}
    ), tree (repository_id, digest) as (
      select p.repository_id, w.digest collate "C"
      from unnest(${members.map((m) => m.packId as string)}::text[], ${members.map((m) => m.manifestDigest as string)}::text[])
        as w (pack_id, digest)
      join packs p on p.pack_id = w.pack_id
      union
      select e.repository_id, e.child_digest from tree t
      join manifest_children e on e.repository_id = t.repository_id and e.manifest_digest = t.digest
    ), source as materialized (
      select distinct on (m.digest) m.repository_id, m.digest
      from tree t join manifests m on m.repository_id = t.repository_id and m.digest = t.digest
      where not exists (
        select from target join manifests n on n.repository_id = target.id and n.digest = m.digest)
      order by m.digest
    ), edges as materialized (
      select s.digest, e.blob_digest from source s
      join manifest_blobs e on e.repository_id = s.repository_id and e.manifest_digest = s.digest
    ), linked as (
      insert into repository_blobs (repository_id, digest)
      select target.id, e.blob_digest from target, (select distinct blob_digest from edges) e order by 2
      on conflict do nothing
    ), mounted as (
      insert into manifests
        (repository_id, digest, media_type, artifact_type, subject_digest, annotations, size, payload)
      select target.id, m.digest, m.media_type, m.artifact_type, m.subject_digest, m.annotations, m.size, m.payload
      from target, source s join manifests m on m.repository_id = s.repository_id and m.digest = s.digest
      order by m.digest
      on conflict do nothing
    ), held as (
      insert into manifest_blobs (repository_id, manifest_digest, blob_digest)
      select target.id, e.digest, e.blob_digest from target, edges e order by 3, 2
      on conflict do nothing
    )
    insert into manifest_children (repository_id, manifest_digest, child_digest)
    select target.id, s.digest, e.child_digest from target, source s
    join manifest_children e on e.repository_id = s.repository_id and e.manifest_digest = s.digest
    order by 2, 3
    on conflict do nothing`
}

/**
 * Locks manifests and what refers to them, at any depth, until the transaction ends: nobody gives one of them a tag, or
 * pushes it again, meanwhile.
 */
export async function lockManifests(
  tx: Transaction,
  repository: RepositoryName,
  digests: readonly Digest[],
): Promise<void> {
  await tx`
    with recursive doomed (repository_id, digest) as (
      select m.repository_id, m.digest from repositories r join manifests m on m.repository_id = r.id
      where r.name = ${repository} and m.digest = any(${digests as readonly string[]}::text[])
      union
      select m.repository_id, m.digest from doomed d
      join manifests m on m.repository_id = d.repository_id and m.subject_digest = d.digest
    )
    select from manifests m join doomed d on d.repository_id = m.repository_id and d.digest = m.digest
    order by m.digest for update of m`
}

/**
 * Deletes those of these manifests that nothing names: no tag, no index, no subject that is there; and with each its
 * untagged referrers. What they held is reviewed after the grace. Answers how many went; what they listed may follow at
 * the next call. They are to be locked (`lockManifests`): a tag that comes in the same moment would go along.
 */
export async function deleteUnnamed(
  tx: Transaction,
  repository: RepositoryName,
  digests: readonly Digest[],
  graceSeconds: number,
): Promise<number> {
  const rows = await tx`
    with recursive unnamed as (
      select m.repository_id, m.digest from repositories r
      join manifests m on m.repository_id = r.id and m.digest = any(${digests as readonly string[]}::text[])
      where r.name = ${repository}
        and not exists (select from tags t where t.repository_id = m.repository_id and t.manifest_digest = m.digest)
        and not exists (
          select from manifest_children e where e.repository_id = m.repository_id and e.child_digest = m.digest)
        and not exists (
          select from manifests s where s.repository_id = m.repository_id and s.digest = m.subject_digest)
    ), doomed (repository_id, digest) as (
      select repository_id, digest from unnamed
      union
      select m.repository_id, m.digest from doomed d
      join manifests m on m.repository_id = d.repository_id and m.subject_digest = d.digest
      where not exists (select from tags t where t.repository_id = m.repository_id and t.manifest_digest = m.digest)
    ), ${reviewOfDoomed(tx, graceSeconds)}
    delete from manifests m using doomed d
    where m.repository_id = d.repository_id and m.digest = d.digest
    returning m.digest`
  return rows.length
}
