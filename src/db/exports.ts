import { type ObjectKey, storedKey } from '../blobs/keys.ts'
import type { Digest } from '../oci/digest.ts'
import type { Tag } from '../oci/reference.ts'
import type { PackId, PackType } from '../packs/pack.ts'
import type { Version } from '../packs/version.ts'
import type { Sql, Transaction } from './client.ts'

// What leaves in a bundle file, across the repositories of many packs.

/** A manifest in the repository of a pack. */
export type PackManifest = { packId: PackId; digest: Digest }

const columnsOf = (manifests: readonly PackManifest[]) => ({
  packIds: manifests.map(({ packId }) => packId as string),
  digests: manifests.map(({ digest }) => digest as string),
})

/** A version as it leaves. `size`: of its content. */
export type LivingVersion = { packId: PackId; version: Version; type: PackType; size: number; manifestDigest: Digest }

/** Where a page begins: behind this one. */
export type VersionPosition = { packId: string; precedence: string }

/** Versions that are not deleted, by pack and then from the lowest to the highest: those after `after`. */
export async function livingVersions(
  sql: Sql | Transaction,
  after: VersionPosition,
  limit: number,
): Promise<(LivingVersion & VersionPosition)[]> {
  const rows = await sql<(LivingVersion & VersionPosition)[]>`
    select p.pack_id as "packId", v.version, v.type, v.content_size as size, v.manifest_digest as "manifestDigest",
      v.precedence
    from packs p join pack_versions v on v.repository_id = p.repository_id and v.deleted_at is null
    where (p.pack_id, v.precedence) > (${after.packId}, ${after.precedence})
    order by p.pack_id, v.precedence limit ${limit}`
  return [...rows]
}

/** `size` and `mediaType` are null where it is listed, but is not in the repository. */
export type ExportedManifest = PackManifest & {
  size: number | null
  mediaType: string | null
  artifactType: string | null
  subject: Digest | null
}

/**
 * Everything that these manifests list, at any depth, each in its own repository, themselves included. `referrers`: and
 * what hangs on any of it, by its subject or, as with cosign and the referrers fallback, by its tag; and so on. By
 * digest, then by pack.
 */
export async function exportedManifests(
  sql: Sql | Transaction,
  roots: readonly PackManifest[],
  { referrers }: { referrers: boolean },
): Promise<ExportedManifest[]> {
  const { packIds, digests } = columnsOf(roots)
  const hanging = referrers
    ? sql`
        union all
        select m.digest from manifests m where m.repository_id = c.repository_id and m.subject_digest = c.digest
        union all
        select t.manifest_digest from tags t
        where t.repository_id = c.repository_id
          and t.name >= replace(c.digest, ':', '-') and t.name < replace(c.digest, ':', '-') || '/'
          and t.name ~ '^sha(256|512)-[0-9a-f]+([.][a-z]+)?$'`
    : sql``
  const rows = await sql<ExportedManifest[]>`
    with recursive closure (repository_id, digest) as (
      select p.repository_id, w.digest collate "C"
      from unnest(${packIds}::text[], ${digests}::text[]) as w (pack_id, digest)
      join packs p on p.pack_id = w.pack_id
      union
      select c.repository_id, n.digest from closure c, lateral (
        select e.child_digest as digest from manifest_children e
        where e.repository_id = c.repository_id and e.manifest_digest = c.digest
        ${hanging}
      ) n
    )
    select p.pack_id as "packId", c.digest, m.size, m.media_type as "mediaType", m.artifact_type as "artifactType",
      m.subject_digest as subject
    from closure c join packs p on p.repository_id = c.repository_id
    left join manifests m on m.repository_id = c.repository_id and m.digest = c.digest
    order by c.digest, p.pack_id`
  return [...rows]
}

/** The sizes of manifests; those that are not there are left out. */
export async function manifestSizes(
  sql: Sql | Transaction,
  manifests: readonly PackManifest[],
): Promise<(PackManifest & { size: number })[]> {
  const { packIds, digests } = columnsOf(manifests)
  const rows = await sql<(PackManifest & { size: number })[]>`
    select p.pack_id as "packId", m.digest, m.size
    from unnest(${packIds}::text[], ${digests}::text[]) as w (pack_id, digest)
    join packs p on p.pack_id = w.pack_id
    join manifests m on m.repository_id = p.repository_id and m.digest = w.digest`
  return [...rows]
}

/** The blobs that these manifests need, each once; by digest. */
export async function exportedBlobs(
  sql: Sql | Transaction,
  manifests: readonly PackManifest[],
): Promise<{ digest: Digest; size: number; key: ObjectKey }[]> {
  const { packIds, digests } = columnsOf(manifests)
  const rows = await sql<{ digest: Digest; size: number; key: string }[]>`
    with needed as (
      select distinct e.blob_digest
      from unnest(${packIds}::text[], ${digests}::text[]) as w (pack_id, digest)
      join packs p on p.pack_id = w.pack_id
      join manifest_blobs e on e.repository_id = p.repository_id and e.manifest_digest = w.digest
    )
    select b.digest, b.size, b.storage_key as key from needed n join blobs b on b.digest = n.blob_digest
    order by b.digest`
  return rows.map(({ digest, size, key }) => ({ digest, size, key: storedKey(key) }))
}

/** The tags of these manifests; by pack, then by name. */
export async function exportedTags(
  sql: Sql | Transaction,
  manifests: readonly PackManifest[],
): Promise<(PackManifest & { tag: Tag })[]> {
  const { packIds, digests } = columnsOf(manifests)
  const rows = await sql<(PackManifest & { tag: Tag })[]>`
    select p.pack_id as "packId", t.manifest_digest as digest, t.name as tag
    from unnest(${packIds}::text[], ${digests}::text[]) as w (pack_id, digest)
    join packs p on p.pack_id = w.pack_id
    join tags t on t.repository_id = p.repository_id and t.manifest_digest = w.digest
    order by p.pack_id, t.name`
  return [...rows]
}

/** A planned file, as `bundle_files` keeps it. */
export type PlannedFile = {
  id: string
  index: Buffer
  envelope: Buffer | null
  lock: Buffer
  missing: Buffer | null
  manifests: string
}

/** Keeps a planned file until then; one that is kept already, at least until then. */
export async function keepPlanned(sql: Sql, file: PlannedFile, expiresAt: Date): Promise<void> {
  await sql`
    insert into bundle_files (id, index_json, envelope, lock, missing, manifests, expires_at)
    values (${file.id}, ${file.index}, ${file.envelope}, ${file.lock}, ${file.missing}, ${file.manifests}, ${expiresAt})
    on conflict (id) do update set expires_at = greatest(bundle_files.expires_at, excluded.expires_at)`
}

export async function findPlanned(sql: Sql, id: string): Promise<PlannedFile | undefined> {
  const [row] = await sql<PlannedFile[]>`
    select id, index_json as index, envelope, lock, missing, manifests from bundle_files
    where id = ${id} and expires_at > now()`
  return row
}

/** Forgets planned files whose time is over. */
export async function expirePlanned(sql: Sql): Promise<void> {
  await sql`
    delete from bundle_files where id in (
      select id from bundle_files where expires_at <= now() order by id limit 1000 for update skip locked)`
}
