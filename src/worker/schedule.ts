import { createHash } from 'node:crypto'
import { ask } from '../db/client.ts'
import { send } from '../db/queue.ts'
import type { Deps } from '../deps.ts'
import type { Job, Schedule } from './jobs.ts'

/** A time that was missed by more than this, because no worker ran, is left out. Well below how long jobs are kept. */
const catchUpMs = 24 * 60 * 60 * 1000

/** By job and key: the expression that was looked at, and when it names a time again. Looking takes some milliseconds. */
export type Seen = Map<string, { cron: string; next: number }>

/**
 * Sends every job whose time has come. The id of the job follows from its name, key and time, so whoever is first sends
 * it, and for everybody else it is there already: once, however many workers, whatever their clocks say.
 */
export async function sendDue(
  deps: Deps,
  jobs: Readonly<Record<string, Job>>,
  seen: Seen,
  now = new Date(),
): Promise<void> {
  for (const [name, { schedule }] of Object.entries(jobs)) {
    const schedules = typeof schedule === 'function' ? await schedule(deps) : schedule ? [{ cron: schedule }] : []
    for (const one of schedules) await sendIfDue(deps, name, one, seen, now)
  }
}

async function sendIfDue(deps: Deps, name: string, schedule: Schedule, seen: Seen, now: Date): Promise<void> {
  const { cron, key, data = {}, since } = schedule
  const place = `${name}\n${key ?? ''}`
  const before = seen.get(place)
  if (before?.cron === cron && now.getTime() < before.next) return
  const times = await timesAround(cron, now)
  if (!times) deps.log.warn({ job: name, key, cron }, 'this schedule cannot be understood; it is left out')
  else if (now.getTime() - times.last <= catchUpMs && !(since && times.last < since.getTime())) {
    const id = idOf(`${place}\n${new Date(times.last).toISOString()}`)
    await ask(deps.db, (sql) => send(sql, name, data, { id, ...(key === undefined ? {} : { key }) }))
  }
  seen.set(place, { cron, next: times?.next ?? Number.POSITIVE_INFINITY })
}

/**
 * The last time before or at `now` that a cron expression names, and the next one after it, in milliseconds; undefined
 * where it is none.
 */
export async function timesAround(cron: string, now: Date): Promise<{ last: number; next: number } | undefined> {
  // Loaded when it is first needed: the server is to be ready before.
  const { default: cronParser } = await import('cron-parser')
  try {
    const next = cronParser.parseExpression(cron, { currentDate: now, utc: true }).next().getTime()
    // The parser answers times before the given one: a millisecond later, now itself is one of them.
    const from = new Date(now.getTime() + 1)
    return { next, last: cronParser.parseExpression(cron, { currentDate: from, utc: true }).prev().getTime() }
  } catch {
    return undefined
  }
}

/** A UUID (version 8, RFC 9562) that follows from a text. */
function idOf(text: string): string {
  const hex = createHash('sha256').update(text).digest('hex')
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20, 32)}`
}
