import { ask, type Sql } from '../db/client.ts'
import { reviewClock } from '../db/collect.ts'
import type { Deps } from '../deps.ts'

/** What is due by `until`, after a place in the order of times: the next `limit`. */
type Read<T> = (sql: Sql, page: { until: string; after: T | undefined; limit: number }) => Promise<T[]>

/**
 * What is due at this moment, by and by: forward through the times, so that nothing is met twice, whether it stays or goes.
 * Several may take from one of these: it gives one batch after the other, whoever asks.
 */
export async function* dueBatches<T>(deps: Deps, read: Read<T>, limit: number): AsyncGenerator<T[], void, undefined> {
  const until = await ask(deps.db, reviewClock)
  let after: T | undefined
  for (;;) {
    const from = after
    const batch = await ask(deps.db, (sql) => read(sql, { until, after: from, limit }))
    if (batch.length > 0) yield batch
    if (batch.length < limit) return
    after = batch.at(-1)
  }
}
