import type { PackId } from '../packs/pack.ts'
import { type Fragment, noteEvents, type Sql, type Transaction } from './client.ts'

// What happened is written down in the transaction in which it happened, so an event is there when it is true, and never
// otherwise. Everybody who is told reads a single order, from which nothing is ever missing, by two steps:
//
// 1. The writer adds rows to `event_outbox`, one statement, no row that others wait for. Ids of the outbox come from a
//    sequence, so they do not say who commits first: 7 may come into sight after 8. But what concerns a pack is written
//    under the pack's lock (registry/packs.ts), and the next to hold it takes a later id: of one pack, ids and commits
//    have the same order.
// 2. A relay (`relayEvents`) takes the advisory lock, and in the next statement, whose snapshot is younger than the lock,
//    moves all it sees from the outbox to `events`, by their ids. That gives each its position. The lock is held until
//    the commit, so positions come into sight in their order, whoever relays: a reader who has seen 12 has seen every
//    position below it that will ever be there. An event that commits late is moved by a later relay and gets a higher
//    position; long transactions hold nothing back. Of one pack, whatever a relay sees was committed before what a later
//    one sees, and within one the ids decide: positions keep the order of a pack.
//
// Anybody may relay, at any time, any number at once: who comes second finds nothing. A process that has written events
// does it after the commit; readers and workers do, for those that a process left when it died. Those of one process
// join (db/relay.ts), so that for each process one connection waits for the lock.

/** Every type of event. What is in their data: spec/events.md. */
export const eventTypes = [
  'pack.published',
  'pack.deleted',
  'pack.state-changed',
  'channel.moved',
  'import.completed',
  'mirror.completed',
  'mirror.failed',
  'scrub.finding',
  'job.failed',
  'retention.applied',
] as const
export type EventType = (typeof eventTypes)[number]

/**
 * `packId`: whoever may read that pack may know of it; without one, administrators may. `subject`: what it is about in a
 * word, such as `net-rules@1.2.0`; the pack's id, or else the type, unless given. `data` is sent to others as it is: no secrets.
 */
export type NewEvent = { type: EventType; packId?: PackId; subject?: string; data: object }

/**
 * Writes down what happened, in the order given. Call it in the transaction in which it happens, and of what concerns a
 * pack under the pack's lock.
 */
export async function recordEvents(sql: Sql | Transaction, events: readonly NewEvent[]): Promise<void> {
  if (events.length === 0) return
  noteEvents()
  const texts = (text: (event: NewEvent) => string | null) => events.map(text) as string[]
  await sql`
    insert into event_outbox (type, pack_id, subject, data)
    select e.type, e.pack_id, e.subject, e.data from unnest(
      ${texts(({ type }) => type)}::text[], ${texts(({ packId }) => packId ?? null)}::text[],
      ${texts(({ subject, packId, type }) => subject ?? packId ?? type)}::text[],
      ${texts(({ data }) => JSON.stringify(data))}::text[]::json[])
      with ordinality as e (type, pack_id, subject, data, i)
    order by e.i`
}

/** On this channel PostgreSQL tells of new events, and that deliveries wait. */
export const eventsChannel = 'packs_events'

/** As many events as one relay moves. */
const relayedAtOnce = 1_000

/**
 * Gives events their places, and each to the webhooks that want it, at most a thousand; answers whether there may be more.
 * Where there are none, that is one statement that waits for nobody.
 */
export async function relayEvents(sql: Sql): Promise<boolean> {
  const [outbox] = await sql<{ isEmpty: boolean }[]>`select not exists (select from event_outbox) as "isEmpty"`
  if (outbox?.isEmpty) return false
  return sql.begin(async (tx) => {
    // Waits: whoever relays now may have looked before our events were there. A process that freezes here must not hold up
    // all others.
    await tx`
      select set_config('idle_in_transaction_session_timeout', '5s', true), pg_advisory_xact_lock(${7_225_748_111}::bigint)`
    return (await moveEvents(tx, relayedAtOnce)) === relayedAtOnce
  })
}

/**
 * Under the relay's lock. Webhooks are locked, so that none is deleted in between. A lane that somebody works at is
 * waited for, for the moment of a statement.
 */
async function moveEvents(tx: Transaction, most: number): Promise<number> {
  const [row] = await tx<{ count: number }[]>`
    with taken as (
      delete from event_outbox where id = any(array(select id from event_outbox order by id limit ${most}))
      returning id, event_id, at, type, pack_id, subject, data
    ), placed as (
      insert into events (event_id, at, type, pack_id, subject, data)
      select event_id, at, type, pack_id, subject, data from taken order by id
      returning position, type, pack_id
    ), wanted as (
      select w.id as webhook_id, p.position, coalesce(p.pack_id, p.type) as lane
      from placed p join webhooks w on w.enabled and p.type like any (w.type_patterns)
        and coalesce(p.pack_id like any (w.pack_patterns), w.pack_patterns @> array['%'])
      for key share of w
    ), lanes as (
      insert into webhook_lanes (webhook_id, lane, pending)
      select webhook_id, lane, count(*) from wanted group by webhook_id, lane order by webhook_id, lane
      on conflict (webhook_id, lane) do update set pending = webhook_lanes.pending + excluded.pending
    ), deliveries as (
      insert into webhook_deliveries (webhook_id, position, lane, next_at)
      select webhook_id, position, lane, now() from wanted
    )
    select count(*)::int as count, pg_notify(${eventsChannel}, '') from placed having count(*) > 0`
  return row?.count ?? 0
}

/** An event as it is kept. `at` is ISO 8601 in UTC with milliseconds; `data` is JSON text. */
export type EventRow = {
  position: number
  id: string
  at: string
  type: EventType
  packId: PackId | null
  subject: string
  data: string
}

export const eventColumns = (sql: Sql | Transaction): Fragment => sql`
  e.position, e.event_id as id, to_char(e.at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as at, e.type,
  e.pack_id as "packId", e.subject, e.data::text as data`

/** Events after a position, in their order. */
export async function listEvents(sql: Sql, after: number, limit: number): Promise<EventRow[]> {
  const rows = await sql<EventRow[]>`
    select ${eventColumns(sql)} from events e where e.position > ${after} order by e.position limit ${limit}`
  return [...rows]
}

/** From where to where events can be read: up to `forgotten` some may be gone, and `last` is the newest there was. */
export async function eventBounds(sql: Sql): Promise<{ forgotten: number; last: number }> {
  const [row] = await sql<{ forgotten: number; last: number }[]>`
    select h.position as forgotten, greatest(h.position, (select max(position) from events)) as last from event_horizon h`
  return row ?? { forgotten: 0, last: 0 }
}

/**
 * Forgets the oldest events, at most `most`, with their deliveries; answers how many. One that still waits to be delivered
 * by then belongs to a webhook that is switched off.
 */
export async function forgetEvents(sql: Sql, keptSeconds: number, most: number): Promise<number> {
  const [row] = await sql<{ count: number }[]>`
    with gone as (
      delete from events where position = any(array(
        select position from events where at < now() - make_interval(secs => ${keptSeconds}) order by position limit ${most}))
      returning position
    ), moved as (
      update event_horizon set position = greatest(position, (select max(position) from gone))
      where exists (select from gone)
    )
    select count(*)::int as count from gone`
  return row?.count ?? 0
}

/** How many events wait to be relayed, and how long the oldest has, in seconds. */
export async function outboxDepth(sql: Sql): Promise<{ count: number; oldestSeconds: number }> {
  const [row] = await sql<{ count: number; oldestSeconds: number }[]>`
    select count(*)::int as count, coalesce(extract(epoch from clock_timestamp() - min(at)), 0)::float8 as "oldestSeconds"
    from event_outbox`
  return row ?? { count: 0, oldestSeconds: 0 }
}
