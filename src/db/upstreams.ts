import type { Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Tag } from '../oci/reference.ts'
import type { Sql, Transaction } from './client.ts'

/** Where a namespace is filled from. `version`: another whenever the row is. */
export type UpstreamRow<Options = object> = {
  prefix: RepositoryName
  url: string
  remotePrefix: string
  credentials: Buffer | null
  tagTtlSeconds: number
  options: Options
  version: string
}

const columns = (sql: Sql | Transaction) => sql`
  prefix, url, remote_prefix as "remotePrefix", credentials, tag_ttl_seconds as "tagTtlSeconds", options,
  updated_at::text as version`

/** The upstream of a repository: that of the longest prefix it is below. */
export async function findUpstream(sql: Sql, repository: RepositoryName): Promise<UpstreamRow | undefined> {
  const [row] = await sql<UpstreamRow[]>`
    select ${columns(sql)} from upstreams where starts_with(${repository}, prefix || '/')
    order by length(prefix) desc limit 1`
  return row
}

export async function readUpstream(sql: Sql, prefix: string): Promise<UpstreamRow | undefined> {
  const [row] = await sql<UpstreamRow[]>`select ${columns(sql)} from upstreams where prefix = ${prefix}`
  return row
}

export async function listUpstreams(sql: Sql): Promise<UpstreamRow[]> {
  const rows = await sql<UpstreamRow[]>`select ${columns(sql)} from upstreams order by prefix limit 10000`
  return [...rows]
}

export async function putUpstream(sql: Sql, upstream: Omit<UpstreamRow, 'version'>): Promise<void> {
  const { prefix, url, remotePrefix, credentials, tagTtlSeconds, options } = upstream
  await sql`
    insert into upstreams (prefix, url, remote_prefix, credentials, tag_ttl_seconds, options)
    values (${prefix}, ${url}, ${remotePrefix}, ${credentials}, ${tagTtlSeconds}, ${sql.json(options as never)})
    on conflict (prefix) do update set url = excluded.url, remote_prefix = excluded.remote_prefix,
      credentials = excluded.credentials, tag_ttl_seconds = excluded.tag_ttl_seconds, options = excluded.options,
      updated_at = now()`
}

/** What has been fetched stays; its tags are ours from then on, but those below a longer prefix. False where there was none. */
export async function deleteUpstream(sql: Sql, prefix: string): Promise<boolean> {
  const rows = await sql`
    with gone as (delete from upstreams where prefix = ${prefix} returning prefix), kept as (
      update tags t set recheck_at = null from repositories r, gone g
      where t.repository_id = r.id and starts_with(r.name, g.prefix || '/') and t.recheck_at is not null
        and not exists (
          select from upstreams u
          where starts_with(u.prefix, g.prefix || '/') and starts_with(r.name, u.prefix || '/'))
    )
    select prefix from gone`
  return rows.length > 0
}

/**
 * Points a tag at what its upstream said when it was asked `ageSeconds` ago, good for `seconds` from then on. An answer
 * that is older than the one the tag has changes nothing. Without an upstream of that prefix any more, the tag is ours.
 */
export async function setFetchedTag(
  sql: Sql | Transaction,
  { repository, tag, digest }: { repository: RepositoryName; tag: Tag; digest: Digest },
  { prefix, seconds, ageSeconds }: { prefix: string; seconds: number; ageSeconds: number },
): Promise<void> {
  await sql`
    insert into tags (repository_id, name, manifest_digest, recheck_at)
    select r.id, ${tag}, ${digest}, u.until
    from repositories r left join lateral (
      select now() + make_interval(secs => ${seconds - ageSeconds}) as until from upstreams where prefix = ${prefix}
    ) u on true
    where r.name = ${repository}
    on conflict (repository_id, name) do update
      set manifest_digest = excluded.manifest_digest, updated_at = excluded.updated_at, recheck_at = excluded.recheck_at
      where tags.recheck_at is null or excluded.recheck_at is null or tags.recheck_at < excluded.recheck_at`
}

/** Lets a tag be for a while more: its upstream does not answer. */
export async function postponeRecheck(sql: Sql, repository: RepositoryName, tag: Tag, seconds: number): Promise<void> {
  await sql`
    update tags t set recheck_at = now() + make_interval(secs => ${seconds}) from repositories r
    where r.name = ${repository} and t.repository_id = r.id and t.name = ${tag} and t.recheck_at < now()`
}

/** Notes the blobs that a manifest still waits for. */
export async function awaitBlobs(
  sql: Transaction,
  { repository, digest }: { repository: RepositoryName; digest: Digest },
  blobs: readonly Digest[],
): Promise<void> {
  await sql`
    insert into awaited_blobs (repository_id, manifest_digest, blob_digest)
    select r.id, ${digest}, b from repositories r, unnest(${blobs as readonly string[]}::text[]) as b
    where r.name = ${repository} order by b
    on conflict do nothing`
}

/** The bytes of a manifest of the repository that waits for this blob. */
export async function awaitingManifest(
  sql: Sql,
  { repository, digest }: { repository: RepositoryName; digest: Digest },
): Promise<Buffer | undefined> {
  const [row] = await sql<{ payload: Buffer }[]>`
    select m.payload from awaited_blobs a
    cross join lateral (
      select payload from manifests where repository_id = a.repository_id and digest = a.manifest_digest limit 1
    ) m
    where a.repository_id = (select id from repositories where name = ${repository}) and a.blob_digest = ${digest} limit 1`
  return row?.payload
}

/**
 * A blob has been linked: the manifests that waited for it hold it from now on. False where the link is gone again. It
 * is locked against the collector, and then the manifests, as those who delete them do, before what hangs on them.
 */
export async function settleBlob(
  sql: Sql,
  { repository, digest }: { repository: RepositoryName; digest: Digest },
): Promise<boolean> {
  const rows = await sql`
    with link as materialized (
      select repository_id, digest from repository_blobs
      where repository_id = (select id from repositories where name = ${repository}) and digest = ${digest} for key share
    ), waiting as materialized (
      select a.repository_id, a.manifest_digest, a.blob_digest from link l
      join awaited_blobs a on a.repository_id = l.repository_id and a.blob_digest = l.digest
      join manifests m on m.repository_id = a.repository_id and m.digest = a.manifest_digest
      order by m.digest for key share of m
    ), settled as (
      delete from awaited_blobs a using waiting w
      where a.repository_id = w.repository_id and a.manifest_digest = w.manifest_digest and a.blob_digest = w.blob_digest
    ), held as (
      insert into manifest_blobs (repository_id, manifest_digest, blob_digest)
      select repository_id, manifest_digest, blob_digest from waiting order by manifest_digest
      on conflict do nothing
    )
    select 1 from link`
  return rows.length > 0
}
