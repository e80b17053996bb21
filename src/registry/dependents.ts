import type { Sql, Transaction } from '../db/client.ts'
import { type Dependent, type DependentPlace, dependentsAfter, rangesOn } from '../db/packs.ts'
import type { PackId } from '../packs/pack.ts'
import { parseRange, satisfies, type Version } from '../packs/version.ts'

/** As many as are read in one statement: there may be any number, and most may need other versions. */
const atOnce = 1000

/** A living version of another pack that accepts a version, and its place in the list of those. */
export type Accepting = { dependent: Dependent; place: DependentPlace }

/** Who accepts a version as a dependency, by pack and the highest version first, page by page as they are consumed. */
export async function* dependentsOn(
  sql: Sql | Transaction,
  { packId, version }: { packId: PackId; version: Version },
  after?: DependentPlace,
): AsyncGenerator<Accepting, void, undefined> {
  for (let last = after; ; ) {
    const rows = await dependentsAfter(sql, packId, { after: last, limit: atOnce })
    for (const { precedence, ...dependent } of rows) {
      last = { packId: dependent.packId, precedence }
      if (accepts(dependent.range, version)) yield { dependent, place: last }
    }
    if (rows.length < atOnce) return
  }
}

function accepts(text: string, version: Version): boolean {
  const range = parseRange(text)
  return range !== undefined && satisfies(version, range)
}

/**
 * How many accept a version as a dependency, and the first `most` of those that may be listed. They are counted by their
 * ranges, of which there are few, so that where none accepts it no list is sorted.
 */
export async function firstDependents(
  sql: Sql | Transaction,
  { packId, version }: { packId: PackId; version: Version },
  { most, mayList }: { most: number; mayList: (packId: PackId) => boolean },
): Promise<{ count: number; listed: Dependent[] }> {
  const accepting = (await rangesOn(sql, packId)).filter(({ range }) => accepts(range, version))
  const ranges = accepting.map(({ range }) => range)
  const listed: Dependent[] = []
  for (let after: DependentPlace | undefined, more = ranges.length > 0; more && listed.length < most; ) {
    const rows = await dependentsAfter(sql, packId, { after, limit: atOnce, ranges })
    for (const { precedence, ...dependent } of rows) {
      after = { packId: dependent.packId, precedence }
      if (listed.length < most && mayList(dependent.packId)) listed.push(dependent)
    }
    more = rows.length === atOnce
  }
  return { count: accepting.reduce((sum, { count }) => sum + count, 0), listed }
}
