import * as v from 'valibot'
import { askRead } from '../db/client.ts'
import { type DeliveryRow, deliveryStates, listAttempts, listDeliveries, listWebhooks } from '../db/webhooks.ts'
import type { Deps } from '../deps.ts'
import { boundedList } from '../packs/bounded-list.ts'
import { patternGrammar } from '../packs/selection.ts'
import { isTypePattern } from '../registry/events.ts'
import {
  changeWebhook,
  createWebhook,
  deliveryOf,
  redeliverDead,
  redeliverOne,
  removeWebhook,
  testWebhook,
  type Webhook,
  type WebhookInput,
  webhookName,
  webhookOf,
  webhookState,
} from '../registry/webhooks.ts'
import { requireAdmin } from './access.ts'
import type { Answer } from './packs/answers.ts'
import { readCursor, writeCursor } from './packs/cursor.ts'
import { jsonBody, limitSchema, noQuery, query, queryOf } from './packs/request.ts'
import type { Routes } from './routes.ts'
import type * as answers from './webhook-answers.ts'

const nameSchema = v.pipe(
  v.string('must be text'),
  v.maxLength(100, 'must have at most 100 characters'),
  v.regex(webhookName, 'must be lowercase letters and digits, joined by ".", "_" or "-"'),
)

const patternsOf = (isOne: (text: string) => boolean, message: string) =>
  v.pipe(
    boundedList(v.pipe(v.string('must be text'), v.check(isOne, message)), 50),
    v.minLength(1, 'must name at least one'),
  )

const urlSchema = v.pipe(v.string('must be text'), v.maxLength(2_000, 'is too long'))
const typesSchema = patternsOf(isTypePattern, 'must be a type such as pack.published, or a pattern such as pack.*')
const packsSchema = patternsOf(
  (text) => patternGrammar.test(text),
  'must be the id of a pack, with * for any characters',
)
const descriptionSchema = v.nullable(
  v.pipe(
    v.string('must be text'),
    v.maxLength(1_000, 'must have at most 1,000 characters'),
    v.check((text) => !text.includes('\0'), 'must not contain NUL'),
  ),
)
const optionsSchema = v.strictObject({
  allowPrivate: v.optional(v.boolean('must be true or false')),
  allowHttp: v.optional(v.boolean('must be true or false')),
  tries: v.optional(
    v.pipe(
      v.number('must be a number'),
      v.integer(),
      v.minValue(1, 'must be 1 to 30'),
      v.maxValue(30, 'must be 1 to 30'),
    ),
  ),
})

/** The body of POST /webhooks. */
export const webhookBody = v.strictObject({
  name: nameSchema,
  url: urlSchema,
  description: v.optional(descriptionSchema, null),
  types: v.optional(typesSchema, ['*']),
  packs: v.optional(packsSchema, ['*']),
  enabled: v.optional(v.boolean('must be true or false'), true),
  options: v.optional(optionsSchema, {}),
})

/** The body of PATCH /webhooks/{name}. */
export const webhookChange = v.strictObject({
  url: v.optional(urlSchema),
  description: v.optional(descriptionSchema),
  types: v.optional(typesSchema),
  packs: v.optional(packsSchema),
  enabled: v.optional(v.boolean('must be true or false')),
  options: v.optional(optionsSchema),
})

/** The query of GET /webhooks/{name}/deliveries. */
export const deliveriesQuery = query({
  state: v.optional(v.picklist(deliveryStates, `must be one of ${deliveryStates.join(', ')}`)),
  limit: v.optional(limitSchema, '50'),
  after: v.optional(v.string()),
})

const attemptsShown = 100

/** Webhooks are told of every pack there is, so they take an administrator. */
export function addWebhookRoutes(routes: Routes, deps: Deps): void {
  routes.get('/webhooks', async (c) => {
    requireAdmin(c)
    queryOf(c, noQuery)
    const webhooks = (await askRead(deps.db, listWebhooks)).map((row) => shown(row as Webhook & typeof row))
    return Response.json({ webhooks } satisfies Answer<typeof answers.webhooksAnswer>)
  })

  routes.post('/webhooks', async (c) => {
    requireAdmin(c)
    queryOf(c, noQuery)
    const { name, ...input } = await jsonBody(c, webhookBody)
    const { webhook, secret } = await createWebhook(deps, name, input)
    const headers = { location: `/webhooks/${name}`, 'cache-control': 'no-store' }
    const body = { webhook: shown(webhook), secret } satisfies Answer<typeof answers.createdWebhookAnswer>
    return Response.json(body, { status: 201, headers })
  })

  routes.get('/webhooks/:name', async (c) => {
    requireAdmin(c)
    queryOf(c, noQuery)
    const webhook = shown(await webhookState(deps, c.req.param('name') ?? ''))
    return Response.json({ webhook } satisfies Answer<typeof answers.webhookAnswer>)
  })

  routes.patch('/webhooks/:name', async (c) => {
    requireAdmin(c)
    queryOf(c, noQuery)
    const before = await webhookOf(deps, c.req.param('name') ?? '')
    const change = Object.entries(await jsonBody(c, webhookChange)).filter(([, value]) => value !== undefined)
    const webhook = shown(await changeWebhook(deps, before, Object.fromEntries(change) as Partial<WebhookInput>))
    return Response.json({ webhook } satisfies Answer<typeof answers.changedWebhookAnswer>)
  })

  routes.delete('/webhooks/:name', async (c) => {
    requireAdmin(c)
    queryOf(c, noQuery)
    return Response.json({ deleted: await removeWebhook(deps, c.req.param('name') ?? '') })
  })

  // Waits for the receiver, who has as long as for any message.
  routes.post('/webhooks/:name/test', async (c) => {
    requireAdmin(c)
    queryOf(c, noQuery)
    const { id, status, error, durationMs } = await testWebhook(deps, c.req.param('name') ?? '')
    const told = { delivered: error === null, id, durationMs, ...given({ status, error }) }
    return Response.json(told satisfies Answer<typeof answers.testedAnswer>)
  })

  addDeliveryRoutes(routes, deps)
}

function addDeliveryRoutes(routes: Routes, deps: Deps): void {
  // Those of the newest events first.
  routes.get('/webhooks/:name/deliveries', async (c) => {
    requireAdmin(c)
    const { state, limit, after } = queryOf(c, deliveriesQuery)
    const webhook = await webhookOf(deps, c.req.param('name') ?? '')
    const question = JSON.stringify({ deliveries: webhook.id, state })
    const before = after === undefined ? undefined : readCursor<{ at: number }>(deps.uploadSecret, question, after).at
    const rows = await askRead(deps.db, (sql) => listDeliveries(sql, webhook.id, { state, before, limit: limit + 1 }))
    const page = rows.slice(0, limit)
    const last = rows.length > limit ? page.at(-1) : undefined
    const next = last && writeCursor(deps.uploadSecret, question, { at: last.position })
    const deliveries = page.map(shownDelivery)
    return Response.json({ deliveries, ...given({ next }) } satisfies Answer<typeof answers.deliveriesAnswer>)
  })

  routes.post('/webhooks/:name/deliveries/redeliver', async (c) => {
    requireAdmin(c)
    queryOf(c, noQuery)
    const redelivered = await redeliverDead(deps, c.req.param('name') ?? '')
    return Response.json({ redelivered } satisfies Answer<typeof answers.redeliveredAnswer>, { status: 202 })
  })

  routes.get('/webhooks/:name/deliveries/:id', async (c) => {
    requireAdmin(c)
    queryOf(c, noQuery)
    const delivery = await deliveryOf(deps, c.req.param('name') ?? '', c.req.param('id') ?? '')
    const attempts = await askRead(deps.db, (sql) => listAttempts(sql, delivery.id, attemptsShown))
    return Response.json({
      delivery: shownDelivery(delivery),
      attempts: attempts.map(({ at, durationMs, status, error }) => ({ at, durationMs, ...given({ status, error }) })),
    } satisfies Answer<typeof answers.deliveryAnswer>)
  })

  routes.post('/webhooks/:name/deliveries/:id/redeliver', async (c) => {
    requireAdmin(c)
    queryOf(c, noQuery)
    const [name, id] = [c.req.param('name') ?? '', c.req.param('id') ?? '']
    await redeliverOne(deps, name, id)
    return Response.json({ redelivered: 1 } satisfies Answer<typeof answers.redeliveredAnswer>, { status: 202 })
  })
}

/** A webhook without its secret. */
function shown<T extends Webhook & { failingSince?: string | null }>({
  id,
  secret,
  description,
  failingSince,
  ...webhook
}: T) {
  return { ...webhook, ...given({ description, failingSince }) }
}

function shownDelivery({ position, nextAt, endedAt, status, error, ...delivery }: DeliveryRow) {
  return { ...delivery, ...given({ nextAt, endedAt, status, error }) }
}

/** Without what does not apply. */
function given<T extends object>(facts: T): { [K in keyof T]?: NonNullable<T[K]> } {
  const entries = Object.entries(facts).filter(([, value]) => value !== null && value !== undefined)
  return Object.fromEntries(entries) as { [K in keyof T]?: NonNullable<T[K]> }
}
