import { createSecretKey, type KeyObject } from 'node:crypto'
import { type ObjectKey, storedKey } from '../blobs/keys.ts'
import type { Algorithm, Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Sql } from './client.ts'

export type Chunk = { key: ObjectKey; size: number }

/** An upload session. `closedAs`: what it became, where it is closed. */
export type UploadSession = {
  id: string
  repository: RepositoryName
  algorithm: Algorithm
  offset: number
  digestSoFar: Digest | undefined
  chunkCount: number
  state: 'open' | 'closed' | 'cancelled'
  closedAs: Digest | undefined
}

/** The key that session ids are signed with, the same for every process. */
export async function uploadSecret(sql: Sql): Promise<KeyObject> {
  const [row] = await sql<{ secret: Buffer }[]>`select secret from secrets where name = 'uploads'`
  if (!row) throw new Error('The database has no key for upload sessions; its row in "secrets" was deleted.')
  return createSecretKey(row.secret)
}

/** What somebody has under way in uploads that have a chunk. */
export type UploadsOpen = { count: number; bytes: number }

/** `digest`: of content that may be held. `owner`: whose uploads are counted. `whole`: the chunks are wanted too. */
type UploadQuestion = {
  id: string
  repository: RepositoryName
  digest?: Digest
  owner?: string | undefined
  whole?: boolean
}

/** `chunks`: in their order, where they were asked for; else none. */
type UploadAnswer = { session: UploadSession | undefined; chunks: Chunk[]; held: boolean; open: UploadsOpen }

/**
 * Looks up sessions, with the same question what `owner` has under way in all of theirs, and whether the registry holds
 * content of a digest already (in any repository; never told to a client). The answers stand in the order of the questions.
 */
export async function findUploads(sql: Sql, asked: UploadQuestion[]): Promise<UploadAnswer[]> {
  type Row = {
    i: number
    algorithm: Algorithm
    offset: number
    soFar: Digest | null
    chunks: { key: string; size: number }[] | null
    chunkCount: number
    digest: Digest | null
    state: UploadSession['state'] | null
    held: boolean
    count?: number
    bytes?: number
  }
  // Left out where nobody asks for it.
  const owned = asked.some(({ owner }) => owner !== undefined)
  const counted = sql`, unnest(${asked.map((a) => a.owner ?? null)}::text[]) with ordinality as w (owner, n),
    lateral (
      select count(*)::int as count, coalesce(sum(o."offset"), 0)::bigint as bytes
      from uploads o where o.owner = w.owner and o.state = 'open' and o.expires_at > now()
    ) m where w.n = q.i`
  const rows = await sql<Row[]>`
    select q.i::int, u.algorithm, u."offset", u.digest_so_far as "soFar", u.digest, u.state,
      case when q.whole then u.chunks end as chunks, jsonb_array_length(u.chunks) as "chunkCount",
      exists (select from blobs b where b.digest = q.digest and b.damaged_at is null) as held ${owned ? sql`, m.count, m.bytes` : sql``}
    from unnest(${asked.map((a) => a.id)}::uuid[], ${asked.map((a) => a.repository)}::text[],
      ${asked.map((a) => a.digest ?? null)}::text[], ${asked.map((a) => String(a.whole ?? false))}::text[]::boolean[])
      with ordinality as q (id, repository, digest, whole, i)
    left join uploads u on u.id = q.id and u.repository = q.repository and u.expires_at > now()
    ${owned ? counted : sql``}`
  const found = asked.map(
    (): UploadAnswer => ({
      ...{ session: undefined, chunks: [], held: false },
      open: { count: 0, bytes: 0 },
    }),
  )
  for (const row of rows) {
    const question = asked[row.i - 1]
    if (!question) continue
    const session = row.state && {
      id: question.id,
      repository: question.repository,
      algorithm: row.algorithm,
      offset: row.offset,
      digestSoFar: row.soFar ?? undefined,
      chunkCount: row.chunkCount,
      state: row.state,
      closedAs: row.digest ?? undefined,
    }
    const open = { count: row.count ?? 0, bytes: row.bytes ?? 0 }
    const chunks = (row.chunks ?? []).map(({ key, size }) => ({ key: storedKey(key), size }))
    found[row.i - 1] = { held: row.held, session: session ?? undefined, chunks, open }
  }
  return found
}

type Append = {
  id: string
  repository: RepositoryName
  algorithm: Algorithm
  from: number
  chunk: Chunk
  digestSoFar: Digest | undefined
  /** Who sends it, as their limits are counted. */
  owner?: string | undefined
}

/**
 * Adds a staged chunk to a session that still stands at `from`; false where it does not (another writer was first, or
 * it was cancelled). The comparison and the write are one statement, so of two writers at one offset one wins.
 */
export async function appendChunk(sql: Sql, { id, from, chunk, digestSoFar }: Append, life: number): Promise<boolean> {
  const rows = await sql`
    update uploads set
      "offset" = "offset" + ${chunk.size},
      chunks = chunks || ${sql.json([chunk])}::jsonb,
      digest_so_far = ${digestSoFar ?? null},
      expires_at = now() + make_interval(secs => ${life})
    where id = ${id} and state = 'open' and "offset" = ${from}
    returning id`
  return rows.length > 0
}

/** The first chunk of a session brings its row into being; false where there is one already. */
export async function insertFirstChunk(sql: Sql, append: Append, life: number): Promise<boolean> {
  const { id, repository, algorithm, chunk, digestSoFar, owner } = append
  const rows = await sql`
    insert into uploads (id, repository, owner, algorithm, "offset", digest_so_far, chunks, expires_at)
    values (${id}, ${repository}, ${owner ?? null}, ${algorithm}, ${chunk.size}, ${digestSoFar ?? null},
      ${sql.json([chunk])}, now() + make_interval(secs => ${life}))
    on conflict (id) do nothing
    returning id`
  return rows.length > 0
}

/**
 * Ends an open session without a result and queues its staged objects for deletion: these. Undefined where there was
 * none. The row stays until it expires, so that a signed id does not begin anew.
 */
export async function cancelUpload(
  sql: Sql,
  { id, repository }: { id: string; repository: RepositoryName },
): Promise<Chunk[] | undefined> {
  const [row] = await sql<{ chunks: Chunk[] }[]>`
    with open as (
      select id, chunks from uploads
      where id = ${id} and repository = ${repository} and state = 'open' and expires_at > now() for update
    ), ended as (
      update uploads u set state = 'cancelled', chunks = '[]' from open where u.id = open.id
    ), spare as (
      insert into blob_deletions (storage_key)
      select chunk ->> 'key' from open, jsonb_array_elements(open.chunks) as chunk on conflict do nothing
    )
    select chunks from open`
  return row?.chunks
}

/** Notes that a session without a chunk is cancelled; false where it has a row. */
export async function insertCancelled(
  sql: Sql,
  { id, repository }: { id: string; repository: RepositoryName },
  life: number,
): Promise<boolean> {
  const rows = await sql`
    insert into uploads (id, repository, state, expires_at)
    values (${id}, ${repository}, 'cancelled', now() + make_interval(secs => ${life}))
    on conflict (id) do nothing
    returning id`
  return rows.length > 0
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

/** The staged objects that these sessions name. */
export async function stagedChunks(sql: Sql, ids: readonly string[]): Promise<Set<ObjectKey>> {
  const rows = await sql<{ key: string }[]>`
    select chunk ->> 'key' as key from uploads u, jsonb_array_elements(u.chunks) as chunk
    where u.id = any(${ids as string[]}::text[]::uuid[])`
  return new Set(rows.map(({ key }) => storedKey(key)))
}

/** Sessions that expired by `until`, for a person to see, after one of them; at most `limit`. */
export async function expiredUploads(
  sql: Sql,
  { until, after, limit }: { until: string; after: { id: string } | undefined; limit: number },
): Promise<{ id: string; repository: string; size: number; since: Date }[]> {
  const rows = await sql<{ id: string; repository: string; size: number; since: Date }[]>`
    select id, repository, "offset" as size, expires_at as since from uploads
    where state = 'open' and expires_at <= ${until}::text::timestamptz and ${after ? sql`id > ${after.id}` : sql`true`}
    order by id limit ${limit}`
  return [...rows]
}
