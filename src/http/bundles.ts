import { createHash } from 'node:crypto'
import type { Context } from 'hono'
import * as v from 'valibot'
import type { Deps } from '../deps.ts'
import { digestOf } from '../oci/digest.ts'
import { boundedList } from '../packs/bounded-list.ts'
import { rootSchema, versionSchema } from '../packs/document.ts'
import { channelSchema, lockSchema } from '../packs/lock.ts'
import { type ExportRequest, failureOf } from '../registry/export-request.ts'
import { type Plan, planBundle } from '../registry/exports.ts'
import { inventoryDocument } from '../registry/inventory.ts'
import type { Layout } from '../registry/layout.ts'
import { keepFile, plannedLayout, sha256Of } from '../registry/planned.ts'
import { mayPullFor, requireAccess, requireListing } from './access.ts'
import type { planAnswer } from './bundle-answers.ts'
import type { Answer } from './packs/answers.ts'
import { sendLayout } from './packs/bundle.ts'
import { jsonBody, noQuery, queryOf } from './packs/request.ts'
import type { Env, Routes } from './routes.ts'
import { type Fields, fieldsOf, inert, unchanged } from './v2/reply.ts'

const switchSchema = v.optional(v.boolean('must be true or false'), true)

/** What POST /bundles and POST /bundles/plan are told: roots, or all there is. */
export const exportBody = v.strictObject(
  {
    roots: v.optional(
      v.pipe(
        boundedList(rootSchema, 1000),
        v.description('What is to go in, with all it needs: each pack once.'),
        v.minLength(1, 'must name a pack'),
      ),
    ),
    all: v.optional(
      v.pipe(
        v.literal(true, 'must be true'),
        v.description('Every version of every pack, instead of roots; without runner, channel and lock.'),
      ),
    ),
    runner: v.optional(versionSchema),
    channel: v.optional(channelSchema),
    lock: v.optional(lockSchema),
    referrers: switchSchema,
    channels: switchSchema,
    inventory: v.optional(
      v.pipe(
        v.looseObject({}, 'must be an inventory, as GET /inventory answers it'),
        v.description("The receiver's, as its GET /inventory answers it."),
      ),
    ),
  },
  (issue) => (issue.expected === 'never' ? 'is not a field of this request' : 'must be a JSON object'),
)

const exportRequest = v.pipe(
  exportBody,
  v.check(({ roots, all }) => (roots === undefined) === (all === true), 'names either "roots" or "all": true'),
  v.check(
    ({ all, runner, channel, lock }) => !all || (runner ?? channel ?? lock) === undefined,
    'resolves nothing with "all": it goes without "runner", "channel" and "lock"',
  ),
  v.transform(({ roots = [], all = false, inventory, ...rest }): ExportRequest => ({ ...rest, roots, all, inventory })),
)

/** An inventory of 1,200,000 digests fits, in bytes. */
const maxBodyBytes = 64 * 1024 * 1024

/** Files of at most this size are read for their sha256 when they are planned, in bytes. */
const cheapBytes = 16 * 1024 * 1024

export function addBundleRoutes(routes: Routes, deps: Deps): void {
  // Access is a matter of each pack: one that may not be read is as unknown as one that is not there.
  routes.post('/bundles', async (c) => {
    const { problems, made } = await planned(c, deps)
    if (!made) throw failureOf(problems)
    const { id, index } = made.file
    const fields = { ...fileFields(id), 'x-bundle-index': digestOf(index), 'cache-control': 'no-store' }
    return sendLayout(c, deps, made.layout, { etag: id, fields })
  })

  routes.post('/bundles/plan', async (c) => {
    const plan = await planned(c, deps)
    const { made } = plan
    if (!made) return Response.json(toldOf(plan) satisfies Answer<typeof planAnswer>)
    const expiresAt = await keepFile(deps, made.file)
    const told = { ...toldOf(plan), ...(await fileAnswer(deps, made, expiresAt)) }
    return Response.json(told satisfies Answer<typeof planAnswer>)
  })

  // HEAD arrives here too. The id names the bytes, so an answer is good for as long as there is one.
  routes.get('/bundles/:id{[0-9a-f]{64}}', async (c) => {
    requireListing(c)
    queryOf(c, noQuery)
    const id = c.req.param('id') ?? ''
    const layout = await plannedLayout(deps, id, mayPullFor(c))
    const fields = { ...fileFields(id), 'cache-control': 'private, max-age=31536000, immutable' }
    if (unchanged(c.req.header('if-none-match'), id))
      return new Response(null, { status: 304, headers: fields as Record<string, string> })
    return sendLayout(c, deps, layout, { etag: id, fields })
  })

  routes.get('/inventory', async (c) => {
    requireAccess(c, '*', 'pull')
    queryOf(c, noQuery)
    const bytes = await inventoryDocument(deps, mayPullFor(c))
    const etag = createHash('sha256').update(bytes).digest('hex')
    const headers = {
      'content-type': 'application/json',
      'content-length': String(bytes.length),
      'content-disposition': 'attachment; filename="inventory.json"',
      etag: `"${etag}"`,
      'cache-control': 'private, no-cache',
    }
    if (unchanged(c.req.header('if-none-match'), etag)) {
      const { 'content-length': _, ...same } = headers
      return new Response(null, { status: 304, headers: same })
    }
    return new Response(c.req.method === 'HEAD' ? null : bytes, { headers })
  })
}

export async function planned(c: Context<Env>, deps: Deps): Promise<Plan> {
  requireListing(c)
  queryOf(c, noQuery)
  return planBundle(deps, await jsonBody(c, exportRequest, maxBodyBytes), mayPullFor(c))
}

export function fileFields(id: string): Fields {
  return {
    'content-type': 'application/x-tar',
    etag: `"${id}"`,
    'content-disposition': `attachment; filename="bundle-${id.slice(0, 12)}.tar"`,
    'accept-ranges': 'bytes',
    ...fieldsOf(inert),
  }
}

/** What would go in, and everything that keeps it from being made. */
function toldOf({ problems, packs, channels, referrers, leftOut, inventory, signedBy }: Plan) {
  return {
    problems,
    packs,
    channels,
    referrers: referrers.map(({ artifactType, ...referrer }) => ({
      ...referrer,
      ...(artifactType ? { artifactType } : {}),
    })),
    leftOut: { blobs: leftOut.length, bytes: leftOut.reduce((sum, { size }) => sum + size, 0) },
    ...(inventory
      ? {
          inventory: {
            digest: inventory.digest,
            signature: signatureOf(inventory),
          },
        }
      : {}),
    signedBy,
  }
}

/** Nothing depends on it but the reader's peace: a wrong inventory makes a bundle that its receiver refuses. */
function signatureOf({ isSigned, signedBy }: NonNullable<Plan['inventory']>): 'trusted' | 'unknown' | 'none' {
  const now = new Date()
  if (signedBy.some(({ expiresAt }) => !expiresAt || now < expiresAt)) return 'trusted'
  return isSigned ? 'unknown' : 'none'
}

/** The file as it will be. Its sha256 is known where it costs little to know. */
async function fileAnswer(deps: Deps, { file, layout, blobs, bytes }: NonNullable<Plan['made']>, expiresAt: Date) {
  const { size } = layout satisfies Layout
  return {
    id: file.id,
    index: digestOf(file.index),
    ...{ size, blobs, bytes },
    ...(size <= cheapBytes
      ? { sha256: await sha256Of(deps, layout) }
      : {
          sha256Unknown: `known only when all ${size} bytes were read; files above ${cheapBytes} are not read for it`,
        }),
    expiresAt: expiresAt.toISOString(),
  }
}
