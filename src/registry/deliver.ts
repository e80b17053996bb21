import { askRelaxed } from '../db/client.ts'
import {
  type DueDelivery,
  dueDeliveries,
  giveBackLane,
  type Lane,
  leaveLane,
  type Settlement,
  settle,
} from '../db/lanes.ts'
import type { Deps } from '../deps.ts'
import { cloudEventText, sourceOf } from './cloud-event.ts'
import type { Sender, Sent, WebhookOptions } from './webhook-sender.ts'

export type DeliverOptions = {
  /** How long a lane is ours after each word of us. Longer than an answer may take. */
  leaseSeconds: number
  /** The first pause after a failed try in seconds, doubled each time; up to half of it is chance. */
  baseDelaySeconds: number
}

export const deliverDefaults: DeliverOptions = { leaseSeconds: 30, baseDelaySeconds: 5 }

/** With the pauses between them these take about a day. */
const defaultTries = 16
/** A delivery that has waited for so long, behind others that failed, say, gets one more try. */
const longestWaitSeconds = 24 * 60 * 60
const longestPauseSeconds = 6 * 60 * 60
const readAtOnce = 10

/**
 * Sends what waits in a lane, until it is empty, a try has failed, or `signal` aborts. Nothing here waits for the disk:
 * what a crash of the database makes it forget is sent again. Throws where the database is away; then too.
 */
export async function deliverLane(
  deps: Deps,
  sender: Sender,
  lane: Lane,
  options: DeliverOptions,
  signal: AbortSignal,
): Promise<void> {
  for (;;) {
    const found = await askRelaxed(deps.db, (relaxed) => dueDeliveries(relaxed, lane, readAtOnce))
    if (!found) return
    if (found.due.length === 0 && (await askRelaxed(deps.db, (relaxed) => leaveLane(relaxed, lane, found.pending))))
      return
    for (const delivery of found.due) {
      const sent = await send(deps, sender, lane, delivery, signal)
      if (!sent) return void (await askRelaxed(deps.db, (relaxed) => giveBackLane(relaxed, lane)))
      const settlement = settlementOf(lane.options, delivery, sent, options)
      note(deps, lane, delivery, sent, settlement)
      const { leaseSeconds } = options
      const isOurs = await askRelaxed(deps.db, (relaxed) =>
        settle(relaxed, lane, delivery.deliveryId, sent, settlement, leaseSeconds),
      )
      if (!isOurs || typeof settlement !== 'string') return
    }
  }
}

/** Undefined where it was told to stop before there was an answer. */
async function send(
  deps: Deps,
  sender: Sender,
  lane: Lane,
  { event }: DueDelivery,
  signal: AbortSignal,
): Promise<Sent | undefined> {
  const target = { id: lane.webhookId, url: lane.url, secret: lane.secret, options: lane.options as WebhookOptions }
  try {
    signal.throwIfAborted()
    return await sender.post(target, { id: event.id, text: cloudEventText(sourceOf(deps), event) }, signal)
  } catch (error) {
    if (signal.aborted) return undefined
    throw error
  }
}

function settlementOf(
  { tries: most = defaultTries }: WebhookOptions,
  { tries, ageSeconds }: DueDelivery,
  { error, retryAfterSeconds = 0 }: Sent,
  { baseDelaySeconds }: DeliverOptions,
): Settlement {
  if (error === null) return 'delivered'
  if (tries + 1 >= most || ageSeconds > longestWaitSeconds) return 'dead'
  const grown = Math.min(baseDelaySeconds * 2 ** tries, longestPauseSeconds) * (0.5 + Math.random() / 2)
  return { retryAfterSeconds: Math.max(grown, Math.min(retryAfterSeconds, longestPauseSeconds)) }
}

function note(
  { log, metrics }: Deps,
  { webhook }: Lane,
  { deliveryId, event, tries }: DueDelivery,
  { at, status, error, durationMs }: Sent,
  settlement: Settlement,
): void {
  const outcome = typeof settlement === 'string' ? settlement : 'failed'
  metrics.deliveries.labels(outcome).observe(durationMs / 1000)
  if (outcome === 'delivered' && tries === 0)
    metrics.deliveryLag.observe(Math.max(0, (at.getTime() + durationMs - Date.parse(event.at)) / 1000))
  const about = { webhook, delivery: deliveryId, event: event.id, type: event.type, status, error, attempt: tries + 1 }
  if (outcome === 'dead') log.warn(about, 'a delivery is given up; packs webhook redeliver sends it again')
  else log.debug({ ...about, ms: durationMs }, `delivery ${outcome}`)
}
