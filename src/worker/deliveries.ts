import { setImmediate as nextTurn } from 'node:timers/promises'
import { askRelaxed } from '../db/client.ts'
import { eventsChannel } from '../db/events.ts'
import { claimLanes, type Lane } from '../db/lanes.ts'
import type { Deps } from '../deps.ts'
import { type DeliverOptions, deliverDefaults, deliverLane } from '../registry/deliver.ts'
import { connectionsEach, openSender } from '../registry/webhook-sender.ts'
import { openBell, type RunningWorker, within } from './worker.ts'

export type DeliveriesOptions = Partial<DeliverOptions> & {
  /** How many lanes are sent at a time, over all webhooks. Each waits for answers most of its time. */
  slots?: number
  /** How long what no notification told of may lie, in milliseconds. */
  pollMs?: number
  timeoutMs?: number
}

/**
 * Sends events to webhooks, beside the jobs, for it is to be done within a second and not in their turn. Any number of
 * processes may; see db/lanes.ts. An outage of the database is waited for.
 */
export function startDeliveries(deps: Deps, options: DeliveriesOptions = {}): RunningWorker {
  const { slots = 32, pollMs = 1_000, timeoutMs, ...given } = options
  const deliver = { ...deliverDefaults, ...given }
  const sender = openSender(deps, timeoutMs === undefined ? {} : { timeoutMs })
  const running = new Map<Lane, Promise<void>>()
  const ending = new AbortController()
  const bell = openBell()
  let stopping = false
  let outage = false

  const begin = (lane: Lane) => {
    const about = { webhook: lane.webhook, lane: lane.lane }
    const done = deliverLane(deps, sender, lane, deliver, ending.signal)
      .catch((error) => deps.log.warn({ ...about, error }, 'a lane of deliveries is left until its lease ends'))
      .finally(() => {
        running.delete(lane)
        bell.ring()
      })
    running.set(lane, done)
  }
  const round = async () => {
    await deps.relay.settle()
    while (!stopping && running.size < slots) {
      const busy = new Map<string, number>()
      for (const { webhookId } of running.keys()) busy.set(webhookId, (busy.get(webhookId) ?? 0) + 1)
      const free = slots - running.size
      const claim = { slots: free, perWebhook: connectionsEach, busy, leaseSeconds: deliver.leaseSeconds }
      const lanes = await askRelaxed(deps.db, (relaxed) => claimLanes(relaxed, claim))
      for (const lane of lanes) begin(lane)
      if (lanes.length === 0) return
    }
  }
  const loop = async () => {
    await nextTurn()
    while (!stopping) {
      try {
        await round()
        if (outage) deps.log.info('deliveries go on')
        outage = false
      } catch (error) {
        if (!outage) deps.log.warn({ error }, 'deliveries cannot be looked for; this is tried again')
        outage = true
      }
      await bell.wait(pollMs)
    }
  }
  const listening = deps.db.sql.listen(eventsChannel, bell.ring, bell.ring)
  listening.catch((error) => deps.log.warn({ error }, 'deliveries are looked for, and not told of'))
  const looping = loop()
  return {
    async stop({ graceMs = 5_000, endMs = 2_000, hurry } = {}) {
      stopping = true
      bell.ring()
      await looping
      await listening.then(({ unlisten }) => unlisten()).catch(() => undefined)
      await within(Promise.all(running.values()), graceMs, hurry)
      ending.abort(new Error('the worker stops'))
      await within(Promise.all(running.values()), endMs)
      sender.close()
    },
  }
}
