import { createHmac, randomBytes } from 'node:crypto'
import type { EventRow } from '../db/events.ts'
import type { Deps } from '../deps.ts'

// How an event looks to others: CloudEvents 1.0 as one JSON object, signed as Standard Webhooks has it.
// Sources: https://github.com/cloudevents/spec, "JSON Event Format"; https://www.standardwebhooks.com.

export const cloudEventType = 'application/cloudevents+json'

/** What stands before the type of every event, and after it the version of the shape of its data. */
const [typePrefix, typeVersion] = ['org.stellaops.registry.', '.v1']

/** The registry that events are from. */
export function sourceOf({ config }: Pick<Deps, 'config'>): string {
  return config.auth.publicUrl ?? 'urn:packs-registry'
}

type Told = Pick<EventRow, 'id' | 'at' | 'subject' | 'data'> & { type: string; position?: number }

/**
 * An event as JSON text, without a line break. `sequence`: the position, so wide that texts compare as numbers do
 * (CloudEvents extension "Sequence").
 */
export function cloudEventText(source: string, { id, at, type, subject, data, position }: Told): string {
  const head = {
    ...{ specversion: '1.0', id, source, type: `${typePrefix}${type}${typeVersion}`, subject, time: at },
    ...{ datacontenttype: 'application/json' },
    ...(position === undefined ? {} : { sequence: String(position).padStart(16, '0') }),
  }
  return `${JSON.stringify(head).slice(0, -1)},"data":${data}}`
}

const secretPrefix = 'whsec_'

export function newSecret(): string {
  return secretPrefix + randomBytes(32).toString('base64')
}

/** The fields of a signed message. A message that is sent again has the same id, and a time of its own. */
export function signed(secret: string, id: string, body: Buffer, now: Date): Record<string, string> {
  const timestamp = String(Math.floor(now.getTime() / 1000))
  const key = Buffer.from(secret.slice(secretPrefix.length), 'base64')
  const digest = createHmac('sha256', key).update(`${id}.${timestamp}.`).update(body).digest('base64')
  return { 'webhook-id': id, 'webhook-timestamp': timestamp, 'webhook-signature': `v1,${digest}` }
}
