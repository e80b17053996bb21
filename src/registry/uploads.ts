import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'
import { blobKey, chunkKey } from '../blobs/keys.ts'
import { ask, askRelaxed } from '../db/client.ts'
import { queueDeletions } from '../db/deletions.ts'
import {
  appendChunk,
  type Chunk,
  cancelUpload,
  insertCancelled,
  insertFirstChunk,
  type UploadSession,
} from '../db/uploads.ts'
import { type Deps, uploadLifeSeconds } from '../deps.ts'
import { Failure, unavailable } from '../errors.ts'
import { type Algorithm, algorithmOf, type Digest, digestSoFar } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { ByteRange } from '../oci/range.ts'
import { checker, commit, confirmBlob, link, requireDigest, smallBytes, storeContent } from './blobs.ts'
import type { Body } from './body.ts'
import { discardSoon } from './deletions.ts'
import { requireRoom } from './quotas.ts'
import { newSessionId, parseSessionId, type SessionId } from './session-ids.ts'
import { requireFurther, requireWithin, roomLeft } from './upload-caps.ts'

// An upload, from its first request to its last. Any request may reach any process.
//
//   fresh ──chunk──▶ open ──chunk──▶ open ──…──▶ closed    closed: its row answers a repeated closing PUT
//     │                └──cancel──▶ cancelled
//     ├──whole body──▶ (no row)
//     └──cancel──▶ cancelled
//
// A fresh session has no row: what there is to know is signed into its id. So the common push, an opening POST and a
// closing PUT with the whole body, costs no statement but the one that commits the blob.
// A chunk is stored under a key of its own, and only then added to the row, by a statement that compares the offset:
// of two writers at one offset one wins, and the other's object is queued for deletion. Until then nothing refers to
// it, so a client that disappears leaves the session as it was.
// The closing request makes the final object beside the chunks (a link or a server-side copy of the only chunk, else
// one pass over all of them), then commits blob, link and closed session in one statement, and deletes the chunks
// last. A process that dies anywhere in between leaves a session that can be closed again.

/** Opens a session; answers its id. Nothing is kept of it, so nothing can be lost. */
export function startUpload(deps: Deps, repository: RepositoryName, algorithm: Algorithm): string {
  const expiresAt = Date.now() / 1000 + uploadLifeSeconds
  return newSessionId(deps.uploadSecret, { repository, algorithm, expiresAt })
}

/** The session that a Location names. Throws BLOB_UPLOAD_UNKNOWN. */
export function sessionIdOf(deps: Deps, repository: RepositoryName, text: string): SessionId {
  const id = parseSessionId(deps.uploadSecret, repository, text, Date.now() / 1000)
  if (!id) throw new Failure('BLOB_UPLOAD_UNKNOWN')
  return id
}

/** Where an open session stands. Throws BLOB_UPLOAD_UNKNOWN. */
export async function findSession(deps: Deps, id: SessionId): Promise<UploadSession> {
  const { session } = await deps.together.upload.load({ id: id.id, repository: id.repository })
  return openSession(id, session)
}

/** The row where there is one, else what a fresh id says. */
function openSession({ id, repository, fresh }: SessionId, row: UploadSession | undefined): UploadSession {
  if (row?.state === 'closed') throw new Failure('BLOB_UPLOAD_UNKNOWN', { detail: 'the upload is finished' })
  if (row?.state === 'cancelled') throw new Failure('BLOB_UPLOAD_UNKNOWN', { detail: 'the upload was cancelled' })
  if (row) return row
  if (!fresh) throw new Failure('BLOB_UPLOAD_UNKNOWN')
  const nothing = { offset: 0, digestSoFar: undefined, chunkCount: 0, closedAs: undefined }
  return { id, repository, algorithm: fresh.algorithm, state: 'open', ...nothing }
}

/** Throws BLOB_UPLOAD_UNKNOWN where there is no open session. */
export async function cancel(deps: Deps, { id, repository, fresh }: SessionId): Promise<void> {
  const session = { id, repository }
  if (fresh && (await ask(deps.db, (sql) => insertCancelled(sql, session, uploadLifeSeconds)))) return
  const chunks = await ask(deps.db, (sql) => cancelUpload(sql, session))
  if (!chunks) throw new Failure('BLOB_UPLOAD_UNKNOWN')
  discardSoon(
    deps,
    chunks.map((chunk) => chunk.key),
  )
}

/**
 * Adds a chunk; answers the session's new offset. `owner`: who sends it, as their limits are counted; undefined: nobody's.
 * Throws UPLOAD_OUT_OF_ORDER where it does not start at the offset, SIZE_INVALID where it is not as long as announced,
 * TOOMANYREQUESTS where the owner has too much under way, QUOTA_EXCEEDED where there is no room for it,
 * BLOB_UPLOAD_INVALID where the session has as many as it may.
 */
export async function append(
  deps: Deps,
  id: SessionId,
  body: Body,
  range: ByteRange | undefined,
  owner?: string,
): Promise<number> {
  const { session: row, open } = await deps.together.upload.load({ id: id.id, repository: id.repository, owner })
  const session = openSession(id, row)
  requireInOrder(session, range)
  requireFurther(session)
  const most = owner === undefined ? Number.POSITIVE_INFINITY : roomLeft(deps.config.uploadCaps, open, session)
  const staged = await stage(deps, session, body, range, most)
  if (staged.chunk.size === 0) {
    await drop(deps, [staged.chunk])
    return session.offset
  }
  const append = { ...session, ...staged, from: session.offset, owner }
  const first = id.fresh && session.offset === 0
  const added = await ask(deps.db, (sql) => (first ? insertFirstChunk : appendChunk)(sql, append, uploadLifeSeconds))
  if (added) return session.offset + staged.chunk.size
  await drop(deps, [staged.chunk])
  throw outOfOrder(await findSession(deps, id))
}

/**
 * Closes a session with the digest of everything it was sent, `body` being its last chunk or empty.
 * Throws DIGEST_INVALID where the bytes have another digest; the session stays as it was.
 */
export async function finish(
  deps: Deps,
  sessionId: SessionId,
  digest: Digest,
  body: Body,
  range: ByteRange | undefined,
): Promise<void> {
  const { id, repository, fresh } = sessionId
  const content = { repository, digest, body, uploadId: id }
  // The whole of a small blob under a fresh id: what else there may be of this session does not matter.
  if (fresh && body.length && body.length <= smallBytes && !range) return storeContent(deps, content)
  const { session: row, ...there } = await deps.together.upload.load({ id, repository, digest, whole: true })
  // The client did not get our answer and asks again: the same answer, as long as it is true.
  if (row?.closedAs === digest && (await confirmBlob(deps, repository, digest))) return
  const session = openSession(sessionId, row)
  requireInOrder(session, range)
  if (session.offset === 0) return storeContent(deps, content, there.held)
  const last = body.length === 0 ? undefined : await stage(deps, session, body, range)
  const chunks = last ? [...there.chunks, last.chunk] : there.chunks
  try {
    await assemble(deps, session, chunks, digest, there.held)
  } catch (error) {
    if (last) await drop(deps, [last.chunk])
    throw error
  }
  await drop(deps, chunks)
}

/** Stores a chunk of at most so many bytes where nobody sees it. The running digest is known while there is only one. */
async function stage(
  deps: Deps,
  session: UploadSession,
  body: Body,
  range: ByteRange | undefined,
  most = Number.POSITIVE_INFINITY,
): Promise<{ chunk: Chunk; digestSoFar: Digest | undefined }> {
  const announced = range ? range.last - range.first + 1 : undefined
  if (announced !== undefined && body.length !== undefined && announced !== body.length)
    throw new Failure('SIZE_INVALID', { detail: 'Content-Range and Content-Length differ' })
  const expected = announced ?? body.length
  requireWithin(most, expected ?? 0)
  await requireRoom(deps, session.repository, session.offset + (expected ?? 0))
  const hash = session.offset === 0 ? createHash(session.algorithm) : undefined
  const key = chunkKey(session.id)
  let received = 0
  const size = await deps.blobs.putStream(key, body.stream, {
    onBytes(bytes) {
      received += bytes.length
      requireWithin(most, received)
      hash?.update(bytes)
    },
    seal() {
      if (expected !== undefined && received !== expected)
        throw new Failure('SIZE_INVALID', { detail: { expected, received } })
    },
  })
  return { chunk: { key, size }, digestSoFar: hash && digestSoFar(session.algorithm, hash) }
}

/** Makes the chunks one blob, and commits it. */
async function assemble(
  deps: Deps,
  session: UploadSession,
  chunks: readonly Chunk[],
  digest: Digest,
  held: boolean,
): Promise<void> {
  const size = chunks.reduce((sum, chunk) => sum + chunk.size, 0)
  const arrival = { repository: session.repository, digest, size, uploadId: session.id, closes: true }
  const [only] = chunks
  const key = blobKey(digest)
  if (only && chunks.length === 1 && session.digestSoFar && algorithmOf(digest) === session.algorithm) {
    requireDigest(digest, session.digestSoFar)
    if (held && (await link(deps, arrival))) return
    if (!(await deps.blobs.link(only.key, key))) throw missing(only)
  } else {
    const check = checker(digest, size)
    await deps.blobs.putStream(key, concatenated(deps, chunks), { onBytes: check.add, seal: check.seal })
  }
  await commit(deps, { ...arrival, key })
}

/** The bytes of all chunks, in order. */
function concatenated(deps: Deps, chunks: readonly Chunk[]): Readable {
  async function* pieces() {
    for (const chunk of chunks) {
      const bytes = await deps.blobs.open(chunk.key)
      if (!bytes) throw missing(chunk)
      yield* bytes
    }
  }
  return Readable.from(pieces(), { objectMode: false })
}

/**
 * A chunk of an open session is not there: another closing request has just dropped it. Whoever asks again finds the
 * session closed.
 */
function missing({ key }: Chunk): Failure {
  return unavailable('blob store', new Error(`staged object ${key} is missing`))
}

/** Queues staged objects for deletion, and deletes them when there is time. What a crash makes of it, age tells. */
async function drop(deps: Deps, chunks: readonly Chunk[]): Promise<void> {
  const keys = chunks.map((chunk) => chunk.key)
  await askRelaxed(deps.db, (relaxed) => queueDeletions(relaxed, keys))
  discardSoon(deps, keys)
}

function requireInOrder(session: UploadSession, range: ByteRange | undefined): void {
  if (range && range.first !== session.offset) throw outOfOrder(session)
}

function outOfOrder(session: UploadSession): Failure {
  return new Failure('UPLOAD_OUT_OF_ORDER', {
    detail: { offset: session.offset },
    headers: sessionHeaders(session, session.offset),
  })
}

/** Where a session stands, as the specification says it: a root-relative Location that holds nothing but its id. */
export function sessionHeaders(
  { id, repository }: { id: string; repository: RepositoryName },
  offset: number,
): Record<string, string> {
  return {
    location: `/v2/${repository}/blobs/uploads/${id}`,
    range: `0-${Math.max(0, offset - 1)}`,
    'docker-upload-uuid': id.slice(0, 36),
  }
}
