import { type ObjectKey, storedKey } from '../blobs/keys.ts'
import type { Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Sql, Transaction } from './client.ts'

export const findingKinds = [
  'object-missing',
  'wrong-bytes',
  'unreadable',
  'wrong-size',
  'odd-key',
  'orphan-object',
  'orphan-chunk',
  'odd-object',
  'wrong-manifest',
] as const
export type FindingKind = (typeof findingKinds)[number]

/** Something that is wrong. `expected`, `actual`: in words, or a digest or a size. */
export type NewFinding = {
  kind: FindingKind
  digest?: Digest | undefined
  key?: ObjectKey | undefined
  repository?: RepositoryName | undefined
  size?: number | undefined
  expected?: string | undefined
  actual?: string | undefined
}

/** What a finding is about: of one thing there is one open finding, whatever is wrong with it. */
function subjectOf({ kind, digest, key, repository }: NewFinding): string {
  if (repository !== undefined) return `manifest ${repository}@${digest}`
  return digest === undefined || kind.startsWith('orphan') ? `object ${key}` : `blob ${digest}`
}

/** A finding that was written down. `isNew`: it was not known. `isQuarantined`: its object was put aside before. */
export type Noted = { id: number; isNew: boolean; isQuarantined: boolean }

/**
 * Writes a finding down, or that it was seen again. Content in quarantine keeps what was found first: its object is
 * missing since.
 */
export async function noteFinding(sql: Sql | Transaction, finding: NewFinding): Promise<Noted> {
  const { kind, digest, key, repository, size, expected, actual } = finding
  const [row] = await sql<Noted[]>`
    insert into scrub_findings as f (kind, subject, digest, storage_key, repository_id, size, expected, actual)
    values (${kind}, ${subjectOf(finding)}, ${digest ?? null}, ${key ?? null},
      (select id from repositories where name = ${repository ?? null}), ${size ?? null}, ${expected ?? null}, ${actual ?? null})
    on conflict (subject) where resolved_at is null do update set last_seen = now(),
      kind = case when f.quarantine_key is null then excluded.kind else f.kind end,
      storage_key = excluded.storage_key, size = excluded.size, expected = excluded.expected,
      actual = case when f.quarantine_key is null then excluded.actual else f.actual end
    returning f.id, (f.xmax = 0) as "isNew", f.quarantine_key is not null as "isQuarantined"`
  if (!row) throw new Error('a finding was not written down')
  return row
}

/** Names an object that a repair is about to make. */
export async function nameObject(
  sql: Sql | Transaction,
  id: number,
  column: 'copy_key' | 'quarantine_key',
  key: ObjectKey | null,
): Promise<void> {
  await sql`update scrub_findings set ${sql(column)} = ${key} where id = ${id}`
}

/** Ends a finding. `repaired`: how. */
export async function resolveFinding(sql: Sql | Transaction, id: number, repaired: string): Promise<void> {
  await sql`
    update scrub_findings set resolved_at = coalesce(resolved_at, now()), repaired = ${repaired} where id = ${id}`
}

/** Ends what was found of blobs that are right now. */
export async function resolveVerified(sql: Sql | Transaction, digests: readonly Digest[]): Promise<void> {
  await sql`
    update scrub_findings set resolved_at = now(), repaired = 'found right again'
    where resolved_at is null and repository_id is null and digest = any(${digests as readonly string[]}::text[])
      and kind in ('object-missing', 'wrong-bytes', 'unreadable', 'wrong-size', 'odd-key')`
}

/** Orphans that this pass has seen, by the ids of their findings. */
export async function orphansOf(
  sql: Sql,
  { runId, after, limit }: { runId: number; after: number; limit: number },
): Promise<{ id: number; key: ObjectKey }[]> {
  const rows = await sql<{ id: number; key: string }[]>`
    select f.id, f.storage_key as key from scrub_findings f join scrub_runs r on r.id = ${runId}
    where f.kind in ('orphan-object', 'orphan-chunk') and f.resolved_at is null and f.last_seen >= r.started_at
      and f.id > ${after}
    order by f.id limit ${limit}`
  return rows.map(({ id, key }) => ({ id, key: storedKey(key) }))
}

/** Ends what a whole pass did not see again: objects and manifests that are gone or right, blobs that are gone. */
export async function resolveUnseen(sql: Sql | Transaction, runId: number): Promise<void> {
  await sql`
    update scrub_findings f set resolved_at = now(), repaired = 'not there any more'
    from scrub_runs r
    where r.id = ${runId} and f.resolved_at is null and f.last_seen < r.started_at
      and (f.kind in ('orphan-object', 'orphan-chunk', 'odd-object', 'wrong-manifest')
        or not exists (select from blobs b where b.digest = f.digest))`
}

/** A finding as it is shown. `repositories`: those that have the content, with manifests of each that need it; some. */
export type FindingRow = {
  id: number
  kind: FindingKind
  digest: Digest | null
  key: string | null
  size: number | null
  expected: string | null
  actual: string | null
  /** Where a repair has put the wrong bytes. */
  quarantine: string | null
  firstSeen: string
  lastSeen: string
  resolvedAt: string | null
  repaired: string | null
  repositories: { name: RepositoryName; manifests: Digest[] }[]
}

const mostRepositories = 20
const mostManifests = 5

/** Findings, the newest first: the open ones, or all. */
export async function listFindings(
  sql: Sql,
  {
    all,
    kind,
    before,
    limit,
  }: { all: boolean; kind?: FindingKind | undefined; before?: number | undefined; limit: number },
): Promise<FindingRow[]> {
  const time = (name: string) => sql`to_char(${sql(name)} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`
  const rows = await sql<FindingRow[]>`
    select f.id, f.kind, f.digest, f.storage_key as key, f.size, f.expected, f.actual,
      f.quarantine_key as quarantine,
      ${time('first_seen')} as "firstSeen", ${time('last_seen')} as "lastSeen", ${time('resolved_at')} as "resolvedAt",
      f.repaired, coalesce(places.list, '[]') as repositories
    from scrub_findings f left join lateral (
      select json_agg(json_build_object('name', p.name, 'manifests', p.manifests) order by p.name) as list from (
        select r.name, case when f.repository_id is null then array(
            select e.manifest_digest from manifest_blobs e
            where e.repository_id = r.id and e.blob_digest = f.digest limit ${mostManifests})
          else array[f.digest] end as manifests
        from repositories r
        where r.id = f.repository_id or (f.repository_id is null and r.id in (
          select l.repository_id from repository_blobs l where l.digest = f.digest limit ${mostRepositories}))
      ) p
    ) places on f.digest is not null and f.kind not like 'orphan%'
    where ${all ? sql`true` : sql`f.resolved_at is null`}
      ${kind === undefined ? sql`` : sql`and f.kind = ${kind}`}
      ${before === undefined ? sql`` : sql`and f.id < ${before}`}
    order by f.id desc limit ${limit}`
  return [...rows]
}

/** How many findings of each kind are open. */
export async function countFindings(sql: Sql): Promise<Map<FindingKind, number>> {
  const rows = await sql<{ kind: FindingKind; count: number }[]>`
    select kind, count(*)::int as count from scrub_findings where resolved_at is null group by kind order by kind`
  return new Map(rows.map(({ kind, count }) => [kind, count]))
}

/** Names of some repositories that have a blob, for those who are told of it. */
export async function placesOf(sql: Sql | Transaction, digest: Digest): Promise<RepositoryName[]> {
  const rows = await sql<{ name: RepositoryName }[]>`
    select r.name from repository_blobs l join repositories r on r.id = l.repository_id
    where l.digest = ${digest} order by r.name limit ${mostRepositories}`
  return rows.map(({ name }) => name)
}
