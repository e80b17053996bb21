import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response'
import type { Context } from 'hono'
import * as v from 'valibot'
import type { EventRow } from '../db/events.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import { patternGrammar } from '../packs/selection.ts'
import { cloudEventText, sourceOf } from '../registry/cloud-event.ts'
import { openFeed } from '../registry/event-feed.ts'
import { isTypePattern, openFilter, pageOfEvents, startAt } from '../registry/events.ts'
import { mayKnowFor, requireListing } from './access.ts'
import { streamEvents } from './event-stream.ts'
import type { ServerState } from './ops.ts'
import { time } from './packs/answers.ts'
import { jsonText, limitSchema, query, queryOf } from './packs/request.ts'
import type { Env, Routes } from './routes.ts'

const patterns = (isOne: (text: string) => boolean, message: string) =>
  v.optional(
    v.pipe(
      v.string(),
      v.maxLength(2_000, 'is too long'),
      v.transform((text) => text.split(',')),
      v.check((list) => list.length <= 50, 'must be at most 50'),
      v.check((list) => list.every(isOne), message),
    ),
  )

export const typesMessage = 'must be types such as pack.published, or patterns such as pack.*, separated by commas'
export const packsMessage = 'must be ids of packs, with * for any characters, separated by commas'

/** The query of GET /events. */
export const eventsQuery = query({
  type: patterns(isTypePattern, typesMessage),
  pack: patterns((text) => patternGrammar.test(text), packsMessage),
  after: v.optional(
    v.pipe(v.string(), v.regex(/^(?:\d{1,15}|latest)$/, 'must be the position of an event, or latest')),
  ),
  limit: v.optional(limitSchema, '100'),
})

export const cloudEventSchema = v.object({
  specversion: v.literal('1.0'),
  id: v.pipe(v.string(), v.description('Names the event for ever, by whichever way it arrives.')),
  source: v.pipe(v.string(), v.description('The registry: PUBLIC_URL, where that is set.')),
  type: v.pipe(v.string(), v.description('What happened, and the version of the shape of `data`.')),
  subject: v.string(),
  time,
  datacontenttype: v.literal('application/json'),
  sequence: v.pipe(v.optional(v.string()), v.description('Its position; of one pack, the order in which it happened.')),
  data: v.looseObject({}),
})
export const eventsAnswer = v.object({
  events: v.array(cloudEventSchema),
  next: v.pipe(
    v.string(),
    v.description(
      'What to give as `after` for those that follow, be it later. Where it is what was given, there are none yet; an empty page may come before others.',
    ),
  ),
})

export function addEventRoutes(routes: Routes, deps: Deps, state: ServerState): void {
  let feed: ReturnType<typeof openFeed> | undefined
  const tell = (event: EventRow) => cloudEventText(sourceOf(deps), event)

  // A page in JSON, or what happens from now on as a stream of server-sent events, by what is accepted.
  routes.get('/events', async (c) => {
    requireListing(c)
    const { type: types, pack: packs, after, limit } = queryOf(c, eventsQuery)
    const filter = { types, packs }
    if (wantsStream(c)) {
      const from = await startAt(deps, positionOf(c.req.header('last-event-id') ?? after ?? 'latest'))
      if (c.req.method === 'HEAD') return new Response(null, { headers: { 'content-type': 'text/event-stream' } })
      feed ??= openFeed(deps)
      await streamEvents(c, deps, { feed, filter, from, tell, ...(state.drain ? { drain: state.drain } : {}) })
      return RESPONSE_ALREADY_SENT
    }
    const from = await startAt(deps, after === undefined ? 'first' : positionOf(after))
    const { events, next } = await pageOfEvents(deps, from, limit, openFilter(filter, mayKnowFor(c)))
    return jsonText(`{"events":[${events.map(tell).join(',')}],"next":"${next}"}`, {
      headers: { 'cache-control': 'no-store' },
    })
  })
}

function wantsStream(c: Context<Env>): boolean {
  return /(?:^|[,\s])text\/event-stream(?:[\s;,]|$)/i.test(c.req.header('accept') ?? '')
}

/** Throws QUERY_INVALID. */
function positionOf(text: string): number | 'latest' {
  if (text === 'latest') return 'latest'
  if (/^\d{1,15}$/.test(text)) return Number(text)
  throw new Failure('QUERY_INVALID', { detail: 'Last-Event-ID must be the id of an event of this stream' })
}
