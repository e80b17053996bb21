import type { Context } from 'hono'
import * as v from 'valibot'
import { ask, askRead } from '../db/client.ts'
import { listHolds } from '../db/holds.ts'
import { deletePolicy, findRun, listRemovals, listRuns, putPolicy, type Removal, type RunRow } from '../db/retention.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import { type PackId, repositoryOf } from '../packs/pack.ts'
import type { Version } from '../packs/version.ts'
import { holdVersion, releaseVersion } from '../registry/holds.ts'
import {
  type PlannedDecision,
  type PlanPosition,
  planPart,
  policiesNow,
  requestRun,
  type StoredPolicy,
  unknownPolicy,
} from '../registry/retention.ts'
import { principalOf, requireAdmin } from './access.ts'
import type { Answer } from './packs/answers.ts'
import { readCursor, writeCursor } from './packs/cursor.ts'
import {
  jsonBody,
  limitSchema,
  noQuery,
  packIdParam,
  query,
  queryOf,
  reasonSchema,
  versionParam,
} from './packs/request.ts'
import type {
  holdAnswer,
  holdsAnswer,
  planAnswer,
  policiesAnswer,
  policyAnswer,
  retentionReportAnswer,
  retentionRunAnswer,
  retentionRunsAnswer,
} from './retention-answers.ts'
import { policyName, policySchema } from './retention-policies.ts'
import type { Env, Routes } from './routes.ts'

/** The body of PUT /retention/policies/{name}. */
export const policyBody = v.strictObject({ policy: policySchema, enabled: v.optional(v.boolean(), false) })
/** The body of PUT /retention/holds/{id}/{version}. */
export const holdBody = v.strictObject({ reason: reasonSchema })
/** The body of POST /retention/plan: neither: all that are enabled. */
export const planBody = v.strictObject({ name: v.optional(policyName), policy: v.optional(policySchema) })
/** The body of POST /retention/run. */
export const runBody = v.strictObject({ name: v.optional(policyName) })
/** A page of a list. */
export const pageQuery = query({ limit: v.optional(limitSchema, '50'), after: v.optional(v.string()) })
/** A page of a plan, or of a report. */
export const decisionsQuery = query({ limit: v.optional(limitSchema, '1000'), after: v.optional(v.string()) })

const runsShown = 100

export function addRetentionRoutes(routes: Routes, deps: Deps): void {
  addPolicies(routes, deps)
  addHolds(routes, deps)
  addRuns(routes, deps)
}

function addPolicies(routes: Routes, deps: Deps): void {
  routes.get('/retention/policies', async (c) => {
    requireAdmin(c)
    queryOf(c, noQuery)
    const policies = (await askRead(deps.db, policiesNow)).map(shownPolicy)
    return Response.json({ policies } satisfies Answer<typeof policiesAnswer>)
  })

  routes.get('/retention/policies/:name', async (c) => {
    requireAdmin(c)
    queryOf(c, noQuery)
    const name = c.req.param('name') ?? ''
    const found = (await askRead(deps.db, policiesNow)).find((policy) => policy.name === name)
    if (!found) throw unknownPolicy(name)
    return Response.json({ policy: shownPolicy(found) } satisfies Answer<typeof policyAnswer>)
  })

  routes.put('/retention/policies/:name', async (c) => {
    requireAdmin(c)
    queryOf(c, noQuery)
    const name = nameOf(c)
    const { policy: document, enabled } = await jsonBody(c, policyBody)
    const updatedBy = principalOf(c).name
    const stored = await ask(deps.db, (sql) => putPolicy(sql, { name, document, enabled, updatedBy }))
    return Response.json({ policy: shownPolicy(stored as StoredPolicy) } satisfies Answer<typeof policyAnswer>)
  })

  routes.delete('/retention/policies/:name', async (c) => {
    requireAdmin(c)
    queryOf(c, noQuery)
    const name = c.req.param('name') ?? ''
    // Another text is the name of none, and may be one that the database does not take.
    const deleted = v.is(policyName, name) && (await ask(deps.db, (sql) => deletePolicy(sql, name)))
    return Response.json({ deleted })
  })
}

function addHolds(routes: Routes, deps: Deps): void {
  routes.get('/retention/holds', async (c) => {
    requireAdmin(c)
    const { limit, after } = queryOf(c, pageQuery)
    const question = JSON.stringify({ holds: true })
    type Position = { packId: string; version: string }
    const last = after === undefined ? undefined : readCursor<Position>(deps.uploadSecret, question, after)
    const rows = await askRead(deps.db, (sql) => listHolds(sql, { last, limit: limit + 1 }))
    const holds = rows.slice(0, limit)
    const { packId = '', version = '' } = holds.at(-1) ?? {}
    const next = rows.length > limit ? { next: writeCursor(deps.uploadSecret, question, { packId, version }) } : {}
    return Response.json({ holds, ...next } satisfies Answer<typeof holdsAnswer>)
  })

  routes.put('/retention/holds/:id/:version', async (c) => {
    requireAdmin(c)
    queryOf(c, noQuery)
    const { packId, version } = heldOf(c)
    const { reason } = await jsonBody(c, holdBody)
    c.env.reason = reason
    const hold = await holdVersion(deps, { packId, version, reason, heldBy: principalOf(c).name })
    return Response.json({ hold } satisfies Answer<typeof holdAnswer>)
  })

  routes.delete('/retention/holds/:id/:version', async (c) => {
    requireAdmin(c)
    queryOf(c, noQuery)
    const { packId, version } = heldOf(c)
    return Response.json({ released: await releaseVersion(deps, packId, version) })
  })
}

function addRuns(routes: Routes, deps: Deps): void {
  // What would be done: nothing is removed, and nothing is written down.
  routes.post('/retention/plan', async (c) => {
    requireAdmin(c)
    const { limit, after } = queryOf(c, decisionsQuery)
    const { name, policy: document } = await jsonBody(c, planBody)
    const question = JSON.stringify({ plan: { name, document } })
    const start: PlanPosition = { after: '', skip: 0 }
    const from = after === undefined ? start : readCursor<PlanPosition>(deps.uploadSecret, question, after)
    const { decisions, freedBytes, next } = await planPart(deps, { policy: name, document }, from, limit)
    const kept = decisions.filter(({ action }) => action === 'keep').length
    return Response.json({
      ...{ decisions: decisions satisfies PlannedDecision[], kept, removed: decisions.length - kept, freedBytes },
      ...(next ? { next: writeCursor(deps.uploadSecret, question, next) } : {}),
    } satisfies Answer<typeof planAnswer>)
  })

  routes.post('/retention/run', async (c) => {
    requireAdmin(c)
    queryOf(c, noQuery)
    const { name: policy } = await jsonBody(c, runBody)
    const run = shownRun(await requestRun(deps, { policy, askedBy: principalOf(c).name }))
    const headers = { location: `/retention/runs/${run.id}` }
    return Response.json({ run } satisfies Answer<typeof retentionRunAnswer>, { status: 202, headers })
  })

  // The newest first.
  routes.get('/retention/runs', async (c) => {
    requireAdmin(c)
    queryOf(c, noQuery)
    const runs = (await askRead(deps.db, (sql) => listRuns(sql, runsShown))).map(shownRun)
    return Response.json({ runs } satisfies Answer<typeof retentionRunsAnswer>)
  })

  routes.get('/retention/runs/:id', async (c) => {
    requireAdmin(c)
    const { limit, after } = queryOf(c, decisionsQuery)
    const id = c.req.param('id') ?? ''
    const run = uuid.test(id) ? await askRead(deps.db, (sql) => findRun(sql, id)) : undefined
    if (!run)
      throw new Failure('RUN_UNKNOWN', { detail: `there is no run ${JSON.stringify(id.slice(0, 100))} of retention` })
    const question = JSON.stringify({ removals: id })
    const last = after === undefined ? 0 : readCursor<{ number: number }>(deps.uploadSecret, question, after).number
    const rows = await askRead(deps.db, (sql) => listRemovals(sql, id, { last, limit: limit + 1 }))
    const removals = rows.slice(0, limit)
    const number = removals.at(-1)?.number ?? 0
    return Response.json({
      ...{ run: shownRun(run), removals: removals.map(shownRemoval) },
      ...(rows.length > limit ? { next: writeCursor(deps.uploadSecret, question, { number }) } : {}),
    } satisfies Answer<typeof retentionReportAnswer>)
  })
}

const uuid = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

/** Throws REQUEST_INVALID. */
function nameOf(c: Context<Env>): string {
  const result = v.safeParse(policyName, c.req.param('name'))
  if (result.success) return result.output
  throw new Failure('REQUEST_INVALID', { detail: `the name of a policy ${result.issues[0].message}` })
}

function heldOf(c: Context<Env>): { packId: PackId; version: Version } {
  const held = { packId: packIdParam(c), version: versionParam(c) }
  c.env.repository = repositoryOf(held.packId)
  return held
}

function shownPolicy({ name, enabled, document, updatedBy, updatedAt }: StoredPolicy) {
  return { name, enabled, policy: document as v.InferOutput<typeof policySchema>, updatedBy, updatedAt }
}

/** A run without what does not apply to it. */
function shownRun({ plannedTo: _, tally, policy, startedAt, finishedAt, error, ...run }: RunRow) {
  return { ...run, kept: tally, ...given({ policy, startedAt, finishedAt, error }) }
}

function shownRemoval({ outcome, outcomeReason, decidedAt, ...removal }: Removal) {
  return { ...removal, ...given({ outcome, outcomeReason, decidedAt }) }
}

function given<T extends object>(facts: T): { [K in keyof T]?: NonNullable<T[K]> } {
  return Object.fromEntries(Object.entries(facts).filter(([, value]) => value !== null)) as never
}
