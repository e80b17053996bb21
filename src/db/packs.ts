import type { Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Content } from '../packs/artifact.ts'
import type { PackDocument, PackId, PackState } from '../packs/pack.ts'
import { isPrerelease, precedenceOf, releaseOf, type Version } from '../packs/version.ts'
import { candidatesOf } from './candidates.ts'
import { type Fragment, noteEvents, type Sql, type Transaction } from './client.ts'
import { channelPattern } from './pack-versions.ts'

/** A version about to be published. */
export type NewVersion = { document: PackDocument; manifestDigest: Digest; content: Content }

/**
 * Takes the lock of a pack: whoever publishes, deletes or yanks one of its versions holds it until its transaction ends.
 * Brings repository and pack into being where they are not. False where another transaction is just doing that: try again.
 *
 * A pack has two unique keys. Inserted `on conflict` of one of them, its row would wait for another's by the second key,
 * while that one's next update waits for it by the first. So it is locked where it is there, and otherwise inserted on
 * conflict of any.
 */
export async function lockPack(tx: Transaction, packId: PackId, repository: RepositoryName): Promise<boolean> {
  const rows = await tx`
    with there as materialized (
      select repository_id from packs where pack_id = ${packId} for no key update
    ), made as (
      insert into repositories (name)
      select ${repository} where not exists (select from repositories where name = ${repository})
      on conflict do nothing returning id
    ), repository as (
      select id from made union all select id from repositories where name = ${repository}
    ), fresh as (
      insert into packs (repository_id, pack_id)
      select id, ${packId} from repository where not exists (select from there)
      on conflict do nothing returning repository_id
    )
    select from there union all select from fresh`
  return rows.length > 0
}

/**
 * Publishes must not see each other half done where one depends on another: those with dependencies, and deletions,
 * take turns by this lock. It is taken after the pack's own.
 */
export async function lockDependencies(tx: Transaction): Promise<void> {
  await tx`select pg_advisory_xact_lock(${7_225_748_102}::bigint)`
}

/** Adds a version. False where its release has been published before, whatever became of it. */
export async function insertVersion(
  tx: Transaction,
  { document, manifestDigest, content }: NewVersion,
): Promise<boolean> {
  const { packId, version, type, dependencies, metadata } = document
  const runner = (key: 'minRunnerVersion' | 'maxRunnerVersion') =>
    metadata[key] === undefined ? null : precedenceOf(metadata[key] as Version)
  const rows = await tx`
    with version as (
      insert into pack_versions (repository_id, release, version, precedence, prerelease, type, document,
        dependencies, manifest_digest, content_digest, content_size, content_type, content_title, min_runner, max_runner)
      select repository_id, ${releaseOf(version)}, ${version}, ${precedenceOf(version)}, ${isPrerelease(version)},
        ${type}, ${JSON.stringify(document)}::text::json,
        ${dependencies.length > 0 ? JSON.stringify(dependencies) : null}::text, ${manifestDigest}, ${content.digest}, ${content.size},
        ${content.mediaType}, ${content.title ?? null}, ${runner('minRunnerVersion')}, ${runner('maxRunnerVersion')}
      from packs where pack_id = ${packId}
      on conflict do nothing
      returning repository_id, release
    ), dependencies as (
      insert into pack_dependencies (repository_id, release, depends_on, range, optional)
      select v.repository_id, v.release, d.pack_id, d.range, d.optional
      from version v, unnest(${dependencies.map((d) => d.packId as string)}::text[],
        ${dependencies.map((d) => d.version as string)}::text[],
        ${dependencies.map((d) => String(d.optional ?? false))}::text[]::boolean[]) as d (pack_id, range, optional)
    )
    select release from version`
  return rows.length > 0
}

/** The same of one pack. See `refreshPacks`. */
export function refreshPack(tx: Transaction, packId: PackId): Promise<void> {
  return refreshPacks(tx, [packId])
}

/**
 * Brings what lists show of packs, what resolution looks at, and their tags `latest`, up to their versions. Under the
 * packs' locks. `latest` is the highest stable version that is not yanked, so a back-port never moves it; where it does
 * move, that is an event.
 */
export async function refreshPacks(tx: Transaction, packIds: readonly PackId[]): Promise<void> {
  noteEvents()
  await tx`
    with shown as materialized (
      select p.repository_id as pack, v.*, coalesce(v.state <> 'yanked' and not v.prerelease, false) as is_latest
      from packs p left join lateral (
        select * from pack_versions v where v.repository_id = p.repository_id and v.deleted_at is null
        order by v.state = 'yanked', v.prerelease, v.precedence desc limit 1
      ) v on true
      where p.pack_id = any(${packIds as readonly string[]}::text[])
    ), described as (
      update packs p set
        latest = case when s.is_latest then s.version end, shown = s.version, type = s.type, state = s.state,
        author = s.document->>'author', updated_at = now(), versions = counted.n,
        summary = ${summaryOf(tx, tx`p.pack_id`, tx`s`, tx`counted.n`)}, candidates = ${candidatesOf(tx, tx`p.repository_id`)},
        words = setweight(to_tsvector('simple', regexp_replace(p.pack_id || ' ' || (s.document->>'name'), '[._/-]', ' ', 'g') || ' ' || p.pack_id), 'A')
          || setweight(to_tsvector('simple', coalesce((s.document->'metadata'->'keywords')::text, '')), 'B')
          || setweight(to_tsvector('simple', coalesce(s.document->>'author', '')), 'C')
          || setweight(to_tsvector('simple', coalesce(s.document->>'description', '')), 'D')
      from shown s, lateral (
        select count(*)::int as n from pack_versions v where v.repository_id = s.pack and v.deleted_at is null
      ) counted
      where p.repository_id = s.pack
    ), moved as (
      insert into tags (repository_id, name, manifest_digest)
      select pack, 'latest', manifest_digest from shown where is_latest order by pack
      on conflict (repository_id, name) do update
        set manifest_digest = excluded.manifest_digest, updated_at = excluded.updated_at
        where tags.manifest_digest <> excluded.manifest_digest
    ), recorded as (
      insert into event_outbox (type, pack_id, subject, data)
      -- The row of the pack as it was before this statement.
      select 'channel.moved', p.pack_id, p.pack_id || '@latest', json_strip_nulls(json_build_object('packId', p.pack_id,
        'channel', 'latest', 'from', p.latest, 'to', case when s.is_latest then s.version end,
        'manifestDigest', case when s.is_latest then s.manifest_digest end))
      from shown s join packs p on p.repository_id = s.pack
      where p.latest is distinct from case when s.is_latest then s.version end
      order by p.pack_id
    )
    delete from tags t using shown s where t.repository_id = s.pack and t.name = 'latest' and not s.is_latest`
}

/** A version as an entry in lists: an SQL expression, JSON text. Null where the version is. */
export function summaryOf(sql: Sql | Transaction, packId: Fragment, v: Fragment, versions: Fragment): Fragment {
  return sql`case when ${v}.version is not null then json_strip_nulls(json_build_object(
    'packId', ${packId}, 'type', ${v}.type, 'name', ${v}.document->'name', 'description', ${v}.document->'description',
    'author', ${v}.document->'author', 'version', ${v}.version, 'digest', ${v}.content_digest, 'size', ${v}.content_size,
    'publishedAt', to_char(${v}.published_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
    'state', ${v}.state, 'versions', ${versions}, 'minRunnerVersion', ${v}.document->'metadata'->'minRunnerVersion',
    'keywords', ${v}.document->'metadata'->'keywords'))::text end`
}

/** What became of a release. `document` is JSON text. */
export type Spent = { version: Version; manifestDigest: Digest | null; contentDigest: Digest; document: string }

/** Undefined where it was never published. */
export async function findRelease(
  sql: Sql | Transaction,
  packId: PackId,
  version: Version,
): Promise<Spent | undefined> {
  const [row] = await sql<Spent[]>`
    select v.version, v.manifest_digest as "manifestDigest", v.content_digest as "contentDigest",
      v.document::text as document
    from packs p join pack_versions v on v.repository_id = p.repository_id
    where p.pack_id = ${packId} and v.release = ${releaseOf(version)}`
  return row
}

/** The living versions that a manifest is: none, one, or several where it has no config of its own. */
export async function versionsOfManifest(sql: Sql | Transaction, packId: PackId, digest: Digest): Promise<Version[]> {
  const rows = await sql<{ version: Version }[]>`
    select v.version from packs p join pack_versions v on v.repository_id = p.repository_id
    where p.pack_id = ${packId} and v.manifest_digest = ${digest} and v.deleted_at is null`
  return rows.map((row) => row.version)
}

/** Marks a version as deleted: its number stays spent. Answers its manifest, or undefined where there was no such. */
export async function buryVersion(tx: Transaction, packId: PackId, version: Version): Promise<Digest | undefined> {
  const [row] = await tx<{ digest: Digest }[]>`
    with doomed as (
      select v.repository_id, v.release, v.manifest_digest from packs p
      join pack_versions v on v.repository_id = p.repository_id
      where p.pack_id = ${packId} and v.version = ${version} and v.deleted_at is null
    ), forgotten as (
      delete from pack_dependencies d using doomed x where d.repository_id = x.repository_id and d.release = x.release
    ), buried as (
      update pack_versions v set deleted_at = now(), manifest_digest = null
      from doomed x where v.repository_id = x.repository_id and v.release = x.release
    )
    select manifest_digest as digest from doomed`
  return row?.digest
}

/** The channels that point at a manifest, without `latest`. */
export async function channelsOfManifest(tx: Transaction, packId: PackId, digest: Digest): Promise<string[]> {
  const rows = await tx<{ name: string }[]>`
    select t.name from packs p join tags t on t.repository_id = p.repository_id
    where p.pack_id = ${packId} and t.manifest_digest = ${digest} and t.name <> 'latest' and t.name !~ ${channelPattern}
    order by t.name`
  return rows.map((row) => row.name)
}

/** Sets a version's state. Answers what it was; `changed`: whether any of it is another now. Undefined where there is no such version. */
export async function setState(
  tx: Transaction,
  {
    packId,
    version,
    state,
    message,
    replacedBy,
  }: {
    packId: PackId
    version: Version
    state: PackState
    message: string | undefined
    replacedBy: string | undefined
  },
): Promise<{ before: PackState; changed: boolean } | undefined> {
  const [row] = await tx<{ before: PackState; changed: boolean }[]>`
    update pack_versions v set state = ${state}, message = ${message ?? null}, replaced_by = ${replacedBy ?? null}
    from packs p join pack_versions b on b.repository_id = p.repository_id
    where p.pack_id = ${packId} and b.version = ${version} and b.deleted_at is null
      and v.repository_id = b.repository_id and v.release = b.release
    returning b.state as before,
      (b.state, b.message, b.replaced_by) is distinct from (v.state, v.message, v.replaced_by) as changed`
  return row
}

export type Dependent = { packId: PackId; version: Version; range: string; optional: boolean; state: PackState }

/** A place in the list of dependents: behind a version of a pack. */
export type DependentPlace = { packId: PackId; precedence: string }

/** Every range that living versions give for the pack, once, and how many of them give it. */
export async function rangesOn(sql: Sql | Transaction, packId: PackId): Promise<{ range: string; count: number }[]> {
  const rows = await sql<{ range: string; count: number }[]>`
    select d.range, count(*)::int as count from pack_dependencies d
    join pack_versions v on v.repository_id = d.repository_id and v.release = d.release and v.deleted_at is null
    where d.depends_on = ${packId} group by d.range`
  return [...rows]
}

/**
 * Living versions that depend on the pack, whatever range they give or by one of `ranges`, behind a place in the list, at
 * most `limit`.
 */
export async function dependentsAfter(
  sql: Sql | Transaction,
  packId: PackId,
  {
    after,
    limit,
    ranges,
  }: { after: DependentPlace | undefined; limit: number; ranges?: readonly string[] | undefined },
): Promise<(Dependent & { precedence: string })[]> {
  const rows = await sql<(Dependent & { precedence: string })[]>`
    select p.pack_id as "packId", v.version, d.range, d.optional, v.state, v.precedence
    from pack_dependencies d
    join pack_versions v on v.repository_id = d.repository_id and v.release = d.release and v.deleted_at is null
    join packs p on p.repository_id = v.repository_id
    where d.depends_on = ${packId} ${ranges ? sql`and d.range = any(${ranges as string[]}::text[])` : sql``}
      ${after ? sql`and (p.pack_id > ${after.packId} or (p.pack_id = ${after.packId} and v.precedence < ${after.precedence}))` : sql``}
    order by p.pack_id, v.precedence desc limit ${limit}`
  return [...rows]
}
