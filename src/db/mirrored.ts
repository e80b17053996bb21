import type { Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Tag } from '../oci/reference.ts'
import type { PackId, PackType } from '../packs/pack.ts'
import type { Version } from '../packs/version.ts'
import type { Sql } from './client.ts'

/** A living version with every tag that names it, its own among them. */
export type TaggedVersion = { packId: PackId; version: Version; type: PackType; manifestDigest: Digest; tags: Tag[] }

/** The versions of the next packs after `after`, at most `limit` packs; the lowest version first. */
export async function versionsAfter(sql: Sql, after: string, limit: number): Promise<TaggedVersion[]> {
  const rows = await sql<TaggedVersion[]>`
    select p.pack_id as "packId", v.version, v.type, v.manifest_digest as "manifestDigest",
      array(select t.name from tags t where t.repository_id = v.repository_id and t.manifest_digest = v.manifest_digest
        order by t.name) as tags
    from (select * from packs where pack_id > ${after} and shown is not null order by pack_id limit ${limit}) p
    join pack_versions v on v.repository_id = p.repository_id and v.deleted_at is null
    order by p.pack_id, v.precedence`
  return [...rows]
}

/** Tags that belong to a manifest by their name: `sha256-<hex>.sig` and the like, without the fallback index itself. */
export async function attachedTags(
  sql: Sql,
  repository: RepositoryName,
  subject: Digest,
): Promise<{ tag: Tag; digest: Digest }[]> {
  const prefix = `${subject.replace(':', '-')}.`
  const rows = await sql<{ tag: Tag; digest: Digest }[]>`
    select t.name as tag, t.manifest_digest as digest from repositories r join tags t on t.repository_id = r.id
    where r.name = ${repository} and t.name >= ${prefix} and t.name < ${`${prefix}~`} order by t.name`
  return [...rows]
}
