import * as v from 'valibot'
import { ask, askRead } from '../db/client.ts'
import { countJobs, discardJob } from '../db/dead-letters.ts'
import { findJob, type JobRow, jobStates, listJobs } from '../db/jobs.ts'
import type { QueueName } from '../db/queues.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import { inWords, violationsOf } from '../packs/document.ts'
import { cancel, retry, retryAll, runByHand } from '../registry/jobs.ts'
import { requireAccess, requireAdmin } from './access.ts'
import { isKind, jobKinds } from './job-kinds.ts'
import { readCursor, writeCursor } from './packs/cursor.ts'
import { jsonBody, limitSchema, noQuery, query, queryOf } from './packs/request.ts'
import type { Routes } from './routes.ts'

type Position = { createdAt: string; id: string }

const kindSchema = v.pipe(v.string(), v.regex(/^[a-z][a-z0-9-]{0,49}$/, 'must be the name of a job, such as tidy'))

/** The query of GET /jobs. */
export const jobsQuery = query({
  state: v.optional(v.picklist(jobStates, `must be one of ${jobStates.join(', ')}`)),
  name: v.optional(kindSchema),
  limit: v.optional(limitSchema, '50'),
  after: v.optional(v.string()),
})

/** The query of POST /jobs/retry. */
export const retryQuery = query({ name: kindSchema })

/** The body of POST /jobs. */
export const jobBody = v.strictObject({
  name: v.pipe(kindSchema, v.description('The kind of job.')),
  key: v.optional(
    v.pipe(v.string(), v.minLength(1, 'must not be empty'), v.maxLength(200, 'must have at most 200 characters')),
  ),
  data: v.optional(v.looseObject({}), {}),
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
  isCancelled: v.optional(v.pipe(v.boolean(), v.description('It runs, and is about to be cancelled.'))),
  error: v.optional(v.string()),
})
export const jobKindSchema = v.object({
  name: v.string(),
  about: v.pipe(v.string(), v.description('What such a job does.')),
  byHand: v.pipe(v.boolean(), v.description('Whether POST /jobs takes it.')),
  waiting: whole,
  running: whole,
  failed: v.pipe(whole, v.description('Dead letters: they wait for somebody to retry or discard them.')),
  completed: whole,
  cancelled: whole,
  oldestDueSeconds: v.pipe(v.number(), v.description('How long the oldest that is due has waited.')),
  oldestFailedSeconds: v.pipe(v.number(), v.description('How long the oldest dead letter has been one.')),
})
export const jobKindsAnswer = v.object({ kinds: v.array(jobKindSchema) })
export const jobSentAnswer = v.object({
  job: jobSchema,
  isNew: v.pipe(v.boolean(), v.description('False where this one waited already.')),
  behind: v.optional(v.pipe(v.string(), v.uuid(), v.description('A job of the same kind that runs now.'))),
})
export const retriedAnswer = v.object({
  retried: whole,
  left: v.pipe(whole, v.description('Beside another one of their key that waits already.')),
  more: v.pipe(v.boolean(), v.description('There are more: ask again.')),
})
export const jobAnswer = v.object({ job: jobSchema })
export const jobsAnswer = v.object({ jobs: v.array(jobSchema), next: v.optional(v.string()) })

export function addJobRoutes(routes: Routes, deps: Deps): void {
  // The newest first.
  routes.get('/jobs', async (c) => {
    requireAccess(c, '*', 'pull')
    const { state, name, limit, after } = queryOf(c, jobsQuery)
    const question = JSON.stringify({ jobs: true, state, name })
    const rows = await askRead(deps.db, (sql) =>
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

  // Before /jobs/:id, which it would be taken for.
  routes.get('/jobs/kinds', async (c) => {
    requireAccess(c, '*', 'pull')
    queryOf(c, noQuery)
    const counts = await askRead(deps.db, countJobs)
    return Response.json({ kinds: counts.filter(({ name }) => isKind(name)).map(kindOf) })
  })

  routes.get('/jobs/:id', async (c) => {
    requireAccess(c, '*', 'pull')
    queryOf(c, noQuery)
    return Response.json({ job: shown(await jobOf(deps, c.req.param('id') ?? '')) })
  })

  addJobChanges(routes, deps)
}

function addJobChanges(routes: Routes, deps: Deps): void {
  routes.post('/jobs', async (c) => {
    requireAdmin(c)
    queryOf(c, noQuery)
    const { name, key, data } = await jsonBody(c, jobBody)
    const wanted = checked(name, key, data)
    const { id, ...told } = await runByHand(deps, wanted.name, wanted.data, key)
    const job = shown(await jobOf(deps, id))
    return Response.json({ job, ...told }, { status: told.isNew ? 202 : 200, headers: { location: `/jobs/${id}` } })
  })

  routes.post('/jobs/retry', async (c) => {
    requireAdmin(c)
    return Response.json(await retryAll(deps, queryOf(c, retryQuery).name))
  })

  routes.post('/jobs/:id/retry', async (c) => {
    requireAccess(c, '*', 'push')
    queryOf(c, noQuery)
    const job = await jobOf(deps, c.req.param('id') ?? '')
    if (!(await retry(deps, job)))
      throw new Failure('JOB_NOT_FAILED', { detail: `job ${job.id} is ${job.state}: only one that failed is retried` })
    return Response.json({ job: shown(await jobOf(deps, job.id)) }, { status: 202 })
  })

  routes.post('/jobs/:id/cancel', async (c) => {
    requireAdmin(c)
    queryOf(c, noQuery)
    const { id } = await jobOf(deps, c.req.param('id') ?? '')
    const done = await cancel(deps, id)
    const job = await jobOf(deps, id)
    if (!done) throw new Failure('JOB_ENDED', { detail: `job ${id} is ${job.state}: there is nothing to cancel` })
    return Response.json({ job: shown(job) }, { status: 202 })
  })

  routes.post('/jobs/:id/discard', async (c) => {
    requireAdmin(c)
    queryOf(c, noQuery)
    const job = await jobOf(deps, c.req.param('id') ?? '')
    if (!(await ask(deps.db, (sql) => discardJob(sql, job.id))))
      throw new Failure('JOB_NOT_FAILED', {
        detail: `job ${job.id} is ${job.state}: only one that failed is discarded`,
      })
    return Response.json({ job: shown(await jobOf(deps, job.id)) })
  })
}

/** Throws REQUEST_INVALID unless jobs of this kind may be run by hand, with that key and data. */
function checked(name: string, key: string | undefined, data: object): { name: QueueName; data: object } {
  const byHand = Object.entries(jobKinds).filter(([, kind]) => kind.data)
  if (!isKind(name))
    throw new Failure('REQUEST_INVALID', {
      detail: `there is no kind of job ${name}; by hand there are ${byHand.map(([known]) => known).join(', ')}`,
    })
  const { data: schema, instead, keys } = jobKinds[name]
  if (!schema)
    throw new Failure('REQUEST_INVALID', { detail: `a job ${name} is not run by hand${instead ? `: ${instead}` : ''}` })
  if (key !== undefined && !keys) throw new Failure('REQUEST_INVALID', { detail: `jobs ${name} have no key` })
  const result = v.safeParse(schema, data)
  if (!result.success)
    throw new Failure('REQUEST_INVALID', { detail: `data of ${name}: ${inWords(violationsOf(result.issues))}` })
  return { name, data: result.output as object }
}

function kindOf({ name, ...counts }: Awaited<ReturnType<typeof countJobs>>[number]): object {
  const { about, data } = jobKinds[name as QueueName]
  return { name, about, byHand: data !== undefined, ...counts }
}

const uuid = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i

/** Throws JOB_UNKNOWN. */
async function jobOf(deps: Deps, id: string): Promise<JobRow> {
  const job = uuid.test(id) ? await askRead(deps.db, (sql) => findJob(sql, id)) : undefined
  if (job) return job
  throw new Failure('JOB_UNKNOWN', {
    detail: `there is no job ${JSON.stringify(id.slice(0, 100))}: its id is wrong, or it ended so long ago that it is forgotten`,
  })
}

/** A job without what does not apply to it. */
function shown(row: JobRow): object {
  const { startAfter, isCancelled, ...rest } = row
  const facts = Object.entries(rest).filter(([, value]) => value !== null)
  return {
    ...Object.fromEntries(facts),
    ...(row.state === 'waiting' ? { startAfter } : {}),
    ...(isCancelled ? { isCancelled } : {}),
  }
}
