import type { Context } from 'hono'
import * as v from 'valibot'
import { askRead } from '../db/client.ts'
import { listUpstreams, readUpstream } from '../db/upstreams.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import { parseName, type RepositoryName } from '../oci/name.ts'
import { removeUpstream, setUpstream, type Upstream } from '../registry/upstreams.ts'
import { requireAccess } from './access.ts'
import { credentialsSchema, hostsSchema, urlSchema } from './mirrors.ts'
import { jsonBody, noQuery, queryOf } from './packs/request.ts'
import type { Env, Routes } from './routes.ts'

/** The body of PUT /upstreams/{prefix}. */
export const upstreamBody = v.strictObject({
  url: urlSchema,
  remotePrefix: v.optional(
    v.pipe(
      v.string(),
      v.check((text) => text === '' || parseName(text) !== undefined, 'must be the first part of a repository name'),
    ),
    '',
  ),
  credentials: v.optional(credentialsSchema),
  tagTtlSeconds: v.optional(
    v.pipe(
      v.number('must be a number of seconds'),
      v.integer('must be a whole number of seconds'),
      v.minValue(1, 'must be at least 1'),
      v.maxValue(31_536_000, 'must be at most a year'),
    ),
    300,
  ),
  allowPrivate: v.optional(v.boolean()),
  hosts: v.optional(hostsSchema),
})

export const upstreamPath = '/upstreams/:prefix{.+}'

export function addUpstreamRoutes(routes: Routes, deps: Deps): void {
  routes.get('/upstreams', async (c) => {
    requireAccess(c, '*', 'pull')
    queryOf(c, noQuery)
    return Response.json({ upstreams: (await askRead(deps.db, listUpstreams)).map((row) => shown(row as Upstream)) })
  })

  routes.get(upstreamPath, async (c) => {
    requireAccess(c, '*', 'pull')
    queryOf(c, noQuery)
    return Response.json({ upstream: await read(deps, prefixOf(c)) })
  })

  routes.put(upstreamPath, async (c) => {
    requireAccess(c, '*', 'push')
    queryOf(c, noQuery)
    const prefix = prefixOf(c)
    const { allowPrivate, hosts, ...input } = await jsonBody(c, upstreamBody)
    await setUpstream(deps, prefix, { ...input, options: { allowPrivate, hosts } })
    return Response.json({ upstream: await read(deps, prefix) })
  })

  routes.delete(upstreamPath, async (c) => {
    requireAccess(c, '*', 'delete')
    queryOf(c, noQuery)
    return Response.json({ deleted: await removeUpstream(deps, prefixOf(c)) })
  })
}

function prefixOf(c: Context<Env>): RepositoryName {
  const text = c.req.param('prefix') ?? ''
  const prefix = parseName(text)
  if (prefix) return prefix
  throw new Failure('NAME_INVALID', {
    detail: `${JSON.stringify(text.slice(0, 300))} is not the first part of a repository name`,
  })
}

async function read(deps: Deps, prefix: RepositoryName): Promise<object> {
  const row = await askRead(deps.db, (sql) => readUpstream(sql, prefix))
  if (!row) throw new Failure('UPSTREAM_UNKNOWN', { detail: `${prefix} has no upstream` })
  return shown(row as Upstream)
}

/** An upstream without its credentials; only whether it has some. */
function shown({ credentials, version, options, ...upstream }: Upstream): object {
  return { ...upstream, ...options, credentials: credentials !== null }
}
