/** How the jobs of a queue are treated. Times are in seconds. */
export type QueueOptions = {
  /** How often a failed job is tried again before it stays failed. */
  retries: number
  /** The pause before the first retry; it doubles each time, and up to half of it is chance. */
  retryDelay: number
  /** A worker that has not been heard of for so long has lost its job to the next one. */
  lease: number
  /** Of the jobs with one key, one runs and one more may wait; a further one is not taken. */
  exclusive?: boolean
}

/** What the clock sends again anyway: a worker that is killed, or a database that is away for a minute, is no dead letter. */
const byTheClock = { retries: 3, retryDelay: 10, lease: 60, exclusive: true }

/**
 * Every kind of job. The queues are part of the schema: `migrate` makes them, so whoever is connected may send. What a
 * job does stands in `worker/jobs.ts`.
 */
export const queues = {
  'seal-audit': byTheClock,
  export: { retries: 6, retryDelay: 20, lease: 60, exclusive: true },
  import: { retries: 6, retryDelay: 5, lease: 60, exclusive: true },
  mirror: { retries: 6, retryDelay: 20, lease: 60, exclusive: true },
  'tend-quotas': byTheClock,
  retention: { retries: 5, retryDelay: 30, lease: 60, exclusive: true },
  tidy: byTheClock,
  scrub: { retries: 20, retryDelay: 30, lease: 60, exclusive: true },
  gc: byTheClock,
  sweep: byTheClock,
} as const satisfies Record<string, QueueOptions>

export type QueueName = keyof typeof queues
