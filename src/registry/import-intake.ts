import type { Readable } from 'node:stream'
import { blobKey, type ObjectKey } from '../blobs/keys.ts'
import { askRelaxed } from '../db/client.ts'
import { claimBlobs, type ImportBlob, markStored, noteBlobs } from '../db/import-blobs.ts'
import type { Attempt } from '../db/imports.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import type { Digest } from '../oci/digest.ts'

// Content of a bundle on its way into the store. It goes to its last place at once, under a fresh key; that the registry
// knows it there is the matter of one row, written when the whole bundle is published.
//
// The row in import_blobs is written before its object: whenever a process dies, every object has a row, and whoever
// tidies up finds it. Many small blobs travel together: one statement that asks what is there already, one that notes
// the rest, the objects side by side, one that says they are whole.

/** Content up to this size is taken into memory, in bytes. */
export const smallBytes = 4 * 1024 * 1024
const mostInBatch = 128
const mostBatchBytes = smallBytes
/** As many batches as are on their way at once; so memory is bounded. */
const mostBatches = 3

/** `end`: where its entry ends in the file; what a sender goes on after once this and all before it are safe. */
export type Place = { digest: Digest; size: number; end: number | undefined }

export type Intake = {
  /** Takes a blob as bytes. `keep`: into the row, for it is a manifest or a document, and not into the store. */
  add(place: Place, bytes: Buffer, options: { keep: boolean }): Promise<void>
  /** Takes a large blob as it comes. */
  stream(place: Place, content: Readable): Promise<void>
  /** Waits until everything is safe. */
  finish(): Promise<void>
  /** Waits until nothing is under way any more, whatever became of it. */
  settle(): Promise<void>
  /** Where the sender may go on. */
  resumeAt(): number
  /** Objects by their digest. What is not among them is held, or is in its row. */
  readonly keys: ReadonlyMap<Digest, ObjectKey>
  readonly counts: { stored: number; storedBytes: number; held: number }
}

/** Opens the intake of an import, which stands at byte `start` of its file and has received `before` already. */
export function openIntake(deps: Deps, attempt: Attempt, start: number, before: readonly ImportBlob[]): Intake {
  const keys = new Map(before.flatMap(({ digest, key }) => (key ? [[digest, key] as const] : [])))
  const counts = { stored: 0, storedBytes: 0, held: 0 }
  const store = openStaging(deps, attempt, keys, counts)
  const order = openOrder(start)
  let batch: Waiting[] = []
  let batchBytes = 0
  const underWay = new Set<Promise<void>>()
  let failed: unknown

  async function flush(): Promise<void> {
    const blobs = batch
    if (blobs.length === 0) return
    batch = []
    batchBytes = 0
    const storing: Promise<void> = store.many(blobs).then(
      () => void underWay.delete(storing),
      (error) => {
        underWay.delete(storing)
        failed ??= error
      },
    )
    underWay.add(storing)
    if (underWay.size >= mostBatches) await Promise.race(underWay)
    if (failed) throw failed
  }
  async function settle(): Promise<void> {
    await Promise.all(underWay)
  }

  return {
    ...{ keys, counts, settle, resumeAt: order.reached },
    async add(place, bytes, { keep }) {
      batch.push({ ...place, bytes, keep, done: order.begin(place.end) })
      batchBytes += bytes.length
      if (batch.length >= mostInBatch || batchBytes >= mostBatchBytes) await flush()
    },
    async stream(place, content) {
      const done = order.begin(place.end)
      await store.one(place, content)
      done()
    },
    async finish() {
      await flush()
      await settle()
      if (failed) throw failed
    },
  }
}

type Waiting = Place & { bytes: Buffer; keep: boolean; done: () => void }

/** The steps by which blobs get into the store, and their rows. */
function openStaging(deps: Deps, attempt: Attempt, keys: Map<Digest, ObjectKey>, counts: Intake['counts']) {
  const claim = async (digests: readonly Digest[]): Promise<Map<Digest, ObjectKey | undefined>> => {
    if (digests.length === 0) return new Map()
    const known = await askRelaxed(deps.db, (relaxed) =>
      claimBlobs(relaxed, attempt, digests, deps.config.gcGraceSeconds),
    )
    for (const { digest, key } of known) {
      if (key) keys.set(digest, key)
      else counts.held++
    }
    return new Map(known.map(({ digest, key }) => [digest, key]))
  }
  const note = async (blobs: readonly ImportBlob[]) => {
    if (blobs.length === 0 || (await askRelaxed(deps.db, (relaxed) => noteBlobs(relaxed, attempt, blobs)))) return
    throw superseded()
  }
  const entered = async (blobs: readonly { digest: Digest; size: number; key: ObjectKey }[]) => {
    if (blobs.length === 0) return
    const digests = blobs.map(({ digest }) => digest)
    await askRelaxed(deps.db, (relaxed) => markStored(relaxed, attempt.id, digests))
    for (const { digest, size, key } of blobs) {
      keys.set(digest, key)
      counts.stored++
      counts.storedBytes += size
    }
  }
  return {
    async many(blobs: readonly Waiting[]): Promise<void> {
      const plain = blobs.filter(({ keep }) => !keep)
      const known = await claim(plain.map(({ digest }) => digest))
      const fresh = plain
        .filter(({ digest }) => !known.has(digest))
        .map((blob) => ({ ...blob, key: blobKey(blob.digest) }))
      await note([
        ...blobs.filter(({ keep }) => keep).map((blob) => row(blob, undefined, blob.bytes)),
        // What was taken over has its row already; what the registry holds gets one, to be remembered.
        ...plain.filter(({ digest }) => known.has(digest) && !known.get(digest)).map((blob) => row(blob, undefined)),
        ...fresh.map((blob) => row(blob, blob.key)),
      ])
      await Promise.all(fresh.map(({ key, bytes }) => deps.blobs.put(key, bytes)))
      await entered(fresh)
      for (const { done } of blobs) done()
    },
    async one({ digest, size }: Place, content: Readable): Promise<void> {
      const known = await claim([digest])
      if (known.has(digest)) {
        if (!known.get(digest)) await note([row({ digest, size }, undefined)])
        for await (const _ of content);
        return
      }
      const key = blobKey(digest)
      await note([row({ digest, size }, key)])
      await deps.blobs.putStream(key, content, {})
      await entered([{ digest, size, key }])
    },
  }
}

function row(
  { digest, size }: { digest: Digest; size: number },
  key: ObjectKey | undefined,
  payload?: Buffer,
): ImportBlob {
  return { digest, size, key, payload, stored: key === undefined }
}

/** The end of the last entry before which, itself included, everything is safe; entries become safe in any order. */
function openOrder(start: number) {
  const waiting: { end: number | undefined; safe: boolean }[] = []
  let reached = start
  return {
    reached: () => reached,
    begin(end: number | undefined) {
      const entry = { end, safe: false }
      waiting.push(entry)
      return () => {
        entry.safe = true
        while (waiting[0]?.safe) reached = waiting.shift()?.end ?? reached
      }
    },
  }
}

/** Another connection has taken the import over; this one must not write any more. */
export function superseded(): Failure {
  return new Failure('IMPORT_SUPERSEDED', { detail: 'the import goes on in another connection; follow it there' })
}

/** The intake of an import that is only tried: everything is looked at, and nothing stored. */
export function tryingIntake(): Intake {
  return {
    keys: new Map(),
    counts: { stored: 0, storedBytes: 0, held: 0 },
    resumeAt: () => 0,
    add: async () => undefined,
    async stream(_, content) {
      for await (const _piece of content);
    },
    finish: async () => undefined,
    settle: async () => undefined,
  }
}
