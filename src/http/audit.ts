import * as v from 'valibot'
import { type AuditEntry, type AuditRow, listEvents, outcomes } from '../db/audit.ts'
import { askRead } from '../db/client.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import { verifyAudit } from '../registry/audit.ts'
import { requireAdmin } from './access.ts'
import { momentGrammar, parseMoment } from './moment.ts'
import { requestId } from './observe.ts'
import { type Answer, time } from './packs/answers.ts'
import { readCursor, writeCursor } from './packs/cursor.ts'
import { limitSchema, query, queryOf, textSchema } from './packs/request.ts'
import type { Env, Routes } from './routes.ts'

const moment = v.pipe(
  v.string(),
  v.regex(momentGrammar, 'must be a time such as 2027-01-31T12:00:00Z, or a day'),
  v.check((text) => parseMoment(text) !== undefined, 'must be a time that there is'),
)

/** The query of GET /audit. */
export const auditQuery = query({
  who: v.optional(textSchema(300)),
  repository: v.optional(textSchema(255)),
  digest: v.optional(textSchema(200)),
  outcome: v.optional(v.picklist(outcomes, `must be one of ${outcomes.join(', ')}`)),
  since: v.optional(moment),
  until: v.optional(moment),
  limit: v.optional(limitSchema, '50'),
  after: v.optional(v.string()),
})

export const verifyQuery = query({
  head: v.optional(v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/, 'must be 64 hex digits'))),
})

export const eventSchema = v.object({
  id: v.number(),
  at: time,
  who: v.string(),
  kind: v.pipe(
    v.string(),
    v.description(
      'user, authority, workload, token, anonymous, everyone; policy: done by the registry as a retention policy says; unknown: not let in.',
    ),
  ),
  tokenId: v.optional(v.pipe(v.string(), v.description('The API token behind it.'))),
  address: v.string(),
  action: v.pipe(v.string(), v.description('Method and route.')),
  path: v.string(),
  repository: v.optional(v.string()),
  digest: v.optional(v.string()),
  tags: v.optional(v.string()),
  reason: v.optional(v.pipe(v.string(), v.description('Why, in the words of who did it, or of the policy that did.'))),
  outcome: v.picklist(outcomes),
  status: v.number(),
  requestId: v.string(),
})
export const auditAnswer = v.object({ events: v.array(eventSchema), next: v.optional(v.string()) })
export const auditCheckAnswer = v.object({
  intact: v.boolean(),
  seals: v.number(),
  events: v.number(),
  unsealed: v.pipe(v.number(), v.description('Events of the last minute, which are not protected yet.')),
  head: v.optional(v.pipe(v.string(), v.description('The digest of the last seal: to be noted elsewhere.'))),
  headFound: v.optional(v.pipe(v.boolean(), v.description('Whether the head that was asked for is still there.'))),
  broken: v.pipe(v.array(v.number()), v.description('The seals that do not hold.')),
})

export function addAuditRoutes(routes: Routes, deps: Deps): void {
  // The newest first.
  routes.get('/audit', async (c) => {
    requireAdmin(c)
    const { limit, after, ...filters } = queryOf(c, auditQuery)
    const question = JSON.stringify({ audit: true, ...filters })
    const before = after === undefined ? undefined : readCursor<{ id: number }>(deps.uploadSecret, question, after).id
    const rows = await askRead(deps.db, (sql) => listEvents(sql, { ...filters, before, limit: limit + 1 }))
    const page = rows.slice(0, limit)
    const last = rows.length > limit ? page.at(-1) : undefined
    const next = last && writeCursor(deps.uploadSecret, question, { id: last.id })
    const events = page.map(shown)
    return Response.json({ events, ...(next ? { next } : {}) } satisfies Answer<typeof auditAnswer>)
  })

  routes.get('/audit/verify', async (c) => {
    requireAdmin(c)
    const { head } = queryOf(c, verifyQuery)
    return Response.json((await verifyAudit(deps, head)) satisfies Answer<typeof auditCheckAnswer>)
  })
}

/** An event without what does not apply to it. */
function shown({ tokenId, repository, digest, tags, reason, ...event }: AuditRow): v.InferInput<typeof eventSchema> {
  const given = Object.entries({ tokenId, repository, digest, tags, reason }).filter(([, value]) => value !== null)
  return { ...event, ...Object.fromEntries(given) }
}

type Bindings = Env['Bindings']

/** Writes that change nothing that anybody can see: an upload that is under way, a question with a body. */
const quiet = new Set(['/resolve', '/retention/plan', '/token', 'none'])
const session = '/v2/:name{.+}/blobs/uploads/:session'

/** Whether a request may have to be written down, as far as can be told before it is answered. */
export function mayBeAudited({ mode }: Deps['auth'], { incoming }: Bindings): boolean {
  return mode !== 'none' || (incoming.method !== 'GET' && incoming.method !== 'HEAD')
}

/**
 * Writes down what came of a request, where it is a write or a refusal; the answer waits for it where there is a login.
 * That nothing was shown where something is needed is no refusal, but how every client begins. Never throws: what was
 * done is done, and the log has it.
 */
export async function audit(deps: Deps, bindings: Bindings, status: number): Promise<void> {
  const outcome = outcomeOf(bindings, status)
  if (!outcome) return
  const entry = entryOf(bindings, status, outcome)
  const written = deps.together.audit.load(entry).catch((error) => {
    deps.log.error({ error, audit: entry }, 'this could not be written to the audit')
  })
  if (deps.auth.mode !== 'none') await written
}

function outcomeOf(bindings: Bindings, status: number): AuditEntry['outcome'] | undefined {
  const { incoming, route = 'none', hidden, tries, error } = bindings
  const { method = '', headers } = incoming
  if (status === 403 || hidden || (status === 401 && (headers.authorization !== undefined || route === '/token')))
    return 'refused'
  // Nobody has the right to delete what is held.
  if (error instanceof Failure && error.key === 'VERSION_HELD') return 'refused'
  if (method === 'GET' || method === 'HEAD' || quiet.has(route)) return undefined
  if (status >= 500) return 'failed'
  if (status >= 400 || tries) return undefined
  const isUnderWay = route.includes('/blobs/uploads/') && (status === 202 || status === 204)
  return isUnderWay || (route === session && method !== 'PUT') ? undefined : 'done'
}

function entryOf(bindings: Bindings, status: number, outcome: AuditEntry['outcome']): AuditEntry {
  const { incoming, principal, gate, repository, digest, tags = [], reason } = bindings
  const { method = '', url = '' } = incoming
  return {
    who: principal?.name ?? claimedName(incoming.headers.authorization),
    kind: principal?.kind ?? 'unknown',
    tokenId: principal?.tokenId,
    address: gate?.addressOf(incoming) ?? '',
    action: `${method} ${bindings.route ?? 'none'}`,
    path: (url.split('?', 1)[0] ?? '').slice(0, 2000).replaceAll('\0', ''),
    repository: repository === '*' ? undefined : repository,
    digest,
    tags: tags.length > 0 ? tags.join(', ') : undefined,
    reason,
    ...{ outcome, status, requestId: requestId(bindings) },
  }
}

/** Who somebody said that they are who could not show it. A secret typed into the wrong field is not kept. */
function claimedName(authorization = ''): string {
  const [, credential = ''] = /^basic +(\S+)$/i.exec(authorization) ?? []
  const [name = ''] = Buffer.from(credential, 'base64').toString().split(':', 1)
  return /^[\w.@+-]{1,64}$/.test(name) && !/^(?:pkr_|eyJ)/.test(name) ? name : 'unknown'
}
