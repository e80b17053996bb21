import type { Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Tag } from '../oci/reference.ts'
import type { PackId } from '../packs/pack.ts'
import type { Version } from '../packs/version.ts'
import type { Sql, Transaction } from './client.ts'

/** Tags after `last` in byte order, at most `limit`; undefined where there is no such repository. */
export async function listTags(
  sql: Sql,
  repository: RepositoryName,
  { last, limit }: { last: string; limit: number },
): Promise<string[] | undefined> {
  // One JSON text instead of rows: parsing thousands of rows costs more than reading them.
  const [row] = await sql<{ names: string[] }[]>`
    select coalesce(
      (select json_agg(page.name) from (
        select t.name from tags t where t.repository_id = r.id and t.name > ${last} order by t.name limit ${limit}
      ) page), '[]') as names
    from repositories r where r.name = ${repository}`
  return row?.names
}

/** Deletes a tag; the manifest stays. False where there was none. */
export async function deleteTag(sql: Sql | Transaction, repository: RepositoryName, tag: Tag): Promise<boolean> {
  const rows = await sql`
    delete from tags t using repositories r
    where r.name = ${repository} and t.repository_id = r.id and t.name = ${tag}
    returning t.name`
  return rows.length > 0
}

/** What a tag names, without locking it. */
export async function tagTarget(sql: Sql, repository: RepositoryName, tag: Tag): Promise<Digest | undefined> {
  const [row] = await sql<{ digest: Digest }[]>`
    select t.manifest_digest as digest from repositories r join tags t on t.repository_id = r.id
    where r.name = ${repository} and t.name = ${tag}`
  return row?.digest
}

/** What a tag names, where that need not be asked of its upstream now. */
export async function freshTag(sql: Sql, repository: RepositoryName, tag: Tag): Promise<Digest | undefined> {
  const [row] = await sql<{ digest: Digest }[]>`
    select t.manifest_digest as digest from repositories r join tags t on t.repository_id = r.id
    where r.name = ${repository} and t.name = ${tag} and (t.recheck_at is null or t.recheck_at > now())`
  return row?.digest
}

/** What tags point at. `version`: the highest that the manifest is; null where it is none. */
export type TagNow = { packId: PackId; tag: Tag; digest: Digest; version: Version | null }

export async function tagsNow(
  sql: Sql | Transaction,
  wanted: readonly { packId: PackId; tag: Tag }[],
): Promise<TagNow[]> {
  const rows = await sql<TagNow[]>`
    select p.pack_id as "packId", w.tag, found.*
    from unnest(${wanted.map((w) => w.packId as string)}::text[], ${wanted.map((w) => w.tag as string)}::text[]) as w (pack_id, tag)
    join packs p on p.pack_id = w.pack_id,
    lateral (
      select t.manifest_digest as digest, (
        select v.version from pack_versions v
        where v.repository_id = t.repository_id and v.manifest_digest = t.manifest_digest and v.deleted_at is null
        order by v.precedence desc limit 1) as version
      from tags t where t.repository_id = p.repository_id and t.name = w.tag limit 1
    ) found`
  return [...rows]
}

/** What a tag points at, locked until the transaction ends. */
export async function lockTag(sql: Transaction, repository: RepositoryName, tag: Tag): Promise<Digest | undefined> {
  const [row] = await sql<{ digest: Digest }[]>`
    select t.manifest_digest as digest from repositories r join tags t on t.repository_id = r.id
    where r.name = ${repository} and t.name = ${tag} for update of t`
  return row?.digest
}

/** Which of these tags name another manifest than this one. */
export async function tagsElsewhere(
  tx: Transaction,
  repository: RepositoryName,
  tags: readonly Tag[],
  digest: Digest,
): Promise<Tag[]> {
  const rows = await tx<{ name: Tag }[]>`
    select t.name from repositories r join tags t on t.repository_id = r.id
    where r.name = ${repository} and t.name = any(${tags as readonly string[]}::text[]) and t.manifest_digest <> ${digest}
    order by t.name`
  return rows.map((row) => row.name)
}

/** Points a tag at a manifest that is there. */
export async function setTag(tx: Transaction, repository: RepositoryName, tag: Tag, digest: Digest): Promise<void> {
  await tx`
    insert into tags (repository_id, name, manifest_digest)
    select id, ${tag}, ${digest} from repositories where name = ${repository}
    on conflict (repository_id, name) do update
      set manifest_digest = excluded.manifest_digest, updated_at = excluded.updated_at`
}
