import type { Context } from 'hono'
import * as v from 'valibot'
import { mayAccess } from '../auth/access.ts'
import { askRead } from '../db/client.ts'
import { findImport, type ImportRow, importStates, listImports } from '../db/imports.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import { versionSchema } from '../packs/document.ts'
import { type ImportRequest, importBundle } from '../registry/import.ts'
import { packOfRepository } from '../registry/import-layout.ts'
import { principalOf, requireAccess, requirePusher, requireStill } from './access.ts'
import { requestId } from './observe.ts'
import { readCursor, writeCursor } from './packs/cursor.ts'
import {
  jsonText,
  limitSchema,
  noQuery,
  query,
  queryOf,
  reasonSchema,
  switchSchema,
  textSchema,
} from './packs/request.ts'
import type { Env, Routes } from './routes.ts'
import { bodyOf, chunkRangeOf } from './v2/request.ts'

const uuidSchema = v.pipe(
  v.string(),
  v.regex(/^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/, 'must be a UUID in lowercase'),
)

/** The query of POST /bundles/import. */
export const importQuery = query({
  dryRun: switchSchema,
  force: switchSchema,
  /** Why channels may go back to older versions: kept in the report. */
  reason: v.optional(reasonSchema),
  runner: v.optional(versionSchema),
  /** The repository of a pack, for a layout that does not say which it is. */
  repository: v.optional(textSchema(200)),
  /** An import to go on with; one that is not there begins under this id. */
  resume: v.optional(uuidSchema),
  /** Answer when all of it is received and verified; a job publishes it. */
  async: switchSchema,
})

/** The query of GET /bundles/imports. */
export const importsQuery = query({
  state: v.optional(v.picklist(importStates, `must be one of ${importStates.join(', ')}`)),
  limit: v.optional(limitSchema, '50'),
  after: v.optional(v.string()),
})

type Position = { startedAt: string; id: string }

export function addImportRoutes(routes: Routes, deps: Deps): void {
  // Which repositories it writes to is known when its index has come: whether that may be is looked at there.
  routes.post('/bundles/import', async (c) => {
    requirePusher(c)
    // While a large bundle is published, its connection is silent: only a sender may be too slow.
    const { incoming } = c.env
    incoming.once('end', () => incoming.socket.setTimeout(0))
    const request = requestOf(c, deps)
    c.env.tries = request.dryRun
    const { id, report } = await importBundle(deps, request)
    if (!report) {
      const row = await askRead(deps.db, (sql) => findImport(sql, id))
      const headers = { location: `/bundles/imports/${id}`, 'preference-applied': 'respond-async' }
      if (row) return jsonText(`{"import":${importText(row)}}`, { status: 202, headers })
      throw unknown(id)
    }
    const status = report.changed && !report.dryRun ? 201 : 200
    const headers = id === undefined ? {} : { location: `/bundles/imports/${id}` }
    return Response.json({ ...(id === undefined ? {} : { id }), ...report }, { status, headers })
  })

  // The newest first, without their reports.
  routes.get('/bundles/imports', async (c) => {
    requireAccess(c, '*', 'pull')
    const { state, limit, after } = queryOf(c, importsQuery)
    const question = JSON.stringify({ imports: true, state })
    const position = after === undefined ? undefined : readCursor<Position>(deps.uploadSecret, question, after)
    const rows = await askRead(deps.db, (sql) => listImports(sql, { state, after: position, limit: limit + 1 }))
    const page = rows.slice(0, limit)
    const last = rows.length > limit ? page.at(-1) : undefined
    const next = last && writeCursor(deps.uploadSecret, question, { startedAt: last.startedAt, id: last.id })
    return jsonText(`{"imports":[${page.map(importText).join(',')}]${next ? `,"next":${JSON.stringify(next)}` : ''}}`)
  })

  // How far it is, from whatever connection or replica; what it found, when it is over.
  routes.get('/bundles/imports/:id', async (c) => {
    requireAccess(c, '*', 'pull')
    queryOf(c, noQuery)
    const id = c.req.param('id') ?? ''
    const row = v.is(uuidSchema, id) ? await askRead(deps.db, (sql) => findImport(sql, id)) : undefined
    if (!row) throw unknown(id)
    return jsonText(`{"import":${importText(row)}}`)
  })
}

function unknown(id: string): Failure {
  return new Failure('IMPORT_UNKNOWN', { detail: `there is no import ${JSON.stringify(id.slice(0, 100))}` })
}

/** Whether the client would rather not wait. Source: RFC 7240, section 4.1. */
function prefersAsync(c: Context<Env>): boolean {
  return /(?:^|[,;\s])respond-async(?:[,;\s]|$)/i.test(c.req.header('prefer') ?? '')
}

function requestOf(c: Context<Env>, deps: Deps): ImportRequest {
  const { dryRun, force, reason, runner, repository, resume, async: isAsync } = queryOf(c, importQuery)
  if (force && reason === undefined)
    throw new Failure('QUERY_INVALID', { detail: 'force=true needs a reason; it is kept in the report: &reason=…' })
  const principal = principalOf(c)
  const { kind, tokenId } = principal
  const address = c.env.gate?.addressOf(c.env.incoming) ?? ''
  return {
    by: { kind, ...(tokenId === undefined ? {} : { tokenId }), address, requestId: requestId(c.env) },
    detached: isAsync || prefersAsync(c),
    ...{ body: bodyOf(c), id: resume, offset: chunkRangeOf(c)?.first ?? 0, principal: principal.name },
    still: () => requireStill(c, deps),
    // It sets channels too.
    mayPush: (name) => mayAccess(principal, name, 'push') && mayAccess(principal, name, 'overwrite'),
    mayPull: (name) => mayAccess(principal, name, 'pull'),
    ...{ dryRun, runner, force: force && reason !== undefined ? { reason } : undefined },
    pack: repository === undefined ? undefined : packOfRepository(repository),
  }
}

/** An import as JSON text; its report is put in as it is stored. `resumeAt`: where in the file to go on, if it can. */
function importText(row: ImportRow): string {
  const { id, state, alive, received, total, resumeAt, blobs, indexDigest, startedAt, finishedAt, expiresAt } = row
  const canResume = state === 'receiving' && !alive
  const facts = JSON.stringify({
    ...{ id, state, alive, received, blobs },
    ...(total === null ? {} : { total }),
    ...(canResume || alive ? { resumeAt } : {}),
    ...(indexDigest === null ? {} : { index: indexDigest }),
    ...{ startedAt, ...(finishedAt === null ? {} : { finishedAt }), expiresAt },
  })
  const texts = { error: row.error, report: row.report }
  const more = Object.entries(texts).flatMap(([key, text]) => (text === null ? [] : [`,"${key}":${text}`]))
  return `${facts.slice(0, -1)}${more.join('')}}`
}
