import type { Context } from 'hono'
import * as v from 'valibot'
import { isGlob } from '../auth/glob.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import { findQuota, listQuotas, removeQuota, setQuota } from '../registry/quotas.ts'
import { principalOf, requireAccess, requireAdmin } from './access.ts'
import { type Answer, time } from './packs/answers.ts'
import { jsonBody, noQuery, queryOf } from './packs/request.ts'
import type { Env, Routes } from './routes.ts'

const most = (what: string) =>
  v.pipe(
    v.number(`must be a number of ${what}`),
    v.safeInteger(`must be a whole number of ${what}`),
    v.minValue(0, 'must not be negative'),
  )

/** The body of PUT /quotas/{repositories}. What is not named is not limited. */
export const quotaBody = v.pipe(
  v.strictObject({ bytes: v.optional(most('bytes')), versions: v.optional(most('versions')) }),
  v.check(({ bytes, versions }) => bytes !== undefined || versions !== undefined, 'must limit bytes, versions or both'),
)

const count = v.pipe(v.number(), v.integer())
export const quotaSchema = v.object({
  repositories: v.pipe(v.string(), v.description('A glob. Of several that match a repository, each holds.')),
  maxBytes: v.optional(count),
  maxVersions: v.optional(count),
  bytes: v.pipe(
    count,
    v.description('What is there: manifests, and blobs once for each repository that they can be read in.'),
  ),
  versions: v.pipe(count, v.description('Manifests that are not attached to another one, as signatures are.')),
  setBy: v.string(),
  setAt: time,
})
export const quotaAnswer = v.object({ quota: quotaSchema })
export const quotasAnswer = v.object({ quotas: v.array(quotaSchema) })
export const quotaRemoved = v.object({ deleted: v.boolean() })

export const quotaPath = '/quotas/:repositories{.+}'

/** How much repositories may hold. To read that takes what the metrics take; to set it, an administrator. */
export function addQuotaRoutes(routes: Routes, deps: Deps): void {
  routes.get('/quotas', async (c) => {
    requireAccess(c, '*', 'pull')
    queryOf(c, noQuery)
    return Response.json({ quotas: await listQuotas(deps) } satisfies Answer<typeof quotasAnswer>)
  })

  routes.get(quotaPath, async (c) => {
    requireAccess(c, '*', 'pull')
    queryOf(c, noQuery)
    return Response.json({ quota: await findQuota(deps, globOf(c)) } satisfies Answer<typeof quotaAnswer>)
  })

  routes.put(quotaPath, async (c) => {
    requireAdmin(c)
    queryOf(c, noQuery)
    const glob = globOf(c)
    const { bytes: maxBytes, versions: maxVersions } = await jsonBody(c, quotaBody)
    const { quota, isNew } = await setQuota(deps, { glob, maxBytes, maxVersions, setBy: principalOf(c).name })
    return Response.json({ quota } satisfies Answer<typeof quotaAnswer>, { status: isNew ? 201 : 200 })
  })

  routes.delete(quotaPath, async (c) => {
    requireAdmin(c)
    queryOf(c, noQuery)
    return Response.json({ deleted: await removeQuota(deps, globOf(c)) } satisfies Answer<typeof quotaRemoved>)
  })
}

/** Throws REQUEST_INVALID. */
function globOf(c: Context<Env>): string {
  const text = c.req.param('repositories') ?? ''
  if (isGlob(text)) return text
  throw new Failure('REQUEST_INVALID', {
    detail: `${JSON.stringify(text.slice(0, 300))} is not a glob over repository names, such as packs/* or mirror/**`,
  })
}
