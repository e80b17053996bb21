import type { Digest } from '../oci/digest.ts'
import type { Fragment, Sql, Transaction } from './client.ts'

// The collector's statements. What they may meet, and why they are safe, stands in registry/collect.ts.
//
// Rows come and go as one text: packing and unpacking thousands of them otherwise keeps the process, which serves others
// meanwhile, for some ten milliseconds.

/** A link that is to be looked at. `reviewAt`: since when, to the microsecond; a text, for a Date has only milliseconds. */
export type DueLink = { repositoryId: number; digest: Digest; reviewAt: string }
export type DueBlob = { digest: Digest; reviewAt: string }

/** What is due by `until`, after a place in the order of review times: the next `limit`. */
export type DuePage<T> = { until: string; after: T | undefined; limit: number }

/** The database's clock, as the statements here take it: as a text, for the driver makes a Date of any other time. */
export async function reviewClock(sql: Sql): Promise<string> {
  const [row] = await sql<{ now: string }[]>`select clock_timestamp()::text as now`
  return row?.now ?? ''
}

/** Due links, without a lock. */
export async function dueLinks(sql: Sql, { until, after, limit }: DuePage<DueLink>): Promise<DueLink[]> {
  const rows = await sql<{ text: string | null }[]>`
    with page as (
      select repository_id, digest, review_at from repository_blobs
      where review_at <= ${until}::text::timestamptz and ${
        after
          ? sql`(review_at, repository_id, digest) > (${after.reviewAt}::text::timestamptz, ${after.repositoryId}::bigint, ${after.digest})`
          : sql`true`
      }
      order by review_at, repository_id, digest limit ${limit}
    )
    select string_agg(concat_ws(' ', repository_id, digest, ${instant(sql)}), e'\n'
      order by review_at, repository_id, digest) as text from page`
  return linksIn(rows)
}

function linksIn(rows: readonly { text: string | null }[]): DueLink[] {
  return linesOf(rows).map((line) => {
    const [id, digest, reviewAt = ''] = line.split(' ')
    return { repositoryId: Number(id), digest: digest as Digest, reviewAt }
  })
}

function linesOf([row]: readonly { text: string | null }[]): string[] {
  return row?.text ? row.text.split('\n') : []
}

/** Due blobs. See dueLinks. */
export async function dueBlobs(sql: Sql, { until, after, limit }: DuePage<DueBlob>): Promise<DueBlob[]> {
  const rows = await sql<{ text: string | null }[]>`
    with page as (
      select digest, review_at from blobs
      where review_at <= ${until}::text::timestamptz and ${
        after ? sql`(review_at, digest) > (${after.reviewAt}::text::timestamptz, ${after.digest})` : sql`true`
      }
      order by review_at, digest limit ${limit}
    )
    select string_agg(concat_ws(' ', digest, ${instant(sql)}), e'\n' order by review_at, digest) as text from page`
  return blobsIn(rows)
}

function blobsIn(rows: readonly { text: string | null }[]): DueBlob[] {
  return linesOf(rows).map((line) => {
    const [digest, reviewAt = ''] = line.split(' ')
    return { digest: digest as Digest, reviewAt }
  })
}

/** review_at to the microsecond, without a space in it. */
function instant(sql: Sql | Transaction): Fragment {
  return sql`to_char(review_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`
}

/** Links as a table of a statement: (repository_id, digest). */
function theseLinks(tx: Transaction, links: readonly DueLink[]): Fragment {
  return tx`unnest(string_to_array(${links.map((link) => link.repositoryId).join(' ')}::text, ' ')::bigint[],
      string_to_array(${links.map((link) => link.digest).join(' ')}::text, ' '))`
}

/** Blobs as a table of a statement: (digest). */
function theseBlobs(tx: Transaction, blobs: readonly DueBlob[]): Fragment {
  return tx`unnest(string_to_array(${blobs.map((blob) => blob.digest).join(' ')}::text, ' '))`
}

/** Locks those of these links that are still due, each with its blob; the ones that somebody else holds are left out. */
export async function lockDueLinks(tx: Transaction, links: readonly DueLink[]): Promise<DueLink[]> {
  const rows = await tx<{ text: string | null }[]>`
    with locked as materialized (
      select l.repository_id, l.digest, l.review_at from ${theseLinks(tx, links)} as g (repository_id, digest)
      join repository_blobs l on l.repository_id = g.repository_id and l.digest = g.digest
      join blobs b on b.digest = l.digest
      where l.review_at <= now()
      for no key update of b skip locked for update of l skip locked
    )
    select string_agg(concat_ws(' ', repository_id, digest, ${instant(tx)}), e'\n') as text from locked`
  return linksIn(rows)
}

/**
 * Deletes those of these links that no manifest of their repository needs. One that a manifest only waits for (see
 * awaited_blobs) is looked at again after the grace, the others when something has changed. A blob that lost a link is
 * looked at next. Call it in the transaction that has locked them, as a statement of its own: so it sees every edge that
 * was there before the lock.
 */
export async function judgeLinks(
  tx: Transaction,
  links: readonly DueLink[],
  graceSeconds: number,
): Promise<{ kept: number; gone: number }> {
  const [row] = await tx<{ kept: number; gone: number }[]>`
    with judged as materialized (
      select g.repository_id, g.digest, ${isNeeded(tx, 'g')} as needed, ${isAwaited(tx, 'g')} as awaited
      from ${theseLinks(tx, links)} as g (repository_id, digest)
    ), kept as (
      update repository_blobs l
      set review_at = case when j.needed then null else now() + make_interval(secs => ${graceSeconds}) end
      from judged j
      where (j.needed or j.awaited) and l.repository_id = j.repository_id and l.digest = j.digest
      returning 1
    ), gone as (
      delete from repository_blobs l using judged j
      where not (j.needed or j.awaited) and l.repository_id = j.repository_id and l.digest = j.digest
      returning l.digest
    ), freed as (
      update blobs b set review_at = now() from gone g where b.digest = g.digest and b.review_at is null
    )
    select (select count(*)::int from kept) as kept, (select count(*)::int from gone) as gone`
  return row ?? { kept: 0, gone: 0 }
}

// Subqueries of one row, along an index: an `exists` the planner may take for a reason to read the whole table once.

function isNeeded(sql: Sql | Transaction, link: string): Fragment {
  return sql`coalesce((select true from manifest_blobs e
    where e.repository_id = ${sql(link)}.repository_id and e.blob_digest = ${sql(link)}.digest limit 1), false)`
}

function isAwaited(sql: Sql | Transaction, link: string): Fragment {
  return sql`coalesce((select true from awaited_blobs a
    where a.repository_id = ${sql(link)}.repository_id and a.blob_digest = ${sql(link)}.digest limit 1), false)`
}

function isLinked(sql: Sql | Transaction, blob: string): Fragment {
  return sql`coalesce((select true from repository_blobs l where l.digest = ${sql(blob)}.digest limit 1), false)`
}

function isReliedOn(sql: Sql | Transaction, blob: string): Fragment {
  return sql`coalesce((select true from import_blobs i
    where i.digest = ${sql(blob)}.digest and i.storage_key is null limit 1), false)`
}

/** Locks those of these blobs that are still due; the ones that somebody else holds are left out. */
export async function lockDueBlobs(tx: Transaction, blobs: readonly DueBlob[]): Promise<DueBlob[]> {
  const rows = await tx<{ text: string | null }[]>`
    with locked as materialized (
      select b.digest, b.review_at from ${theseBlobs(tx, blobs)} as g (digest)
      join blobs b on b.digest = g.digest
      where b.review_at <= now()
      for update of b skip locked
    )
    select string_agg(concat_ws(' ', digest, ${instant(tx)}), e'\n') as text from locked`
  return blobsIn(rows)
}

/**
 * Deletes those of these blobs that no repository and no import has, and queues their objects for deletion. One that an
 * import relies on is looked at again after the grace, the others when they lose a link. In the transaction that has
 * locked them, as a statement of its own: see judgeLinks. `bytes`: the size of what went.
 */
export async function judgeBlobs(
  tx: Transaction,
  blobs: readonly DueBlob[],
  graceSeconds: number,
): Promise<{ kept: number; gone: number; bytes: number }> {
  const [row] = await tx<{ kept: number; gone: number; bytes: number }[]>`
    with judged as materialized (
      select g.digest, ${isLinked(tx, 'g')} as linked, ${isReliedOn(tx, 'g')} as relied_on
      from ${theseBlobs(tx, blobs)} as g (digest)
    ), kept as (
      update blobs b
      set review_at = case when j.linked then null else now() + make_interval(secs => ${graceSeconds}) end
      from judged j where (j.linked or j.relied_on) and b.digest = j.digest
      returning 1
    ), gone as (
      delete from blobs b using judged j where not (j.linked or j.relied_on) and b.digest = j.digest
      returning b.storage_key, b.size
    ), queued as (
      insert into blob_deletions (storage_key) select storage_key from gone on conflict do nothing
    )
    select (select count(*)::int from kept) as kept, count(*)::int as gone, coalesce(sum(size), 0)::bigint as bytes
    from gone`
  return row ?? { kept: 0, gone: 0, bytes: 0 }
}
