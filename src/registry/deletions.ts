import type { ObjectKey } from '../blobs/keys.ts'
import { type BlobStore, NotDeleted } from '../blobs/store.ts'
import { ask, askRelaxed } from '../db/client.ts'
import { reviewClock } from '../db/collect.ts'
import { type Deletion, dueDeletions, forgetDeletions, postponeDeletions } from '../db/deletions.ts'
import { expireExports } from '../db/export-files.ts'
import { expireImports, forgetImports } from '../db/imports.ts'
import { expireUploads } from '../db/uploads.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import { type Pace, unpaced } from './collect-pace.ts'

// The deletion queue. Whoever takes the last row that names an object away puts its key there, in the same transaction
// and durably; nobody ever names that key again, for new content gets a new one. So an object may be deleted at any time
// after, any number of times, by any process: first the object, then its row in the queue. A process that dies between
// the two leaves a row whose object is gone, which the next one deletes again. An object that the store would not delete
// keeps its row, with the reason, and does not stand in the way of the others.

/**
 * Deletes objects that stand in the deletion queue already, now rather than at the worker's next round. The queue is
 * what guarantees it: should this fail, the rows are still there. So the caller does not wait, and no client learns.
 */
export function discardSoon(deps: Deps, keys: readonly ObjectKey[]): void {
  if (keys.length === 0) return
  discard(deps, keys).catch((error) => deps.log.warn({ error, keys: keys.length }, 'objects left for a later deletion'))
}

/** Rows of one statement; see statementRows in registry/collect.ts. */
const forgottenAtOnce = 50

/** Answers how many are deleted. Throws UNAVAILABLE where the store does not answer at all; then all stay queued. */
export async function discard(deps: Deps, keys: readonly ObjectKey[]): Promise<number> {
  const reasons = await deleteObjects(deps.blobs, keys)
  const gone = keys.filter((key) => !reasons.has(key))
  for (let at = 0; at < gone.length; at += forgottenAtOnce) {
    const some = gone.slice(at, at + forgottenAtOnce)
    await askRelaxed(deps.db, (relaxed) => forgetDeletions(relaxed, some))
  }
  if (reasons.size === 0) return gone.length
  await askRelaxed(deps.db, (relaxed) => postponeDeletions(relaxed, reasons))
  const [[key, reason] = []] = reasons
  deps.log.warn(
    { objects: reasons.size, key, reason },
    'the store would not delete objects; they are tried again later',
  )
  return gone.length
}

/** Deletes what can be deleted; answers the others, each with the reason. */
async function deleteObjects(blobs: BlobStore, keys: readonly ObjectKey[]): Promise<ReadonlyMap<ObjectKey, string>> {
  try {
    await blobs.delete(keys)
    return new Map()
  } catch (error) {
    if (error instanceof Failure && error.cause instanceof NotDeleted) return error.cause.reasons
    throw error
  }
}

/**
 * Objects of one call to the store. S3 takes a thousand; but a list of these keeps the process, which serves others
 * meanwhile, for some milliseconds.
 */
const batch = 250
/** Calls at once: to delete so many objects takes S3 longer than it takes us to ask for it. */
const batchesAtOnce = 4

/** What became of the queue. `failed`: objects that the store would not delete; they stay queued. */
export type Emptied = { objects: number; failed: number }

export type EmptyOptions = {
  signal?: AbortSignal | undefined
  pace?: Pace
  onProgress?: ((emptied: Emptied) => void) | undefined
}

/** Deletes every object that is queued and due now. Throws UNAVAILABLE where the store does not answer. */
export async function emptyQueue(deps: Deps, options: EmptyOptions = {}): Promise<Emptied> {
  const { signal, pace = unpaced, onProgress } = options
  const emptied = { objects: 0, failed: 0 }
  const batches = dueBatches(deps)
  const work = async () => {
    for await (const due of batches) {
      const keys = due.map(({ key }) => key)
      await pace(keys.length, signal)
      const deleted = await discard(deps, keys)
      emptied.objects += deleted
      emptied.failed += keys.length - deleted
      onProgress?.(emptied)
    }
  }
  await Promise.all(Array.from({ length: batchesAtOnce }, work))
  return emptied
}

/**
 * What is due at this moment, by and by: forward through the times, so that nothing is met twice, whether it goes or not.
 * Several may take from one of these: it gives one batch after the other, whoever asks.
 */
async function* dueBatches(deps: Deps): AsyncGenerator<Deletion[], void, undefined> {
  const until = await ask(deps.db, reviewClock)
  let after: Deletion | undefined
  for (;;) {
    const from = after
    const due = await ask(deps.db, (sql) => dueDeletions(sql, { until, after: from, limit: batch }))
    if (due.length > 0) yield due
    if (due.length < batch) return
    after = due.at(-1)
  }
}

/** Each may have a hundred thousand objects. */
const fewImports = 5
/** How long the report of an import is kept after what it had stored is thrown away, in seconds. */
const reportSeconds = 30 * 24 * 60 * 60

/**
 * Ends the uploads and imports that nobody came back to, removes exports whose time is over, and forgets old reports.
 * Answers how many were ended.
 */
export async function endForgotten(deps: Deps): Promise<number> {
  let ended = 0
  for (let more = batch; more === batch; ended += more) more = await ask(deps.db, (sql) => expireUploads(sql, batch))
  for (let more = fewImports; more === fewImports; ended += more)
    more = await ask(deps.db, (sql) => expireImports(sql, fewImports))
  for (let more = batch; more === batch; ended += more) more = await ask(deps.db, (sql) => expireExports(sql, batch))
  for (let more = batch; more === batch; ) more = await ask(deps.db, (sql) => forgetImports(sql, reportSeconds, batch))
  return ended
}

/** Ends what was forgotten, and deletes what is queued. Harmless in several processes at once. */
export async function tidy(deps: Deps, options: EmptyOptions = {}): Promise<{ expired: number; deleted: number }> {
  const expired = await endForgotten(deps)
  const { objects } = await emptyQueue(deps, options)
  return { expired, deleted: objects }
}
