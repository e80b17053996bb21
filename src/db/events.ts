import type { PackId } from '../packs/pack.ts'
import { noteEvents, type Sql, type Transaction } from './client.ts'

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
// does it after the commit (`openRelay`); readers and workers do, for those that a process left when it died.

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
