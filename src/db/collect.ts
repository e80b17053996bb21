import type { Digest } from '../oci/digest.ts'
import type { Sql, Transaction } from './client.ts'

// The collector's statements. What they may meet, and why they are safe, stands in registry/collect.ts.

/** A link that is to be looked at. `reviewAt`: since when, to the microsecond; a text, for a Date has only milliseconds. */
export type DueLink = { repositoryId: number; digest: Digest; reviewAt: string }
export type DueBlob = { digest: Digest; reviewAt: string }

/** What is due by `until`, after a place in the order of review times: the next `limit`. */
export type DuePage<T> = { until: string; after: T | undefined; limit: number }

/**
 * What became of the rows of a page. `last`: the place where the next page begins; undefined where this one had nothing.
 * `seen`: how many rows were looked at; fewer than the limit: there are no more. `bytes`: the size of the blobs that went.
 */
export type Judged<T> = { last: T | undefined; seen: number; kept: number; gone: number; bytes: number }

/** The database's clock, as the statements here take it: as a text, for the driver makes a Date of any other time. */
export async function reviewClock(sql: Sql | Transaction): Promise<string> {
  const [row] = await sql<{ now: string }[]>`select clock_timestamp()::text as now`
  return row?.now ?? ''
}

/**
 * Locks the next links that are due, each with its blob, and deletes those that no manifest of their repository needs. The
 * ones that somebody else has locked are passed over. In a transaction that is read committed.
 */
export async function collectLinks(
  tx: Transaction,
  { until, after, limit }: DuePage<DueLink>,
  graceSeconds: number,
): Promise<Judged<DueLink>> {
  type Row = { at: string; repository: number; digest: Digest; seen: number; kept: number; gone: number }
  const [row] = await tx<Row[]>`
    select last_at::text as at, last_repository as repository, last_digest as digest, seen, kept, gone
    from collect_links(${until}::text::timestamptz, ${after?.reviewAt ?? '-infinity'}::text::timestamptz,
      ${after?.repositoryId ?? 0}, ${after?.digest ?? ''}, ${limit}, make_interval(secs => ${graceSeconds}))`
  if (!row?.seen) return { last: undefined, seen: 0, kept: 0, gone: 0, bytes: 0 }
  const { at: reviewAt, repository: repositoryId, digest, seen, kept, gone } = row
  return { last: { repositoryId, digest, reviewAt }, seen, kept, gone, bytes: 0 }
}

/** The same for blobs: deletes those that no repository and no import has, and queues their objects for deletion. */
export async function collectBlobs(
  tx: Transaction,
  { until, after, limit }: DuePage<DueBlob>,
  graceSeconds: number,
): Promise<Judged<DueBlob>> {
  type Row = { at: string; digest: Digest; seen: number; kept: number; gone: number; bytes: number }
  const [row] = await tx<Row[]>`
    select last_at::text as at, last_digest as digest, seen, kept, gone, bytes
    from collect_blobs(${until}::text::timestamptz, ${after?.reviewAt ?? '-infinity'}::text::timestamptz,
      ${after?.digest ?? ''}, ${limit}, make_interval(secs => ${graceSeconds}))`
  if (!row?.seen) return { last: undefined, seen: 0, kept: 0, gone: 0, bytes: 0 }
  const { at: reviewAt, digest, ...judged } = row
  return { last: { digest, reviewAt }, ...judged }
}
