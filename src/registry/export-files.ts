import { createHash, type Hash } from 'node:crypto'
import { Readable } from 'node:stream'
import { exportKey } from '../blobs/keys.ts'
import { ask, askRead } from '../db/client.ts'
import * as rows from '../db/export-files.ts'
import { send } from '../db/queue.ts'
import type { Deps } from '../deps.ts'
import { Failure, failures } from '../errors.ts'
import { digestOf } from '../oci/digest.ts'
import type { Plan } from './exports.ts'
import { type Layout, layoutBytes, readObjectBytes } from './layout.ts'
import { keepFile, plannedLayout } from './planned.ts'

// An export is a planned bundle file that is made once, by a job, and kept in the store for a while. Its id is that of the
// plan, which names its bytes: whoever asks for the same again gets the same export.
//
//   waiting → running → ready          each also goes away: by DELETE, or when its time is over
//      ↑ ________↓  ↘ failed → waiting, when it is asked for again
//
// It is written part by part. The row of a part names its object before that is begun, and says that it is whole when it
// is; a worker that dies leaves whole parts, and the next one goes on behind them. Two workers may be at it for a moment
// (as after any lost lease): each writes to objects of its own, the row names one of them, and whoever finds that it is
// not theirs queues theirs for deletion and stops.

/** How long an export is kept after it was asked for, and after it was made, in seconds. */
const lifeSeconds = 7 * 24 * 60 * 60

/** What a worker that dies may have to do again, in bytes. */
const defaultPartBytes = 256 * 1024 * 1024

/** Has a planned file made, soon. */
export async function requestExport(
  deps: Deps,
  principal: string,
  { packs, channels, referrers, leftOut, signedBy }: Plan,
  { file, layout, blobs, bytes }: NonNullable<Plan['made']>,
): Promise<rows.ExportRow> {
  const { id, index } = file
  await keepFile(deps, file)
  const counts = {
    packs: packs.length,
    channels: channels.length,
    referrers: referrers.length,
    leftOut: leftOut.length,
  }
  const about = JSON.stringify({ index: digestOf(index), blobs, bytes, ...counts, signedBy })
  return ask(deps.db, (sql) =>
    sql.begin(async (tx) => {
      const row = await rows.insertExport(tx, { id, principal, size: layout.size, file: about }, lifeSeconds)
      if (row.state !== 'ready') await send(tx, 'export', { export: id }, { key: id })
      return row
    }),
  ) as Promise<rows.ExportRow>
}

type Watch = { signal: AbortSignal; progress(value: object): void }

/**
 * Makes an export; goes on where an earlier worker was. Undefined where there is nothing to be made. Throws BUNDLE_GONE,
 * BUNDLE_UNKNOWN where it cannot be made any more, UNAVAILABLE where it can be later.
 */
export async function writeExport(
  deps: Deps,
  id: string,
  watch: Watch,
  { partBytes = defaultPartBytes } = {},
): Promise<{ export: string; size: number; sha256: string } | undefined> {
  if (!(await ask(deps.db, (sql) => rows.beginExport(sql, id)))) return undefined
  try {
    const layout = await plannedLayout(deps, id, () => true)
    const sha256 = await writeParts(deps, id, layout, watch, partBytes)
    const isMade = sha256 !== undefined && (await ask(deps.db, (sql) => rows.endExport(sql, id, sha256, lifeSeconds)))
    return isMade ? { export: id, size: layout.size, sha256 } : undefined
  } catch (cause) {
    const error = isAbsence(cause) ? goneMeanwhile(cause) : cause
    if (!watch.signal.aborted) await noteFailure(deps, id, error)
    throw error
  }
}

function isAbsence(error: unknown): boolean {
  return error instanceof Failure && (error.key === 'MANIFEST_UNKNOWN' || error.key === 'BLOB_UNKNOWN')
}

function goneMeanwhile(cause: unknown): Failure {
  return new Failure('BUNDLE_GONE', {
    detail: 'content of this file was deleted while it was made; ask for it again: POST /bundles/exports',
    cause,
  })
}

/** The sha256 of the whole file; undefined where nobody wants it any more. */
async function writeParts(
  deps: Deps,
  id: string,
  layout: Layout,
  { signal, progress }: Watch,
  partBytes: number,
): Promise<string | undefined> {
  const { size } = layout
  const hash = createHash('sha256')
  const begun = await hashBegun(deps, id, hash, signal)
  let number = begun.parts
  for (let at = begun.bytes; at < size; number++) {
    const range = { first: at, last: Math.min(size, at + partBytes) - 1 }
    const part = { number, size: range.last - range.first + 1, key: exportKey(id) }
    if (!(await ask(deps.db, (sql) => rows.claimPart(sql, id, part)))) return undefined
    await deps.blobs.putStream(part.key, Readable.from(cancellable(layoutBytes(deps, layout, range), signal)), {
      onBytes: (bytes) => void hash.update(bytes),
    })
    if (!(await ask(deps.db, (sql) => rows.keepPart(sql, id, part)))) return undefined
    at += part.size
    progress({ written: at, size })
  }
  return hash.digest('hex')
}

/** Hashes what an earlier worker has left, which is whole parts from the first on. */
async function hashBegun(deps: Deps, id: string, hash: Hash, signal: AbortSignal) {
  const begun = { parts: 0, bytes: 0 }
  for (const { number, size, key } of await askRead(deps.db, (sql) => rows.storedParts(sql, id))) {
    if (number !== begun.parts) break
    for await (const bytes of cancellable(readObjectBytes(deps, key, { first: 0, last: size - 1 }), signal))
      hash.update(bytes)
    begun.parts++
    begun.bytes += size
  }
  return begun
}

async function* cancellable(pieces: AsyncIterable<Buffer>, signal: AbortSignal): AsyncGenerator<Buffer> {
  for await (const piece of pieces) {
    signal.throwIfAborted()
    yield piece
  }
}

async function noteFailure(deps: Deps, id: string, error: unknown): Promise<void> {
  const isKnown = error instanceof Failure
  const words = isKnown && typeof error.detail === 'string' ? error.detail : isKnown ? error.message : 'see the log'
  const isFinal = isKnown && failures[error.key].status < 500
  await ask(deps.db, (sql) => (isFinal ? rows.failExport(sql, id, words) : rows.pauseExport(sql, id, words)))
}
