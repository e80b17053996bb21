import { ask, askRead, type Sql, type Transaction } from '../db/client.ts'
import { send } from '../db/queue.ts'
import { findRun, insertRun, listPolicies, type PolicyRow, type RunRow, waitingRun } from '../db/retention.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import type { Decision } from './retention-decision.ts'
import { bytesFreed, planPages } from './retention-plan.ts'
import type { Policy, PolicyDocument, Rules } from './retention-policy.ts'

export type StoredPolicy = PolicyRow<PolicyDocument>

/** All policies that there are, by name. */
export async function policiesNow(sql: Sql | Transaction): Promise<StoredPolicy[]> {
  return (await listPolicies(sql)) as StoredPolicy[]
}

/**
 * What is applied: one policy, be it that it is not enabled, or all that are. Whatever an enabled one keeps stays in any
 * case. Undefined where there is no such policy.
 */
export async function rulesNow(sql: Sql | Transaction, name: string | undefined): Promise<Rules | undefined> {
  const stored = await policiesNow(sql)
  const chosen = name === undefined ? stored.filter((policy) => policy.enabled) : stored.filter((p) => p.name === name)
  if (name !== undefined && chosen.length === 0) return undefined
  const acting = new Set(chosen.map((policy) => policy.name))
  const policies = stored.filter((policy) => policy.enabled || acting.has(policy.name))
  return { acting, policies: policies.map(({ name: called, document }) => ({ ...document, name: called })) }
}

export function unknownPolicy(name: string): Failure {
  return new Failure('POLICY_UNKNOWN', {
    detail: `there is no retention policy ${JSON.stringify(name.slice(0, 100))}; GET /retention/policies lists them`,
  })
}

/** A policy that is not stored is tried together with the enabled ones, in the place of one of its name. */
async function rulesToTry(sql: Sql, { policy, document }: PlanRequest): Promise<Rules> {
  if (!document) {
    const rules = await rulesNow(sql, policy)
    if (rules) return rules
    throw unknownPolicy(policy ?? '')
  }
  const tried: Policy = { ...document, name: policy ?? 'this policy' }
  const { policies } = (await rulesNow(sql, undefined)) ?? { policies: [] }
  return { acting: new Set([tried.name]), policies: [...policies.filter(({ name }) => name !== tried.name), tried] }
}

/** What to plan: a policy by its name, or one as a document; neither: all that are enabled. */
export type PlanRequest = { policy?: string | undefined; document?: PolicyDocument | undefined }

/** Where a plan goes on: behind a page of the walk, or within the one that follows. */
export type PlanPosition = { after: string; skip: number }

export type PlannedDecision = Decision & { repository: string }

/** A part of a plan. `freedBytes` is about what the pages that end in it would free. */
export type PlanPart = { decisions: PlannedDecision[]; freedBytes: number; next: PlanPosition | undefined }

/** Decides, and removes nothing: at most `limit` decisions, from a position on. Throws POLICY_UNKNOWN. */
export async function planPart(
  deps: Deps,
  request: PlanRequest,
  { after, skip }: PlanPosition,
  limit: number,
): Promise<PlanPart> {
  const rules = await askRead(deps.db, (sql) => rulesToTry(sql, request))
  const part: PlanPart = { decisions: [], freedBytes: 0, next: undefined }
  let position = after
  let skipped = skip
  for await (const page of planPages(deps, rules, after, Date.now())) {
    const room = limit - part.decisions.length
    const some = page.decisions.slice(skipped, skipped + room)
    part.decisions.push(...some.map((decision) => ({ ...decision, repository: page.repository })))
    if (skipped + some.length < page.decisions.length)
      return { ...part, next: { after: position, skip: skipped + some.length } }
    part.freedBytes += await bytesFreed(deps, page)
    skipped = 0
    position = page.position
  }
  return part
}

/**
 * Has a run done, soon; one like it that waits already is as good. Throws POLICY_UNKNOWN.
 */
export async function requestRun(
  deps: Deps,
  { policy, askedBy }: { policy: string | undefined; askedBy: string },
): Promise<RunRow> {
  const run = await ask(deps.db, (sql) =>
    sql.begin(async (tx) => {
      if (!(await rulesNow(tx, policy))) throw unknownPolicy(policy ?? '')
      const id = (await waitingRun(tx, policy)) ?? (await insertRun(tx, { policy, askedBy }))
      // Not taken where a job waits: that one does all runs there are.
      await send(tx, 'retention', {}, { key: 'retention' })
      return findRun(tx, id)
    }),
  )
  return run as RunRow
}
