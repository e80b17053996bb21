import type { ObjectKey } from '../blobs/keys.ts'
import type { Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Fragment, Sql, Transaction } from './client.ts'

/** Which of these digests have a row, and whether it is damaged. */
export async function knownBlobs(sql: Sql, digests: readonly Digest[]): Promise<Map<Digest, { damaged: boolean }>> {
  const rows = await sql<{ digest: Digest; damaged: boolean }[]>`
    select digest, damaged_at is not null as damaged from blobs where digest = any(${digests as readonly string[]}::text[])`
  return new Map(rows.map(({ digest, damaged }) => [digest, { damaged }]))
}

/** An object that was found to hold content. */
export type FoundBlob = { digest: Digest; size: number; key: ObjectKey }

/**
 * Until the transaction ends nobody queues an object for deletion: whoever would sees afterwards what rows were made. What is
 * still in the store now, and not in the queue, stays in the store.
 */
export async function holdDeletions(tx: Transaction): Promise<void> {
  await tx`lock table blob_deletions in exclusive mode`
}

/** `verified`: their bytes were hashed. */
type Found = { keepSeconds: number; verified: boolean }

/**
 * Makes rows for objects that were found in the store, unless there is one of their content, or the object is to be
 * deleted. They are kept until `keepSeconds` from now, whoever refers to them or not. Answers how many rows are new.
 * The caller holds deletions.
 */
export async function enterFound(
  tx: Transaction,
  blobs: readonly FoundBlob[],
  { keepSeconds, verified }: Found,
): Promise<number> {
  if (blobs.length === 0) return 0
  const rows = await tx`
    insert into blobs (digest, size, storage_key, verified_at, review_at)
    select g.digest, g.size, g.key, case when ${verified} then now() end, now() + make_interval(secs => ${keepSeconds})
    from ${unqueued(tx, blobs)}
    order by g.digest collate "C"
    on conflict do nothing
    returning 1`
  return rows.length
}

/**
 * Gives damaged blobs the object that was found for each, unless it is to be deleted. Answers how many. The caller holds
 * deletions, so it waits for nobody who may wait for those: a row that somebody has locked is about to be healed or to go.
 */
export async function healFound(
  tx: Transaction,
  blobs: readonly FoundBlob[],
  { verified }: Pick<Found, 'verified'>,
): Promise<number> {
  if (blobs.length === 0) return 0
  const rows = await tx`
    update blobs b set storage_key = f.key, size = f.size, verified_at = case when ${verified} then now() end,
      damaged_at = null
    from (
      select g.* from ${unqueued(tx, blobs)} join blobs b on b.digest = g.digest where b.damaged_at is not null
      for update of b skip locked
    ) as f
    where b.digest = f.digest
    returning 1`
  return rows.length
}

/** Those that are not to be deleted, as `g`. */
function unqueued(tx: Transaction, blobs: readonly FoundBlob[]): Fragment {
  return tx`(
    select g.* from unnest(${blobs.map(({ digest }) => digest as string)}::text[], ${blobs.map(({ size }) => size)}::bigint[],
      ${blobs.map(({ key }) => key as string)}::text[]) as g (digest, size, key)
    where not exists (select from blob_deletions d where d.storage_key = g.key)
  ) as g`
}

/** Links content into a repository, which comes into being with it, until it is looked at `keepSeconds` from now. */
export async function linkFound(
  tx: Transaction,
  repository: RepositoryName,
  digests: readonly Digest[],
  keepSeconds: number,
): Promise<void> {
  await tx`insert into repositories (name) values (${repository}) on conflict do nothing`
  await tx`
    insert into repository_blobs (repository_id, digest, review_at)
    select r.id, b.digest, now() + make_interval(secs => ${keepSeconds})
    from repositories r, blobs b
    where r.name = ${repository} and b.digest = any(${digests as readonly string[]}::text[])
    order by 1, 2
    on conflict do nothing`
}
