import type { UploadSession, UploadsOpen } from '../db/uploads.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'

// What one user, token or address may have under way, so that nobody fills the store with what never becomes whole. It is
// looked at before a chunk is read, and again while it is, where its length was not announced. An upload that has no chunk
// has no row either and is not counted: it holds nothing. Chunks that come in the same moment do not see each other, so
// together they can go over by what is on its way.

/** Uploads end when they are closed, cancelled, or a day old; it may be soon. In seconds. */
const retryAfter = 60

/** How many bytes there is room for in a session's next chunk. Throws TOOMANYREQUESTS where there may be no further one. */
export function roomLeft(
  { open: mostOpen, stagedBytes }: Deps['config']['uploadCaps'],
  open: UploadsOpen,
  session: UploadSession,
): number {
  if (mostOpen > 0 && session.offset === 0 && open.count >= mostOpen)
    throw tooMuch(`you have ${open.count} uploads under way, and may have ${mostOpen} (UPLOADS_OPEN)`)
  if (stagedBytes === 0) return Number.POSITIVE_INFINITY
  return Math.max(0, stagedBytes - open.bytes)
}

/** Each is an object of the store and an entry of the session's row, which every further one writes anew. */
const mostChunks = 10_000

/** Throws BLOB_UPLOAD_INVALID where a session has as many chunks as it may. It can still be closed, also with a last body. */
export function requireFurther({ chunkCount }: UploadSession): void {
  if (chunkCount < mostChunks) return
  throw new Failure('BLOB_UPLOAD_INVALID', {
    detail: `an upload has at most ${mostChunks} chunks, and this one has them. Close it with what it has, or begin anew with larger chunks`,
  })
}

/** Throws TOOMANYREQUESTS where a chunk is longer than there is room for. */
export function requireWithin(most: number, bytes: number): void {
  if (bytes > most)
    throw tooMuch('your uploads under way would have more bytes together than they may (UPLOADS_STAGED)')
}

function tooMuch(what: string): Failure {
  return new Failure('TOOMANYREQUESTS', {
    detail: `${what}. Finish or cancel some; those that are left alone end a day after their last chunk`,
    headers: { 'retry-after': String(retryAfter) },
  })
}
