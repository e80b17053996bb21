import type { IncomingMessage } from 'node:http'
import { Readable } from 'node:stream'
import { Failure } from '../errors.ts'
import type { Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import { type Answer, ask, mayPass, unexpected } from './ask.ts'
import { bodyOf, discard, unreachable } from './exchange.ts'
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
  return lengthOf(answer)
}

/** What an answer says of the length of its body in bytes. Throws REMOTE_INVALID where no body has that many. */
function lengthOf({ message, url }: Answer): number | undefined {
  const given = message.headers['content-length']
  if (given === undefined) return undefined
  if (/^\d+$/.test(given) && Number.isSafeInteger(Number(given))) return Number(given)
  message.destroy()
  throw new Failure('REMOTE_INVALID', {
    detail: `${url.host} answers ${url.pathname} with Content-Length ${given.slice(0, 50)}, which nothing can have`,
  })
}

/** Of a blob to be read. `size`: how many bytes it has in all, as its descriptor says. */
type Reading = Cancellable & { offset?: number; size?: number | undefined }

/**
 * A blob as it comes, from `offset` on. A connection that is lost is taken up again where it was. Not checked against
 * the digest: whoever stores it does. Undefined where the remote does not have it. `length`: of all that will come,
 * where the descriptor or the remote says so. Throws REMOTE_INVALID, as the stream does, where the remote has another
 * length for it than the descriptor: no byte beyond it is passed on.
 */
export async function openBlob(
  remote: Remote,
  name: RepositoryName,
  digest: Digest,
  { offset = 0, size, signal }: Reading = {},
): Promise<{ stream: Readable; length: number | undefined } | undefined> {
  const first = await askFrom(remote, name, digest, offset, signal)
  if (!first) return undefined
  const whole = size ?? (first.length === undefined ? undefined : offset + first.length)
  if (whole !== undefined && first.length !== undefined && offset + first.length !== whole) {
    first.message.destroy()
    throw otherLength(first.url, digest, whole, `${offset + first.length}`)
  }
  const pieces = resumed(remote, name, digest, { offset, whole, first, signal })
  const stream = Readable.from(pieces, { objectMode: false })
  // Where nobody has begun to read, the pieces know of no end, and the answer would keep its connection.
  stream.on('close', () => first.message.destroy())
  return { stream, length: whole === undefined ? undefined : whole - offset }
}

function otherLength({ host }: URL, digest: Digest, whole: number, sent: string): Failure {
  return new Failure('REMOTE_INVALID', { detail: `${host} sends ${sent} bytes for ${digest}, which has ${whole}` })
}

type Part = { message: IncomingMessage; pieces: AsyncIterable<Buffer>; length: number | undefined; url: URL }

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
  const length = lengthOf(answer)
  if (status === 206 && message.headers['content-range']?.startsWith(`bytes ${offset}-`))
    return { message, pieces: bodyOf(remote, message, url), length, url }
  if (status === 200) {
    const rest = length === undefined ? undefined : length - offset
    const pieces = bodyOf(remote, message, url)
    return { message, pieces: offset === 0 ? pieces : after(pieces, offset), length: rest, url }
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

/** As many bytes as have to come before a connection that is lost counts as a new trouble, not as the same again. */
const leastProgress = 64 * 1024

type Resuming = { offset: number; whole: number | undefined; first: Part; signal: AbortSignal | undefined }

async function* resumed(
  remote: Remote,
  name: RepositoryName,
  digest: Digest,
  { offset, whole, first, signal }: Resuming,
): AsyncGenerator<Buffer, void, undefined> {
  let part: Part | undefined = first
  let position = offset
  // Tries without progress in between: a slow link that breaks now and then still gets there.
  for (let tries = 0, progress = 0; tries < remote.attempts; progress = 0) {
    try {
      if (!part) throw new Failure('REMOTE_INVALID', { detail: `${remote.url.host} has lost ${digest} meanwhile` })
      for await (const piece of part.pieces) {
        await remote.pace.take(piece.length, signal)
        remote.counts.received += piece.length
        position += piece.length
        progress += piece.length
        if (progress >= leastProgress) tries = 0
        if (whole !== undefined && position > whole) throw otherLength(part.url, digest, whole, 'more')
        yield piece
      }
      if (whole !== undefined && position < whole) throw otherLength(part.url, digest, whole, `${position}`)
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
