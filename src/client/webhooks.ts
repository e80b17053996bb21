import { askFor } from './answers.ts'
import { type Connection, jsonBody, queryOf } from './connection.ts'
import { listed } from './pages.ts'

/** How a webhook is treated. */
export type WebhookOptions = {
  /** Whether its host may have a private or loopback address. */
  allowPrivate?: boolean
  /** Whether it may be `http:`, which everybody on the way can read. */
  allowHttp?: boolean
  /** How often a delivery is tried: 16 times, which take about a day, unless given. */
  tries?: number
}

/** A webhook to be set up. */
export type NewWebhook = {
  name: string
  url: string
  description?: string | null
  /** Types such as `pack.published`, or patterns such as `pack.*`; all unless given. */
  types?: readonly string[]
  /** Ids of packs, with `*` for any characters; all, and what is of no pack, unless given. */
  packs?: readonly string[]
  enabled?: boolean
  options?: WebhookOptions
}

export type Webhook = {
  name: string
  url: string
  description?: string
  types: string[]
  packs: string[]
  enabled: boolean
  options: WebhookOptions
  createdAt: string
}

/** How a webhook goes. */
export type WebhookState = Webhook & {
  /** Deliveries that are to be sent, or to be tried again. */
  waiting: number
  /** Deliveries that were given up, and can be sent again. */
  dead: number
  failingSince?: string
}

export type DeliveryState = 'waiting' | 'delivered' | 'dead'

/** An event on its way to a webhook. `status`, `error`: of the last attempt. */
export type Delivery = {
  id: string
  event: string
  type: string
  subject: string
  state: DeliveryState
  tries: number
  queuedAt: string
  nextAt?: string
  endedAt?: string
  status?: number
  error?: string
}

export type DeliveryAttempt = { at: string; durationMs: number; status?: number; error?: string }

export type WebhookTest = { delivered: boolean; id: string; status?: number; error?: string; durationMs: number }

type Cancellable = { signal?: AbortSignal | undefined }
type DeliveriesQuery = { state?: DeliveryState | undefined; pageSize?: number | undefined }

/** Where events are sent to. All of it takes an administrator; all but `list` and `add` throw WEBHOOK_UNKNOWN. */
export type Webhooks = {
  list(options?: Cancellable): Promise<WebhookState[]>
  /** `secret`: what messages are signed with, told this once. Throws WEBHOOK_EXISTS, REQUEST_INVALID. */
  add(webhook: NewWebhook, options?: Cancellable): Promise<{ webhook: Webhook; secret: string }>
  show(name: string, options?: Cancellable): Promise<WebhookState>
  change(name: string, change: Partial<Omit<NewWebhook, 'name'>>, options?: Cancellable): Promise<Webhook>
  /** False where there was none. */
  remove(name: string, options?: Cancellable): Promise<boolean>
  /** Sends a message now, once. */
  test(name: string, options?: Cancellable): Promise<WebhookTest>
  /** Of the newest events first, page by page as they are consumed. */
  deliveries(name: string, query?: DeliveriesQuery, options?: Cancellable): AsyncGenerator<Delivery, void, undefined>
  /** Throws DELIVERY_UNKNOWN. */
  delivery(
    name: string,
    id: string,
    options?: Cancellable,
  ): Promise<{ delivery: Delivery; attempts: DeliveryAttempt[] }>
  /** Sends one that has ended again, or without `id` all that were given up. Throws DELIVERY_UNKNOWN, DELIVERY_WAITS. */
  redeliver(name: string, id?: string | undefined, options?: Cancellable): Promise<number>
}

export function webhooksOf(connection: Connection): Webhooks {
  const path = (name: string, rest = '') => `/webhooks/${encodeURIComponent(name)}${rest}`
  return {
    async list({ signal } = {}) {
      const call = { path: '/webhooks', signal }
      return (await askFor<{ webhooks: WebhookState[] }>(connection, 'webhooks', call)).webhooks
    },
    add(webhook, { signal } = {}) {
      const call = { method: 'POST' as const, path: '/webhooks', body: jsonBody(webhook), signal }
      return askFor<{ webhook: Webhook; secret: string }>(connection, 'secret', call)
    },
    async show(name, { signal } = {}) {
      return (await askFor<{ webhook: WebhookState }>(connection, 'webhook', { path: path(name), signal })).webhook
    },
    async change(name, change, { signal } = {}) {
      const call = { method: 'PATCH' as const, path: path(name), body: jsonBody(change), signal }
      return (await askFor<{ webhook: Webhook }>(connection, 'webhook', call)).webhook
    },
    async remove(name, { signal } = {}) {
      const call = { method: 'DELETE' as const, path: path(name), signal }
      return (await askFor<{ deleted: boolean }>(connection, 'deleted', call)).deleted
    },
    test: (name, { signal } = {}) =>
      askFor<WebhookTest>(connection, 'delivered', { method: 'POST', path: path(name, '/test'), signal }),
    deliveries: (name, { state, pageSize } = {}, { signal } = {}) => {
      const query = queryOf({ state, limit: pageSize?.toString() })
      return listed(connection, 'deliveries', { path: path(name, '/deliveries') + query, signal })
    },
    delivery: (name, id, { signal } = {}) =>
      askFor(connection, 'delivery', { path: path(name, `/deliveries/${encodeURIComponent(id)}`), signal }),
    async redeliver(name, id, { signal } = {}) {
      const rest = id === undefined ? '/deliveries/redeliver' : `/deliveries/${encodeURIComponent(id)}/redeliver`
      const call = { method: 'POST' as const, path: path(name, rest), signal }
      return (await askFor<{ redelivered: number }>(connection, 'redelivered', call)).redelivered
    },
  }
}
