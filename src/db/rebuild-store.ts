import type { ObjectKey } from '../blobs/keys.ts'
import type { Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Sql, Transaction } from './client.ts'

/** Which of these digests have a row, and whether it is damaged. */
export async function knownBlobs(sql: Sql, digests: readonly Digest[]): Promise<Map<Digest, { damaged: boolean }>> {
  const rows = await sql<{ digest: Digest; damaged: boolean }[]>`
    select digest, damaged_at is not null as damaged from blobs where digest = any(${digests as readonly string[]}::text[])`
  return new Map(rows.map(({ digest, damaged }) => [digest, { damaged }]))
}

/** An object that was found to hold content. */
export type FoundBlob = { digest: Digest; size: number; key: ObjectKey }

/**
 * Makes rows for objects that were found in the store, unless there is one of their content, or the object is to be
 * deleted. They are kept until `keepSeconds` from now, whoever refers to them or not. Answers how many rows are new.
 * The lock keeps whoever drops orphans from queueing one in the same moment: each then sees what the other has done.
 */
export async function enterFound(
  tx: Transaction,
  blobs: readonly FoundBlob[],
  { keepSeconds, verified }: { keepSeconds: number; verified: boolean },
): Promise<number> {
  await tx`lock table blob_deletions in exclusive mode`
  const rows = await tx`
    insert into blobs (digest, size, storage_key, verified_at, review_at)
    select g.digest, g.size, g.key, case when ${verified} then now() end, now() + make_interval(secs => ${keepSeconds})
    from unnest(${blobs.map(({ digest }) => digest as string)}::text[], ${blobs.map(({ size }) => size)}::bigint[],
      ${blobs.map(({ key }) => key as string)}::text[]) as g (digest, size, key)
    where not exists (select from blob_deletions d where d.storage_key = g.key)
    order by g.digest collate "C"
    on conflict do nothing
    returning 1`
  return rows.length
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
