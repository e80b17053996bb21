import type { RepositoryName } from '../oci/name.ts'
import type { Sql, Transaction } from './client.ts'
import type { Overrun } from './overrun.ts'

/** What the repositories of a glob may hold, and what they do. Undefined: as much as there is. */
export type QuotaRow = {
  glob: string
  maxBytes: number | null
  maxVersions: number | null
  bytes: number
  versions: number
  setBy: string
  setAt: Date
  measuredAt: Date | null
}

const columns = (sql: Sql | Transaction) => sql`
  glob, max_bytes as "maxBytes", max_versions as "maxVersions", bytes, versions, set_by as "setBy", set_at as "setAt",
  measured_at as "measuredAt"`

/** Every quota with its usage of now, by glob. */
export async function listQuotas(sql: Sql): Promise<QuotaRow[]> {
  const rows = await sql<QuotaRow[]>`select ${columns(sql)} from quota_usage order by glob`
  return [...rows]
}

export async function findQuota(sql: Sql, glob: string): Promise<QuotaRow | undefined> {
  const [row] = await sql<QuotaRow[]>`select ${columns(sql)} from quota_usage where glob = ${glob}`
  return row
}

/** The regular expressions of all quotas. */
export async function quotaPatterns(sql: Sql): Promise<string[]> {
  const rows = await sql<{ pattern: string }[]>`select pattern from quotas`
  return rows.map((row) => row.pattern)
}

export type QuotaLimits = {
  glob: string
  pattern: string
  maxBytes: number | undefined
  maxVersions: number | undefined
  setBy: string
}

/** Sets what a quota allows. True where there was none of this glob. */
export async function upsertQuota(sql: Sql | Transaction, quota: QuotaLimits): Promise<boolean> {
  const [row] = await sql<{ isNew: boolean }[]>`
    insert into quotas (glob, pattern, max_bytes, max_versions, set_by)
    values (${quota.glob}, ${quota.pattern}, ${quota.maxBytes ?? null}, ${quota.maxVersions ?? null}, ${quota.setBy})
    on conflict (glob) do update set max_bytes = excluded.max_bytes, max_versions = excluded.max_versions,
      set_by = excluded.set_by, set_at = excluded.set_at
    returning xmax = 0 as "isNew"`
  return row?.isNew ?? false
}

/** False where there was none. */
export async function deleteQuota(sql: Sql | Transaction, glob: string): Promise<boolean> {
  const rows = await sql`
    with gone as (
      delete from quotas where glob = ${glob} returning id
    ), changes as (
      delete from quota_changes c using gone where c.quota_id = gone.id
    )
    select id from gone`
  return rows.length > 0
}

/**
 * The quota that so many more bytes in a repository would go over, if there is one. Content that is linked there already
 * (`digest`) takes no room.
 */
export async function findOverrun(
  sql: Sql,
  { repository, bytes, digest }: { repository: RepositoryName; bytes: number; digest: string | undefined },
): Promise<Overrun | undefined> {
  const [row] = await sql<Overrun[]>`
    select u.glob, u.max_bytes as "maxBytes", u.max_versions as "maxVersions", u.bytes + ${bytes}::bigint as bytes, u.versions
    from quota_usage u
    where ${repository} ~ u.pattern and u.bytes + ${bytes}::bigint > u.max_bytes and not exists (
      select from repository_blobs
      where repository_id = (select id from repositories where name = ${repository}) and digest = ${digest ?? null})
    order by u.glob limit 1`
  return row
}

/**
 * Quotas whose usage is to be measured anew: once when whoever wrote as it was set, and did not see it, has ended; then
 * now and again, in case anything was missed. The oldest first.
 */
export async function quotasToMeasure(
  sql: Sql,
  { settleSeconds, everySeconds }: { settleSeconds: number; everySeconds: number },
): Promise<string[]> {
  const settle = sql`make_interval(secs => ${settleSeconds})`
  const rows = await sql<{ glob: string }[]>`
    select glob from quotas
    where measured_at is null or measured_at < now() - make_interval(secs => ${everySeconds})
      or (measured_at < set_at + ${settle} and set_at + ${settle} < now())
    order by measured_at nulls first, glob`
  return rows.map((row) => row.glob)
}

/** Locks a quota's row until the transaction ends: those who measure and fold take turns. */
export async function lockQuota(tx: Transaction, glob: string): Promise<void> {
  await tx`select from quotas where glob = ${glob} for no key update`
}

/**
 * Measures what the repositories of a quota hold. What is added up and what of quota_changes goes with it are seen by one
 * statement. The caller has locked the row before it.
 */
export async function measureQuota(tx: Transaction, glob: string): Promise<void> {
  await tx`
    with quota as (
      select id, pattern from quotas where glob = ${glob}
    ), mine as (
      select r.id from quota q join repositories r on r.name ~ q.pattern
    ), links as (
      select coalesce(sum(b.size), 0)::bigint as bytes
      from mine m join repository_blobs l on l.repository_id = m.id join blobs b on b.digest = l.digest
    ), stored as (
      select coalesce(sum(f.size), 0)::bigint as bytes, count(*) filter (where f.subject_digest is null) as versions
      from mine m join manifests f on f.repository_id = m.id
    ), counted as (
      delete from quota_changes c using quota q where c.quota_id = q.id
    )
    update quotas q set bytes = links.bytes + stored.bytes, versions = stored.versions, measured_at = now()
    from links, stored where q.glob = ${glob}`
}

/** Adds to every quota's row what has come since it was measured. */
export async function foldQuotas(sql: Sql): Promise<void> {
  await sql`select fold_quota(id) from quotas order by id`
}
