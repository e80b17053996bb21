import * as v from 'valibot'
import { ask, violated } from '../db/client.ts'
import { findJob, type JobRow, jobStates, listJobs, retryJob } from '../db/jobs.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import { requireAccess } from './access.ts'
import { readCursor, writeCursor } from './packs/cursor.ts'
import { limitSchema, noQuery, query, queryOf } from './packs/request.ts'
import type { Routes } from './routes.ts'

type Position = { createdAt: string; id: string }

/** The query of GET /jobs. */
export const jobsQuery = query({
  state: v.optional(v.picklist(jobStates, `must be one of ${jobStates.join(', ')}`)),
  name: v.optional(v.pipe(v.string(), v.regex(/^[a-z][a-z0-9-]{0,49}$/, 'must be the name of a job, such as tidy'))),
  limit: v.optional(limitSchema, '50'),
  after: v.optional(v.string()),
})

const time = v.pipe(v.string(), v.isoTimestamp())
const whole = v.pipe(v.number(), v.integer())

export const jobSchema = v.object({
  id: v.pipe(v.string(), v.uuid()),
  name: v.string(),
  state: v.picklist(jobStates),
  key: v.optional(v.pipe(v.string(), v.description('What it is about: of one name and key only one runs at a time.'))),
  priority: whole,
  attempts: v.pipe(whole, v.description('Attempts begun so far.')),
  maxAttempts: whole,
  createdAt: time,
  startAfter: v.optional(v.pipe(time, v.description('Of a waiting job: it is not begun before this.'))),
  startedAt: v.optional(time),
  finishedAt: v.optional(time),
  data: v.optional(v.unknown()),
  progress: v.optional(v.looseObject({})),
  result: v.optional(v.unknown()),
  error: v.optional(v.string()),
})
export const jobAnswer = v.object({ job: jobSchema })
export const jobsAnswer = v.object({ jobs: v.array(jobSchema), next: v.optional(v.string()) })

export function addJobRoutes(routes: Routes, deps: Deps): void {
  // The newest first.
  routes.get('/jobs', async (c) => {
    requireAccess(c, '*', 'pull')
    const { state, name, limit, after } = queryOf(c, jobsQuery)
    const question = JSON.stringify({ jobs: true, state, name })
    const rows = await ask(deps.db, (sql) =>
      listJobs(sql, {
        ...{ state, name, limit: limit + 1 },
        after: after === undefined ? undefined : readCursor<Position>(deps.uploadSecret, question, after),
      }),
    )
    const page = rows.slice(0, limit)
    const last = rows.length > limit ? page.at(-1) : undefined
    const next = last && writeCursor(deps.uploadSecret, question, { createdAt: last.createdAt, id: last.id })
    return Response.json({ jobs: page.map(shown), ...(next ? { next } : {}) })
  })

  routes.get('/jobs/:id', async (c) => {
    requireAccess(c, '*', 'pull')
    queryOf(c, noQuery)
    return Response.json({ job: shown(await jobOf(deps, c.req.param('id') ?? '')) })
  })

  routes.post('/jobs/:id/retry', async (c) => {
    requireAccess(c, '*', 'push')
    queryOf(c, noQuery)
    const job = await jobOf(deps, c.req.param('id') ?? '')
    if (!(await retry(deps, job)))
      throw new Failure('JOB_NOT_FAILED', { detail: `job ${job.id} is ${job.state}: only one that failed is retried` })
    return Response.json({ job: shown(await jobOf(deps, job.id)) }, { status: 202 })
  })
}

async function retry(deps: Deps, { id, name, key }: JobRow): Promise<boolean> {
  try {
    return await ask(deps.db, (sql) => retryJob(sql, id))
  } catch (error) {
    if (violated(error) === undefined) throw error
    const about = key === null ? name : `${name} of ${key}`
    throw new Failure('JOB_NOT_FAILED', {
      detail: `another job ${about} waits to be tried again already`,
      cause: error,
    })
  }
}

const uuid = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i

/** Throws JOB_UNKNOWN. */
async function jobOf(deps: Deps, id: string): Promise<JobRow> {
  const job = uuid.test(id) ? await ask(deps.db, (sql) => findJob(sql, id)) : undefined
  if (job) return job
  throw new Failure('JOB_UNKNOWN', {
    detail: `there is no job ${JSON.stringify(id.slice(0, 100))}: its id is wrong, or it ended so long ago that it is forgotten`,
  })
}

/** A job without what does not apply to it. */
function shown(row: JobRow): object {
  const { startAfter, ...rest } = row
  const facts = Object.entries(rest).filter(([, value]) => value !== null)
  return { ...Object.fromEntries(facts), ...(row.state === 'waiting' ? { startAfter } : {}) }
}
