import type { Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { PackId, PackState } from '../packs/pack.ts'
import { type Range, releaseOf, type Version } from '../packs/version.ts'
import type { Sql, Transaction } from './client.ts'
import { channelPattern } from './pack-versions.ts'

// What retention looks at, a page of packs or a repository at a time. The same statements plan a run and, inside the
// transaction that removes something, look at it again.

/** Repositories that one of these expressions matches, after `last` in byte order, at most `limit`. */
export async function repositoriesMatching(
  sql: Sql,
  { patterns, last, limit }: { patterns: readonly string[]; last: string; limit: number },
): Promise<RepositoryName[]> {
  const rows = await sql<{ name: RepositoryName }[]>`
    select name from repositories
    where name > ${last} and name ~ any(${patterns as readonly string[]}::text[]) order by name limit ${limit}`
  return rows.map((row) => row.name)
}

/** `publishedAt`: milliseconds since 1970. `channels`: those that point at its manifest, without `latest`. */
export type VersionRow = {
  packId: PackId
  version: Version
  state: PackState
  publishedAt: number
  manifestDigest: Digest
  channels: string[]
  heldBy: string | null
  heldWhy: string | null
}

/** The living versions of packs; `releases`: only those of these. */
export async function livingVersions(
  sql: Sql | Transaction,
  packIds: readonly PackId[],
  releases?: readonly Version[],
): Promise<VersionRow[]> {
  const only = releases ? sql`and v.release = any(${releases as readonly string[]}::text[])` : sql``
  const theirs = releases
    ? sql`and t.manifest_digest in (
        select v.manifest_digest from pack_versions v
        where v.repository_id = p.repository_id and v.deleted_at is null ${only})`
    : sql``
  const rows = await sql<VersionRow[]>`
    with channels as materialized (
      select t.repository_id, t.manifest_digest, array_agg(t.name order by t.name) as names
      from packs p join tags t on t.repository_id = p.repository_id
      where p.pack_id = any(${packIds as readonly string[]}::text[]) and t.name <> 'latest' and t.name !~ ${channelPattern}
        ${theirs}
      group by t.repository_id, t.manifest_digest
    )
    select p.pack_id as "packId", v.version, v.state, (extract(epoch from v.published_at) * 1000)::float8 as "publishedAt",
      v.manifest_digest as "manifestDigest", coalesce(c.names, '{}') as channels, h.held_by as "heldBy", h.reason as "heldWhy"
    from packs p join pack_versions v on v.repository_id = p.repository_id and v.deleted_at is null ${only}
    left join channels c on c.repository_id = v.repository_id and c.manifest_digest = v.manifest_digest
    left join holds h on h.pack_id = p.pack_id and h.version = v.version
    where p.pack_id = any(${packIds as readonly string[]}::text[])`
  return [...rows]
}

/**
 * The living versions of a pack that a decision on one of them depends on: itself, its release where it is a pre-release,
 * the highest `newest` of either kind, and whichever of them is the latest. Each is found by an index.
 */
export async function releasesBeside(
  sql: Sql | Transaction,
  { packId, version, newest }: { packId: PackId; version: Version; newest: number },
): Promise<Version[]> {
  const own = releaseOf(version)
  const rows = await sql<{ release: Version }[]>`
    select b.release from packs p, lateral (
      (select release from pack_versions v where v.repository_id = p.repository_id and v.deleted_at is null
        and not v.prerelease order by v.precedence desc limit ${newest})
      union
      (select release from pack_versions v where v.repository_id = p.repository_id and v.deleted_at is null
        and v.prerelease order by v.precedence desc limit ${newest})
      union
      (select release from pack_versions v where v.repository_id = p.repository_id and v.deleted_at is null
        and v.state <> 'yanked' and not v.prerelease order by v.precedence desc limit 1)
      union
      (select release from pack_versions v where v.repository_id = p.repository_id and v.deleted_at is null
        and v.state <> 'yanked' order by v.precedence desc limit 1)
      union
      (select release from pack_versions v where v.repository_id = p.repository_id and v.deleted_at is null
        and v.release = any(${[own, own.split('-', 1)[0] as string]}::text[]))
    ) b
    where p.pack_id = ${packId}`
  return rows.map(({ release }) => release)
}

/** A range that living versions of other packs give for a pack, and one of those that do. */
export type RangeRow = { packId: PackId; range: Range; dependent: string }

/** Every range that is given for these packs, once. */
export async function rangesGiven(sql: Sql | Transaction, packIds: readonly PackId[]): Promise<RangeRow[]> {
  const rows = await sql<RangeRow[]>`
    select distinct on (d.depends_on, d.range) d.depends_on as "packId", d.range, p.pack_id || ' ' || v.version as dependent
    from pack_dependencies d
    join pack_versions v on v.repository_id = d.repository_id and v.release = d.release and v.deleted_at is null
    join packs p on p.repository_id = v.repository_id
    where d.depends_on = any(${packIds as readonly string[]}::text[])
    order by d.depends_on, d.range, p.pack_id, v.precedence desc`
  return [...rows]
}

/** For manifests that are in living bundles, at any depth, one such bundle in words: `suite 1.0.0`. */
export async function bundlesOf(sql: Sql | Transaction, digests: readonly Digest[]): Promise<Map<Digest, string>> {
  const rows = await sql<{ digest: Digest; bundle: string }[]>`
    with recursive listed (root, repository_id, digest) as (
      select e.child_digest, e.repository_id, e.manifest_digest from manifest_children e
      where e.child_digest = any(${digests as readonly string[]}::text[])
      union
      select l.root, e.repository_id, e.manifest_digest
      from listed l join manifest_children e on e.repository_id = l.repository_id and e.child_digest = l.digest
    )
    select distinct on (l.root) l.root as digest, p.pack_id || ' ' || v.version as bundle
    from listed l
    join pack_versions v on v.repository_id = l.repository_id and v.manifest_digest = l.digest and v.deleted_at is null
    join packs p on p.repository_id = v.repository_id
    order by l.root, p.pack_id, v.precedence desc`
  return new Map(rows.map(({ digest, bundle }) => [digest, bundle]))
}

/** `movedAt`: when it was last pushed to name something, in milliseconds since 1970. */
export type TagRow = { name: string; digest: Digest; movedAt: number }

/** Every tag of a repository. */
export async function tagsWithTimes(sql: Sql | Transaction, repository: RepositoryName): Promise<TagRow[]> {
  const rows = await sql<TagRow[]>`
    select t.name, t.manifest_digest as digest, (extract(epoch from t.updated_at) * 1000)::float8 as "movedAt"
    from repositories r join tags t on t.repository_id = r.id where r.name = ${repository}`
  return [...rows]
}

/** Those of these tags that are there. */
export async function tagsNamed(
  sql: Sql | Transaction,
  repository: RepositoryName,
  names: readonly string[],
): Promise<TagRow[]> {
  const rows = await sql<TagRow[]>`
    select t.name, t.manifest_digest as digest, (extract(epoch from t.updated_at) * 1000)::float8 as "movedAt"
    from repositories r join tags t on t.repository_id = r.id
    where r.name = ${repository} and t.name = any(${names as readonly string[]}::text[])`
  return [...rows]
}

/** Locks tags until the transaction ends: nobody moves them meanwhile. Answers those that are there. */
export async function lockTags(
  tx: Transaction,
  repository: RepositoryName,
  names: readonly string[],
): Promise<string[]> {
  const rows = await tx<{ name: string }[]>`
    select t.name from repositories r join tags t on t.repository_id = r.id
    where r.name = ${repository} and t.name = any(${names as readonly string[]}::text[]) order by t.name for update of t`
  return rows.map((row) => row.name)
}

/**
 * A manifest without a tag. `since`: when it was pushed, or the last tag left it, in milliseconds since 1970. `subject`:
 * what it refers to, where that is here; `index`: one that lists it.
 */
export type UntaggedRow = { digest: Digest; since: number; subject: Digest | null; index: Digest | null }

/** Manifests without a tag after `last` by digest, at most `limit`; or those of `digests`. */
export async function untaggedManifests(
  sql: Sql | Transaction,
  repository: RepositoryName,
  { last = '', limit, digests }: { last?: string; limit: number; digests?: readonly Digest[] },
): Promise<UntaggedRow[]> {
  const rows = await sql<UntaggedRow[]>`
    select m.digest, (extract(epoch from greatest(m.pushed_at, (
        select max(n.moved_at) from tag_history h, lateral (
          select n.moved_at from tag_history n where n.repository_id = h.repository_id and n.name = h.name and n.id > h.id
          order by n.id limit 1
        ) n where h.repository_id = m.repository_id and h.manifest_digest = m.digest
      ))) * 1000)::float8 as since,
      (select s.digest from manifests s where s.repository_id = m.repository_id and s.digest = m.subject_digest) as subject,
      (select e.manifest_digest from manifest_children e
        where e.repository_id = m.repository_id and e.child_digest = m.digest order by 1 limit 1) as index
    from repositories r join manifests m on m.repository_id = r.id
    where r.name = ${repository} and m.digest > ${last}
      ${digests ? sql`and m.digest = any(${digests as readonly string[]}::text[])` : sql``}
      and not exists (select from tags t where t.repository_id = m.repository_id and t.manifest_digest = m.digest)
    order by m.digest limit ${limit}`
  return [...rows]
}

/**
 * The bytes of blobs that nothing but these manifests, what they list and the untagged manifests that refer to them, needs
 * anywhere: about what the store would have less if they went.
 */
export async function bytesOfOnly(
  sql: Sql | Transaction,
  repository: RepositoryName,
  digests: readonly Digest[],
): Promise<number> {
  if (digests.length === 0) return 0
  const [row] = await sql<{ bytes: number }[]>`
    with recursive doomed (repository_id, digest) as (
      select r.id, d collate "C" from repositories r, unnest(${digests as readonly string[]}::text[]) as d where r.name = ${repository}
      union
      select n.repository_id, n.digest from doomed d, lateral (
        select m.repository_id, m.digest from manifests m
        where m.repository_id = d.repository_id and m.subject_digest = d.digest and not exists (
          select from tags t where t.repository_id = m.repository_id and t.manifest_digest = m.digest)
        union all
        select e.repository_id, e.child_digest from manifest_children e
        where e.repository_id = d.repository_id and e.manifest_digest = d.digest and not exists (
          select from tags t where t.repository_id = e.repository_id and t.manifest_digest = e.child_digest)
      ) n
    ), needed as (
      select e.blob_digest, count(*) as users from doomed d, lateral (
        select blob_digest from manifest_blobs where repository_id = d.repository_id and manifest_digest = d.digest offset 0
      ) e group by e.blob_digest
    )
    -- Very many may need a blob (an empty config): they are counted until there are more than those that go.
    select coalesce(sum(b.size), 0)::float8 as bytes from needed n join blobs b on b.digest = n.blob_digest
    where n.users = (
      select count(*) from (
        select from repository_blobs l join manifest_blobs o on o.repository_id = l.repository_id and o.blob_digest = l.digest
        where l.digest = n.blob_digest limit n.users + 1
      ) met)`
  return row?.bytes ?? 0
}
