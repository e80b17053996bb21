import { askFor, type Connection } from './connection.ts'

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
  progress?: Record<string, unknown>
  result?: unknown
  /** What went wrong in the last attempt, in words. */
  error?: string
}

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
}

export function jobsOf(connection: Connection): Jobs {
  const path = (id: string, action = '') => `/jobs/${encodeURIComponent(id)}${action}`
  return {
    list: (query = {}, options = {}) => list(connection, query, options),
    async show(id, { signal } = {}) {
      return (await askFor<{ job: Job }>(connection, 'job', { path: path(id), signal })).job
    },
    async retry(id, { signal } = {}) {
      const call = { method: 'POST' as const, path: path(id, '/retry'), signal }
      return (await askFor<{ job: Job }>(connection, 'job', call)).job
    },
  }
}

async function* list(connection: Connection, { state, name, pageSize }: JobsQuery, { signal }: Cancellable) {
  const query = new URLSearchParams()
  if (state) query.set('state', state)
  if (name) query.set('name', name)
  if (pageSize) query.set('limit', String(pageSize))
  do {
    const page = await askFor<{ jobs: Job[]; next?: string }>(connection, 'jobs', { path: `/jobs?${query}`, signal })
    yield* page.jobs
    query.set('after', page.next ?? '')
  } while (query.get('after'))
}
