import { setImmediate as nextTurn } from 'node:timers/promises'
import { ask, violated } from '../db/client.ts'
import { type Run, takeJob } from '../db/jobs.ts'
import { cancelChannel, wakeChannel } from '../db/queue.ts'
import type { Deps } from '../deps.ts'
import { openCare, withoutOutages } from './care.ts'
import { type Job, jobs as ours } from './jobs.ts'
import { Cancelled, giveBackRun, perform, Stopped } from './run.ts'

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
  const cancel = (id: string) => {
    for (const [run, { abort }] of running) if (run.id === id) abort.abort(new Cancelled('the job was cancelled'))
  }
  const listening = Promise.all([
    deps.db.sql.listen(wakeChannel, bell.ring, bell.ring),
    deps.db.sql.listen(cancelChannel, cancel),
  ])
  listening.catch((error) => deps.log.warn({ error }, 'jobs are looked for, and not told of'))
  showSlots(deps, jobs, running, concurrency)
  const looping = loop()
  return {
    async stop({ graceMs = 15_000, endMs = 5_000, hurry } = {}) {
      stopping = true
      bell.ring()
      await looping
      await listening.then((ears) => Promise.all(ears.map(({ unlisten }) => unlisten()))).catch(() => undefined)
      const all = () => Promise.all([...running.values()].map(({ done }) => done))
      await within(all(), graceMs, hurry)
      for (const { abort } of running.values()) abort.abort(new Stopped('the worker stops'))
      await within(all(), endMs)
      for (const run of running.keys()) await abandon(deps, run)
    },
  }
}

/** For the metrics: what runs here, and a figure for every kind from the beginning, so that the first death is seen as one. */
function showSlots({ metrics }: Deps, jobs: object, running: ReadonlyMap<Run, unknown>, concurrency: number): void {
  metrics.sources.slots = () => ({ busy: running.size, max: concurrency })
  for (const name of Object.keys(jobs)) metrics.jobsDead.labels(name).inc(0)
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
    await giveBackRun(deps, run)
    deps.log.warn(about, 'job given back: it did not end when it was told to')
  } catch (error) {
    deps.log.warn({ ...about, error }, 'job left for its lease to end')
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
