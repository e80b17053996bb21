import { Readable } from 'node:stream'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import { algorithmOf, type Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import { openBlob } from '../remote/blobs.ts'
import type { Remote } from '../remote/remote.ts'
import { storeContent } from './blobs.ts'
import type { SessionId } from './session-ids.ts'
import { append, cancel, findSession, finish, sessionIdOf, startUpload } from './uploads.ts'

/** A blob of `place` at a remote, to be readable in `repository` here. `size`: in bytes, as its descriptor says. */
export type Fetch = { repository: RepositoryName; place: RepositoryName; digest: Digest; size: number | undefined }

export type FetchOptions = {
  signal?: AbortSignal | undefined
  /** Where an earlier fetch of this blob was left: an upload of ours. */
  session?: string | undefined
  /** Told where the fetch can be taken up again, before the first byte of a large blob. */
  onSession?: ((session: string) => Promise<void>) | undefined
  /** From this size on a blob is taken part by part, and a process that dies loses no more than a part. */
  largeBytes?: number
  partBytes?: number
}

/**
 * Stores a blob from a remote, hashed as it comes, so that it is visible when it is whole and right, or not at all.
 * Answers its size; undefined where the remote does not have it. Throws REMOTE_INVALID where the bytes are others, or
 * are more or fewer than there should be, and where nobody says how many that is: they might have no end.
 */
export async function fetchBlob(
  deps: Deps,
  remote: Remote,
  fetch: Fetch,
  options: FetchOptions = {},
): Promise<number | undefined> {
  const { repository, place, digest, size } = fetch
  const { signal, session, largeBytes = 256 * 1024 * 1024 } = options
  const begun = session === undefined ? undefined : await resumable(deps, repository, session)
  const blob = await openBlob(remote, place, digest, { signal, size, offset: begun?.offset ?? 0 })
  if (!blob) return undefined
  try {
    if (blob.length === undefined)
      throw new Failure('REMOTE_INVALID', {
        detail: `${remote.url.host} does not say how many bytes ${digest} of ${place} has, and no manifest here does`,
      })
    // Several parts are read once more when they become one blob, which only a large one is worth.
    if (begun || (options.onSession && blob.length >= largeBytes))
      await storeParts(deps, fetch, blob.stream, begun?.id, options)
    else await storeContent(deps, { repository, digest, body: blob })
  } catch (error) {
    throw blamed(error, `${remote.url.host} sends other bytes for ${digest} of ${place} than the digest says`)
  } finally {
    blob.stream.destroy()
  }
  return (await deps.together.linkedBlob.load({ repository, digest }))?.size ?? 0
}

/** An upload of ours that has something already; undefined where it is over, or has nothing. */
async function resumable(
  deps: Deps,
  repository: RepositoryName,
  session: string,
): Promise<{ id: SessionId; offset: number } | undefined> {
  try {
    const id = sessionIdOf(deps, repository, session)
    const { offset } = await findSession(deps, id)
    return offset > 0 ? { id, offset } : undefined
  } catch (error) {
    if (error instanceof Failure && error.key === 'BLOB_UPLOAD_UNKNOWN') return undefined
    throw error
  }
}

/** Goes by way of an upload, as a client would: each part is kept when it is whole. */
async function storeParts(
  deps: Deps,
  { repository, digest }: Fetch,
  stream: Readable,
  begun: SessionId | undefined,
  { onSession, partBytes = 64 * 1024 * 1024 }: FetchOptions,
): Promise<void> {
  const text = begun ? undefined : startUpload(deps, repository, algorithmOf(digest))
  const id = begun ?? sessionIdOf(deps, repository, text ?? '')
  if (text !== undefined) await onSession?.(text)
  for await (const part of partsOf(stream, partBytes))
    await append(deps, id, { stream: part, length: undefined }, undefined)
  try {
    await finish(deps, id, digest, { stream: Readable.from([]), length: 0 }, undefined)
  } catch (error) {
    // What is wrong stays wrong: the next try begins anew.
    if (error instanceof Failure && error.key === 'DIGEST_INVALID') await cancel(deps, id)
    throw error
  }
}

/** A stream as several, one after the other; each must be read to its end before the next is asked for. */
async function* partsOf(stream: Readable, partBytes: number): AsyncGenerator<Readable, void, undefined> {
  const pieces = stream[Symbol.asyncIterator]() as AsyncIterator<Buffer>
  let next = await pieces.next()
  let rest = next.done ? undefined : next.value
  async function* part() {
    for (let left = partBytes; rest && left > 0; ) {
      const now = rest.subarray(0, left)
      left -= now.length
      rest = rest.subarray(now.length)
      yield now
      if (rest.length > 0) continue
      next = await pieces.next()
      rest = next.done ? undefined : next.value
    }
  }
  while (rest) yield Readable.from(part(), { objectMode: false })
}

/** A failure of the stream's is the remote's, whatever the store made of it; so are wrong bytes. */
function blamed(error: unknown, words: string): unknown {
  if (!(error instanceof Failure)) return error
  if (error.key === 'DIGEST_INVALID' || error.key === 'SIZE_INVALID')
    return new Failure('REMOTE_INVALID', { detail: `${words}; nothing of it was kept`, cause: error })
  return error.key === 'BLOB_UPLOAD_INVALID' && error.cause instanceof Failure ? error.cause : error
}
