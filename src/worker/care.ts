import { ask } from '../db/client.ts'
import { endLostRuns, isEnd } from '../db/jobs.ts'
import { forgetOldJobs } from '../db/queue.ts'
import type { Deps } from '../deps.ts'
import { noteEnd } from '../registry/jobs.ts'
import type { Job } from './jobs.ts'
import { type Seen, sendDue } from './schedule.ts'

const forgetEveryMs = 10 * 60 * 1000
/** After an outage of the database, living workers have this long to prolong their leases. */
const mercyMs = 15_000

export type Care = { round(): Promise<void>; outage: boolean; mercyUntil: number }

/** What is to be done for all workers, every now and then: whoever is first does it. */
export function openCare(deps: Deps, jobs: Readonly<Record<string, Job>>, careMs: number): Care {
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
      if (now >= care.mercyUntil) await endLost(deps)
      if (now >= forgetNext) {
        forgetNext = now + forgetEveryMs
        await ask(deps.db, forgetOldJobs)
      }
    },
  }
  return care
}

/** Gives the jobs of workers that are gone to the living, or ends them where no try is left. */
async function endLost(deps: Deps): Promise<void> {
  const lost = await ask(deps.db, (sql) =>
    sql.begin(async (tx) => {
      const jobs = await endLostRuns(tx)
      for (const job of jobs) if (isEnd(job)) await noteEnd(tx, job)
      return jobs
    }),
  )
  for (const { id, name: job, state, attempts } of lost) {
    if (state === 'failed') deps.metrics.jobsDead.labels(job).inc()
    deps.log.warn({ id, job, attempts }, `the worker of a job is gone; ${whatNow[state] ?? 'it is run again'}`)
  }
}

const whatNow: Record<string, string> = {
  failed: 'no try is left: a dead letter',
  cancelled: 'it was cancelled',
}

/** Says once that the database is away, and once that it is back; every other error each time. */
export async function withoutOutages(deps: Deps, care: Care, round: () => Promise<void>): Promise<void> {
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
