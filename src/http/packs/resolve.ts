import { createHash } from 'node:crypto'
import type { Context } from 'hono'
import * as v from 'valibot'
import { mayAccess } from '../../auth/access.ts'
import type { Deps } from '../../deps.ts'
import { rootSchema, versionSchema } from '../../packs/document.ts'
import { channelSchema, lockBytes, lockSchema } from '../../packs/lock.ts'
import { packMediaTypes, repositoryOf } from '../../packs/pack.ts'
import { type MayPull, resolveLock } from '../../registry/resolve.ts'
import { principalOf } from '../access.ts'
import type { Env, Routes } from '../routes.ts'
import { jsonBody } from './request.ts'

export const resolveBody = v.strictObject(
  {
    /** `{ packId, version }`, or `net-rules@^1.2.0`. */
    roots: v.pipe(
      v.array(rootSchema, 'must be a list'),
      v.minLength(1, 'must name a pack'),
      v.maxLength(1000, 'must be at most 1000'),
    ),
    runner: v.optional(versionSchema),
    channel: v.optional(channelSchema),
    lock: v.optional(lockSchema),
  },
  (issue) => (issue.expected === 'never' ? 'is not a field of this request' : 'must be a JSON object'),
)

export function addPackResolve(routes: Routes, deps: Deps): void {
  // Access is a matter of each pack: one that may not be read is as unknown as one that is not there.
  routes.post('/resolve', async (c) => {
    const mayPull = mayPullFor(c)
    const request = await jsonBody(c, resolveBody)
    const bytes = lockBytes(await resolveLock(deps, undefined, request, mayPull))
    const sha256 = createHash('sha256').update(bytes).digest()
    return new Response(bytes, {
      headers: {
        'content-type': packMediaTypes.lock,
        'content-length': String(bytes.length),
        etag: `"sha256:${sha256.toString('hex')}"`,
        'repr-digest': `sha-256=:${sha256.toString('base64')}:`,
        'cache-control': 'no-store',
      },
    })
  })
}

/** Which packs whoever asks may read. */
function mayPullFor(c: Context<Env>): MayPull {
  const principal = principalOf(c)
  return (packId) => mayAccess(principal, repositoryOf(packId), 'pull')
}
