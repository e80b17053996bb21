import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response'
import type { Context } from 'hono'
import type { VersionRow } from '../../db/pack-versions.ts'
import type { Deps } from '../../deps.ts'
import { Failure } from '../../errors.ts'
import { bundleEntries } from '../../packs/bundle.ts'
import { layoutFormat, layoutIndex } from '../../packs/layout.ts'
import { repositoryOf } from '../../packs/pack.ts'
import { gone } from '../../registry/damage.ts'
import { closureSources, type Layout, layoutOf, readLayout } from '../../registry/layout.ts'
import type { Env } from '../routes.ts'
import { rangeOf } from '../v2/blobs.ts'
import { type Fields, fieldsOf, inert, unchanged } from '../v2/reply.ts'
import { type SentPart, sendParts } from '../v2/send.ts'
import { cacheControl } from './answer.ts'

/**
 * Answers with the closure of a bundle that is an index, as one file: made on the way out, never stored. The same
 * version gives the same bytes always, so it can be resumed. HEAD arrives here too.
 */
export async function sendBundle(
  c: Context<Env>,
  deps: Deps,
  row: VersionRow,
  { exact }: { exact: boolean },
): Promise<Response> {
  const { packId, version, digest } = row
  const etag = `${digest}.${version}.layout-${layoutFormat}`
  const fields: Fields = {
    'content-type': 'application/x-tar',
    etag: `"${etag}"`,
    'content-disposition': `attachment; filename="${packId}-${version}.tar"`,
    'x-pack-version': version,
    'accept-ranges': 'bytes',
    'cache-control': cacheControl(exact),
    ...fieldsOf(inert),
  }
  if (unchanged(c.req.header('if-none-match'), etag))
    return new Response(null, { status: 304, headers: fields as Record<string, string> })
  return sendLayout(c, deps, await layoutOfBundle(deps, row), { etag, fields })
}

/**
 * Answers with a layout or the range of it that is asked for. `fields`: what is said beside it, the ETag among them.
 * What goes missing on the way ends the answer by a closed connection.
 */
export async function sendLayout(
  c: Context<Env>,
  deps: Deps,
  layout: Layout,
  { etag, fields }: { etag: string; fields: Fields },
): Promise<Response> {
  if (c.req.method === 'HEAD') {
    const headers = { ...(fields as Record<string, string>), 'content-length': String(layout.size) }
    return new Response(null, { headers })
  }
  const { status, fields: said, ...range } = rangeOf(c, layout.size, etag)
  const parts = sentParts(deps, readLayout(deps, layout, range))
  await sendParts(c.env.outgoing, parts, { status, fields: { ...fields, ...said } })
  return RESPONSE_ALREADY_SENT
}

async function layoutOfBundle(deps: Deps, { packId, version, digest, mediaType }: VersionRow): Promise<Layout> {
  const repository = repositoryOf(packId)
  const sources = await closureSources(deps, repository, [digest])
  const stored = await deps.together.manifest.load({ repository, digest, tag: undefined, known: undefined })
  const bytes = stored?.payload
  if (!bytes) throw new Failure('MANIFEST_UNKNOWN', { detail: { digest } })
  return layoutOf(layoutIndex(bundleEntries({ packId, version, digest, mediaType, bytes })), sources)
}

/** Objects as the store gives them fastest: its own files, or a stream. */
async function* sentParts(deps: Deps, parts: ReturnType<typeof readLayout>): AsyncGenerator<SentPart> {
  for await (const part of parts) {
    if (Buffer.isBuffer(part)) yield part
    else if (deps.blobs.filePath) yield { path: deps.blobs.filePath(part.key), range: part.range }
    else
      yield {
        open: async () => {
          const stream = await deps.blobs.open(part.key, part.range)
          if (!stream) throw await gone(deps, part.digest, part)
          return stream
        },
      }
  }
}
