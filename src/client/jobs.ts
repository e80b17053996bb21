import { askFor } from './answers.ts'
import { type Connection, jsonBody, queryOf } from './connection.ts'
import { listed } from './pages.ts'

export type JobState = 'waiting' | 'running' | 'completed' | 'failed' | 'cancelled'

/** A piece of background work. Times are RFC 3339. */
export type Job = {
  id: string
  /** What it does, such as `tidy`. */
  name: string
  state: JobState
  /** What it is about, such as the id of a mirror. */
  key?: string
  priority: number
  /** Attempts begun so far, and how many there may be. */
  attempts: number
  maxAttempts: number
  createdAt: string
  /** Of a job that waits: it does not begin before this. */
  startAfter?: string
  startedAt?: string
  finishedAt?: string
  data: unknown
  /** It runs, and is about to be cancelled. */
  isCancelled?: boolean
  progress?: Record<string, unknown>
  result?: unknown
  /** What went wrong in the last attempt, in words. */
  error?: string
}

/** A kind of job. Ages are in seconds, 0 where there is none. */
export type JobKind = {
  name: string
  /** What such a job does. */
  about: string
  /** Whether `run` takes it. */
  byHand: boolean
  waiting: number
  running: number
  /** Dead letters. */
  failed: number
  completed: number
  cancelled: number
  /** How long the oldest that is due has waited, and how long the oldest dead letter has been one. */
  oldestDueSeconds: number
  oldestFailedSeconds: number
}

/** A job that was asked for. `isNew`: false where it waited already. `behind`: one of its kind that runs now. */
export type SentJob = { job: Job; isNew: boolean; behind?: string }

export type JobsQuery = {
  state?: JobState
  name?: string
  /** How many are asked for at a time: 1 to 1,000. */
  pageSize?: number
}

type Cancellable = { signal?: AbortSignal | undefined }

/** Background work of a registry. */
export type Jobs = {
  /** Jobs, the newest first, page by page as they are consumed. */
  list(query?: JobsQuery, options?: Cancellable): AsyncGenerator<Job, void, undefined>
  /** Throws JOB_UNKNOWN. */
  show(id: string, options?: Cancellable): Promise<Job>
  /** Makes a job that failed wait again. Throws JOB_UNKNOWN, JOB_NOT_FAILED. */
  retry(id: string, options?: Cancellable): Promise<Job>
  /** Makes the dead letters of a kind wait again. `left`: beside others of their key. `more`: ask again. */
  retryAll(name: string, options?: Cancellable): Promise<{ retried: number; left: number; more: boolean }>
  kinds(options?: Cancellable): Promise<JobKind[]>
  /** Has a job run now. Throws REQUEST_INVALID where its kind is not run by hand, or its data are not what it takes. */
  run(
    job: { name: string; key?: string | undefined; data?: object | undefined },
    options?: Cancellable,
  ): Promise<SentJob>
  /** Cancels a job that waits or runs. Throws JOB_UNKNOWN, JOB_ENDED. */
  cancel(id: string, options?: Cancellable): Promise<Job>
  /** Takes a dead letter from the list. Throws JOB_UNKNOWN, JOB_NOT_FAILED. */
  discard(id: string, options?: Cancellable): Promise<Job>
}

export function jobsOf(connection: Connection): Jobs {
  const path = (id: string, action = '') => `/jobs/${encodeURIComponent(id)}${action}`
  return {
    list: ({ state, name, pageSize } = {}, { signal } = {}) =>
      listed(connection, 'jobs', { path: `/jobs${queryOf({ state, name, limit: pageSize?.toString() })}`, signal }),
    async show(id, { signal } = {}) {
      return (await askFor<{ job: Job }>(connection, 'job', { path: path(id), signal })).job
    },
    retry: (id, options) => change(connection, path(id, '/retry'), options),
    async retryAll(name, { signal } = {}) {
      const call = { method: 'POST' as const, path: `/jobs/retry?${new URLSearchParams({ name })}`, signal }
      return askFor<{ retried: number; left: number; more: boolean }>(connection, 'retried', call)
    },
    async kinds({ signal } = {}) {
      return (await askFor<{ kinds: JobKind[] }>(connection, 'kinds', { path: '/jobs/kinds', signal })).kinds
    },
    run: (job, { signal } = {}) =>
      askFor<SentJob>(connection, 'job', { method: 'POST', path: '/jobs', body: jsonBody(job), signal }),
    cancel: (id, options) => change(connection, path(id, '/cancel'), options),
    discard: (id, options) => change(connection, path(id, '/discard'), options),
  }
}

async function change(connection: Connection, path: string, { signal }: Cancellable = {}): Promise<Job> {
  return (await askFor<{ job: Job }>(connection, 'job', { method: 'POST', path, signal })).job
}
