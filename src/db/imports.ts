import { type ObjectKey, storedKey } from '../blobs/keys.ts'
import type { Digest } from '../oci/digest.ts'
import type { Sql, Transaction } from './client.ts'

/** An import as one connection works at it: what is written for an older attempt finds no row. */
export type Attempt = { id: string; attempt: number }

export const importStates = ['receiving', 'verifying', 'published', 'failed'] as const
export type ImportState = (typeof importStates)[number]

/** How long a process may be silent before its import counts as left behind, in seconds. */
const leaseSeconds = 15

type Life = { principal: string; total: number | undefined; lifeSeconds: number }

/** Begins an import. False where there is one of this id. */
export async function insertImport(
  sql: Sql,
  id: string,
  { principal, total, lifeSeconds }: Life,
): Promise<Attempt | undefined> {
  const rows = await sql<{ attempt: number }[]>`
    insert into imports (id, principal, total, leased_until, expires_at)
    values (${id}, ${principal}, ${total ?? null}, now() + make_interval(secs => ${leaseSeconds}),
      now() + make_interval(secs => ${lifeSeconds}))
    on conflict (id) do nothing
    returning attempt`
  return rows[0] && { id, attempt: rows[0].attempt }
}

/** An import that is gone on with. */
export type Resumed = { attempt: number; resumeAt: number; index: Buffer | null; envelope: Buffer | null }

/**
 * Takes an import over from whatever connection had it; waits for one that is publishing it. Undefined where it is
 * published or somebody else's.
 */
export async function resumeImport(
  sql: Sql,
  id: string,
  { principal, total, lifeSeconds }: Life,
): Promise<Resumed | undefined> {
  const [row] = await sql<Resumed[]>`
    update imports set attempt = attempt + 1, state = 'receiving', error = null, report = null, finished_at = null,
      total = ${total ?? null}, leased_until = now() + make_interval(secs => ${leaseSeconds}),
      expires_at = now() + make_interval(secs => ${lifeSeconds})
    where id = ${id} and principal = ${principal} and state <> 'published'
    returning attempt, resume_at as "resumeAt", index_json as index, envelope`
  return row
}

/** Says how far an import is, and that its process lives. False where another connection has taken it over. */
export async function touchImport(
  sql: Sql,
  { id, attempt }: Attempt,
  progress: { received: number; blobs: number; resumeAt: number; lifeSeconds: number },
): Promise<boolean> {
  const rows = await sql`
    update imports set received = ${progress.received}, blobs = ${progress.blobs}, resume_at = ${progress.resumeAt},
      leased_until = now() + make_interval(secs => ${leaseSeconds}),
      expires_at = now() + make_interval(secs => ${progress.lifeSeconds})
    where id = ${id} and attempt = ${attempt} and state in ('receiving', 'verifying')
    returning id`
  return rows.length > 0
}

/** Keeps the index, or the signature, of a file that is under way. */
export async function keepHead(
  sql: Sql,
  { id, attempt }: Attempt,
  { index, indexDigest, envelope }: { index?: Buffer; indexDigest?: Digest; envelope?: Buffer },
): Promise<void> {
  await sql`
    update imports set index_json = coalesce(${index ?? null}, index_json),
      index_digest = coalesce(${indexDigest ?? null}, index_digest), envelope = coalesce(${envelope ?? null}, envelope)
    where id = ${id} and attempt = ${attempt}`
}

/** The file is whole. From here on nobody says that the process lives: it has so long to judge and to publish. */
export async function beginVerifying(sql: Sql, { id, attempt }: Attempt, leaseSeconds: number): Promise<void> {
  await sql`
    update imports set state = 'verifying', leased_until = now() + make_interval(secs => ${leaseSeconds})
    where id = ${id} and attempt = ${attempt} and state = 'receiving'`
}

/** The connection has gone, or a part of the registry is down: it can be gone on with, by anybody and at once. */
export async function leaveImport(sql: Sql, { id, attempt }: Attempt, error: object): Promise<void> {
  await sql`
    update imports set state = 'receiving', leased_until = now(), error = ${JSON.stringify(error)}::text::json
    where id = ${id} and attempt = ${attempt} and state in ('receiving', 'verifying')`
}

/** The file was judged and refused. What was stored of it stays for a while: the next try is cheaper for it. */
export async function failImport(
  sql: Sql,
  { id, attempt }: Attempt,
  { error, report, lifeSeconds }: { error: object; report: object | undefined; lifeSeconds: number },
): Promise<void> {
  await sql`
    update imports set state = 'failed', leased_until = now(), finished_at = now(), resume_at = 0,
      error = ${JSON.stringify(error)}::text::json, report = ${report ? JSON.stringify(report) : null}::text::json,
      expires_at = now() + make_interval(secs => ${lifeSeconds})
    where id = ${id} and attempt = ${attempt} and state <> 'published'`
}

/** An import as it is told. `alive`: a process is at it. `report`, `error`: JSON text. */
export type ImportRow = {
  id: string
  state: ImportState
  principal: string
  alive: boolean
  received: number
  total: number | null
  resumeAt: number
  blobs: number
  indexDigest: Digest | null
  report: string | null
  error: string | null
  startedAt: string
  finishedAt: string | null
  expiresAt: string
}

export async function findImport(sql: Sql, id: string): Promise<ImportRow | undefined> {
  const [row] = await sql<ImportRow[]>`select ${columns(sql)}, report::text as report from imports where id = ${id}`
  return row
}

/** The newest imports, without their reports, that began before a position; at most `limit`. */
export async function listImports(
  sql: Sql,
  {
    state,
    after,
    limit,
  }: { state: ImportState | undefined; after: { startedAt: string; id: string } | undefined; limit: number },
): Promise<ImportRow[]> {
  const rows = await sql<ImportRow[]>`
    select ${columns(sql)}, null as report from imports
    where (${state ?? null}::text is null or state = ${state ?? null})
      and ${after === undefined ? sql`true` : sql`(started_at, id) < (${after.startedAt}::text::timestamptz, ${after.id}::uuid)`}
    order by started_at desc, id desc limit ${limit}`
  return [...rows]
}

function columns(sql: Sql) {
  const time = (name: string) => sql`to_char(${sql(name)} at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`
  return sql`id, state, principal, leased_until > now() and state in ('receiving', 'verifying') as alive, received, total,
    resume_at as "resumeAt", blobs, index_digest as "indexDigest", error::text as error,
    ${time('started_at')} as "startedAt", ${time('finished_at')} as "finishedAt", ${time('expires_at')} as "expiresAt"`
}

/** A blob of an import. See the table. */
export type ImportBlob = {
  digest: Digest
  size: number
  key: ObjectKey | undefined
  payload: Buffer | undefined
  stored: boolean
}

/**
 * Notes blobs of an import. An object that was noted for one before, and did not get whole, is queued for deletion.
 * False where another connection has taken the import over.
 */
export async function noteBlobs(sql: Sql, { id, attempt }: Attempt, blobs: readonly ImportBlob[]): Promise<boolean> {
  const rows = await sql`
    with mine as (
      select id from imports where id = ${id} and attempt = ${attempt} for key share
    ), given as materialized (
      select g.digest, g.size, g.key, decode(g.payload, 'base64') as payload, g.stored
      from unnest(${blobs.map((blob) => blob.digest as string)}::text[], ${blobs.map((blob) => blob.size)}::bigint[],
        ${blobs.map((blob) => blob.key ?? null)}::text[],
        ${blobs.map((blob) => blob.payload?.toString('base64') ?? null)}::text[],
        ${blobs.map((blob) => String(blob.stored))}::text[]::boolean[]) as g (digest, size, key, payload, stored)
    ), replaced as (
      -- Locked: another import may be taking it over in this moment, and then it is not ours to throw away.
      select b.storage_key from mine join import_blobs b on b.import_id = mine.id
      join given g on g.digest = b.digest collate "C"
      where b.storage_key is not null and b.storage_key is distinct from g.key
      order by b.digest for update of b
    ), spare as (
      insert into blob_deletions (storage_key) select storage_key from replaced on conflict do nothing
    ), noted as (
      insert into import_blobs (import_id, digest, size, storage_key, payload, stored)
      select mine.id, g.digest, g.size, g.key, g.payload, g.stored from mine, given g order by g.digest collate "C"
      on conflict (import_id, digest) do update set size = excluded.size, storage_key = excluded.storage_key,
        payload = excluded.payload, stored = excluded.stored
    )
    select 1 from mine`
  return rows.length > 0
}

/** These objects of an import are whole. */
export async function markStored(sql: Sql, id: string, digests: readonly Digest[]): Promise<void> {
  await sql`
    update import_blobs set stored = true
    where import_id = ${id} and digest = any(${digests as readonly string[]}::text[])`
}

/** What need not be stored again. No `key`: the registry holds it, and will as long as the import has a row of it. */
export type Known = { digest: Digest; key: ObjectKey | undefined }

/**
 * Which of these blobs are there already: held by the registry, stored by this import before, or left by one that failed
 * or was left behind, from which they are taken over.
 *
 * What is held gets its row here, under the lock of the blob: the collector has deleted the blob before, and then it is
 * not held, or it comes after, and finds the row.
 */
export async function claimBlobs(
  sql: Sql,
  { id, attempt }: Attempt,
  digests: readonly Digest[],
  graceSeconds: number,
): Promise<Known[]> {
  const rows = await sql<{ digest: Digest; key: string | null }[]>`
    with wanted as materialized (
      select d collate "C" as digest from unnest(${digests as readonly string[]}::text[]) as d
    ), mine as (
      select id from imports where id = ${id} and attempt = ${attempt} for key share
    ), held as (
      update blobs b set review_at = now() + make_interval(secs => ${graceSeconds})
      from (
        select digest from blobs where digest in (select digest from wanted) and damaged_at is null
        order by digest for no key update
      ) as locked
      where b.digest = locked.digest returning b.digest, b.size
    ), relied_on as (
      insert into import_blobs (import_id, digest, size, stored)
      select mine.id, h.digest, h.size, true from mine, held h order by h.digest
      on conflict do nothing
    ), own as (
      select b.digest, b.storage_key from mine join import_blobs b on b.import_id = mine.id
      join wanted w on w.digest = b.digest
      where b.stored and b.storage_key is not null and b.digest not in (select digest from held)
    ), left_behind as (
      select distinct on (b.digest) b.import_id, b.digest from wanted w
      join import_blobs b on b.digest = w.digest and b.storage_key is not null and b.stored
      join imports i on i.id = b.import_id and i.state <> 'published' and i.leased_until < now()
      where i.id <> ${id} and b.digest not in (select digest from held) and not exists (
        select from import_blobs m where m.import_id = ${id} and m.digest = b.digest)
      order by b.digest, b.import_id
    ), taken as (
      update import_blobs b set import_id = mine.id from mine, left_behind l
      where b.import_id = l.import_id and b.digest = l.digest
      returning b.digest, b.storage_key
    )
    select digest, null as key from held
    union all select digest, storage_key from own
    union all select digest, storage_key from taken`
  return rows.map(({ digest, key }) => ({ digest, key: key === null ? undefined : storedKey(key) }))
}

/** Everything that an import has received and is whole. */
export async function receivedBlobs(sql: Sql, id: string): Promise<ImportBlob[]> {
  const rows = await sql<{ digest: Digest; size: number; key: string | null; payload: Buffer | null }[]>`
    select digest, size, storage_key as key, payload from import_blobs where import_id = ${id} and stored`
  return rows.map(({ digest, size, key, payload }) => ({
    ...{ digest, size, stored: true },
    key: key === null ? undefined : storedKey(key),
    payload: payload ?? undefined,
  }))
}

/** A blob that is here, and repositories (some of them) from which it can be had. */
export type HeldBlob = { digest: Digest; size: number; repositories: string[] }

/** As many repositories as are looked at to find one that may be read. */
const mostRepositories = 100

/** Which of these are blobs or manifests here, where, and of which size. */
export async function findHeld(sql: Sql | Transaction, digests: readonly Digest[]): Promise<HeldBlob[]> {
  const rows = await sql<HeldBlob[]>`
    select w.digest, found.size, found.repositories
    from unnest(${digests as readonly string[]}::text[]) as w (digest),
    lateral (
      select max(place.size)::bigint as size, array_agg(r.name) as repositories from (
        (select b.size, l.repository_id from blobs b join repository_blobs l on l.digest = b.digest
          where b.digest = w.digest and b.damaged_at is null limit ${mostRepositories})
        union all
        (select m.size, m.repository_id from manifests m where m.digest = w.digest limit ${mostRepositories})
      ) place join repositories r on r.id = place.repository_id
    ) found
    where found.size is not null`
  return [...rows]
}

/** The bytes of those that are manifests here. */
export async function heldManifests(
  sql: Sql | Transaction,
  digests: readonly Digest[],
): Promise<{ digest: Digest; payload: Buffer }[]> {
  const rows = await sql<{ digest: Digest; payload: Buffer }[]>`
    select w.digest, m.payload from unnest(${digests as readonly string[]}::text[]) as w (digest),
    lateral (select payload from manifests where digest = w.digest limit 1) m`
  return [...rows]
}

/** Where the content of those that are blobs here is. */
export async function heldKeys(sql: Sql, digests: readonly Digest[]): Promise<Map<Digest, ObjectKey>> {
  const rows = await sql<{ digest: Digest; key: string }[]>`
    select digest, storage_key as key from blobs where digest = any(${digests as readonly string[]}::text[])`
  return new Map(rows.map(({ digest, key }) => [digest, storedKey(key)]))
}

/**
 * Throws away what up to `limit` imports have stored and nobody came back for; their rows stay, with their reports.
 * Answers how many. Any number of processes may call it.
 */
export async function expireImports(sql: Sql, limit: number): Promise<number> {
  const rows = await sql`
    with due as (
      select i.id from imports i where i.expires_at <= now() and i.leased_until <= now()
        and exists (select from import_blobs b where b.import_id = i.id)
      order by i.expires_at limit ${limit} for update skip locked
    ), gone as (
      delete from import_blobs b using due where b.import_id = due.id returning b.storage_key
    ), ended as (
      update imports i set state = 'failed', attempt = i.attempt + 1, resume_at = 0, index_json = null,
        envelope = null, finished_at = coalesce(i.finished_at, now())
      from due where i.id = due.id and i.state <> 'published'
    ), spare as (
      insert into blob_deletions (storage_key) select storage_key from gone where storage_key is not null
      on conflict do nothing
    )
    select 1 from due`
  return rows.length
}

/** Forgets imports, with their reports, that ended so long ago; up to `limit`. Answers how many. */
export async function forgetImports(sql: Sql, afterSeconds: number, limit: number): Promise<number> {
  const rows = await sql`
    delete from imports where id in (
      select i.id from imports i
      where i.expires_at <= now() - make_interval(secs => ${afterSeconds})
        and not exists (select from import_blobs b where b.import_id = i.id)
      limit ${limit})
    returning id`
  return rows.length
}

/** Imports whose content is to be thrown away, for a person to see, after one of them; at most `limit`. See expireImports. */
export async function expiredImports(
  sql: Sql,
  { until, after, limit }: { until: string; after: { id: string } | undefined; limit: number },
): Promise<{ id: string; size: number; since: Date }[]> {
  const rows = await sql<{ id: string; size: number; since: Date }[]>`
    select i.id, sum(b.size)::bigint as size, i.expires_at as since from imports i
    join import_blobs b on b.import_id = i.id
    where i.expires_at <= ${until}::timestamptz and i.leased_until <= ${until}::timestamptz
      and ${after ? sql`i.id > ${after.id}` : sql`true`}
    group by i.id order by i.id limit ${limit}`
  return [...rows]
}
