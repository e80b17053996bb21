import { randomUUID } from 'node:crypto'
import { ask, askRead } from '../db/client.ts'
import { redeliver } from '../db/lanes.ts'
import {
  type DeliveryRow,
  deleteWebhook,
  findWebhook,
  insertWebhook,
  listDeliveries,
  listWebhooks,
  updateWebhook,
  type WebhookRow,
  type WebhookState,
} from '../db/webhooks.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import { cloudEventText, newSecret, sourceOf } from './cloud-event.ts'
import { seal } from './sealed.ts'
import { openSender, type Sent, secretPurpose, type WebhookOptions } from './webhook-sender.ts'

export type Webhook = WebhookRow<WebhookOptions>

/** A webhook as it is asked for. `types`, `packs`: patterns with `*`. */
export type WebhookInput = {
  url: string
  description: string | null
  types: string[]
  packs: string[]
  enabled: boolean
  options: WebhookOptions
}

/** Sets a webhook up; `secret` is what its messages are signed with. Throws WEBHOOK_EXISTS, REQUEST_INVALID. */
export async function createWebhook(
  deps: Deps,
  name: string,
  input: WebhookInput,
): Promise<{ webhook: Webhook; secret: string }> {
  const url = checkedUrl(input)
  const secret = newSecret()
  const sealed = seal(deps.uploadSecret, secretPurpose, secret)
  const row = await ask(deps.db, (sql) => insertWebhook(sql, { name, ...input, url, secret: sealed }))
  if (!row)
    throw new Failure('WEBHOOK_EXISTS', { detail: `there is a webhook ${name}; change it, or take another name` })
  return { webhook: row as Webhook, secret }
}

/** What is given replaces what was. Throws WEBHOOK_UNKNOWN, REQUEST_INVALID. */
export async function changeWebhook(deps: Deps, before: Webhook, change: Partial<WebhookInput>): Promise<Webhook> {
  const { url, description, types, packs, enabled, options } = before
  const input = { url, description, types, packs, enabled, options, ...change }
  const row = await ask(deps.db, (sql) => updateWebhook(sql, before.name, { ...input, url: checkedUrl(input) }))
  if (!row) throw unknown(before.name)
  return row as Webhook
}

export const webhookName = /^[a-z0-9]+(?:[._-][a-z0-9]+)*$/

/** False where there was none. */
export async function removeWebhook(deps: Deps, name: string): Promise<boolean> {
  return webhookName.test(name) && ask(deps.db, (sql) => deleteWebhook(sql, name))
}

/** Throws WEBHOOK_UNKNOWN. */
export async function webhookOf(deps: Deps, name: string): Promise<Webhook> {
  const row = webhookName.test(name) ? await askRead(deps.db, (sql) => findWebhook(sql, name)) : undefined
  if (!row) throw unknown(name)
  return row as Webhook
}

/** A webhook and how it goes. Throws WEBHOOK_UNKNOWN. */
export async function webhookState(deps: Deps, name: string): Promise<WebhookState & Webhook> {
  const found = (await askRead(deps.db, listWebhooks)).find((row) => row.name === name)
  if (!found) throw unknown(name)
  return found as WebhookState & Webhook
}

function unknown(name: string): Failure {
  return new Failure('WEBHOOK_UNKNOWN', { detail: `there is no webhook ${JSON.stringify(name.slice(0, 100))}` })
}

function checkedUrl({ url: text, options: { allowHttp } }: Pick<WebhookInput, 'url' | 'options'>): string {
  const bad = (problem: string) =>
    new Failure('REQUEST_INVALID', {
      detail: `the url of a webhook is like https://ci.example/hooks/packs: ${problem}`,
    })
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (!url) throw bad('this is none')
  if (url.protocol !== 'https:' && url.protocol !== 'http:') throw bad(`${url.protocol} is not understood`)
  if (url.protocol === 'http:' && !allowHttp)
    throw bad('what is sent by http can be read by everybody on the way; set allowHttp if that is meant')
  if (url.username || url.password) throw bad('messages are signed; leave out the user and the password')
  if (url.hash) throw bad('leave out what follows the #')
  return url.href
}

/** Sends a message of its own to a webhook, once, now, be it switched off. Throws WEBHOOK_UNKNOWN. */
export async function testWebhook(deps: Deps, name: string): Promise<Sent & { id: string }> {
  const webhook = await webhookOf(deps, name)
  const id = randomUUID()
  const about = { id, at: new Date().toISOString(), type: 'webhook.test', subject: name }
  const text = cloudEventText(sourceOf(deps), { ...about, data: JSON.stringify({ webhook: name }) })
  const sender = openSender(deps)
  try {
    return { id, ...(await sender.post(webhook, { id, text })) }
  } finally {
    sender.close()
  }
}

/** Throws WEBHOOK_UNKNOWN, DELIVERY_UNKNOWN. */
export async function deliveryOf(deps: Deps, name: string, delivery: string): Promise<DeliveryRow> {
  const { id } = await webhookOf(deps, name)
  const [found] = uuid.test(delivery)
    ? await askRead(deps.db, (sql) => listDeliveries(sql, id, { id: delivery, limit: 1 }))
    : []
  if (found) return found
  throw new Failure('DELIVERY_UNKNOWN', {
    detail: `${name} has no delivery ${JSON.stringify(delivery.slice(0, 100))}: its id is wrong, or it was so long ago that it is forgotten`,
  })
}

/** Sends a delivery that has ended again. Throws WEBHOOK_UNKNOWN, DELIVERY_UNKNOWN, DELIVERY_WAITS. */
export async function redeliverOne(deps: Deps, name: string, delivery: string): Promise<void> {
  await deliveryOf(deps, name, delivery)
  const { id } = await webhookOf(deps, name)
  if ((await ask(deps.db, (sql) => redeliver(sql, id, delivery))) === 0)
    throw new Failure('DELIVERY_WAITS', { detail: `delivery ${delivery} waits to be sent already` })
}

const uuid = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i

/** Sends all that are dead again; answers how many. Throws WEBHOOK_UNKNOWN. */
export async function redeliverDead(deps: Deps, name: string): Promise<number> {
  const { id } = await webhookOf(deps, name)
  return ask(deps.db, (sql) => redeliver(sql, id, undefined))
}
