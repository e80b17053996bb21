import type { Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Tag } from '../oci/reference.ts'
import type { PackId } from '../packs/pack.ts'
import { isPrerelease, precedenceOf, releaseOf, type Version } from '../packs/version.ts'
import type { Sql, Transaction } from './client.ts'
import type { NewVersion } from './packs.ts'

/** What makes a tag look like a version; whether it is one, packs/version.ts says. */
const versionPattern = '^[0-9]+\\.[0-9]+\\.[0-9]+'

/** Repositories under packs/ after `last` in byte order, at most `limit`. */
export async function packRepositories(
  sql: Sql,
  { last, limit }: { last: string; limit: number },
): Promise<RepositoryName[]> {
  const rows = await sql<{ name: RepositoryName }[]>`
    select name from repositories where name > ${last} and name > 'packs/' and name < 'packs0' order by name limit ${limit}`
  return rows.map((row) => row.name)
}

/** `publishedAt`: when the tag first named this manifest, in PostgreSQL's notation. */
export type VersionTag = { tag: Tag; digest: Digest; mediaType: string; payload: Buffer; publishedAt: string }

/** Tags that look like versions, with their manifests, after `last` in byte order, at most `limit`. */
export async function versionTags(
  sql: Sql,
  repository: RepositoryName,
  { last, limit }: { last: string; limit: number },
): Promise<VersionTag[]> {
  const rows = await sql<VersionTag[]>`
    select t.name as tag, m.digest, m.media_type as "mediaType", m.payload, coalesce((
        select min(h.moved_at) from tag_history h
        where h.repository_id = t.repository_id and h.name = t.name and h.manifest_digest = t.manifest_digest
      ), m.pushed_at)::text as "publishedAt"
    from repositories r join tags t on t.repository_id = r.id
    join manifests m on m.repository_id = t.repository_id and m.digest = t.manifest_digest
    where r.name = ${repository} and t.name > ${last} and t.name ~ ${versionPattern}
    order by t.name limit ${limit}`
  return [...rows]
}

/** What those tags point at now. */
export async function versionTagDigests(tx: Transaction, repository: RepositoryName): Promise<Map<Tag, Digest>> {
  const rows = await tx<{ tag: Tag; digest: Digest }[]>`
    select t.name as tag, t.manifest_digest as digest from repositories r join tags t on t.repository_id = r.id
    where r.name = ${repository} and t.name ~ ${versionPattern}`
  return new Map(rows.map(({ tag, digest }) => [tag, digest]))
}

/** What the facade's rows say of a version and what follows from its manifest: one text each, so that they compare. */
export type VersionFacts = {
  release: string
  version: Version
  precedence: string
  prerelease: string
  type: string
  document: string
  manifest: Digest
  content: string
  size: string
  mediaType: string
  title: string | null
  minRunner: string | null
  maxRunner: string | null
  /** What resolution reads: the list in the document, JSON; null where it is empty. */
  needs: string | null
  /** What is asked the other way round, JSON: `[[packId, range, optional], …]`, sorted. */
  dependencies: string
}

/** The facts of a version that is read from its manifest. */
export function factsOf({ document, manifestDigest, content }: NewVersion): VersionFacts {
  const { version, type, dependencies, metadata } = document
  const { minRunnerVersion: min, maxRunnerVersion: max } = metadata
  const rows = dependencies.map(({ packId, version: range, optional = false }) => [packId, range, optional] as const)
  return {
    release: releaseOf(version),
    version,
    precedence: precedenceOf(version),
    prerelease: String(isPrerelease(version)),
    type,
    document: JSON.stringify(document),
    manifest: manifestDigest,
    content: content.digest,
    size: String(content.size),
    mediaType: content.mediaType,
    title: content.title ?? null,
    minRunner: min === undefined ? null : precedenceOf(min as Version),
    maxRunner: max === undefined ? null : precedenceOf(max as Version),
    needs: dependencies.length > 0 ? JSON.stringify(dependencies) : null,
    dependencies: JSON.stringify(rows.sort(([a], [b]) => (a < b ? -1 : 1))),
  }
}

/** The rows that there are of a pack; a deleted version by its number alone. */
export async function storedFacts(
  tx: Transaction,
  packId: PackId,
): Promise<{ living: VersionFacts[]; deleted: Version[] }> {
  const rows = await tx<(Omit<VersionFacts, 'dependencies'> & { deleted: boolean; dependencies: unknown })[]>`
    select v.deleted_at is not null as deleted, v.release, v.version, v.precedence, v.prerelease::text as prerelease,
      v.type, v.document::text as document, v.manifest_digest as manifest, v.content_digest as content,
      v.content_size::text as size, v.content_type as "mediaType", v.content_title as title,
      v.min_runner as "minRunner", v.max_runner as "maxRunner", v.dependencies as needs, coalesce((
        select json_agg(json_build_array(d.depends_on, d.range, d.optional) order by d.depends_on)
        from pack_dependencies d where d.repository_id = v.repository_id and d.release = v.release
      ), '[]') as dependencies
    from packs p join pack_versions v on v.repository_id = p.repository_id
    where p.pack_id = ${packId}`
  const living = rows.filter((row) => !row.deleted)
  return {
    living: living.map(({ deleted: _, dependencies, ...row }) => ({
      ...row,
      dependencies: JSON.stringify(dependencies),
    })),
    deleted: rows.filter((row) => row.deleted).map((row) => row.version),
  }
}

/**
 * Brings the rows of versions to these facts, new ones with their time of publishing. What a person said of a version
 * (state, message, replacement), and a deleted version, stay as they are.
 */
export async function writeFacts(
  tx: Transaction,
  packId: PackId,
  all: readonly (VersionFacts & { publishedAt: string })[],
): Promise<void> {
  const texts = (key: keyof VersionFacts | 'publishedAt') => all.map((facts) => facts[key])
  await tx`
    insert into pack_versions (repository_id, release, version, precedence, prerelease, type, document, manifest_digest,
      content_digest, content_size, content_type, content_title, min_runner, max_runner, dependencies, published_at)
    select p.repository_id, f.* from packs p, unnest(${texts('release')}::text[], ${texts('version')}::text[],
      ${texts('precedence')}::text[], ${texts('prerelease')}::text[]::boolean[], ${texts('type')}::text[],
      ${texts('document')}::text[]::json[], ${texts('manifest')}::text[], ${texts('content')}::text[],
      ${texts('size')}::text[]::bigint[], ${texts('mediaType')}::text[], ${texts('title')}::text[],
      ${texts('minRunner')}::text[], ${texts('maxRunner')}::text[], ${texts('needs')}::text[], ${texts('publishedAt')}::text[]::timestamptz[]) as f
    where p.pack_id = ${packId}
    on conflict (repository_id, release) do update set version = excluded.version, precedence = excluded.precedence,
      prerelease = excluded.prerelease, type = excluded.type, document = excluded.document,
      manifest_digest = excluded.manifest_digest, content_digest = excluded.content_digest,
      content_size = excluded.content_size, content_type = excluded.content_type,
      content_title = excluded.content_title, min_runner = excluded.min_runner, max_runner = excluded.max_runner,
      dependencies = excluded.dependencies
      where pack_versions.deleted_at is null`
  await tx`
    delete from pack_dependencies d using packs p
    where p.pack_id = ${packId} and d.repository_id = p.repository_id and d.release = any(${texts('release')}::text[])`
  await tx`
    insert into pack_dependencies (repository_id, release, depends_on, range, optional)
    select p.repository_id, f.release, d->>0, d->>1, (d->>2)::boolean
    from packs p, unnest(${texts('release')}::text[], ${texts('dependencies')}::text[]::json[]) as f (release, list),
      json_array_elements(f.list) as d
    where p.pack_id = ${packId}`
}

/** What lists show of a pack, and its tag `latest`, each as a text. Undefined where the pack has no row. */
export type PackFacts = Record<
  'latest' | 'shown' | 'versions' | 'list entry' | 'words' | 'tag latest',
  string | null
> & {
  updatedAt: string
}

export async function packFacts(tx: Transaction, packId: PackId): Promise<PackFacts | undefined> {
  const [row] = await tx<PackFacts[]>`
    select p.latest, p.shown, p.versions::text as versions, p.words::text as words,
      concat_ws(' ', p.type, p.state, p.author, p.summary) as "list entry",
      (select t.manifest_digest from tags t where t.repository_id = p.repository_id and t.name = 'latest') as "tag latest",
      p.updated_at::text as "updatedAt"
    from packs p where p.pack_id = ${packId}`
  return row
}

/** When versions of a pack last came, went, or changed places as the latest, as its tags remember it. */
export async function lastMove(tx: Transaction, repository: RepositoryName): Promise<string | undefined> {
  const [row] = await tx<{ at: string | null }[]>`
    select max(h.moved_at)::text as at from repositories r join tag_history h on h.repository_id = r.id
    where r.name = ${repository} and (h.name = 'latest' or h.name ~ ${versionPattern})`
  return row?.at ?? undefined
}

export async function setUpdatedAt(tx: Transaction, packId: PackId, updatedAt: string): Promise<void> {
  await tx`update packs set updated_at = ${updatedAt}::text::timestamptz where pack_id = ${packId}`
}
