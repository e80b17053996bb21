import { type ObjectKey, storedKey } from '../blobs/keys.ts'
import type { Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Sql, Transaction } from './client.ts'

/** `quick`: that each object is there, and as long as it should be. `full`: that its bytes are right, too. */
export type ScrubMode = 'full' | 'quick'
export type ScrubPhase = 'blobs' | 'objects' | 'manifests'
export type ScrubCounts = {
  blobs: number
  bytes: number
  objects: number
  manifests: number
  found: number
  repaired: number
}

/** A pass as its process works at it. */
export type ScrubRun = { id: number; holder: string; phase: ScrubPhase; position: string } & ScrubCounts

/** How long a process may be silent before its pass is taken up by another, in seconds. */
const leaseSeconds = 30

/**
 * Takes up the pass of this mode that was left behind, or begins one. Undefined where a living process works at it.
 * The index lets one pass of a mode be open, and the row's lock one process take it.
 */
export async function takeRun(sql: Sql, mode: ScrubMode, holder: string): Promise<ScrubRun | undefined> {
  const [run] = await sql<ScrubRun[]>`
    insert into scrub_runs as r (mode, holder, leased_until)
    values (${mode}, ${holder}, now() + make_interval(secs => ${leaseSeconds}))
    on conflict (mode) where finished_at is null do update
      set holder = excluded.holder, leased_until = excluded.leased_until
      where r.leased_until < now()
    returning id, holder, phase, position, blobs, bytes, objects, manifests, found, repaired`
  return run
}

/** Writes down how far a pass is, and that its process lives; false where another one has taken it up. */
export async function advanceRun(sql: Sql | Transaction, run: ScrubRun): Promise<boolean> {
  const rows = await sql`
    update scrub_runs set leased_until = now() + make_interval(secs => ${leaseSeconds}),
      phase = ${run.phase}, position = ${run.position}, blobs = ${run.blobs}, bytes = ${run.bytes},
      objects = ${run.objects}, manifests = ${run.manifests}, found = ${run.found}, repaired = ${run.repaired}
    where id = ${run.id} and holder = ${run.holder} and finished_at is null
    returning id`
  return rows.length > 0
}

/** Says that the process lives; see advanceRun. */
export async function renewRun(sql: Sql, { id, holder }: ScrubRun): Promise<boolean> {
  const rows = await sql`
    update scrub_runs set leased_until = now() + make_interval(secs => ${leaseSeconds})
    where id = ${id} and holder = ${holder} and finished_at is null
    returning id`
  return rows.length > 0
}

/** Leaves a pass for whoever comes next, at once. */
export async function leaveRun(sql: Sql, { id, holder }: ScrubRun): Promise<void> {
  await sql`update scrub_runs set leased_until = now() - interval '1 second' where id = ${id} and holder = ${holder}`
}

export async function finishRun(tx: Transaction, { id, holder }: ScrubRun): Promise<void> {
  await tx`update scrub_runs set finished_at = now() where id = ${id} and holder = ${holder}`
}

/** A pass as it is shown. */
export type ScrubRunRow = {
  mode: ScrubMode
  phase: ScrubPhase
  /** Whether a process works at it; one that nobody works at waits to be taken up. */
  running: boolean
  /** Blobs there are, of which `blobs` are done. */
  total: number
  startedAt: string
  finishedAt: string | null
} & ScrubCounts

/** The passes under way, and the last finished one of each mode. */
export async function listRuns(sql: Sql): Promise<ScrubRunRow[]> {
  const rows = await sql<ScrubRunRow[]>`
    select mode, phase, finished_at is null and leased_until > now() as running, blobs, bytes, objects, manifests, found,
      repaired, case when finished_at is null
        then greatest(blobs, (select greatest(reltuples, 0)::bigint from pg_class where oid = 'blobs'::regclass))
        else blobs end as total,
      to_char(started_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as "startedAt",
      to_char(finished_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as "finishedAt"
    from (
      select * from scrub_runs where finished_at is null
      union all select distinct on (mode) * from scrub_runs where finished_at is not null
        and finished_at in (select max(finished_at) from scrub_runs where finished_at is not null group by mode)
    ) r
    order by started_at desc, id desc`
  return [...rows]
}

/** A blob as its row has it. */
export type BlobRow = { digest: Digest; size: number; key: ObjectKey; damaged: boolean }

/** Blobs after a digest, by their digests. */
export async function blobsAfter(sql: Sql, digest: string, limit: number): Promise<BlobRow[]> {
  const rows = await sql<{ digest: Digest; size: number; key: string; damaged: boolean }[]>`
    select digest, size, storage_key as key, damaged_at is not null as damaged from blobs
    where digest > ${digest} order by digest limit ${limit}`
  return rows.map((row) => ({ ...row, key: storedKey(row.key) }))
}

/** Which of these objects some row names: content, chunks, imports, exports, objects of repairs, and what is to be deleted. */
export async function namedObjects(
  sql: Sql,
  keys: readonly ObjectKey[],
  chunkUploads: readonly string[],
): Promise<Set<string>> {
  const wanted = sql`${keys as readonly string[]}::text[]`
  const rows = await sql<{ key: string }[]>`
    select storage_key as key from blobs where storage_key = any(${wanted})
    union all select storage_key from import_blobs where storage_key = any(${wanted})
    union all select storage_key from export_parts where storage_key = any(${wanted})
    union all select storage_key from blob_deletions where storage_key = any(${wanted})
    union all select copy_key from scrub_findings where copy_key = any(${wanted})
    union all select quarantine_key from scrub_findings where quarantine_key = any(${wanted})
    union all select chunk ->> 'key' from uploads u, jsonb_array_elements(u.chunks) as chunk
      where u.id = any(${chunkUploads as string[]}::text[]::uuid[])`
  return new Set(rows.map(({ key }) => key))
}

/**
 * Queues an object for deletion unless a row names it (see `namedObjects`), or its content is damaged: then it may be what
 * heals it. `digest`, `uploadId`: those of its key.
 */
export async function queueOrphan(
  sql: Sql | Transaction,
  { key, digest, uploadId }: { key: ObjectKey; digest: Digest | undefined; uploadId: string | undefined },
): Promise<boolean> {
  const rows = await sql`
    insert into blob_deletions (storage_key)
    select ${key} where not exists (select from blobs where storage_key = ${key})
      and not exists (select from import_blobs where storage_key = ${key})
      and not exists (select from export_parts where storage_key = ${key})
      and not exists (select from scrub_findings where copy_key = ${key} or quarantine_key = ${key})
      and not exists (select from blobs where digest = ${digest ?? null} and damaged_at is not null)
      -- No other session can name it: see chunkKey.
      and not exists (select from uploads u where u.id = ${uploadId ?? null}::text::uuid
        and u.chunks @> jsonb_build_array(jsonb_build_object('key', ${key}::text)))
    on conflict do nothing
    returning storage_key`
  return rows.length > 0
}

/** A manifest whose payload has another digest. */
export type WrongManifest = { repository: RepositoryName; digest: Digest; size: number; actual: string }

/** Looks at the next manifests, by repository and digest. `next`: where to go on; absent: that was all. */
export async function checkManifests(
  sql: Sql,
  position: string,
  limit: number,
): Promise<{ looked: number; wrong: WrongManifest[]; next: string | undefined }> {
  const [id, after = ''] = position.split(' ')
  const [row] = await sql<{ looked: number; wrong: WrongManifest[] | null; next: string | null }[]>`
    with page as materialized (
      select repository_id, digest, size, case when digest like 'sha512:%'
        then 'sha512:' || encode(sha512(payload), 'hex') else 'sha256:' || encode(sha256(payload), 'hex') end as actual
      from manifests where (repository_id, digest) > (${id || '0'}::bigint, ${after}) order by repository_id, digest limit ${limit}
    )
    select count(*)::int as looked,
      (select json_agg(json_build_object('repository', r.name, 'digest', p.digest, 'size', p.size, 'actual', p.actual))
        from page p join repositories r on r.id = p.repository_id where p.actual <> p.digest) as wrong,
      (select repository_id || ' ' || digest from page order by repository_id desc, digest desc limit 1) as next
    from page`
  const looked = row?.looked ?? 0
  return { looked, wrong: row?.wrong ?? [], next: looked === limit ? (row?.next ?? undefined) : undefined }
}

/** Gives a manifest the bytes that another repository has under the same digest; false where none has the right ones. */
export async function copyPayload(
  sql: Sql | Transaction,
  { repository, digest }: { repository: RepositoryName; digest: Digest },
): Promise<boolean> {
  const rows = await sql`
    update manifests m set payload = other.payload, size = other.size
    from repositories r, lateral (
      select o.payload, o.size from manifests o where o.digest = ${digest} and o.repository_id <> r.id
        and case when o.digest like 'sha512:%' then 'sha512:' || encode(sha512(o.payload), 'hex')
          else 'sha256:' || encode(sha256(o.payload), 'hex') end = o.digest
      limit 1
    ) other
    where r.name = ${repository} and m.repository_id = r.id and m.digest = ${digest}
    returning m.digest`
  return rows.length > 0
}
