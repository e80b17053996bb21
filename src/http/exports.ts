import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response'
import type { Context } from 'hono'
import * as v from 'valibot'
import { ask, askRead } from '../db/client.ts'
import {
  deleteExport,
  type ExportPart,
  type ExportRow,
  findExport,
  listExports,
  storedParts,
} from '../db/export-files.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import type { ByteRange } from '../oci/range.ts'
import { requestExport } from '../registry/export-files.ts'
import { failureOf } from '../registry/export-request.ts'
import { readObjectBytes } from '../registry/layout.ts'
import { principalOf, requireAccess } from './access.ts'
import { fileFields, planned } from './bundles.ts'
import { readCursor, writeCursor } from './packs/cursor.ts'
import { jsonText, limitSchema, noQuery, query, queryOf } from './packs/request.ts'
import type { Env, Routes } from './routes.ts'
import { presignSeconds, rangeOf } from './v2/blobs.ts'
import { type Fields, unchanged } from './v2/reply.ts'
import { type SentPart, sendParts } from './v2/send.ts'

/** The query of GET /bundles/exports. */
export const exportsQuery = query({ limit: v.optional(limitSchema, '50'), after: v.optional(v.string()) })

type Position = { createdAt: string; id: string }

export function addExportRoutes(routes: Routes, deps: Deps): void {
  // It fills the store, so it takes more than to read what is in it.
  routes.post('/bundles/exports', async (c) => {
    requireAccess(c, '*', 'push')
    const plan = await planned(c, deps)
    if (!plan.made) throw failureOf(plan.problems)
    const row = await requestExport(deps, principalOf(c).name, plan, plan.made)
    return jsonText(`{"export":${exportText(row)}}`, {
      status: 202,
      headers: { location: `/bundles/exports/${row.id}` },
    })
  })

  // The newest first.
  routes.get('/bundles/exports', async (c) => {
    requireAccess(c, '*', 'pull')
    const { limit, after } = queryOf(c, exportsQuery)
    const question = JSON.stringify({ exports: true })
    const position = after === undefined ? undefined : readCursor<Position>(deps.uploadSecret, question, after)
    const rows = await askRead(deps.db, (sql) => listExports(sql, position, limit + 1))
    const page = rows.slice(0, limit)
    const last = rows.length > limit ? page.at(-1) : undefined
    const next = last && writeCursor(deps.uploadSecret, question, { createdAt: last.createdAt, id: last.id })
    return jsonText(`{"exports":[${page.map(exportText).join(',')}]${next ? `,"next":${JSON.stringify(next)}` : ''}}`)
  })

  routes.get('/bundles/exports/:id', async (c) => {
    requireAccess(c, '*', 'pull')
    queryOf(c, noQuery)
    return jsonText(`{"export":${exportText(await exportOf(c, deps))}}`)
  })

  // HEAD arrives here too.
  routes.get('/bundles/exports/:id/file', async (c) => {
    requireAccess(c, '*', 'pull')
    queryOf(c, noQuery)
    const row = await exportOf(c, deps)
    if (row.state !== 'ready')
      throw new Failure('EXPORT_NOT_READY', {
        detail: `the export is ${row.state}${row.error === null ? '' : `: ${row.error}`}; see GET /bundles/exports/{id}`,
        headers: { 'retry-after': '5' },
      })
    return sendExport(c, deps, row)
  })

  routes.delete('/bundles/exports/:id', async (c) => {
    requireAccess(c, '*', 'delete')
    queryOf(c, noQuery)
    const id = idOf(c)
    const deleted = id !== undefined && (await ask(deps.db, (sql) => deleteExport(sql, id)))
    return Response.json({ deleted })
  })
}

function idOf(c: Context<Env>): string | undefined {
  const id = c.req.param('id') ?? ''
  return /^[0-9a-f]{64}$/.test(id) ? id : undefined
}

/** Throws EXPORT_UNKNOWN. */
async function exportOf(c: Context<Env>, deps: Deps): Promise<ExportRow> {
  const id = idOf(c)
  const row = id === undefined ? undefined : await askRead(deps.db, (sql) => findExport(sql, id))
  if (row) return row
  throw unknown(c.req.param('id') ?? '')
}

function unknown(id: string): Failure {
  return new Failure('EXPORT_UNKNOWN', {
    detail: `there is no export ${JSON.stringify(id.slice(0, 100))}: its id is wrong, or it has been removed; ask for it again by POST /bundles/exports`,
  })
}

/** Answers with the file or the range of it that is asked for; from the store itself, where that has it in one piece. */
async function sendExport(c: Context<Env>, deps: Deps, { id, size, sha256 }: ExportRow): Promise<Response> {
  const digest = { 'repr-digest': `sha-256=:${Buffer.from(sha256 ?? '', 'hex').toString('base64')}:` }
  const fields: Fields = { ...fileFields(id), ...digest, 'cache-control': 'private, no-cache' }
  if (unchanged(c.req.header('if-none-match'), id))
    return new Response(null, { status: 304, headers: fields as Record<string, string> })
  if (c.req.method === 'HEAD')
    return new Response(null, { headers: { ...(fields as Record<string, string>), 'content-length': String(size) } })
  const { status, fields: said, ...range } = rangeOf(c, size, id)
  const parts = await askRead(deps.db, (sql) => storedParts(sql, id))
  const [first] = parts
  if (parts.reduce((sum, part) => sum + part.size, 0) !== size) throw unknown(id)
  if (first && parts.length === 1 && deps.blobs.presign && deps.config.blobRedirect) {
    const location = await deps.blobs.presign(first.key, { expiresInSeconds: presignSeconds })
    return new Response(null, { status: 307, headers: { location, 'cache-control': 'no-store' } })
  }
  await sendParts(c.env.outgoing, sentParts(deps, parts, range), { status, fields: { ...fields, ...said } })
  return RESPONSE_ALREADY_SENT
}

/** The range as pieces of the objects that it goes through. */
async function* sentParts(
  deps: Deps,
  parts: readonly ExportPart[],
  { first, last }: ByteRange,
): AsyncGenerator<SentPart> {
  let start = 0
  for (const { key, size } of parts) {
    const range = { first: Math.max(0, first - start), last: Math.min(size - 1, last - start) }
    start += size
    if (range.first > range.last) continue
    if (deps.blobs.filePath) yield { path: deps.blobs.filePath(key), range }
    else for await (const bytes of readObjectBytes(deps, key, range)) yield bytes
  }
}

/** An export as JSON text; what is told of its file is put in as it is stored. */
function exportText(row: ExportRow): string {
  const { id, state, size, written, sha256, principal: by, error, createdAt, finishedAt, expiresAt } = row
  const facts = JSON.stringify({
    ...{ id, state, size, written, ...(sha256 === null ? {} : { sha256 }), by },
    ...{ createdAt, ...(finishedAt === null ? {} : { finishedAt }), expiresAt },
    ...(error === null ? {} : { error }),
  })
  return `${facts.slice(0, -1)},${row.file.slice(1)}`
}
