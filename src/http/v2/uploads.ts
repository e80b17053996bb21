import type { Context } from 'hono'
import { mayAccess } from '../../auth/access.ts'
import type { Deps } from '../../deps.ts'
import { Failure } from '../../errors.ts'
import type { Digest } from '../../oci/digest.ts'
import { parseName, type RepositoryName } from '../../oci/name.ts'
import { mount, storeContent } from '../../registry/blobs.ts'
import {
  append,
  cancel,
  findSession,
  finish,
  sessionHeaders,
  sessionIdOf,
  startUpload,
} from '../../registry/uploads.ts'
import { requireNoUpstream } from '../../registry/upstreams.ts'
import { payerOf, principalOf, requireAccess } from '../access.ts'
import type { Env, Routes } from '../routes.ts'
import { patiently } from './patience.ts'
import { reply } from './reply.ts'
import { algorithmQuery, bodyOf, chunkRangeOf, digestQuery, nameOf } from './request.ts'

const session = '/v2/:name{.+}/blobs/uploads/:session'

export function addUploadRoutes(routes: Routes, deps: Deps): void {
  /** The session in the path; whoever asks must be allowed to push there. */
  const sessionOf = (c: Context<Env>) => {
    const name = nameOf(c)
    requireAccess(c, name, 'push')
    return sessionIdOf(deps, name, c.req.param('session') ?? '')
  }
  /** The session under the name that the client used: one without a chunk has no other. */
  const named = (c: Context<Env>) => ({ id: c.req.param('session') ?? '', repository: nameOf(c) })

  // end-4a, end-4b, end-4c, end-11
  routes.post('/v2/:name{.+}/blobs/uploads/', async (c) => {
    const name = nameOf(c)
    requireAccess(c, name, 'push', parseName(c.req.query('from') ?? ''))
    await requireNoUpstream(deps, name)
    const mounted = digestQuery(c, 'mount')
    if (mounted && (await tryMount(c, deps, name, mounted))) return created(c, name, mounted)
    const digest = digestQuery(c)
    if (digest && !mounted) {
      await patiently(c, () => storeContent(deps, { repository: name, digest, body: bodyOf(c) }))
      return created(c, name, digest)
    }
    const id = startUpload(deps, name, algorithmQuery(c))
    return reply(202, sessionHeaders({ id, repository: name }, 0))
  })

  // end-13
  routes.get(session, async (c) => {
    const id = sessionOf(c)
    const found = await findSession(deps, id)
    return reply(204, sessionHeaders(found.offset > 0 ? found : named(c), found.offset))
  })

  // end-5
  routes.patch(session, async (c) => {
    const id = sessionOf(c)
    const offset = await patiently(c, () => append(deps, id, bodyOf(c), chunkRangeOf(c), payerOf(c)))
    return reply(202, sessionHeaders(offset > 0 ? id : named(c), offset))
  })

  // end-6
  routes.put(session, async (c) => {
    const id = sessionOf(c)
    const digest = digestQuery(c)
    if (!digest) throw new Failure('DIGEST_INVALID', { detail: 'the closing request needs ?digest=' })
    await patiently(c, () => finish(deps, id, digest, bodyOf(c), chunkRangeOf(c)))
    return created(c, id.repository, digest)
  })

  // end-14
  routes.delete(session, async (c) => {
    const id = sessionOf(c)
    await cancel(deps, id)
    return reply(204, {})
  })
}

/** A source that is no repository name, is absent, or may not be read by the client is no error: it uploads instead. */
async function tryMount(c: Context<Env>, deps: Deps, to: RepositoryName, digest: Digest): Promise<boolean> {
  const text = c.req.query('from')
  const from = text === undefined ? undefined : parseName(text)
  if (text !== undefined && !from) return false
  return mount(deps, { from, to, digest }, (source) => mayAccess(principalOf(c), source, 'pull'))
}

function created(c: Context<Env>, name: RepositoryName, digest: Digest): Response {
  c.env.digest = digest
  return reply(201, { location: `/v2/${name}/blobs/${digest}`, 'docker-content-digest': digest })
}
