import type { ServerResponse } from 'node:http'
import type { Context } from 'hono'
import type { EventRow } from '../db/events.ts'
import type { Deps } from '../deps.ts'
import { Failure, unavailable } from '../errors.ts'
import type { Feed } from '../registry/event-feed.ts'
import { type EventFilter, openFilter } from '../registry/events.ts'
import { admitAgain, mayKnowFor, payerOf } from './access.ts'
import type { Env } from './routes.ts'

/** A stream to be sent. */
export type Streaming = {
  feed: Feed
  filter: EventFilter
  /** The position after which it begins. */
  from: number
  /** An event as text of one line. */
  tell(event: EventRow): string
  /** When it aborts, the server is about to stop: clients are to come back, to another process. */
  drain?: AbortSignal
}

/** After so long without an event there is a sign of life, which keeps proxies from closing the connection. */
const heartbeatMs = 15_000
/** Nobody is told anything by rights that are older than this. */
const rightsMs = 5_000
/** A client that takes nothing for so long is dropped: it comes back with what it has seen last. */
const patienceMs = 30_000
/** How soon clients come back. */
const retryMs = 2_000
/** Streams in one process: each is a connection, and some kilobytes. */
const mostStreams = 2_000
/** Of which each user, token or, without a login, address may have so many: nobody takes all of them. */
const mostEach = 200
/** How many streams whoever has some has here. */
const taken = new WeakMap<Feed, Map<string, number>>()

/**
 * Streams events until the client leaves, may not know of them any more, or the server stops. Nothing is lost in
 * between: every event has its position as its id, from which a client goes on by itself. Throws UNAVAILABLE, UNAUTHORIZED,
 * TOOMANYREQUESTS before anything is answered.
 */
export async function streamEvents(c: Context<Env>, deps: Deps, streaming: Streaming): Promise<void> {
  const { feed, drain } = streaming
  if (feed.streams >= mostStreams || drain?.aborted)
    throw unavailable('event streams', new Error(`${feed.streams} streams are open here`), 5)
  const giveBack = take(feed, payerOf(c))
  try {
    await feed.join()
    await stream(c, deps, streaming).finally(() => feed.leave())
  } finally {
    giveBack()
  }
}

/** Counts a stream; answers what ends that. Throws TOOMANYREQUESTS. */
function take(feed: Feed, who: string): () => void {
  const counts = taken.get(feed) ?? new Map<string, number>()
  taken.set(feed, counts)
  const count = counts.get(who) ?? 0
  if (count >= mostEach)
    throw new Failure('TOOMANYREQUESTS', {
      detail: `${mostEach} streams of events are open for you here, as many as one may have; close some, or ask for pages: GET /events?after=`,
      headers: { 'retry-after': '5' },
    })
  counts.set(who, count + 1)
  return () => {
    const left = (counts.get(who) ?? 1) - 1
    if (left > 0) counts.set(who, left)
    else counts.delete(who)
  }
}

async function stream(c: Context<Env>, deps: Deps, streaming: Streaming): Promise<void> {
  const { drain } = streaming
  const outgoing = c.env.outgoing as ServerResponse
  const ended = new AbortController()
  const end = () => ended.abort()
  outgoing.once('close', end)
  drain?.addEventListener('abort', end, { once: true })
  try {
    outgoing.writeHead(200, {
      'content-type': 'text/event-stream',
      'cache-control': 'no-store',
      // For nginx, which would collect events until it has a page of them.
      'x-accel-buffering': 'no',
    })
    await write(outgoing, `retry: ${retryMs}\nid: ${streaming.from}\n\n`)
    await follow(c, deps, streaming, outgoing, ended.signal)
    outgoing.end()
  } catch (error) {
    // The head is sent: the client sees its connection end, and comes back to hear why.
    if (!(error instanceof Failure || error instanceof Gone)) c.env.error = error
    outgoing.destroy()
  } finally {
    drain?.removeEventListener('abort', end)
  }
}

async function follow(
  c: Context<Env>,
  deps: Deps,
  { feed, filter, from, tell }: Streaming,
  outgoing: ServerResponse,
  ended: AbortSignal,
): Promise<void> {
  let position = from
  let isWanted = openFilter(filter, mayKnowFor(c))
  let checked = performance.now()
  let wrote = performance.now()
  while (!ended.aborted) {
    const now = performance.now()
    const isKnown = now - checked < rightsMs || (await admitted(c, deps))
    if (isKnown && now - checked >= rightsMs) {
      checked = now
      isWanted = openFilter(filter, mayKnowFor(c))
    }
    const rows = isKnown ? await rowsAfter(feed, position) : []
    const told = rows.filter(isWanted).map((row) => blockOf(row, tell))
    position = rows.at(-1)?.position ?? position
    const isSilent = now - wrote >= heartbeatMs
    // Also says how far it has looked: from there a client that was told nothing goes on.
    if (told.length === 0 && isSilent) told.push(`:\nid: ${position}\n\n`)
    for (const block of told) await write(outgoing, block)
    if (told.length > 0) wrote = performance.now()
    if (!isKnown) await feed.wait(Number.POSITIVE_INFINITY, 1_000, ended)
    else if (rows.length === 0) await feed.wait(position, rightsMs, ended)
  }
}

/** Throws UNAUTHORIZED where what was shown holds no more; false where that cannot be told now. */
async function admitted(c: Context<Env>, deps: Deps): Promise<boolean> {
  try {
    await admitAgain(c, deps)
    return true
  } catch (error) {
    if (error instanceof Failure && error.key === 'UNAVAILABLE') return false
    throw error
  }
}

/** None while the database is away. */
async function rowsAfter(feed: Feed, position: number): Promise<readonly EventRow[]> {
  try {
    return await feed.after(position)
  } catch (error) {
    if (error instanceof Failure && error.key === 'UNAVAILABLE') return []
    throw error
  }
}

function blockOf(row: EventRow, tell: (event: EventRow) => string): string {
  return `id: ${row.position}\nevent: ${row.type}\ndata: ${tell(row)}\n\n`
}

/** The client has gone, or takes nothing. */
class Gone extends Error {
  override name = 'Gone'
}

/** Resolves when there is room for more. */
function write(outgoing: ServerResponse, text: string): Promise<void> {
  if (outgoing.destroyed) return Promise.reject(new Gone())
  if (outgoing.write(text)) return Promise.resolve()
  return new Promise((resolve, reject) => {
    const done = () => {
      clearTimeout(late)
      outgoing.off('drain', done)
      outgoing.off('close', done)
      if (outgoing.destroyed) reject(new Gone())
      else resolve()
    }
    const late = setTimeout(() => outgoing.destroy(), patienceMs)
    outgoing.on('drain', done)
    outgoing.on('close', done)
  })
}
