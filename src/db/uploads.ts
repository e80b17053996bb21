import { type ObjectKey, storedKey } from '../blobs/keys.ts'
import type { Algorithm, Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Sql } from './client.ts'

export type Chunk = { key: ObjectKey; size: number }

/** An upload session. `closedAs`: it is finished, and this is what it became. */
export type UploadSession = {
  id: string
  repository: RepositoryName
  algorithm: Algorithm
  offset: number
  digestSoFar: Digest | undefined
  chunks: Chunk[]
  closedAs: Digest | undefined
}

export async function createUploads(
  sql: Sql,
  asked: { id: string; repository: RepositoryName; algorithm: Algorithm }[],
  lifeSeconds: number,
): Promise<void> {
  await sql`
    insert into uploads (id, repository, algorithm, expires_at)
    select id, repository, algorithm, now() + make_interval(secs => ${lifeSeconds})
    from unnest(${asked.map((a) => a.id)}::uuid[], ${asked.map((a) => a.repository)}::text[],
      ${asked.map((a) => a.algorithm)}::text[]) as q (id, repository, algorithm)`
}

/**
 * Looks up sessions, and with the same question whether the registry holds content of a digest already (in any
 * repository; never told to a client). The answers stand in the order of the questions.
 */
export async function findUploads(
  sql: Sql,
  asked: { id: string; repository: RepositoryName; digest?: Digest }[],
): Promise<{ session: UploadSession | undefined; held: boolean }[]> {
  type Row = {
    i: number
    algorithm: Algorithm
    offset: number
    soFar: Digest | null
    chunks: { key: string; size: number }[]
    digest: Digest | null
    held: boolean
  }
  const rows = await sql<Row[]>`
    select q.i::int, u.algorithm, u."offset", u.digest_so_far as "soFar", u.chunks, u.digest,
      exists (select from blobs b where b.digest = q.digest) as held
    from unnest(${asked.map((a) => a.id)}::uuid[], ${asked.map((a) => a.repository)}::text[],
      ${asked.map((a) => a.digest ?? null)}::text[]) with ordinality as q (id, repository, digest, i)
    join uploads u on u.id = q.id and u.repository = q.repository and u.expires_at > now()`
  const found = asked.map(() => ({ session: undefined as UploadSession | undefined, held: false }))
  for (const row of rows) {
    const question = asked[row.i - 1]
    if (!question) continue
    found[row.i - 1] = {
      held: row.held,
      session: {
        id: question.id,
        repository: question.repository,
        algorithm: row.algorithm,
        offset: row.offset,
        digestSoFar: row.soFar ?? undefined,
        chunks: row.chunks.map(({ key, size }) => ({ key: storedKey(key), size })),
        closedAs: row.digest ?? undefined,
      },
    }
  }
  return found
}

/**
 * Adds a staged chunk to a session that still stands at `from`; false where it does not (another writer was first, or
 * it was cancelled). The comparison and the write are one statement, so of two writers at one offset one wins.
 */
export async function appendChunk(
  sql: Sql,
  session: { id: string; from: number; chunk: Chunk; digestSoFar: Digest | undefined },
  lifeSeconds: number,
): Promise<boolean> {
  const rows = await sql`
    update uploads set
      "offset" = "offset" + ${session.chunk.size},
      chunks = chunks || ${sql.json([session.chunk])}::jsonb,
      digest_so_far = ${session.digestSoFar ?? null},
      expires_at = now() + make_interval(secs => ${lifeSeconds})
    where id = ${session.id} and state = 'open' and "offset" = ${session.from}
    returning id`
  return rows.length > 0
}

/** Ends a session without a result and queues its staged objects for deletion: these. Undefined where there was none. */
export async function cancelUpload(
  sql: Sql,
  { id, repository }: { id: string; repository: RepositoryName },
): Promise<Chunk[] | undefined> {
  const [row] = await sql<{ chunks: Chunk[] }[]>`
    with gone as (
      delete from uploads where id = ${id} and repository = ${repository} and expires_at > now() returning chunks
    ), spare as (
      insert into blob_deletions (storage_key)
      select chunk ->> 'key' from gone, jsonb_array_elements(gone.chunks) as chunk on conflict do nothing
    )
    select chunks from gone`
  return row?.chunks
}

/** Sessions that are neither finished nor expired. */
export async function countOpenUploads(sql: Sql): Promise<number> {
  const [row] = await sql<{ count: number }[]>`
    select count(*)::int as count from uploads where state = 'open' and expires_at > now()`
  return row?.count ?? 0
}

/** Removes up to `limit` expired sessions and queues their staged objects; answers how many. Any number may call it. */
export async function expireUploads(sql: Sql, limit: number): Promise<number> {
  const rows = await sql`
    with due as (
      select id from uploads where expires_at <= now() order by expires_at limit ${limit} for update skip locked
    ), gone as (
      delete from uploads u using due where u.id = due.id returning u.chunks
    ), spare as (
      insert into blob_deletions (storage_key)
      select chunk ->> 'key' from gone, jsonb_array_elements(gone.chunks) as chunk on conflict do nothing
    )
    select 1 from gone`
  return rows.length
}
