import { type ObjectKey, storedKey } from '../blobs/keys.ts'
import type { Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Sql } from './client.ts'
import { healBlobs } from './damage.ts'
import { repositoryNamed, repositoryOf } from './repositories.ts'

/** A blob as one repository sees it. `reviewDueSeconds`: until the collector looks at its link; undefined: it will not. */
export type LinkedBlob = { size: number; key: ObjectKey; reviewDueSeconds: number | undefined }

const oneBlob = `
  select b.size, b.storage_key, extract(epoch from l.review_at - now())::float8
  from repository_blobs l join blobs b on b.digest = l.digest and b.damaged_at is null
  where l.repository_id = ${repositoryNamed('$1')} and l.digest = $2`

/** A single question has no lists to unpack. */
async function findLinkedBlob(sql: Sql, { repository, digest }: BlobQuestion): Promise<LinkedBlob | undefined> {
  const [row] = await sql.unsafe(oneBlob, [repository, digest], { prepare: true }).values()
  if (!row) return undefined
  const [size, key, due] = row as unknown as [number, string, number | null]
  return { size, key: storedKey(key), reviewDueSeconds: due ?? undefined }
}

type BlobQuestion = { repository: RepositoryName; digest: Digest }

/**
 * Looks up many blobs, each in its repository; the answers stand in the order of the questions. See findManifests. One that
 * is known to be damaged is as if it were not there: so whoever has it stores it again.
 */
export async function findLinkedBlobs(sql: Sql, asked: BlobQuestion[]): Promise<(LinkedBlob | undefined)[]> {
  const [only] = asked
  if (only && asked.length === 1) return [await findLinkedBlob(sql, only)]
  const rows = await sql`
    select concat_ws(' ', q.i, b.size, b.storage_key,
      extract(epoch from l.review_at - now()))
    from unnest(
      string_to_array(${asked.map((a) => a.repository).join(' ')}::text, ' '),
      string_to_array(${asked.map((a) => a.digest).join(' ')}::text, ' '))
      with ordinality as q (name, digest, i)
    ${sql.unsafe(repositoryOf('q.name'))}
    cross join lateral (
      select review_at from repository_blobs where repository_id = r.id and digest = q.digest limit 1
    ) l
    cross join lateral (
      select size, storage_key from blobs where digest = q.digest and damaged_at is null limit 1
    ) b`.values()
  const found: (LinkedBlob | undefined)[] = new Array(asked.length)
  for (const [text] of rows as unknown as [string][]) {
    const [i = '', size, key = '', due] = text.split(' ')
    const reviewDueSeconds = due === undefined ? undefined : Number(due)
    found[Number(i) - 1] = { size: Number(size), key: storedKey(key), reviewDueSeconds }
  }
  return found
}

/**
 * Content to be linked into a repository. `key`: where its bytes were just stored; absent: the registry has them.
 * `closes`: its upload session has a row, which is closed along with it.
 */
export type Arrival = {
  repository: RepositoryName
  digest: Digest
  size: number
  key?: ObjectKey
  uploadId?: string
  closes?: boolean
}

/**
 * Commits stored content: the blob's row (or, if another upload of the same content was first, its row is kept and our
 * object queued for deletion), the link, and the session's end. Answers true for each arrival that is now linked; false:
 * its repository does not exist yet, or the content is not held, or the session was cancelled.
 *
 * One statement for what was stored, one for what is held. Each locks blobs in the order of their digests and then links
 * in the order of theirs, so of any number of them none waits for one that waits for it; as one statement it would lock
 * the blobs of one kind before those of the other.
 */
export async function linkArrivals(sql: Sql, arrivals: Arrival[], graceSeconds: number): Promise<boolean[]> {
  const stored = arrivals.filter(({ key }) => key !== undefined)
  if (stored.length === 0) return linkHeld(sql, arrivals, graceSeconds)
  if (stored.length === arrivals.length) return linkStored(sql, arrivals, graceSeconds)
  const held = arrivals.filter(({ key }) => key === undefined)
  const ofStored = await linkStored(sql, stored, graceSeconds)
  const ofHeld = await linkHeld(sql, held, graceSeconds)
  return arrivals.map(({ key }) => (key === undefined ? ofHeld.shift() : ofStored.shift()) ?? false)
}

/**
 * `on conflict do update`, not `do nothing`: it locks the row against the collector, and inserts it anew where the
 * collector has just deleted it.
 */
const storedBlobs = `
  insert into blobs (digest, size, storage_key, verified_at, review_at)
  select distinct on (g.digest) g.digest, g.size, g.key, now(), now() + make_interval(secs => $6)
  from given g order by g.digest
  on conflict (digest) do update set review_at = excluded.review_at
  returning digest, storage_key, damaged_at is not null as damaged`

/** Objects of content that another was first to store. */
const spareObjects = `, spare as (
    insert into blob_deletions (storage_key)
    select g.key from given g join present p on p.digest = g.digest where p.storage_key <> g.key and not p.damaged
    on conflict do nothing
  )`

/** Where the collector has just deleted the row, or the content is damaged, there is none to update, and nothing is linked. */
const heldBlobs = `
  update blobs b set review_at = now() + make_interval(secs => $6)
  from (
    select digest from blobs where digest in (select g.digest from given g) and damaged_at is null
    order by digest for no key update
  ) as locked
  where b.digest = locked.digest
  returning b.digest, false as damaged`

/** The part that few arrivals need is left out where none does: it costs the server as much as the rest does. */
const closedSessions = `, closed as (
    update uploads u set state = 'closed', digest = g.digest, chunks = '[]'
    from given g where u.id = g.upload and u.state = 'open'
  )`

const word = (place: number) => `string_to_array($${place}::text, ' ', '-')`

const linking = (present: string, further: string) => `
  with given as materialized (
    select g.*, r.id as repository_id from unnest(
      ${word(1)}, ${word(2)}, ${word(3)}::bigint[], ${word(4)}, ${word(5)}::uuid[])
      with ordinality as g (name, digest, size, key, upload, i)
    ${repositoryOf('g.name')}
    where not exists (select from uploads u where u.id = g.upload and u.state = 'cancelled')
  ), present as (${present}
  ), linked as (
    insert into repository_blobs (repository_id, digest, review_at)
    select distinct g.repository_id, g.digest, now() + make_interval(secs => $6)
    from given g join present p on p.digest = g.digest
    order by 1, 2
    on conflict (repository_id, digest) do update set review_at = excluded.review_at
  )${further}
  select g.i::int, p.damaged from given g join present p on p.digest = g.digest`

/** Texts that are made once, and arrivals as one text a column: to put either together anew took the driver as long as the rest of its work. */
const linkStored = linkings(storedBlobs, spareObjects)
const linkHeld = linkings(heldBlobs, '')

function linkings(present: string, further: string) {
  const [plain, closing] = [linking(present, further), linking(present, further + closedSessions)]
  return async (sql: Sql, arrivals: Arrival[], graceSeconds: number): Promise<boolean[]> => {
    const words = (of: (arrival: Arrival) => string | number | undefined) =>
      arrivals.map((arrival) => of(arrival) ?? '-').join(' ')
    const columns = [
      ...[words((a) => a.repository), words((a) => a.digest), words((a) => a.size)],
      ...[words((a) => a.key), words((a) => a.uploadId)],
    ]
    const text = arrivals.some((arrival) => arrival.closes) ? closing : plain
    const rows = await sql.unsafe<{ i: number; damaged: boolean }[]>(text, [...columns, graceSeconds], {
      prepare: true,
    })
    const done: boolean[] = new Array(arrivals.length).fill(false)
    for (const { i } of rows) done[i - 1] = true
    const healing = rows.filter(({ damaged }) => damaged).map(({ i }) => arrivals[i - 1])
    const stored = healing.flatMap((arrival) => (arrival?.key ? [{ ...arrival, key: arrival.key }] : []))
    if (stored.length > 0) await healBlobs(sql, stored)
    return done
  }
}

/** Brings a repository into being. */
export async function ensureRepository(sql: Sql, name: RepositoryName): Promise<void> {
  await sql`insert into repositories (name) values (${name}) on conflict do nothing`
}

/** Links a blob of repository `from` into `to`. False where `from` does not have it, or it is damaged. */
export async function mountBlob(
  sql: Sql,
  { from, to, digest }: { from: RepositoryName; to: RepositoryName; digest: Digest },
  graceSeconds: number,
): Promise<boolean> {
  const rows = await sql`
    with source as (
      select b.digest from repository_blobs l join blobs b on b.digest = l.digest and b.damaged_at is null
      where l.repository_id = (select id from repositories where name = ${from}) and l.digest = ${digest}
      for key share of l, b
    ), made as (
      insert into repositories (name)
      select ${to} from source where not exists (select from repositories where name = ${to})
      on conflict do nothing returning id
    ), target as (
      select id from made union all select id from repositories where name = ${to}
    )
    insert into repository_blobs (repository_id, digest, review_at)
    select t.id, s.digest, now() + make_interval(secs => ${graceSeconds}) from target t, source s
    on conflict (repository_id, digest) do update set review_at = excluded.review_at
    returning digest`
  return rows.length > 0
}

/** Repositories that have the blob: candidates for a mount without a named source. */
export async function repositoriesWithBlob(sql: Sql, digest: Digest, limit: number): Promise<RepositoryName[]> {
  const rows = await sql<{ name: RepositoryName }[]>`
    select r.name from repository_blobs l join repositories r on r.id = l.repository_id
    where l.digest = ${digest} limit ${limit}`
  return rows.map((row) => row.name)
}

/**
 * Keeps a link from the collector for the grace from now on, for a client is to be told that the blob exists. False
 * where it is gone, or is not to be looked at any more. The blob stays as long as its link does.
 */
export async function postponeReview(
  sql: Sql,
  { repository, digest }: { repository: RepositoryName; digest: Digest },
  graceSeconds: number,
): Promise<boolean> {
  const rows = await sql`
    update repository_blobs set review_at = now() + make_interval(secs => ${graceSeconds})
    where repository_id = (select id from repositories where name = ${repository}) and digest = ${digest}
      and review_at is not null
    returning digest`
  return rows.length > 0
}

/**
 * Removes the link of a blob to a repository; its bytes are the collector's matter. False where there was none.
 * Throws PostgreSQL's foreign key violation while a manifest of the repository holds the blob.
 */
export async function unlinkBlob(
  sql: Sql,
  { repository, digest }: { repository: RepositoryName; digest: Digest },
  graceSeconds: number,
): Promise<boolean> {
  // The blob is locked before its link, as everywhere: the deletion needs what the review returns.
  const rows = await sql`
    with review as (
      update blobs b set review_at = now() + make_interval(secs => ${graceSeconds})
      from repository_blobs l
      where l.repository_id = (select id from repositories where name = ${repository}) and l.digest = ${digest}
        and b.digest = l.digest
      returning l.repository_id, l.digest
    )
    delete from repository_blobs l using review v
    where l.repository_id = v.repository_id and l.digest = v.digest
    returning l.digest`
  return rows.length > 0
}

/**
 * Whether the registry holds content of this digest in any repository, undamaged; never told to a client. If so it stays for the
 * grace from now on, whatever becomes of its links.
 */
export async function holdBlob(sql: Sql, digest: Digest, graceSeconds: number): Promise<boolean> {
  const rows = await sql`
    update blobs set review_at = greatest(review_at, now() + make_interval(secs => ${graceSeconds}))
    where digest = ${digest} and damaged_at is null returning 1`
  return rows.length > 0
}
