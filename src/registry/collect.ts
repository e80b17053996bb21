import { ask, type Transaction } from '../db/client.ts'
import { collectBlobs, collectLinks, type DuePage, type Judged, reviewClock } from '../db/collect.ts'
import type { Deps } from '../deps.ts'
import { type Pace, unpaced } from './collect-pace.ts'

// Collecting content while everybody goes on. There are three stages, each with a work list of its own:
//
//   link  (repository_blobs)  ──no manifest of the repository needs it──▶ deleted; its blob is looked at next
//   blob  (blobs)             ──no repository has it, no import relies on it──▶ deleted, its object's key is queued
//   object (blob_deletions)   ──▶ deleted from the store, then from the queue (registry/deletions.ts)
//
// review_at says when a row is to be looked at; null: not until something changes. Two things are always true:
//   (1) a link with review_at null is needed: it has an edge (manifest_blobs);
//   (2) a blob with review_at null is linked.
// So nothing is ever forgotten: whoever takes the last edge of a link, or a link of a blob, sets the time of the review.
//
// Locks. Everybody who takes more than one goes in this order: packs, manifests when they are deleted; then blobs by
// digest; then links by repository and digest; then manifests when they are pushed, and what hangs on them. (Key shares
// stand in nobody's way but a deletion's.) The collector takes what it can get at once (skip locked) and waits for nobody, so no deadlock has it as a part; what it does not
// get is looked at in the next pass. It locks first, and judges in the next statement, whose snapshot (read committed)
// has everything that was committed before the lock.
//
//   who                 locks                                 against the collector
//   push of a blob      blob, link: row (on conflict update)  before it: review_at is in the future, the lock finds it
//                                                             not due. After it: inserts both anew, with a new object
//   push of content     blob: row, which has to be there      after it: there is none; the bytes are stored after all.
//     that is held                                            While a large body is only compared, holdBlob goes on
//                                                             putting the review off
//   push of a manifest  link: key share, by the foreign key   before it: the link is passed over, then it has an edge.
//     (also mirrors, upstreams, bundles, imports)             After it: MANIFEST_BLOB_UNKNOWN, or the next try
//   mount               link and blob there: key share,       before it: both are passed over. After it: not found, the
//                       link here: row                        client uploads
//   HEAD                link: row, when it is due soon        before it: not due. After it: nothing to put off, so it is
//                                                             looked up again, and answered as it is then
//   blob DELETE         blob, link: row                       before it: the blob is due after the grace. After it: 404
//   manifest DELETE     manifests, links: row                 the links are due after the grace; their blobs when they go
//     (also packs)
//   import, staging     blob: row, and a row of its own       before it: relied on. After it: not held, so it is stored.
//                       (import_blobs)                        Its own objects have no row in blobs until it publishes
//   import, publishing  blobs: row; links: key share          as push of a blob and of a manifest, in one transaction,
//                                                             which is tried again where a link has gone
//
// A link is locked together with its blob (for no key update): of two collectors, one that deletes the last link of a
// blob and one that finds the blob linked, the second sees what the first did. A tag that is deleted or moved takes no
// manifest with it, so it changes nothing here. Whatever fails in the middle (a push, an import, this very pass) has
// changed nothing, or left rows with a time of review. Rows are deleted durably before their objects are: a commit that
// a crash could take back would bring back a blob without bytes.

/** What a pass did. `kept`: rows that were due and are needed. `bytes`: the size of the blobs that went. */
export type Collected = { links: number; blobs: number; bytes: number; kept: number }

export type CollectOptions = {
  signal?: AbortSignal | undefined
  pace?: Pace
  onProgress?: ((collected: Collected) => void) | undefined
}

/** Rows that go or stay in one transaction. */
const batchRows = 100
/**
 * Of these, the rows of one statement, which takes about a millisecond: where no processor is free, whoever reads waits
 * until PostgreSQL's process rests, as it does between two statements.
 */
const statementRows = 25

/** Collects every link, then every blob, that is due now and that nothing refers to. Any number may run at once. */
export async function collectContent(deps: Deps, { onProgress, ...options }: CollectOptions = {}): Promise<Collected> {
  const collected = { links: 0, blobs: 0, bytes: 0, kept: 0 }
  const note = (more: Partial<Collected>, kept: number) => {
    for (const [name, count] of Object.entries(more)) collected[name as keyof Collected] += count
    collected.kept += kept
    onProgress?.(collected)
  }
  for await (const { gone, kept } of collectDue(deps, collectLinks, options)) note({ links: gone }, kept)
  for await (const { gone, kept, bytes } of collectDue(deps, collectBlobs, options)) note({ blobs: gone, bytes }, kept)
  return collected
}

type Collect<T> = (tx: Transaction, page: DuePage<T>, graceSeconds: number) => Promise<Judged<T>>

/**
 * Goes once over what is due at this moment, forward through the review times, so that nothing is met twice, whether it
 * stays or goes. Answers batch by batch, each when it is committed.
 */
async function* collectDue<T>(deps: Deps, collect: Collect<T>, { signal, pace = unpaced }: CollectOptions) {
  const until = await ask(deps.db, reviewClock)
  let after: T | undefined
  let more = true
  const work = async (tx: Transaction) => {
    const batch = { kept: 0, gone: 0, bytes: 0 }
    for (let rows = 0; more && rows < batchRows; rows += statementRows) {
      const judged = await collect(tx, { until, after, limit: statementRows }, deps.config.gcGraceSeconds)
      batch.kept += judged.kept
      batch.gone += judged.gone
      batch.bytes += judged.bytes
      after = judged.last
      more = judged.seen === statementRows
    }
    return batch
  }
  while (more) {
    await pace(batchRows, signal)
    // Each statement is to see what was committed before it, whatever the server's default.
    yield await ask(deps.db, (sql) => sql.begin('isolation level read committed', work) as ReturnType<typeof work>)
  }
}
