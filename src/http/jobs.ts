import * as v from 'valibot'
import { ask, violated } from '../db/client.ts'
import { findJob, type JobRow, jobStates, listJobs, retryJob } from '../db/jobs.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import { requireAccess } from './access.ts'
import { readCursor, writeCursor } from './packs/cursor.ts'
import { queryOf } from './packs/request.ts'
import type { Routes } from './routes.ts'

type Position = { createdAt: string; id: string }

/** The query of GET /jobs. */
export const jobsQuery = v.strictObject(
  {
    state: v.optional(v.picklist(jobStates, `must be one of ${jobStates.join(', ')}`)),
    name: v.optional(v.pipe(v.string(), v.regex(/^[a-z][a-z0-9-]{0,49}$/, 'must be the name of a job, such as tidy'))),
    limit: v.optional(
      v.pipe(
        v.string(),
        v.regex(/^\d{1,4}$/, 'must be 1 to 1000'),
        v.transform(Number),
        v.minValue(1, 'must be 1 to 1000'),
        v.maxValue(1000, 'must be 1 to 1000'),
      ),
      '50',
    ),
    after: v.optional(v.string()),
  },
  (issue) => (issue.expected === 'never' ? 'is not a parameter of this call' : 'is not a query'),
)

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
    return Response.json({ job: shown(await jobOf(deps, c.req.param('id') ?? '')) })
  })

  routes.post('/jobs/:id/retry', async (c) => {
    requireAccess(c, '*', 'push')
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
