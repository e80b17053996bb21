import * as v from 'valibot'
import { deliveryStates } from '../db/webhooks.ts'
import { time } from './packs/answers.ts'

// What is told of webhooks. Their secrets are in none of it but the answer to the call that makes one.

const count = v.pipe(v.number(), v.integer(), v.minValue(0))
const uuid = v.pipe(v.string(), v.uuid())

export const webhookSchema = v.object({
  name: v.string(),
  url: v.string(),
  description: v.optional(v.string()),
  types: v.array(v.string()),
  packs: v.array(v.string()),
  enabled: v.boolean(),
  options: v.object({
    allowPrivate: v.optional(v.boolean()),
    allowHttp: v.optional(v.boolean()),
    tries: v.optional(count),
  }),
  createdAt: time,
})

export const webhookStateSchema = v.object({
  ...webhookSchema.entries,
  waiting: v.pipe(count, v.description('Deliveries that are to be sent, or to be tried again.')),
  dead: v.pipe(count, v.description('Deliveries that were given up, and can be sent again.')),
  failingSince: v.optional(v.pipe(time, v.description('Since when the oldest waits that was tried and failed.'))),
})

const outcome = {
  status: v.optional(v.pipe(v.number(), v.description('What the receiver answered.'))),
  error: v.optional(v.pipe(v.string(), v.description('Why it counts as failed, in a word.'))),
}

export const deliverySchema = v.object({
  id: uuid,
  event: v.pipe(uuid, v.description('The id of the event, which is the id of the message.')),
  type: v.string(),
  subject: v.string(),
  state: v.picklist(deliveryStates),
  tries: count,
  queuedAt: time,
  nextAt: v.optional(v.pipe(time, v.description('When it is tried, where nothing of its pack is before it.'))),
  endedAt: v.optional(time),
  ...outcome,
})

export const attemptSchema = v.object({ at: time, durationMs: count, ...outcome })

export const webhooksAnswer = v.object({ webhooks: v.array(webhookStateSchema) })
export const webhookAnswer = v.object({ webhook: webhookStateSchema })
export const createdWebhookAnswer = v.object({
  webhook: webhookSchema,
  secret: v.pipe(v.string(), v.description('What messages are signed with. It is told this once.')),
})
export const changedWebhookAnswer = v.object({ webhook: webhookSchema })
export const deliveriesAnswer = v.object({ deliveries: v.array(deliverySchema), next: v.optional(v.string()) })
export const deliveryAnswer = v.object({ delivery: deliverySchema, attempts: v.array(attemptSchema) })
export const testedAnswer = v.object({
  delivered: v.boolean(),
  id: v.pipe(uuid, v.description('The id of the message.')),
  ...outcome,
  durationMs: count,
})
export const redeliveredAnswer = v.object({ redelivered: count })
