import { setTimeout as sleep } from 'node:timers/promises'
import { ask, type Transaction } from '../db/client.ts'
import {
  type DuePage,
  dueBlobs,
  dueLinks,
  judgeBlobs,
  judgeLinks,
  lockDueBlobs,
  lockDueLinks,
  reviewClock,
} from '../db/collect.ts'
import type { Deps } from '../deps.ts'

/** What a pass did. `kept`: rows that were due and are needed. `bytes`: the size of the blobs that went. */
export type Collected = { links: number; blobs: number; bytes: number; kept: number }

export type CollectOptions = {
  signal?: AbortSignal | undefined
  onProgress?: ((collected: Collected) => void) | undefined
  /** Rows a second; 0: as many as it can. */
  rate?: number
}

/** Rows that are read at once, and of these the rows of one transaction: a few milliseconds. */
const pageRows = 20_000
const batchRows = 500

/** Collects every link, then every blob, that is due now and that nothing refers to. Any number may run at once. */
export async function collectContent(deps: Deps, options: CollectOptions = {}): Promise<Collected> {
  const { signal, onProgress, rate = deps.config.gcRate } = options
  const collected = { links: 0, blobs: 0, bytes: 0, kept: 0 }
  const grace = deps.config.gcGraceSeconds
  const pace = openPace(rate)
  const inTransaction = <T>(work: (tx: Transaction) => Promise<T>) =>
    // Each statement is to see what was committed before it, whatever the server's default.
    ask(deps.db, (sql) => sql.begin('isolation level read committed', work) as Promise<T>)
  for await (const batch of dueBatches(deps, dueLinks)) {
    await pace(batch.length, signal)
    const { kept, gone } = await inTransaction(async (tx) => judgeLinks(tx, await lockDueLinks(tx, batch), grace))
    collected.links += gone
    collected.kept += kept
    onProgress?.(collected)
  }
  for await (const batch of dueBatches(deps, dueBlobs)) {
    await pace(batch.length, signal)
    const { kept, gone, bytes } = await inTransaction(async (tx) =>
      judgeBlobs(tx, await lockDueBlobs(tx, batch), grace),
    )
    collected.blobs += gone
    collected.bytes += bytes
    collected.kept += kept
    onProgress?.(collected)
  }
  return collected
}

/** What is due at this moment, by and by: forward through the review times, so that no row is met twice. */
async function* dueBatches<T>(
  deps: Deps,
  read: (sql: Parameters<typeof dueLinks>[0], page: DuePage<T>) => Promise<T[]>,
): AsyncGenerator<T[], void, undefined> {
  const until = await ask(deps.db, reviewClock)
  let after: T | undefined
  for (;;) {
    const from = after
    const page = await ask(deps.db, (sql) => read(sql, { until, after: from, limit: pageRows }))
    for (let at = 0; at < page.length; at += batchRows) yield page.slice(at, at + batchRows)
    if (page.length < pageRows) return
    after = page.at(-1)
  }
}

/** Waits until `rate` rows a second allow for the next ones. */
function openPace(rate: number): (rows: number, signal: AbortSignal | undefined) => Promise<void> {
  let free = performance.now()
  return async (rows, signal) => {
    signal?.throwIfAborted()
    const now = performance.now()
    const wait = free - now
    free = Math.max(free, now) + (rate === 0 ? 0 : (rows / rate) * 1000)
    if (wait > 0) await sleep(wait, undefined, signal ? { signal } : {})
  }
}
