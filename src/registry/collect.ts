import { ask, type Transaction } from '../db/client.ts'
import { dueBlobs, dueLinks, judgeBlobs, judgeLinks, lockDueBlobs, lockDueLinks } from '../db/collect.ts'
import type { Deps } from '../deps.ts'
import { type Pace, unpaced } from './collect-pace.ts'
import { dueBatches } from './due-batches.ts'

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
//   import, publishing  blobs: row; links: key share          as push of a blob and of a manifest, in one transaction
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

/** Rows that are read, and go or stay in one transaction. */
const batchRows = 500
/**
 * Of these, the rows of one statement, which takes about a millisecond: where no processor is free, whoever reads waits
 * until PostgreSQL's process rests, as it does between two statements.
 */
const statementRows = 25

type Judged = { kept: number; gone: number; bytes: number }

/** Collects every link, then every blob, that is due now and that nothing refers to. Any number may run at once. */
export async function collectContent(deps: Deps, options: CollectOptions = {}): Promise<Collected> {
  const { signal, pace = unpaced, onProgress } = options
  const collected = { links: 0, blobs: 0, bytes: 0, kept: 0 }
  const grace = deps.config.gcGraceSeconds
  for await (const batch of dueBatches(deps, dueLinks, batchRows)) {
    await pace(batch.length, signal)
    const { kept, gone } = await inTransaction(deps, batch, async (tx, links) => ({
      ...(await judgeLinks(tx, await lockDueLinks(tx, links), grace)),
      bytes: 0,
    }))
    collected.links += gone
    collected.kept += kept
    onProgress?.(collected)
  }
  for await (const batch of dueBatches(deps, dueBlobs, batchRows)) {
    await pace(batch.length, signal)
    const { kept, gone, bytes } = await inTransaction(deps, batch, async (tx, blobs) =>
      judgeBlobs(tx, await lockDueBlobs(tx, blobs), grace),
    )
    collected.blobs += gone
    collected.bytes += bytes
    collected.kept += kept
    onProgress?.(collected)
  }
  return collected
}

/** Judges a batch, a few rows at a time; answers the sums once that is committed. */
function inTransaction<T>(
  deps: Deps,
  batch: readonly T[],
  judge: (tx: Transaction, rows: readonly T[]) => Promise<Judged>,
): Promise<Judged> {
  const work = async (tx: Transaction) => {
    const sum = { kept: 0, gone: 0, bytes: 0 }
    for (let at = 0; at < batch.length; at += statementRows) {
      const { kept, gone, bytes } = await judge(tx, batch.slice(at, at + statementRows))
      sum.kept += kept
      sum.gone += gone
      sum.bytes += bytes
    }
    return sum
  }
  // Each statement is to see what was committed before it, whatever the server's default.
  return ask(deps.db, (sql) => sql.begin('isolation level read committed', work) as Promise<Judged>)
}
