import type { Sql, Transaction } from './client.ts'

export const outcomes = ['done', 'refused', 'failed'] as const
export type Outcome = (typeof outcomes)[number]

/** What is written down of a request. */
export type AuditEntry = {
  who: string
  kind: string
  tokenId: string | undefined
  address: string
  action: string
  path: string
  repository: string | undefined
  digest: string | undefined
  tags: string | undefined
  /** Why, where somebody said so. */
  reason: string | undefined
  outcome: Outcome
  status: number
  requestId: string
}

/** Adds events. */
export async function insertEvents(sql: Sql | Transaction, entries: readonly AuditEntry[]): Promise<void> {
  const column = (name: keyof AuditEntry) => entries.map((entry) => entry[name] ?? null)
  await sql`
    insert into audit_events (who, kind, token_id, address, action, path, repository, digest, tags, reason, outcome, status, request_id)
    select * from unnest(
      ${column('who') as string[]}::text[], ${column('kind') as string[]}::text[], ${column('tokenId') as string[]}::uuid[],
      ${column('address') as string[]}::text[], ${column('action') as string[]}::text[], ${column('path') as string[]}::text[],
      ${column('repository') as string[]}::text[], ${column('digest') as string[]}::text[], ${column('tags') as string[]}::text[],
      ${column('reason') as string[]}::text[], ${column('outcome') as string[]}::text[], ${column('status') as number[]}::int[], ${column('requestId') as string[]}::text[])`
}

/** An event as it is shown. Times are ISO 8601 in UTC with microseconds. */
export type AuditRow = {
  id: number
  at: string
  who: string
  kind: string
  tokenId: string | null
  address: string
  action: string
  path: string
  repository: string | null
  digest: string | null
  tags: string | null
  reason: string | null
  outcome: Outcome
  status: number
  requestId: string
}

export type AuditQuery = {
  who?: string | undefined
  repository?: string | undefined
  digest?: string | undefined
  outcome?: Outcome | undefined
  since?: string | undefined
  until?: string | undefined
  before?: number | undefined
  limit: number
}

/** Events, the newest first. */
export async function listEvents(sql: Sql, query: AuditQuery): Promise<AuditRow[]> {
  const { who, repository, digest, outcome, since, until, before, limit } = query
  const where = [
    who !== undefined && sql`and who = ${who}`,
    repository !== undefined && sql`and repository = ${repository}`,
    digest !== undefined && sql`and digest = ${digest}`,
    outcome !== undefined && sql`and outcome = ${outcome}`,
    since !== undefined && sql`and at >= ${since}::text::timestamptz`,
    until !== undefined && sql`and at < ${until}::text::timestamptz`,
    before !== undefined && sql`and id < ${before}`,
  ]
  const rows = await sql<AuditRow[]>`
    select id, to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as at, who, kind, token_id as "tokenId",
      address, action, path, repository, digest, tags, reason, outcome, status, request_id as "requestId"
    from audit_events where true ${where.map((part) => part || sql``)}
    order by id desc limit ${limit}`
  return [...rows]
}

/** Seals are made one after the other. */
export async function lockSeals(tx: Transaction): Promise<void> {
  await tx`select pg_advisory_xact_lock(${7_225_748_108}::bigint)`
}

/** Seals the oldest events that are not sealed, at most `most`; answers how many they were. */
export async function sealEvents(tx: Transaction, most: number): Promise<number> {
  const rows = await tx<{ events: number }[]>`
    with last as (
      select number, digest from audit_seals order by number desc limit 1
    ), batch as (
      select e.id, audit_text(e) as text from audit_events e where e.seal is null order by e.id limit ${most}
    ), made as (
      insert into audit_seals (number, events, digest)
      select coalesce((select number from last), 0) + 1, count(*),
        sha256(coalesce((select digest from last), ''::bytea) || sha256(convert_to(string_agg(text, E'\\n' order by id), 'UTF8')))
      from batch having count(*) > 0
      returning number, events
    ), sealed as (
      update audit_events e set seal = made.number from batch, made where e.id = batch.id
    )
    select events from made`
  return rows[0]?.events ?? 0
}

/** Seals after `number`, each with whether its events and the seal before are what they were. */
export async function checkSeals(
  sql: Sql,
  number: number,
  limit: number,
): Promise<{ number: number; events: number; digest: string; isIntact: boolean }[]> {
  const rows = await sql<{ number: number; events: number; digest: string; isIntact: boolean }[]>`
    select s.number, s.events, encode(s.digest, 'hex') as digest,
      coalesce((p.number is not null or s.number = 1) and s.events = h.events
        and s.digest = sha256(coalesce(p.digest, ''::bytea) || h.digest), false) as "isIntact"
    from audit_seals s
    left join audit_seals p on p.number = s.number - 1
    cross join lateral (
      select count(*)::int as events, sha256(convert_to(string_agg(audit_text(e), E'\\n' order by e.id), 'UTF8')) as digest
      from audit_events e where e.seal = s.number
    ) h
    where s.number > ${number} order by s.number limit ${limit}`
  return [...rows]
}

/** How many events wait to be sealed, and how many name a seal that is not there. */
export async function countLoose(sql: Sql): Promise<{ unsealed: number; orphaned: number }> {
  const [row] = await sql<{ unsealed: number; orphaned: number }[]>`
    select (select count(*)::int from audit_events where seal is null) as unsealed,
      (select count(*)::int from audit_events e
        where e.seal is not null and not exists (select from audit_seals s where s.number = e.seal)) as orphaned`
  return row ?? { unsealed: 0, orphaned: 0 }
}

/** How long the oldest event that is not sealed has been there, in seconds; 0 where all are. */
export async function unsealedSeconds(sql: Sql): Promise<number> {
  const [row] = await sql<{ seconds: number }[]>`
    select coalesce(extract(epoch from now() - (select at from audit_events where seal is null order by id limit 1)), 0)
      ::float8 as seconds`
  return Math.max(0, row?.seconds ?? 0)
}
