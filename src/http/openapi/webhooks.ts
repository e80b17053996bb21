import * as v from 'valibot'
import { noQuery } from '../packs/request.ts'
import {
  changedWebhookAnswer,
  createdWebhookAnswer,
  deliveriesAnswer,
  deliveryAnswer,
  redeliveredAnswer,
  testedAnswer,
  webhookAnswer,
  webhooksAnswer,
} from '../webhook-answers.ts'
import { deliveriesQuery, webhookBody, webhookChange } from '../webhooks.ts'
import { cloudEvent } from './events.ts'
import { json, type Operation, ok } from './operation.ts'

const webhook = {
  ...{ name: 'ci', url: 'https://ci.example/hooks/packs', types: ['pack.published'], packs: ['net-*'] },
  ...{ enabled: true, options: {}, createdAt: '2026-01-31T12:00:00.000Z' },
}
const state = { ...webhook, waiting: 0, dead: 1 }
const delivery = {
  ...{ id: '0199f0a2-5c1e-7a40-8a3b-2f6d1c9e4b59', event: cloudEvent.id, type: 'pack.published' },
  ...{ subject: cloudEvent.subject, state: 'dead', tries: 16, queuedAt: '2026-01-31T12:00:00.000Z' },
  ...{ endedAt: '2026-02-01T11:00:00.000Z', status: 500, error: 'refused' },
}
const attempt = { at: '2026-02-01T11:00:00.000Z', durationMs: 12, status: 500, error: 'refused' }
const secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw3FQ0yv0UvWk='
const tag = 'events' as const
const path = '/webhooks/:name'

export const webhookOperations: Operation[] = [
  {
    ...{ method: 'get', path: '/webhooks', operationId: 'listWebhooks', tag },
    summary: 'The webhooks, by name, and how each goes',
    query: noQuery,
    answers: ok('All of them.', json(webhooksAnswer, { webhooks: [state] })),
    failures: [],
  },
  {
    ...{ method: 'post', path: '/webhooks', operationId: 'createWebhook', tag },
    summary: 'Have events sent to an address, signed, from now on',
    query: noQuery,
    body: json(webhookBody, { name: 'ci', url: webhook.url, types: webhook.types, packs: webhook.packs }),
    answers: {
      201: {
        description: 'The webhook, and its secret, which is told this once.',
        headers: { location: 'Where it is.' },
        body: json(createdWebhookAnswer, { webhook, secret }),
      },
    },
    failures: ['REQUEST_INVALID', 'CONTENT_TOO_LARGE', 'WEBHOOK_EXISTS'],
  },
  {
    ...{ method: 'get', path, operationId: 'getWebhook', tag },
    summary: 'A webhook, and how it goes',
    query: noQuery,
    answers: ok('The webhook.', json(webhookAnswer, { webhook: state })),
    failures: ['WEBHOOK_UNKNOWN'],
  },
  {
    ...{ method: 'patch', path, operationId: 'changeWebhook', tag },
    summary: 'Change a webhook: what is given replaces what was',
    query: noQuery,
    body: json(webhookChange, { enabled: false }),
    answers: ok('The webhook as it is now.', json(changedWebhookAnswer, { webhook: { ...webhook, enabled: false } })),
    failures: ['REQUEST_INVALID', 'CONTENT_TOO_LARGE', 'WEBHOOK_UNKNOWN'],
  },
  {
    ...{ method: 'delete', path, operationId: 'deleteWebhook', tag },
    summary: 'Remove a webhook, with what waits for it and its log',
    query: noQuery,
    answers: ok('Whether there was one.', json(v.object({ deleted: v.boolean() }), { deleted: true })),
    failures: [],
  },
  {
    ...{ method: 'post', path: `${path}/test`, operationId: 'testWebhook', tag },
    summary: 'Send a message to a webhook now, once, and say what came of it',
    query: noQuery,
    answers: ok(
      'What came of it.',
      json(testedAnswer, { delivered: true, id: cloudEvent.id, status: 204, durationMs: 12 }),
    ),
    failures: ['WEBHOOK_UNKNOWN'],
  },
  {
    ...{ method: 'get', path: `${path}/deliveries`, operationId: 'listDeliveries', tag },
    summary: 'What was sent to a webhook, or waits to be, of the newest events first',
    query: deliveriesQuery,
    answers: ok('A page of deliveries.', json(deliveriesAnswer, { deliveries: [delivery] })),
    failures: ['WEBHOOK_UNKNOWN'],
  },
  {
    ...{ method: 'post', path: `${path}/deliveries/redeliver`, operationId: 'redeliverDead', tag },
    summary: 'Send all deliveries of a webhook again that were given up',
    query: noQuery,
    answers: { 202: { description: 'They wait to be sent.', body: json(redeliveredAnswer, { redelivered: 1 }) } },
    failures: ['WEBHOOK_UNKNOWN'],
  },
  {
    ...{ method: 'get', path: `${path}/deliveries/:id`, operationId: 'getDelivery', tag },
    summary: 'A delivery and its attempts, the oldest first',
    query: noQuery,
    answers: ok('The delivery.', json(deliveryAnswer, { delivery, attempts: [attempt] })),
    failures: ['WEBHOOK_UNKNOWN', 'DELIVERY_UNKNOWN'],
  },
  {
    ...{ method: 'post', path: `${path}/deliveries/:id/redeliver`, operationId: 'redeliver', tag },
    summary: 'Send a delivery that has ended again',
    query: noQuery,
    answers: { 202: { description: 'It waits to be sent.', body: json(redeliveredAnswer, { redelivered: 1 }) } },
    failures: ['WEBHOOK_UNKNOWN', 'DELIVERY_UNKNOWN', 'DELIVERY_WAITS'],
  },
]
