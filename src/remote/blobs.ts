import { Readable } from 'node:stream'
import { Failure } from '../errors.ts'
import type { Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import { ask, mayPass, unexpected } from './ask.ts'
import { discard, unreachable } from './exchange.ts'
import { pullScope } from './manifests.ts'
import type { Remote } from './remote.ts'

type Cancellable = { signal?: AbortSignal | undefined }

/** The size of a blob in bytes; undefined where the remote does not have it, or does not say. */
export async function blobSize(
  remote: Remote,
  name: RepositoryName,
  digest: Digest,
  { signal }: Cancellable = {},
): Promise<number | undefined> {
  const call = { method: 'HEAD' as const, at: `/v2/${name}/blobs/${digest}`, scopes: [pullScope(name)], signal }
  const answer = await ask(remote, call)
  discard(answer.message)
  if (answer.status === 404) return undefined
  if (answer.status !== 200) throw await unexpected(remote, answer)
  const length = answer.message.headers['content-length']
  return length === undefined ? undefined : Number(length)
}

/**
 * A blob as it comes, from `offset` on. A connection that is lost is taken up again where it was. Not checked against
 * the digest: whoever stores it does. Undefined where the remote does not have it. `length`: of all that will come,
 * where the remote says so.
 */
export async function openBlob(
  remote: Remote,
  name: RepositoryName,
  digest: Digest,
  { offset = 0, signal }: Cancellable & { offset?: number } = {},
): Promise<{ stream: Readable; length: number | undefined } | undefined> {
  const first = await askFrom(remote, name, digest, offset, signal)
  if (!first) return undefined
  const pieces = resumed(remote, name, digest, { offset, first, signal })
  return { stream: Readable.from(pieces, { objectMode: false }), length: first.length }
}

type Part = { pieces: AsyncIterable<Buffer>; length: number | undefined; url: URL }

/** The blob from an offset on. A remote that knows no ranges sends it whole: what comes before is let go by. */
async function askFrom(
  remote: Remote,
  name: RepositoryName,
  digest: Digest,
  offset: number,
  signal: AbortSignal | undefined,
): Promise<Part | undefined> {
  const headers: Record<string, string> = offset > 0 ? { range: `bytes=${offset}-` } : {}
  const at = `/v2/${name}/blobs/${digest}`
  const answer = await ask(remote, { method: 'GET', at, headers, scopes: [pullScope(name)], signal })
  const { status, message, url } = answer
  if (status === 404) {
    discard(message)
    return undefined
  }
  const given = message.headers['content-length']
  const length = given === undefined ? undefined : Number(given)
  if (status === 206 && message.headers['content-range']?.startsWith(`bytes ${offset}-`))
    return { pieces: message, length, url }
  if (status === 200) {
    const rest = length === undefined ? undefined : length - offset
    return { pieces: offset === 0 ? message : after(message, offset), length: rest, url }
  }
  throw await unexpected(remote, answer)
}

async function* after(pieces: AsyncIterable<Buffer>, offset: number) {
  let left = offset
  for await (const piece of pieces) {
    if (piece.length > left) yield piece.subarray(left)
    left = Math.max(0, left - piece.length)
  }
}

async function* resumed(
  remote: Remote,
  name: RepositoryName,
  digest: Digest,
  { offset, first, signal }: { offset: number; first: Part; signal: AbortSignal | undefined },
): AsyncGenerator<Buffer, void, undefined> {
  let part: Part | undefined = first
  let position = offset
  // Tries without a byte in between: a slow link that breaks now and then still gets there.
  for (let tries = 0; tries < remote.attempts; ) {
    try {
      if (!part) throw new Failure('REMOTE_INVALID', { detail: `${remote.url.host} has lost ${digest} meanwhile` })
      for await (const piece of part.pieces) {
        await remote.pace.take(piece.length, signal)
        remote.counts.received += piece.length
        position += piece.length
        tries = 0
        yield piece
      }
      return
    } catch (error) {
      signal?.throwIfAborted()
      const failure = unreachable(part?.url ?? remote.url, error)
      tries++
      if (!mayPass(failure) || tries >= remote.attempts) throw failure
      part = await askFrom(remote, name, digest, position, signal)
    }
  }
}
