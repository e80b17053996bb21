import type { Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Fragment, Sql } from './client.ts'
import type { DueBlob, DueLink, DuePage } from './collect.ts'

// What the collector would do, said beforehand. Nothing is locked: others go on meanwhile.

/** A due link. `goes`: nothing needs it. `blobGoes`: with it goes the last that anybody has of the blob. */
export type PlannedLink = DueLink & {
  repository: RepositoryName
  size: number
  goes: boolean
  blobGoes: boolean
  since: Date
}

/** Due links as they would be judged. A blob that is due itself is listed by plannedBlobs, not here. */
export async function plannedLinks(sql: Sql, { until, after, limit }: DuePage<DueLink>): Promise<PlannedLink[]> {
  const rows = await sql<PlannedLink[]>`
    select l.repository_id as "repositoryId", l.digest, l.review_at::text as "reviewAt", l.review_at as since, r.name as repository, b.size,
      ${goes(sql, 'l', until)} as goes,
      -- A case, for its order: of the links of one digest, all of which may be due, only the first looks at the others.
      case when b.review_at is null and not exists (
        select from repository_blobs o
        where o.digest = l.digest and o.repository_id < l.repository_id)
      then ${goes(sql, 'l', until)} and not ${stays(sql, 'l', until)} else false end as "blobGoes"
    from repository_blobs l join repositories r on r.id = l.repository_id join blobs b on b.digest = l.digest
    where l.review_at <= ${until}::text::timestamptz and ${
      after
        ? sql`(l.review_at, l.repository_id, l.digest) > (${after.reviewAt}::text::timestamptz, ${after.repositoryId}::bigint, ${after.digest})`
        : sql`true`
    }
    order by l.review_at, l.repository_id, l.digest limit ${limit}`
  return [...rows]
}

/** A due blob. `goes`: no repository keeps a link to it, and no import relies on it. */
export type PlannedBlob = DueBlob & { digest: Digest; size: number; goes: boolean; since: Date }

/** Due blobs as they would be judged after the links. */
export async function plannedBlobs(sql: Sql, { until, after, limit }: DuePage<DueBlob>): Promise<PlannedBlob[]> {
  const rows = await sql<PlannedBlob[]>`
    select b.digest, b.review_at::text as "reviewAt", b.review_at as since, b.size, not ${stays(sql, 'b', until)} as goes
    from blobs b
    where b.review_at <= ${until}::text::timestamptz and ${
      after ? sql`(b.review_at, b.digest) > (${after.reviewAt}::text::timestamptz, ${after.digest})` : sql`true`
    }
    order by b.review_at, b.digest limit ${limit}`
  return [...rows]
}

/** Whether a link would be deleted: an SQL condition. */
function goes(sql: Sql, link: string, until: string): Fragment {
  const { review, repository, digest } = columns(sql, link)
  return sql`(${review} is not null and ${review} <= ${until}::text::timestamptz
    and not exists (select from manifest_blobs e where e.repository_id = ${repository} and e.blob_digest = ${digest})
    and not exists (select from awaited_blobs a where a.repository_id = ${repository} and a.blob_digest = ${digest}))`
}

/** Whether something would still have the content afterwards: an SQL condition. */
function stays(sql: Sql, row: string, until: string): Fragment {
  const { digest } = columns(sql, row)
  return sql`(
    exists (select from repository_blobs s where s.digest = ${digest} and not ${goes(sql, 's', until)})
    or exists (select from import_blobs i where i.digest = ${digest} and i.storage_key is null))`
}

function columns(sql: Sql, row: string) {
  const column = (name: string) => sql`${sql(row)}.${sql(name)}`
  return { review: column('review_at'), repository: column('repository_id'), digest: column('digest') }
}

/** Queued objects, due or not: with why they are still there. After one of them, at most `limit`. */
export async function plannedDeletions(
  sql: Sql,
  { after, limit }: { after: { key: string } | undefined; limit: number },
): Promise<{ key: string; since: Date; error: string | null }[]> {
  const rows = await sql<{ key: string; since: Date; error: string | null }[]>`
    select storage_key as key, queued_at as since, error from blob_deletions
    where ${after ? sql`storage_key > ${after.key}` : sql`true`} order by storage_key limit ${limit}`
  return [...rows]
}

/** How much is to be done: due rows, counted up to a bound, and queued objects, likewise. */
export type Backlog = { due: number; queued: number; oldestDueSeconds: number; lastRunAt: number | undefined }

const mostCounted = 100_000

export async function readBacklog(sql: Sql): Promise<Backlog> {
  const [row] = await sql<{ due: number; queued: number; oldest: number; lastRun: number | null }[]>`
    select
      (select count(*)::int from (
        (select from repository_blobs where review_at <= now() limit ${mostCounted})
        union all (select from blobs where review_at <= now() limit ${mostCounted})) d) as due,
      (select count(*)::int from (select from blob_deletions limit ${mostCounted}) q) as queued,
      coalesce(extract(epoch from now() - least(
        (select min(review_at) from repository_blobs where review_at <= now()),
        (select min(review_at) from blobs where review_at <= now()))), 0)::float8 as oldest,
      (select extract(epoch from max(completed_on))::float8 from pgboss.job
        where name = 'gc' and state = 'completed') as "lastRun"`
  return {
    due: row?.due ?? 0,
    queued: row?.queued ?? 0,
    oldestDueSeconds: row?.oldest ?? 0,
    lastRunAt: row?.lastRun ?? undefined,
  }
}
