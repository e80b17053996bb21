import * as v from 'valibot'
import { askRead } from '../../db/client.ts'
import { listPacks, type Position, packSorts } from '../../db/pack-list.ts'
import type { Deps } from '../../deps.ts'
import { Failure } from '../../errors.ts'
import { packStateSchema, packTypeSchema, versionSchema } from '../../packs/document.ts'
import { precedenceOf } from '../../packs/version.ts'
import { requireListing } from '../access.ts'
import type { Routes } from '../routes.ts'
import { readCursor, writeCursor } from './cursor.ts'
import { jsonText, limitSchema, query, queryOf, textSchema } from './request.ts'

/** The query of GET /packs. */
export const listQuery = query({
  type: v.optional(packTypeSchema),
  /** Words or beginnings of words, all of which must fit. */
  q: v.optional(textSchema(200)),
  author: v.optional(textSchema(200)),
  runner: v.optional(versionSchema),
  state: v.optional(packStateSchema),
  sort: v.optional(v.picklist(packSorts, `must be one of ${packSorts.join(', ')}`)),
  limit: v.optional(limitSchema, '50'),
  after: v.optional(v.string()),
})

export function addPackList(routes: Routes, deps: Deps): void {
  routes.get('/packs', async (c) => {
    const filter = requireListing(c)
    const { q, type, author, state, runner, after, limit, sort: asked } = queryOf(c, listQuery)
    const words = q === undefined ? undefined : wordsOf(q)
    if (asked === 'relevance' && !words)
      throw new Failure('QUERY_INVALID', { detail: 'sort=relevance needs words to search for: q' })
    if (q?.trim() && !words) return jsonText('{"packs":[]}')
    const sort = asked ?? (words ? 'relevance' : 'id')
    const question = JSON.stringify({ type, author, state, runner, words, sort })
    const query = {
      ...{ type, author, state, words, filter, sort, limit: limit + 1 },
      runner: runner && precedenceOf(runner),
      after: after === undefined ? undefined : readCursor<Position>(deps.uploadSecret, question, after),
    }
    // A search is a question of its own nearly always, and may take long.
    const rows = await (words ? askRead(deps.db, (sql) => listPacks(sql, query)) : deps.together.packList.load(query))
    const page = rows.slice(0, limit)
    const last = rows.length > limit ? page.at(-1) : undefined
    const next = last && writeCursor(deps.uploadSecret, question, { key: last.key, packId: last.packId })
    const packs = page.map((row) => row.summary).join(',')
    return jsonText(`{"packs":[${packs}]${next ? `,"next":"${next}"` : ''}}`)
  })
}

/** A search as PostgreSQL reads it: every word, or beginning of one, must be there. Undefined where there is none. */
function wordsOf(q: string): string | undefined {
  const words = q.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? []
  return words.length === 0
    ? undefined
    : words
        .slice(0, 16)
        .map((word) => `'${word}':*`)
        .join(' & ')
}
