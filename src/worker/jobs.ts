import type { QueueName } from '../db/queues.ts'
import type { Deps } from '../deps.ts'
import { runRetention } from '../registry/retention-run.ts'
import { exportFile } from './export.ts'
import { gc, sweep } from './gc.ts'
import { finishImport } from './import.ts'
import { mirror, mirrorTimes } from './mirror.ts'
import { retentionTimes } from './retention.ts'
import { scrubStore, scrubTimes } from './scrub.ts'
import { sealAuditEvents } from './seal-audit.ts'
import { tendAllQuotas } from './tend-quotas.ts'
import { tidyUp } from './tidy.ts'

/** What a handler is given beside its data. */
export type JobContext = {
  /** Aborts when the worker is stopped for good, or has lost the job to another one. Pass it on to all that can wait. */
  readonly signal: AbortSignal
  /** Says how far it is, for `packs jobs show`. Cheap: only the last word of a second is written down. */
  progress(value: object): void
}

/** When to send a job, and with what. `since`: times before it are not made up for; give the moment it was set up. */
export type Schedule = {
  /** Five fields, in UTC: `0 3 * * *` is 3 o'clock every night. */
  cron: string
  key?: string
  data?: object
  since?: Date
}

/** What a job does, and when. */
export type Job = {
  /**
   * Answers the result, to be kept and shown: no secrets. A Failure that is the request's fault (below 500) fails the
   * job for good, every other error until its tries are spent. It may run again after a crash, or twice at once for a
   * moment: written so that this does no harm.
   */
  run(deps: Deps, data: never, context: JobContext): Promise<object | undefined>
  /** How many of it one process runs at a time; no more than WORKER_CONCURRENCY unless given. */
  concurrency?: number
  /** Cron, in UTC; or what answers the schedules there are now. Each time is sent once, however many workers there are. */
  schedule?: string | ((deps: Deps) => Promise<readonly Schedule[]>)
}

/** Every job there is, by the name of its queue; how it is retried and for how long it is leased: db/queues.ts. */
export const jobs: Record<QueueName, Job> = {
  'seal-audit': { run: sealAuditEvents, schedule: '* * * * *' },
  export: { run: exportFile, concurrency: 2 },
  import: { run: finishImport, concurrency: 2 },
  mirror: { run: mirror, schedule: mirrorTimes },
  'tend-quotas': { run: tendAllQuotas, schedule: '* * * * *' },
  retention: { run: runRetention, schedule: retentionTimes },
  tidy: { run: tidyUp, schedule: '*/10 * * * *' },
  scrub: { run: scrubStore, schedule: scrubTimes, concurrency: 1 },
  // A pass that takes longer than until the next is followed by it: GC_RATE is the rate of one.
  gc: { run: gc, schedule: '*/5 * * * *', concurrency: 1 },
  sweep: { run: sweep, schedule: '17 * * * *' },
}
