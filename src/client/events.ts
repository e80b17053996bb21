import { setTimeout as sleep } from 'node:timers/promises'
import { askFor } from './answers.ts'
import { type Connection, send, unreachable } from './connection.ts'
import { PacksError, unlessCancelled } from './failure.ts'
import { Passing, persist } from './retry.ts'

/**
 * Something that happened, as a CloudEvent (1.0). `type` is like `org.stellaops.registry.pack.published.v1`; `id` names it
 * for ever, by whichever way it arrives. `sequence` is its position: of one pack, the order in which things happened.
 */
export type PackEvent = {
  specversion: '1.0'
  id: string
  source: string
  type: string
  /** Such as `net-rules@1.2.0`. */
  subject: string
  /** RFC 3339. */
  time: string
  datacontenttype: 'application/json'
  sequence: string
  data: Record<string, unknown>
}

export type EventsQuery = {
  /** Types such as `pack.published`, or patterns such as `pack.*`; all unless given. */
  types?: readonly string[] | undefined
  /** Ids of packs, with `*` for any characters. Where some are named, only what is of a pack is told. */
  packs?: readonly string[] | undefined
  /** Goes on after this `sequence`. */
  after?: string | undefined
  /** How many are asked for at a time: 1 to 1,000. */
  pageSize?: number | undefined
}

type Cancellable = { signal?: AbortSignal | undefined }

/** What happens in a registry. Throws EVENTS_GONE where what follows `after` has been forgotten. */
export type Events = {
  /** What happened and is not forgotten, the oldest first, page by page as it is consumed; it ends with the newest. */
  list(query?: EventsQuery, options?: Cancellable): AsyncGenerator<PackEvent, void, undefined>
  /**
   * What happens, as it does: after `after`, or from now on. It has no end: a connection that is lost is opened again, and
   * goes on with the next event, none left out and none twice. Keep the `sequence` of the last one to go on another day.
   */
  follow(query?: EventsQuery, options?: Cancellable): AsyncGenerator<PackEvent, void, undefined>
}

export function eventsOf(connection: Connection): Events {
  return {
    list: (query = {}, options = {}) => list(connection, query, options),
    follow: (query = {}, options = {}) => follow(connection, query, options),
  }
}

function parametersOf({ types, packs }: EventsQuery): URLSearchParams {
  return new URLSearchParams({
    ...(types?.length ? { type: types.join(',') } : {}),
    ...(packs?.length ? { pack: packs.join(',') } : {}),
  })
}

/** A position as the registry takes it. */
function positionOf(sequence: string): string {
  return sequence.replace(/^0+(?=\d)/, '')
}

async function* list(connection: Connection, query: EventsQuery, { signal }: Cancellable) {
  const parameters = parametersOf(query)
  if (query.pageSize) parameters.set('limit', String(query.pageSize))
  let after = query.after === undefined ? undefined : positionOf(query.after)
  for (;;) {
    if (after !== undefined) parameters.set('after', after)
    const call = { path: `/events?${parameters}`, signal }
    const page = await askFor<{ events: PackEvent[]; next: string }>(connection, 'events', call)
    yield* page.events
    // An empty page may come before others: the end is where nothing was looked through.
    if (page.next === after) return
    after = page.next
  }
}

/** The pause before a stream that ended is opened again, in milliseconds. */
const pauseMs = 500

async function* follow(connection: Connection, query: EventsQuery, { signal }: Cancellable) {
  const path = `/events?${parametersOf(query)}`
  let lastId = query.after === undefined ? undefined : positionOf(query.after)
  for (;;) {
    const headers = { accept: 'text/event-stream', ...(lastId === undefined ? {} : { 'last-event-id': lastId }) }
    const answer = await persist(connection, signal, () => send(connection, { path, headers, signal }))
    if (!/^text\/event-stream\b/.test(answer.headers['content-type'] ?? '')) {
      answer.destroy()
      throw new PacksError('ANSWER_INVALID', `${connection.base}/events gives no stream; is the url right?`)
    }
    try {
      for await (const { id, data } of blocksOf(answer.setEncoding('utf8'))) {
        lastId = id ?? lastId
        if (data !== undefined) yield JSON.parse(data) as PackEvent
      }
    } catch (error) {
      unlessCancelled(signal)
      // A connection that broke off is no different from one that ended.
      if (!(unreachable(new URL(connection.base), error) instanceof Passing)) throw error
    } finally {
      answer.destroy()
    }
    await sleep(pauseMs, undefined, signal ? { signal } : {}).catch(() => unlessCancelled(signal))
  }
}

const mostCharacters = 16 * 1024 * 1024

/** The blocks of a stream. Source: WHATWG HTML, "Server-sent events", as far as the registry makes use of it. */
async function* blocksOf(stream: AsyncIterable<string>): AsyncGenerator<{ id?: string; data?: string }> {
  let text = ''
  for await (const piece of stream) {
    text += piece
    const blocks = text.split('\n\n')
    text = blocks.pop() ?? ''
    if (text.length > mostCharacters) throw new PacksError('ANSWER_INVALID', 'an event is larger than can be taken')
    for (const block of blocks) {
      const fields = block.split('\n').map((line) => /^(\w+): ?(.*)$/.exec(line))
      yield Object.fromEntries(fields.flatMap((field) => (field ? [[field[1], field[2]]] : [])))
    }
  }
}
