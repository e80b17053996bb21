import { askRead } from '../db/client.ts'
import { type EventRow, eventBounds, eventsChannel, listEvents } from '../db/events.ts'
import type { Deps } from '../deps.ts'

// New events for the streams of this process. However many streams there are, one connection listens, and each event is
// read once: the newest are kept in memory, and a stream is nothing but its position. One that is too slow for that finds
// its next events in the database, page by page: nothing is queued for anybody.

/** What a stream goes on from, and when there is more. */
export type Feed = {
  /** Counts a stream in; `leave` when it has ended. Throws UNAVAILABLE. */
  join(): Promise<void>
  leave(): void
  readonly streams: number
  /** Events after a position, in their order; empty where there are none yet. Throws UNAVAILABLE. */
  after(position: number): Promise<readonly EventRow[]>
  /** Resolves when there may be some, or after `ms`, or when `signal` aborts. */
  wait(position: number, ms: number, signal: AbortSignal): Promise<void>
}

const pageSize = 200
/** What is kept in memory at the most: so many events, of so many characters of data. */
const [mostKept, mostCharacters] = [2_000, 4_000_000]
/** How long what no notification told of may lie, in milliseconds. */
const pollMs = 1_000

type Kept = {
  rows: EventRow[]
  /** All events after this position, up to `last`, are in `rows`. */
  from: number
  last: number
  characters: number
}

export function openFeed(deps: Deps): Feed {
  const kept: Kept = { rows: [], from: 0, last: 0, characters: 0 }
  const waiting = new Set<() => void>()
  const reader = openReader(deps, kept, () => {
    for (const wake of [...waiting]) wake()
  })
  let streams = 0
  const leave = () => {
    streams--
    deps.metrics.eventStreams.dec()
    if (streams === 0) reader.stop()
  }
  return {
    get streams() {
      return streams
    },
    async join() {
      streams++
      deps.metrics.eventStreams.inc()
      try {
        await reader.start()
      } catch (error) {
        leave()
        throw error
      }
    },
    leave,
    async after(position) {
      if (position >= kept.last) return []
      if (position < kept.from) return askRead(deps.db, (sql) => listEvents(sql, position, pageSize))
      const first = firstAfter(kept.rows, position)
      return kept.rows.slice(first, first + pageSize)
    },
    wait(position, ms, signal) {
      if (position < kept.last || signal.aborted) return Promise.resolve()
      return new Promise((resolve) => {
        const wake = () => {
          clearTimeout(late)
          signal.removeEventListener('abort', wake)
          waiting.delete(wake)
          resolve()
        }
        const late = setTimeout(wake, ms)
        signal.addEventListener('abort', wake, { once: true })
        waiting.add(wake)
      })
    },
  }
}

/** Reads new events into what is kept, from `start` to `stop`, when it is told of them and every now and then. */
function openReader(deps: Deps, kept: Kept, onNew: () => void) {
  let starting: Promise<void> | undefined
  let timer: NodeJS.Timeout | undefined
  let listening = false
  let isReading = false
  let again = false
  const readAll = async () => {
    do {
      again = false
      await deps.relay.settle()
      for (let full = true; full; ) {
        const rows = await askRead(deps.db, (sql) => listEvents(sql, kept.last, pageSize))
        keep(kept, rows)
        full = rows.length === pageSize
        if (rows.length > 0) onNew()
      }
    } while (again)
  }
  const look = () => {
    if (!timer) return
    again = true
    if (isReading) return
    isReading = true
    readAll()
      .catch((error) => deps.log.debug({ error }, 'new events cannot be read now'))
      .finally(() => {
        isReading = false
      })
  }
  const listen = () => {
    if (listening) return
    listening = true
    deps.db.sql.listen(eventsChannel, look, look).catch((error) => {
      listening = false
      deps.log.warn({ error }, 'new events are looked for, and not told of')
    })
  }
  const begin = async () => {
    // Nobody has read for a while: what came since is left to those who ask for it.
    const { last } = await askRead(deps.db, eventBounds)
    Object.assign(kept, { rows: [], from: last, last, characters: 0 })
    timer ??= setInterval(look, pollMs).unref()
    listen()
  }
  return {
    /** Throws UNAVAILABLE. */
    start(): Promise<void> {
      starting ??= begin().catch((error) => {
        starting = undefined
        throw error
      })
      return starting
    },
    stop() {
      clearInterval(timer)
      timer = undefined
      starting = undefined
    },
  }
}

/** Adds rows, and lets the oldest go. Rows that were asked for before it began anew are kept already, or let go. */
function keep(kept: Kept, rows: readonly EventRow[]): void {
  for (const row of rows) {
    if (row.position <= kept.last) continue
    kept.rows.push(row)
    kept.characters += row.data.length
    kept.last = row.position
  }
  let gone = 0
  while (kept.rows.length - gone > mostKept || kept.characters > mostCharacters) {
    const row = kept.rows[gone++]
    if (!row) break
    kept.characters -= row.data.length
    kept.from = row.position
  }
  if (gone > 0) kept.rows.splice(0, gone)
}

/** Where the first row after a position stands: rows are in the order of positions. */
function firstAfter(rows: readonly EventRow[], position: number): number {
  let [low, high] = [0, rows.length]
  while (low < high) {
    const middle = (low + high) >> 1
    if ((rows[middle]?.position ?? 0) <= position) low = middle + 1
    else high = middle
  }
  return low
}
