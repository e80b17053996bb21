import { createHash } from 'node:crypto'
import cronParser from 'cron-parser'
import { ask } from '../db/client.ts'
import { send } from '../db/queue.ts'
import type { Deps } from '../deps.ts'
import type { Job, Schedule } from './jobs.ts'

/** A time that was missed by more than this, because no worker ran, is left out. Well below how long jobs are kept. */
const catchUpMs = 24 * 60 * 60 * 1000

/** What this process has sent already, so that it does not ask again every few seconds. */
export type Sent = Map<string, number>

/**
 * Sends every job whose time has come. The id of the job follows from its name, key and time, so whoever is first sends
 * it, and for everybody else it is there already: once, however many workers, whatever their clocks say.
 */
export async function sendDue(
  deps: Deps,
  jobs: Readonly<Record<string, Job>>,
  sent: Sent,
  now = new Date(),
): Promise<void> {
  for (const [name, { schedule }] of Object.entries(jobs)) {
    const schedules = typeof schedule === 'function' ? await schedule(deps) : schedule ? [{ cron: schedule }] : []
    for (const one of schedules) await sendIfDue(deps, name, one, sent, now)
  }
}

async function sendIfDue(deps: Deps, name: string, schedule: Schedule, sent: Sent, now: Date): Promise<void> {
  const { cron, key, data = {}, since } = schedule
  const time = lastTime(cron, now)
  if (time === undefined) {
    deps.log.warn({ job: name, key, cron }, 'this schedule cannot be understood; it is left out')
    return
  }
  const place = `${name}\n${key ?? ''}`
  if (now.getTime() - time > catchUpMs || (since && time < since.getTime()) || sent.get(place) === time) return
  const id = idOf(`${place}\n${new Date(time).toISOString()}`)
  await ask(deps.db, (sql) => send(sql, name, data, { id, ...(key === undefined ? {} : { key }) }))
  sent.set(place, time)
}

/** The last time before or at `now` that a cron expression names, in milliseconds; undefined where it is none. */
export function lastTime(cron: string, now: Date): number | undefined {
  try {
    // The parser answers times before the given one: a millisecond later, now itself is one of them.
    const from = new Date(now.getTime() + 1)
    return cronParser.parseExpression(cron, { currentDate: from, utc: true }).prev().getTime()
  } catch {
    return undefined
  }
}

/** A UUID (version 8, RFC 9562) that follows from a text. */
function idOf(text: string): string {
  const hex = createHash('sha256').update(text).digest('hex')
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20, 32)}`
}
