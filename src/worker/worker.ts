import { setImmediate as nextTurn } from 'node:timers/promises'
import { ask, violated } from '../db/client.ts'
import { recordEvents } from '../db/events.ts'
import { endLostRuns, giveBack, type Run, takeJob } from '../db/jobs.ts'
import { forgetOldJobs, wakeChannel } from '../db/queue.ts'
import type { Deps } from '../deps.ts'
import { type Job, jobs as ours } from './jobs.ts'
import { jobFailed, perform, Stopped } from './run.ts'
import { type Seen, sendDue } from './schedule.ts'

export type RunningWorker = {
  /**
   * Takes no new job, and waits `graceMs` for those it has. Those that are left then are told to end by their signal,
   * and what does not within `endMs` is given back for another worker to begin anew. `hurry`, when it aborts, ends the
   * first wait.
   */
  stop(options?: { graceMs?: number; endMs?: number; hurry?: AbortSignal }): Promise<void>
}

export type WorkerOptions = {
  jobs?: Readonly<Record<string, Job>>
  /** How many jobs run at a time. */
  concurrency?: number
  /** How long a job may lie that no notification told of, in milliseconds. */
  pollMs?: number
  /** How often schedules and lost workers are looked after, in milliseconds. */
  careMs?: number
}

const forgetEveryMs = 10 * 60 * 1000
/** After an outage of the database, living workers have this long to prolong their leases. */
const mercyMs = 15_000

/**
 * Works: takes jobs and runs them, sends what is due by a schedule, and gives jobs of dead workers to the living. Any
 * number of workers may do so on one database. An outage of it is waited for.
 */
export function startWorker(deps: Deps, options: WorkerOptions = {}): RunningWorker {
  const { concurrency = deps.config.workerConcurrency, pollMs = 2_000, careMs = 5_000 } = options
  const jobs: Readonly<Record<string, Job>> = options.jobs ?? ours
  const running = new Map<Run, { abort: AbortController; done: Promise<void> }>()
  const bell = openBell()
  const care = openCare(deps, jobs, careMs)
  let stopping = false

  const begin = (run: Run, job: Job) => {
    const abort = new AbortController()
    const done = perform(deps, job, run, abort).finally(() => {
      running.delete(run)
      bell.ring()
    })
    running.set(run, { abort, done })
  }
  /** The names of jobs that may have one more running here. */
  const open = () =>
    Object.entries(jobs)
      .filter(
        ([name, job]) =>
          [...running.keys()].filter((run) => run.name === name).length < (job.concurrency ?? concurrency),
      )
      .map(([name]) => name)
  const takeAll = async () => {
    while (!stopping && running.size < concurrency) {
      const names = open()
      const run = names.length > 0 ? await take(deps, names) : undefined
      const job = run && jobs[run.name]
      if (!run || !job) return
      begin(run, job)
    }
  }
  const round = async () => {
    await care.round()
    await takeAll()
  }
  const loop = async () => {
    // Whoever starts it has other things to say first.
    await nextTurn()
    while (!stopping) {
      await withoutOutages(deps, care, round)
      await bell.wait(pollMs)
    }
  }
  const listening = deps.db.sql.listen(wakeChannel, bell.ring, bell.ring)
  listening.catch((error) => deps.log.warn({ error }, 'jobs are looked for, and not told of'))
  const looping = loop()
  return {
    async stop({ graceMs = 15_000, endMs = 5_000, hurry } = {}) {
      stopping = true
      bell.ring()
      await looping
      await listening.then(({ unlisten }) => unlisten()).catch(() => undefined)
      const all = () => Promise.all([...running.values()].map(({ done }) => done))
      await within(all(), graceMs, hurry)
      for (const { abort } of running.values()) abort.abort(new Stopped('the worker stops'))
      await within(all(), endMs)
      for (const run of running.keys()) await abandon(deps, run)
    },
  }
}

/** Takes a job that has begun to run elsewhere in the same moment for none. */
async function take(deps: Deps, names: readonly string[]): Promise<Run | undefined> {
  try {
    return await ask(deps.db, (sql) => takeJob(sql, names))
  } catch (error) {
    if (violated(error) === undefined) throw error
    return undefined
  }
}

/** Gives back a job whose handler does not end. Should that fail, its lease is what guarantees it. */
async function abandon(deps: Deps, run: Run): Promise<void> {
  const about = { job: run.name, id: run.id }
  try {
    await ask(deps.db, (sql) => giveBack(sql, run))
    deps.log.warn(about, 'job given back: it did not end when it was told to')
  } catch (error) {
    deps.log.warn({ ...about, error }, 'job left for its lease to end')
  }
}

type Care = { round(): Promise<void>; outage: boolean; mercyUntil: number }

/** What is to be done for all workers, every now and then: whoever is first does it. */
function openCare(deps: Deps, jobs: Readonly<Record<string, Job>>, careMs: number): Care {
  const seen: Seen = new Map()
  let next = 0
  let forgetNext = performance.now() + forgetEveryMs
  const care: Care = {
    outage: false,
    mercyUntil: 0,
    async round() {
      const now = performance.now()
      if (now < next) return
      next = now + careMs
      await sendDue(deps, jobs, seen)
      if (now >= care.mercyUntil)
        for (const lost of await endLost(deps))
          deps.log.warn(
            lost,
            lost.failed
              ? 'the worker of a job is gone, and no try is left'
              : 'the worker of a job is gone; it is run again',
          )
      if (now >= forgetNext) {
        forgetNext = now + forgetEveryMs
        await ask(deps.db, forgetOldJobs)
      }
    },
  }
  return care
}

async function endLost(deps: Deps): ReturnType<typeof endLostRuns> {
  return ask(deps.db, (sql) =>
    sql.begin(async (tx) => {
      const lost = await endLostRuns(tx)
      const failed = lost.filter((run) => run.failed)
      await recordEvents(
        tx,
        failed.map((run) => jobFailed(run, 'its worker is gone, and no try is left')),
      )
      return lost
    }),
  )
}

/** Says once that the database is away, and once that it is back; every other error each time. */
async function withoutOutages(deps: Deps, care: Care, round: () => Promise<void>): Promise<void> {
  try {
    await round()
    if (care.outage) deps.log.info('the worker goes on')
    care.outage = false
  } catch (error) {
    if (!care.outage) deps.log.warn({ error }, 'the worker cannot look for jobs; it tries again')
    care.outage = true
    care.mercyUntil = performance.now() + mercyMs
  }
}

/** A wait that can be cut short; a ring that comes while nobody waits counts for the next wait. */
export function openBell() {
  let wake: (() => void) | undefined
  let rung = false
  return {
    ring() {
      rung = true
      wake?.()
    },
    wait(ms: number): Promise<void> {
      return new Promise((resolve) => {
        const end = () => {
          clearTimeout(timer)
          wake = undefined
          rung = false
          resolve()
        }
        const timer = setTimeout(end, ms)
        wake = end
        if (rung) end()
      })
    },
  }
}

/** Until all is done, the time is over, or somebody is in a hurry. */
export async function within(done: Promise<unknown>, ms: number, hurry?: AbortSignal): Promise<void> {
  if (hurry?.aborted) return
  let timer: NodeJS.Timeout | undefined
  const over = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms)
    hurry?.addEventListener('abort', () => resolve(), { once: true })
  })
  await Promise.race([done, over])
  clearTimeout(timer)
}
