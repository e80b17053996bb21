import { createHash } from 'node:crypto'
import * as v from 'valibot'
import { askRead } from '../../db/client.ts'
import { listReferrers, type Referrer } from '../../db/referrers.ts'
import type { Deps } from '../../deps.ts'
import { boundedList } from '../../packs/bounded-list.ts'
import { rootSchema, versionSchema } from '../../packs/document.ts'
import { channelSchema, lockBytes, lockSchema } from '../../packs/lock.ts'
import { packMediaTypes, repositoryOf } from '../../packs/pack.ts'
import { dependencyTree } from '../../packs/tree.ts'
import { resolveLock, resolveVersion } from '../../registry/resolve.ts'
import { mayPullFor, requireAccess, requireListing } from '../access.ts'
import type { Routes } from '../routes.ts'
import type { Answer, referrersAnswer, treeAnswer } from './answers.ts'
import { readCursor, writeCursor } from './cursor.ts'
import { jsonBody, limitSchema, noQuery, packIdParam, query, queryOf, textSchema } from './request.ts'
import { selectVersion } from './select.ts'

export const resolveBody = v.strictObject(
  {
    /** `{ packId, version }`, or `net-rules@^1.2.0`. */
    roots: v.pipe(
      boundedList(rootSchema, 1000),
      v.description('What is asked for: each pack once.'),
      v.minLength(1, 'must name a pack'),
    ),
    runner: v.optional(versionSchema),
    channel: v.optional(channelSchema),
    lock: v.optional(lockSchema),
  },
  (issue) => (issue.expected === 'never' ? 'is not a field of this request' : 'must be a JSON object'),
)

/** The query of GET …/dependencies. */
export const treeQuery = query({ runner: v.optional(versionSchema), channel: v.optional(channelSchema) })

/** The query of GET …/referrers. */
export const referrersQuery = query({
  artifactType: v.optional(textSchema(255)),
  limit: v.optional(limitSchema, '100'),
  after: v.optional(v.string()),
})

/** The most that one page of referrers may take, in bytes: annotations may be long. */
const maxPageBytes = 4 * 1024 * 1024

export function addPackResolve(routes: Routes, deps: Deps): void {
  // Access is a matter of each pack: one that may not be read is as unknown as one that is not there.
  routes.post('/resolve', async (c) => {
    queryOf(c, noQuery)
    requireListing(c)
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

  routes.get('/packs/:id/:version/dependencies', async (c) => {
    const packId = packIdParam(c)
    requireAccess(c, repositoryOf(packId), 'pull')
    const { runner, channel } = queryOf(c, treeQuery)
    const { version } = await selectVersion(deps, packId, c.req.param('version') ?? '', runner)
    const packs = await resolveVersion(deps, { packId, version }, { runner, channel }, mayPullFor(c))
    return Response.json(dependencyTree(packs, { packId, version }) satisfies Answer<typeof treeAnswer>)
  })

  routes.get('/packs/:id/:version/referrers', async (c) => {
    const packId = packIdParam(c)
    requireAccess(c, repositoryOf(packId), 'pull')
    const { artifactType, limit, after } = queryOf(c, referrersQuery)
    const { manifestDigest } = await selectVersion(deps, packId, c.req.param('version') ?? '', undefined)
    const question = JSON.stringify({ packId, manifestDigest, artifactType })
    const last = after === undefined ? '' : readCursor<{ last: string }>(deps.uploadSecret, question, after).last
    const page = { last, limit, maxBytes: maxPageBytes, ...(artifactType === undefined ? {} : { artifactType }) }
    const found = await askRead(deps.db, (sql) => listReferrers(sql, repositoryOf(packId), manifestDigest, page))
    const end = found.more ? found.referrers.at(-1)?.digest : undefined
    const next = end && writeCursor(deps.uploadSecret, question, { last: end })
    const answer: Answer<typeof referrersAnswer> = {
      referrers: found.referrers.map(referrerOf),
      ...(next ? { next } : {}),
    }
    return Response.json(answer)
  })
}

function referrerOf({ digest, mediaType, artifactType, size, annotations }: Referrer) {
  return {
    ...{ digest, mediaType },
    ...(artifactType === null ? {} : { artifactType }),
    size,
    ...(annotations === null ? {} : { annotations }),
  }
}
