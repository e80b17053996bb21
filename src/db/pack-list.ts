import type { PackState, PackType } from '../packs/pack.ts'
import { listable, type NameFilter } from './catalog.ts'
import type { Sql } from './client.ts'
import { summaryOf } from './packs.ts'

/** How a list of packs may be sorted: by id; by the last change, newest first; by how well the words fit, best first. */
export const packSorts = ['id', 'updated', 'relevance'] as const
export type PackSort = (typeof packSorts)[number]

/** The place of an entry in the order: the next page begins behind it. */
export type Position = { key: string; packId: string }

export type PackQuery = {
  type?: PackType | undefined
  author?: string | undefined
  state?: PackState | undefined
  /** Precedence of the runner: only packs that it can run, each shown by the newest such version. */
  runner?: string | undefined
  /** In PostgreSQL's notation: `'net':* & 'rul':*`. */
  words?: string | undefined
  /** Which repositories may be listed; undefined: all. */
  filter?: NameFilter | undefined
  sort: PackSort
  after?: Position | undefined
  limit: number
}

/** An entry of the list: `summary` is JSON text. */
export type PackEntry = Position & { summary: string }

/** Entries of the list in order, at most `limit`. A pack without a living version is not in it. */
export async function listPacks(sql: Sql, query: PackQuery): Promise<PackEntry[]> {
  const { type, author, state, runner, words, filter, sort, after, limit } = query
  const key = {
    id: sql`''::text`,
    // Microseconds, since a later page compares for equality.
    updated: sql`(extract(epoch from p.updated_at) * 1000000)::bigint`,
    relevance: sql`ts_rank(p.words, ${words ?? ''}::tsquery)::float8`,
  }[sort]
  const globs: string[] = []
  const place = (value: string) => `globs.list[${globs.push(value)}]`
  const where = [
    filter && sql`and ${sql.unsafe(listable(filter, { name: `('packs/' || p.pack_id)`, place }))}`,
    type && sql`and p.type = ${type}`,
    author && sql`and p.author = ${author}`,
    state && sql`and p.state = ${state}`,
    words && sql`and p.words @@ ${words}::tsquery`,
    after && (sort === 'id' ? sql`and p.pack_id > ${after.packId}` : undefined),
    after &&
      (sort === 'updated'
        ? sql`and (p.updated_at, p.pack_id) < (to_timestamp(0) + ${after.key}::bigint * interval '1 microsecond', ${after.packId})`
        : undefined),
    after &&
      (sort === 'relevance' ? sql`and (-${key}, p.pack_id) > (-${after.key}::float8, ${after.packId})` : undefined),
  ]
  const order = {
    id: sql`p.pack_id`,
    updated: sql`p.updated_at desc, p.pack_id desc`,
    relevance: sql`${key} desc, p.pack_id`,
  }[sort]
  const runnable = runner
    ? sql`join lateral (
        select * from pack_versions v
        where v.repository_id = p.repository_id and v.deleted_at is null and v.state <> 'yanked'
          and (v.min_runner is null or v.min_runner <= ${runner}) and (v.max_runner is null or v.max_runner >= ${runner})
        order by v.prerelease, v.precedence desc limit 1
      ) v on true`
    : sql``
  // In two steps, or the text of every key is made before the limit is reached: of 10,000 that takes 6 ms.
  const rows = await sql<PackEntry[]>`
    select summary, pack_id as "packId", key::text as key from (
      select ${runner ? summaryOf(sql, sql`p.pack_id`, sql`v`, sql`p.versions`) : sql`p.summary`} as summary,
        p.pack_id, ${key} as key
      from packs p ${runnable} ${filter ? sql`cross join (select ${globs}::text[] as list) globs` : sql``}
      where p.shown is not null ${where.map((part) => part || sql``)}
      order by ${order} limit ${limit}
    ) page`
  return [...rows]
}
