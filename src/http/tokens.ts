import * as v from 'valibot'
import { type Action, actions, type Grant } from '../auth/access.ts'
import { isGlob } from '../auth/glob.ts'
import type { Deps } from '../deps.ts'
import { boundedList } from '../packs/bounded-list.ts'
import { rotateTokenKey } from '../registry/token-keys.ts'
import { createToken, listTokens, revokeToken } from '../registry/tokens.ts'
import { principalOf, requireAdmin } from './access.ts'
import { isStorable, parseMoment } from './moment.ts'
import { type Answer, time as isoTime } from './packs/answers.ts'
import { jsonBody, nameParam, noQuery, queryOf } from './packs/request.ts'
import type { Routes } from './routes.ts'

const globs = v.optional(
  boundedList(
    v.pipe(
      v.string('must be text'),
      v.check(
        isGlob,
        'must be a glob over repository names, such as packs/* or mirror/**, with three wildcards at most',
      ),
    ),
    1000,
    'must be a list of globs',
  ),
  [],
)

export const createBody = v.strictObject({
  name: v.pipe(
    v.string('must be text'),
    v.maxLength(100, 'must not be longer than 100 characters'),
    v.regex(/^[a-z0-9]+(?:[._-][a-z0-9]+)*$/, 'must be lowercase letters and digits, joined by single ".", "_" or "-"'),
  ),
  /** Repositories that it may read, push to, overwrite tags in, and delete from. */
  pull: globs,
  push: globs,
  overwrite: globs,
  delete: globs,
  admin: v.optional(v.boolean('must be true or false'), false),
  /** A time, a day, or how long from now on: `90d`, `12h`. */
  expires: v.optional(
    v.pipe(
      v.string('must be text'),
      v.transform(timeOf),
      v.check((time) => time !== undefined, 'must be 90d, 12h, a day such as 2027-01-31, or a time'),
      v.check((time) => time === undefined || time.getTime() > Date.now(), 'must be in the future'),
    ),
  ),
})

export const grantSchema = v.object({ glob: v.string(), actions: v.array(v.picklist(actions)) })
export const apiTokenSchema = v.object({
  id: v.pipe(v.string(), v.uuid()),
  name: v.string(),
  state: v.picklist(['active', 'expired', 'revoked']),
  grants: v.pipe(v.array(grantSchema), v.description('Of the globs that match a repository, the longest decides.')),
  admin: v.boolean(),
  createdBy: v.string(),
  createdAt: isoTime,
  expiresAt: v.optional(isoTime),
  lastUsedAt: v.optional(isoTime),
  revokedAt: v.optional(isoTime),
})
export const tokenAnswer = v.object({ info: apiTokenSchema })
export const tokensAnswer = v.object({ tokens: v.array(apiTokenSchema) })
export const createdAnswer = v.object({
  token: v.pipe(v.string(), v.description('The token. It is told this once.')),
  info: apiTokenSchema,
})
export const rotatedAnswer = v.object({ kid: v.pipe(v.string(), v.description('The id of the new key.')) })

const units = { m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000, y: 31_536_000_000 }

function timeOf(text: string): Date | undefined {
  const [, count, unit] = /^(\d{1,5})([mhdwy])$/.exec(text) ?? []
  if (count === undefined) return parseMoment(text)
  const time = new Date(Date.now() + Number(count) * units[unit as keyof typeof units])
  return isStorable(time) ? time : undefined
}

/** The tokens that programs log in with. Whoever may make them may do everything, so it takes an administrator. */
export function addApiTokenRoutes(routes: Routes, deps: Deps): void {
  routes.get('/tokens', async (c) => {
    requireAdmin(c)
    queryOf(c, noQuery)
    return Response.json({ tokens: await listTokens(deps) } satisfies Answer<typeof tokensAnswer>)
  })

  routes.post('/tokens', async (c) => {
    requireAdmin(c)
    queryOf(c, noQuery)
    const body = await jsonBody(c, createBody)
    const { name, admin, expires: expiresAt } = body
    const createdBy = principalOf(c).name
    const { token, info } = await createToken(deps, { name, admin, expiresAt, createdBy, grants: grantsOf(body) })
    const headers = { location: `/tokens/${info.id}`, 'cache-control': 'no-store' }
    return Response.json({ token, info } satisfies Answer<typeof createdAnswer>, { status: 201, headers })
  })

  // The key behind the short-lived tokens of /token: its successor signs from now on.
  routes.post('/tokens/rotate-key', async (c) => {
    requireAdmin(c)
    queryOf(c, noQuery)
    return Response.json({ kid: await rotateTokenKey(deps) } satisfies Answer<typeof rotatedAnswer>)
  })

  routes.delete('/tokens/:id', async (c) => {
    requireAdmin(c)
    queryOf(c, noQuery)
    const info = await revokeToken(deps, nameParam(c, 'id'))
    return Response.json({ info } satisfies Answer<typeof tokenAnswer>)
  })
}

/** A grant for each glob that is named, with all the actions that it is named for. */
function grantsOf(body: Record<Action, readonly string[]>): Grant[] {
  const byGlob = new Map<string, Action[]>()
  for (const action of ['pull', 'push', 'overwrite', 'delete'] as const)
    for (const glob of body[action]) byGlob.set(glob, [...(byGlob.get(glob) ?? []), action])
  // A longer glob decides alone: what a shorter one lets do, and is not to be lost for it, stands with it.
  return [...byGlob].map(([glob, actions]) => ({ glob, actions }))
}
