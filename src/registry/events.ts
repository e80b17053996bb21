import { ask, askRead } from '../db/client.ts'
import { type EventRow, eventBounds, eventTypes, forgetEvents, listEvents } from '../db/events.ts'
import { forgetDeliveries } from '../db/webhooks.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import type { PackId } from '../packs/pack.ts'
import { openPatterns } from '../packs/selection.ts'

/** How long events can be read and sent again, in days. */
const keptDays = 30
/** How long deliveries that went well stand in the log, in days. */
const deliveriesKeptDays = 7
const daySeconds = 24 * 60 * 60
const batch = 1_000

/** Which events somebody wants: patterns with `*` over types and ids of packs. Where packs are named, only what is of one. */
export type EventFilter = { types?: readonly string[] | undefined; packs?: readonly string[] | undefined }

/** Whether somebody may know of the events of a pack; of those of no pack where it is undefined. */
export type MayKnow = (packId: PackId | undefined) => boolean

/** Tells whether an event is wanted, and may be told. */
export function openFilter({ types = ['*'], packs }: EventFilter, mayKnow: MayKnow): (event: EventRow) => boolean {
  // A type is as good a text for a pattern as the id of a pack.
  const isType = openPatterns(types) as (type: string) => boolean
  const isPack = packs === undefined ? undefined : openPatterns(packs)
  return ({ type, packId }) => {
    if (!isType(type) || (isPack && (packId === null || !isPack(packId)))) return false
    return mayKnow(packId ?? undefined)
  }
}

/** Whether there is a type that a pattern matches. */
export function isTypePattern(pattern: string): boolean {
  const matches = openPatterns([pattern]) as (type: string) => boolean
  return /^[a-z.*-]{1,50}$/.test(pattern) && eventTypes.some(matches)
}

/**
 * The position to go on from: 'first' and 'latest' are those of the oldest and of the newest event there is.
 * Throws EVENTS_GONE where some after it have been forgotten, or it is none of this registry's.
 */
export async function startAt(deps: Deps, after: number | 'first' | 'latest'): Promise<number> {
  await deps.relay.settle()
  const { forgotten, last } = await askRead(deps.db, eventBounds)
  if (after === 'latest') return last
  if (after === 'first') return forgotten
  if (after >= forgotten && after <= last) return after
  throw new Failure('EVENTS_GONE', {
    detail:
      after < forgotten
        ? `events up to ${forgotten} are forgotten after ${keptDays} days. Look at the packs themselves for what changed, and go on with after=${forgotten}`
        : `there has been no event ${after} here: the newest is ${last}. Where the registry was restored from a backup, look at the packs themselves, and go on with after=${last}`,
    about: { forgotten, last },
  })
}

/** As many events as one question looks through, whatever it is about. */
const mostLookedAt = 5_000

/** A page of events that are wanted, and the position to go on from: also where it is empty, for it may have looked at many. */
export async function pageOfEvents(
  deps: Deps,
  position: number,
  limit: number,
  isWanted: (event: EventRow) => boolean,
): Promise<{ events: EventRow[]; next: number }> {
  const events: EventRow[] = []
  let next = position
  for (let looked = 0; looked < mostLookedAt; ) {
    const rows = await askRead(deps.db, (sql) => listEvents(sql, next, batch))
    for (const row of rows) {
      next = row.position
      if (isWanted(row)) events.push(row)
      if (events.length === limit) return { events, next }
    }
    if (rows.length < batch) break
    looked += rows.length
  }
  return { events, next }
}

/** Forgets events and deliveries whose time is over; answers how many events. Harmless in several processes at once. */
export async function tidyEvents(deps: Deps): Promise<number> {
  for (let more = batch; more === batch; )
    more = await ask(deps.db, (sql) => forgetDeliveries(sql, deliveriesKeptDays * daySeconds, batch))
  let forgotten = 0
  for (let more = batch; more === batch; forgotten += more)
    more = await ask(deps.db, (sql) => forgetEvents(sql, keptDays * daySeconds, batch))
  return forgotten
}
