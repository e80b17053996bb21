import type { Sql, Transaction } from '../db/client.ts'
import { type Dependent, type DependentPlace, dependentsAfter } from '../db/packs.ts'
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
    const rows = await dependentsAfter(sql, packId, last, atOnce)
    for (const { precedence, ...dependent } of rows) {
      last = { packId: dependent.packId, precedence }
      const range = parseRange(dependent.range)
      if (range !== undefined && satisfies(version, range)) yield { dependent, place: last }
    }
    if (rows.length < atOnce) return
  }
}
