import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response'
import type { Context } from 'hono'
import type { LinkedBlob } from '../../db/blobs.ts'
import type { Deps } from '../../deps.ts'
import { Failure } from '../../errors.ts'
import type { Digest } from '../../oci/digest.ts'
import { mediaTypes } from '../../oci/media-types.ts'
import { type ByteRange, parseRange } from '../../oci/range.ts'
import { confirmBlob, readSmall, removeBlob, smallBytes } from '../../registry/blobs.ts'
import { gone } from '../../registry/damage.ts'
import { fetchMissedBlob } from '../../registry/upstreams.ts'
import { requireAccess } from '../access.ts'
import type { Env, Routes } from '../routes.ts'
import { patiently } from './patience.ts'
import { type Fields, fieldsOf, type Head, inert, reply, unchanged } from './reply.ts'
import { digestParam, nameOf } from './request.ts'
import { sendFile, sendStream } from './send.ts'

/** How long an address that a client is sent to stays good: long enough to begin, short enough to leak. */
export const presignSeconds = 300

export function addBlobRoutes(routes: Routes, deps: Deps): void {
  // end-2: HEAD arrives here too
  routes.get('/v2/:name{.+}/blobs/:digest', async (c) => {
    const name = nameOf(c)
    requireAccess(c, name, 'pull')
    const digest = digestParam(c)
    const isHead = c.req.method === 'HEAD'
    const find = () =>
      isHead ? confirmBlob(deps, name, digest) : deps.together.linkedBlob.load({ repository: name, digest })
    const blob =
      (await find()) ?? ((await patiently(c, () => fetchMissedBlob(deps, name, digest))) ? await find() : undefined)
    if (!blob) throw new Failure('BLOB_UNKNOWN', { detail: { name, digest } })
    const fields = fieldsOf(blobHead(digest))
    if (unchanged(c.req.header('if-none-match'), digest)) return reply(304, fields)
    // Answered before anything is opened: a body that nobody reads would leak what it stands on.
    if (isHead) return reply(200, { ...fields, 'content-length': blob.size })
    return sendBlob(c, deps, digest, blob, fields)
  })

  // end-10
  routes.delete('/v2/:name{.+}/blobs/:digest', async (c) => {
    const name = nameOf(c)
    requireAccess(c, name, 'delete')
    const digest = digestParam(c)
    if (!(await removeBlob(deps, name, digest))) throw new Failure('BLOB_UNKNOWN', { detail: { name, digest } })
    return reply(202, {})
  })
}

/** What is said of a blob beside its bytes, whole or not. */
export function blobHead(digest: Digest): Head {
  return [
    ...['content-type', mediaTypes.octetStream, 'docker-content-digest', digest, 'etag', `"${digest}"`],
    ...['accept-ranges', 'bytes', 'cache-control', 'private, max-age=31536000, immutable', ...inert],
  ]
}

/** Answers with a blob or the range of it that is asked for; large ones from the store itself where it can. */
export async function sendBlob(
  c: Context<Env>,
  deps: Deps,
  digest: Digest,
  blob: Pick<LinkedBlob, 'key' | 'size'>,
  fields: Fields,
): Promise<Response> {
  const { status, first, last, fields: said } = rangeOf(c, blob.size, digest)
  const all: Fields = { ...fields, ...said }

  if (blob.size <= smallBytes) {
    const bytes = await readSmall(deps, digest, blob)
    return reply(status, all, status === 200 ? bytes : bytes.subarray(first, last + 1))
  }
  if (deps.blobs.presign && deps.config.blobRedirect) {
    const location = await deps.blobs.presign(blob.key, { expiresInSeconds: presignSeconds })
    return reply(307, { location, 'docker-content-digest': digest, 'cache-control': 'no-store' })
  }
  const { outgoing } = c.env
  const head = { status, fields: { 'docker-distribution-api-version': 'registry/2.0', ...all } }
  if (deps.blobs.filePath) {
    const file = { path: deps.blobs.filePath(blob.key), size: blob.size }
    if (!(await sendFile(outgoing, file, { first, last }, head))) throw await gone(deps, digest, blob)
  } else {
    const stream = await deps.blobs.open(blob.key, { first, last })
    if (!stream) throw await gone(deps, digest, blob)
    await sendStream(outgoing, stream, head)
  }
  return RESPONSE_ALREADY_SENT
}

/**
 * What part of content a request is answered with, and the fields that say so. A Range with an If-Range counts only for
 * the very content the client has a part of. `etag`: without its quotes. Throws RANGE_INVALID.
 * Source: RFC 9110, sections 13.1.5 and 14.
 */
export function rangeOf(
  c: Context<Env>,
  size: number,
  etag: string,
): { status: 200 | 206; fields: Fields } & ByteRange {
  const header = c.req.header('range')
  const condition = c.req.header('if-range')
  const holds = condition === undefined || condition.trim() === `"${etag}"`
  const range = header && holds ? parseRange(header, size) : 'whole'
  if (range === 'unsatisfiable')
    throw new Failure('RANGE_INVALID', { detail: { size }, headers: { 'content-range': `bytes */${size}` } })
  if (range === 'whole') return { status: 200, fields: { 'content-length': size }, first: 0, last: size - 1 }
  const { first, last } = range
  const fields = { 'content-length': last - first + 1, 'content-range': `bytes ${first}-${last}/${size}` }
  return { status: 206, fields, first, last }
}
