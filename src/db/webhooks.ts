import type { Sql, Transaction } from './client.ts'
import type { AttemptRow } from './lanes.ts'

/** A webhook as it is kept. `secret` is sealed; `options` are the caller's own. Times are ISO 8601 in UTC. */
export type WebhookRow<Options = object> = {
  id: string
  name: string
  url: string
  description: string | null
  types: string[]
  packs: string[]
  secret: Buffer
  options: Options
  enabled: boolean
  createdAt: string
}

export type NewWebhook = Omit<WebhookRow, 'id' | 'createdAt'>

const iso = 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'

const columns = (sql: Sql | Transaction) => sql`
  id, name, url, description, types, packs, secret, options, enabled,
  to_char(created_at at time zone 'utc', ${iso}) as "createdAt"`

/** A pattern with `*` as LIKE has it. */
function likeOf(pattern: string): string {
  return pattern.replace(/[\\%_]/g, '\\$&').replaceAll('*', '%')
}

/** Undefined where the name is taken. */
export async function insertWebhook(sql: Sql, webhook: NewWebhook): Promise<WebhookRow | undefined> {
  const { name, url, description, types, packs, secret, options, enabled } = webhook
  const [row] = await sql<WebhookRow[]>`
    insert into webhooks (name, url, description, types, packs, type_patterns, pack_patterns, secret, options, enabled)
    values (${name}, ${url}, ${description}, ${types}, ${packs}, ${types.map(likeOf)}, ${packs.map(likeOf)}, ${secret},
      ${sql.json(options as never)}, ${enabled})
    on conflict (name) do nothing
    returning ${columns(sql)}`
  return row
}

/** Replaces what a webhook is, but for its name and secret. Undefined where there is none of this name. */
export async function updateWebhook(
  sql: Sql,
  name: string,
  webhook: Omit<NewWebhook, 'name' | 'secret'>,
): Promise<WebhookRow | undefined> {
  const { url, description, types, packs, options, enabled } = webhook
  const [row] = await sql<WebhookRow[]>`
    update webhooks set url = ${url}, description = ${description}, types = ${types}, packs = ${packs},
      type_patterns = ${types.map(likeOf)}, pack_patterns = ${packs.map(likeOf)}, options = ${sql.json(options as never)},
      enabled = ${enabled}, updated_at = now()
    where name = ${name} returning ${columns(sql)}`
  return row
}

export async function findWebhook(sql: Sql, name: string): Promise<WebhookRow | undefined> {
  const [row] = await sql<WebhookRow[]>`select ${columns(sql)} from webhooks where name = ${name}`
  return row
}

/** A webhook with how it goes. `failingSince`: when the oldest of those that wait after a failed try was queued. */
export type WebhookState = WebhookRow & { waiting: number; dead: number; failingSince: string | null }

export async function listWebhooks(sql: Sql): Promise<WebhookState[]> {
  const rows = await sql<WebhookState[]>`
    select ${columns(sql)},
      (select coalesce(sum(l.pending), 0)::int from webhook_lanes l where l.webhook_id = w.id) as waiting,
      (select count(*)::int from webhook_deliveries d where d.webhook_id = w.id and d.state = 'dead') as dead,
      (select to_char(min(d.queued_at) at time zone 'utc', ${iso}) from webhook_deliveries d
        where d.webhook_id = w.id and d.state = 'waiting' and d.tries > 0) as "failingSince"
    from webhooks w order by name limit 10000`
  return [...rows]
}

/** With its deliveries and their log. False where there was none. */
export async function deleteWebhook(sql: Sql, name: string): Promise<boolean> {
  return (await sql`delete from webhooks where name = ${name} returning id`).length > 0
}

export const deliveryStates = ['waiting', 'delivered', 'dead'] as const
export type DeliveryState = (typeof deliveryStates)[number]

/** A delivery as it is shown; `status`, `error`: of its last attempt. */
export type DeliveryRow = {
  id: string
  position: number
  event: string
  type: string
  subject: string
  state: DeliveryState
  tries: number
  queuedAt: string
  nextAt: string | null
  endedAt: string | null
  status: number | null
  error: string | null
}

export type DeliveryQuery = {
  state?: DeliveryState | undefined
  /** Only those of events before this position. */
  before?: number | undefined
  /** Only this one. */
  id?: string | undefined
  limit: number
}

/** Deliveries of a webhook, those of the newest events first. */
export async function listDeliveries(
  sql: Sql,
  webhookId: string,
  { state, before, id, limit }: DeliveryQuery,
): Promise<DeliveryRow[]> {
  const time = (column: ReturnType<Sql>) => sql`to_char(${column} at time zone 'utc', ${iso})`
  const rows = await sql<DeliveryRow[]>`
    select d.id, d.position, e.event_id as event, e.type, e.subject, d.state, d.tries, ${time(sql`d.queued_at`)} as "queuedAt",
      ${time(sql`d.next_at`)} as "nextAt", ${time(sql`d.ended_at`)} as "endedAt", a.status, a.error
    from webhook_deliveries d join events e on e.position = d.position
    left join lateral (
      select a.status, a.error from webhook_attempts a where a.delivery_id = d.id order by a.id desc limit 1
    ) a on true
    where d.webhook_id = ${webhookId}
      ${state === undefined ? sql`` : sql`and d.state = ${state}`}
      ${before === undefined ? sql`` : sql`and d.position < ${before}`}
      ${id === undefined ? sql`` : sql`and d.id = ${id}`}
    order by d.position desc limit ${limit}`
  return [...rows]
}

/** The attempts at a delivery, the oldest first, at most `limit` of the newest. */
export async function listAttempts(
  sql: Sql,
  deliveryId: string,
  limit: number,
): Promise<(Omit<AttemptRow, 'at'> & { at: string })[]> {
  const rows = await sql<(Omit<AttemptRow, 'at'> & { at: string })[]>`
    select to_char(a.at at time zone 'utc', ${iso}) as at, a.status, a.error, a.duration_ms as "durationMs" from (
      select * from webhook_attempts where delivery_id = ${deliveryId} order by id desc limit ${limit}
    ) a order by a.id`
  return [...rows]
}

/** Forgets what was delivered so long ago, at most `most`; answers how many. Dead ones stay as long as their events. */
export async function forgetDeliveries(sql: Sql, keptSeconds: number, most: number): Promise<number> {
  const rows = await sql`
    delete from webhook_deliveries where id = any(array(
      select id from webhook_deliveries
      where ended_at < now() - make_interval(secs => ${keptSeconds}) and state = 'delivered' limit ${most}))
    returning 1`
  return rows.length
}

/** How many deliveries wait and are dead, and for how long the oldest has waited, in seconds. */
export async function countDeliveries(sql: Sql): Promise<{ waiting: number; dead: number; oldestSeconds: number }> {
  const [row] = await sql<{ waiting: number; dead: number; oldestSeconds: number }[]>`
    select (select coalesce(sum(pending), 0)::int from webhook_lanes) as waiting,
      (select count(*)::int from webhook_deliveries where state = 'dead') as dead,
      coalesce((select extract(epoch from now() - min(d.queued_at)) from webhook_deliveries d join webhooks w on w.id = d.webhook_id
          where d.state = 'waiting' and w.enabled), 0)::float8 as "oldestSeconds"`
  return row ?? { waiting: 0, dead: 0, oldestSeconds: 0 }
}
