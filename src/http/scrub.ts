import * as v from 'valibot'
import { askRead } from '../db/client.ts'
import { countFindings, type FindingRow, findingKinds, listFindings } from '../db/findings.ts'
import { listRuns, type ScrubRunRow } from '../db/scrub.ts'
import type { Deps } from '../deps.ts'
import { requireAdmin } from './access.ts'
import { type Answer, time } from './packs/answers.ts'
import { readCursor, writeCursor } from './packs/cursor.ts'
import { limitSchema, query, queryOf, switchSchema } from './packs/request.ts'
import type { Routes } from './routes.ts'

/** The query of GET /scrub. */
export const scrubQuery = query({
  all: switchSchema,
  kind: v.optional(v.picklist(findingKinds, `must be one of ${findingKinds.join(', ')}`)),
  limit: v.optional(limitSchema, '50'),
  after: v.optional(v.string()),
})

const passSchema = v.object({
  mode: v.pipe(
    v.picklist(['full', 'quick']),
    v.description('quick: whether each object is there, and as long; full: whether its bytes are right, too.'),
  ),
  phase: v.picklist(['blobs', 'objects', 'manifests']),
  running: v.pipe(v.boolean(), v.description('Whether a process works at it now.')),
  total: v.pipe(v.number(), v.description('About how many blobs there are.')),
  blobs: v.number(),
  bytes: v.pipe(v.number(), v.description('Bytes that were read and hashed.')),
  objects: v.number(),
  manifests: v.number(),
  found: v.number(),
  repaired: v.number(),
  startedAt: time,
  finishedAt: v.optional(time),
})
const findingSchema = v.object({
  id: v.number(),
  kind: v.picklist(findingKinds),
  digest: v.optional(v.string()),
  key: v.optional(v.pipe(v.string(), v.description('The object in the store.'))),
  size: v.optional(v.number()),
  expected: v.optional(v.string()),
  actual: v.optional(v.string()),
  quarantine: v.optional(v.pipe(v.string(), v.description('The object that wrong bytes were put into.'))),
  firstSeen: time,
  lastSeen: time,
  resolvedAt: v.optional(time),
  repaired: v.optional(v.pipe(v.string(), v.description('How it came right.'))),
  repositories: v.array(v.object({ name: v.string(), manifests: v.array(v.string()) })),
})
export const scrubAnswer = v.object({
  passes: v.pipe(v.array(passSchema), v.description('Those under way, and the last finished one of each mode.')),
  open: v.pipe(v.record(v.string(), v.number()), v.description('How many findings of each kind are open.')),
  findings: v.array(findingSchema),
  next: v.optional(v.string()),
})

export function addScrubRoutes(routes: Routes, deps: Deps): void {
  // The newest findings first.
  routes.get('/scrub', async (c) => {
    requireAdmin(c)
    const { all, kind, limit, after } = queryOf(c, scrubQuery)
    const question = JSON.stringify({ scrub: true, all, kind })
    const before = after === undefined ? undefined : readCursor<{ id: number }>(deps.uploadSecret, question, after).id
    const [runs, open, rows] = await Promise.all([
      askRead(deps.db, listRuns),
      askRead(deps.db, countFindings),
      askRead(deps.db, (sql) => listFindings(sql, { all, kind, before, limit: limit + 1 })),
    ])
    const page = rows.slice(0, limit)
    const last = rows.length > limit ? page.at(-1) : undefined
    const next = last && writeCursor(deps.uploadSecret, question, { id: last.id })
    return Response.json({
      passes: runs.map(present<ScrubRunRow, v.InferInput<typeof passSchema>>),
      open: Object.fromEntries(open),
      findings: page.map(present<FindingRow, v.InferInput<typeof findingSchema>>),
      ...(next ? { next } : {}),
    } satisfies Answer<typeof scrubAnswer>)
  })
}

/** A row without what does not apply to it. */
function present<Row extends object, Shown>(row: Row): Shown {
  return Object.fromEntries(Object.entries(row).filter(([, value]) => value !== null)) as Shown
}
