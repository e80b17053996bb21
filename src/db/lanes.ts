import type { Sql } from './client.ts'
import { type EventRow, eventColumns, eventsChannel } from './events.ts'

// Who sends what, and in which order. A lane holds what waits for one webhook about one pack. It is a row for as long as
// something waits, and whoever has claimed it sends its deliveries one after the other, by their positions: so a pack's
// events arrive in their order, one that fails holds back the later ones of its pack, and nothing else.
//
// Claiming sets `due_at` to the end of a lease and counts `claim` up. Every later statement names the claim, so a worker
// that was taken for dead changes nothing any more; each settled delivery renews the lease. A worker that dies in the
// middle leaves the lane to the next one when the lease is over, which sends that delivery again: at least once. A failed
// try sets `due_at` to the time of the next.
//
// `pending` is counted up by the relay that adds deliveries, in the same statement, and down as they end. A lane is deleted
// by whoever finds nothing waiting in it, if `pending` is still what it was then: the row itself says whether a relay
// came in between, for a look at the other table would be made with an older snapshot than the lock.

/** A lane that is ours until its lease ends. */
export type Lane = {
  webhookId: string
  lane: string
  claim: number
  webhook: string
  url: string
  secret: Buffer
  options: object
}

type LaneKey = Pick<Lane, 'webhookId' | 'lane' | 'claim'>

export type ClaimOptions = {
  /** How many lanes at most. */
  slots: number
  /** How many of one webhook at most, those that are `busy` already among them. */
  perWebhook: number
  busy: ReadonlyMap<string, number>
  leaseSeconds: number
}

/** Claims lanes that are due, the longest waiting first. */
export async function claimLanes(sql: Sql, { slots, perWebhook, busy, leaseSeconds }: ClaimOptions): Promise<Lane[]> {
  const rows = await sql<Lane[]>`
    with due as (
      select l.webhook_id, l.lane from webhooks w
      left join unnest(${[...busy.keys()]}::uuid[], ${[...busy.values()]}::int[]) as b (id, count) on b.id = w.id
      cross join lateral (
        select l.webhook_id, l.lane, l.due_at from webhook_lanes l
        where l.webhook_id = w.id and l.due_at <= now()
        order by l.due_at limit greatest(0, ${perWebhook} - coalesce(b.count, 0)) for update of l skip locked
      ) l
      where w.enabled
      order by l.due_at limit ${slots}
    )
    update webhook_lanes l set due_at = now() + make_interval(secs => ${leaseSeconds}), claim = l.claim + 1
    from due join webhooks w on w.id = due.webhook_id
    where l.webhook_id = due.webhook_id and l.lane = due.lane
    returning l.webhook_id as "webhookId", l.lane, l.claim, w.name as webhook, w.url, w.secret, w.options`
  return [...rows]
}

/** A delivery whose turn it is. `ageSeconds`: for how long it has waited. */
export type DueDelivery = { deliveryId: string; tries: number; ageSeconds: number; event: EventRow }

/** What waits in a lane, by position; `pending` for `leaveLane`. Undefined where the lane is ours no more. */
export async function dueDeliveries(
  sql: Sql,
  { webhookId, lane, claim }: LaneKey,
  limit: number,
): Promise<{ pending: number; due: DueDelivery[] } | undefined> {
  const rows = await sql<
    (EventRow & { pending: number; deliveryId: string | null; tries: number; ageSeconds: number })[]
  >`
    select l.pending, d.* from webhook_lanes l left join lateral (
      select d.id as "deliveryId", d.tries, extract(epoch from now() - d.queued_at)::float8 as "ageSeconds", ${eventColumns(sql)}
      from webhook_deliveries d join events e on e.position = d.position
      where d.webhook_id = l.webhook_id and d.lane = l.lane and d.state = 'waiting'
      order by d.position limit ${limit}
    ) d on true
    where l.webhook_id = ${webhookId} and l.lane = ${lane} and l.claim = ${claim}
    order by d.position`
  const [first] = rows
  if (!first) return undefined
  const due = rows.flatMap(({ pending: _, deliveryId, tries, ageSeconds, ...event }) =>
    deliveryId === null ? [] : [{ deliveryId, tries, ageSeconds, event }],
  )
  return { pending: first.pending, due }
}

/** What came of an attempt: a status, or a word for why there is none. */
export type AttemptRow = { at: Date; status: number | null; error: string | null; durationMs: number }

/** `retry`: after so many seconds, and the lane is given back until then. */
export type Settlement = 'delivered' | 'dead' | { retryAfterSeconds: number }

/** Writes down an attempt and what follows from it. False where the lane is ours no more: then nothing follows. */
export async function settle(
  sql: Sql,
  { webhookId, lane, claim }: LaneKey,
  deliveryId: string,
  attempt: AttemptRow,
  settlement: Settlement,
  leaseSeconds: number,
): Promise<boolean> {
  const { at, status, error, durationMs } = attempt
  const state = typeof settlement === 'string' ? settlement : 'waiting'
  const untilSeconds = typeof settlement === 'string' ? leaseSeconds : settlement.retryAfterSeconds
  const rows = await sql`
    with held as (
      update webhook_lanes set due_at = now() + make_interval(secs => ${untilSeconds}),
        pending = greatest(0, pending - ${state === 'waiting' ? 0 : 1})
      where webhook_id = ${webhookId} and lane = ${lane} and claim = ${claim}
      returning 1
    ), settled as (
      update webhook_deliveries set state = ${state}, tries = tries + 1,
        next_at = ${state === 'waiting' ? sql`now() + make_interval(secs => ${untilSeconds})` : null},
        ended_at = ${state === 'waiting' ? null : sql`now()`}
      where id = ${deliveryId} and exists (select from held)
    ), logged as (
      insert into webhook_attempts (delivery_id, at, status, error, duration_ms)
      select id, ${at}, ${status}::int, ${error}, ${durationMs}::int from webhook_deliveries where id = ${deliveryId}
    )
    select 1 from held`
  return rows.length > 0
}

/** Ends a lane in which nothing waited when `pending` was read. False where something has come since, or it is not ours. */
export async function leaveLane(sql: Sql, { webhookId, lane, claim }: LaneKey, pending: number): Promise<boolean> {
  const rows = await sql`
    delete from webhook_lanes
    where webhook_id = ${webhookId} and lane = ${lane} and claim = ${claim} and pending = ${pending}
    returning 1`
  return rows.length > 0
}

/** Gives a lane back with what waits in it: it is due at once. */
export async function giveBackLane(sql: Sql, { webhookId, lane, claim }: LaneKey): Promise<void> {
  await sql`
    update webhook_lanes set due_at = now(), claim = claim + 1
    where webhook_id = ${webhookId} and lane = ${lane} and claim = ${claim}`
}

/**
 * Makes ended deliveries of a webhook wait again, with all their tries: this one, or all that are dead. Those that wait
 * already are left. Answers how many there were.
 */
export async function redeliver(sql: Sql, webhookId: string, deliveryId: string | undefined): Promise<number> {
  const which =
    deliveryId === undefined ? sql`state = 'dead'` : sql`id = ${deliveryId} and state in ('delivered', 'dead')`
  const [row] = await sql<{ count: number }[]>`
    with again as (
      update webhook_deliveries set state = 'waiting', tries = 0, queued_at = now(), next_at = now(), ended_at = null
      where webhook_id = ${webhookId} and ${which} returning lane
    ), lanes as (
      insert into webhook_lanes (webhook_id, lane, pending)
      select ${webhookId}::uuid, lane, count(*) from again group by lane order by lane
      on conflict (webhook_id, lane) do update set pending = webhook_lanes.pending + excluded.pending
    )
    select count(*)::int as count, pg_notify(${eventsChannel}, '') from again`
  return row?.count ?? 0
}
