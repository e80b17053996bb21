import type { Readable } from 'node:stream'
import { Failure } from '../errors.ts'

/** What a client sends: the bytes as they come, and how many it said there would be, if it did. */
export type Body = { stream: Readable; length: number | undefined }

/**
 * Reads a whole body into memory, at most `limit` bytes. Undefined where there is more.
 * Throws BLOB_UPLOAD_INVALID when the client goes away in the middle.
 */
export async function readWhole({ stream, length }: Body, limit: number): Promise<Buffer | undefined> {
  if (length !== undefined && length > limit) return undefined
  const pieces: Buffer[] = []
  let size = 0
  return new Promise((resolve, reject) => {
    const onData = (piece: Buffer) => {
      pieces.push(piece)
      size += piece.length
      if (size > limit) settle(() => resolve(undefined))
    }
    const onEnd = () => settle(() => resolve(pieces.length === 1 ? (pieces[0] as Buffer) : Buffer.concat(pieces, size)))
    const onError = (cause: Error) => settle(() => reject(cutOff(cause)))
    const onClose = () => settle(() => reject(cutOff()))
    const settle = (done: () => void) => {
      stream.off('data', onData).off('end', onEnd).off('error', onError).off('close', onClose)
      // An error that comes later has no reader any more, but must not be an unhandled one.
      stream.on('error', () => undefined)
      stream.pause()
      done()
    }
    stream.on('data', onData).on('end', onEnd).on('error', onError).on('close', onClose)
  })
}

/**
 * The pieces of a body as they come. Whoever stops in the middle leaves it as it stands: to destroy a request cuts the
 * connection on which its answer is to go.
 * Throws BLOB_UPLOAD_INVALID when the client goes away in the middle.
 */
export async function* pieces({ stream }: Body): AsyncGenerator<Buffer, void, undefined> {
  try {
    yield* stream.iterator({ destroyOnReturn: false })
  } catch (cause) {
    throw cutOff(cause)
  }
}

/** The client ended its request before its body was whole. It will not see this; the log does. */
export function cutOff(cause?: unknown): Failure {
  return new Failure('BLOB_UPLOAD_INVALID', { detail: 'the connection ended before the body did', cause })
}
