import { close, fstatSync, open, read } from 'node:fs'
import type { ServerResponse } from 'node:http'
import type { Http2ServerResponse } from 'node:http2'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { promisify } from 'node:util'
import type { ByteRange } from '../../oci/range.ts'
import type { Fields } from './reply.ts'

type Outgoing = ServerResponse | Http2ServerResponse
type Head = { status: number; fields: Fields }

const openFile = promisify(open)
const closeFile = promisify(close)

const bufferBytes = 1024 * 1024
/** Buffers kept for the next response. Allocating a megabyte for each would cost more than filling it. */
const spare: Buffer[] = []
const mostSpare = 16

/**
 * Sends a part of a file with two buffers: the next read runs while the last write drains. That is the fastest way out
 * of Node that was measured (web streams give a half, read streams a third of it). False where there is no such file, or it
 * is not as long as it should be: nothing has been answered then.
 * The response always ends: whole, or by a closed connection where the client left or the file fails.
 */
export async function sendFile(
  outgoing: Outgoing,
  { path, size }: { path: string; size: number },
  range: ByteRange,
  head: Head,
): Promise<boolean> {
  let file: number
  try {
    file = await openFile(path, 'r')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw error
  }
  try {
    if (fstatSync(file).size !== size) return false
    begin(outgoing, head)
    await copy(outgoing, file, range)
    outgoing.end()
  } catch (error) {
    outgoing.destroy(error as Error)
  } finally {
    await closeFile(file)
  }
  return true
}

async function copy(outgoing: Outgoing, file: number, { first, last }: ByteRange): Promise<void> {
  let position = first
  let written: Promise<void> | undefined
  const buffers = [takeBuffer(), takeBuffer()] as const
  try {
    for (let turn = 0; position <= last; turn ^= 1) {
      const buffer = buffers[turn as 0 | 1]
      const bytes = await fill(file, buffer, position, Math.min(bufferBytes, last - position + 1))
      if (bytes === 0) throw new Error('the file is shorter than its row says')
      position += bytes
      await written
      written = write(outgoing, buffer.subarray(0, bytes))
      // It is awaited a turn later; should the client leave before that, the rejection has a handler already.
      written.catch(() => undefined)
    }
    await written
  } finally {
    // A write that is still under way reads its buffer: only settled ones may be used again.
    await written?.catch(() => undefined)
    giveBack(...buffers)
  }
}

function fill(file: number, buffer: Buffer, position: number, length: number): Promise<number> {
  return new Promise((resolve, reject) => {
    read(file, buffer, 0, length, position, (error, bytes) => (error ? reject(error) : resolve(bytes)))
  })
}

/** Resolves when the bytes have left for the kernel, and rejects when the client has gone. */
function write(outgoing: Outgoing, bytes: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    const onClose = () => reject(new Error('the client has gone'))
    outgoing.once('close', onClose)
    ;(outgoing as ServerResponse).write(bytes, (error) => {
      outgoing.off('close', onClose)
      if (error) reject(error)
      else resolve()
    })
    if (outgoing.destroyed) onClose()
  })
}

function takeBuffer(): Buffer {
  return spare.pop() ?? Buffer.allocUnsafeSlow(bufferBytes)
}

function giveBack(...buffers: Buffer[]): void {
  for (const buffer of buffers) if (spare.length < mostSpare) spare.push(buffer)
}

/** A part of an answer: bytes, a part of a file, or a stream that is opened when its turn comes. */
export type SentPart = Buffer | { path: string; range: ByteRange } | { open: () => Promise<Readable> }

/**
 * Sends parts one after the other. What goes wrong with the first one is thrown, for then nothing has been answered
 * yet; after that the response ends by a closed connection.
 */
export async function sendParts(outgoing: Outgoing, parts: AsyncIterable<SentPart>, head: Head): Promise<void> {
  const iterator = parts[Symbol.asyncIterator]()
  let part = await iterator.next()
  try {
    begin(outgoing, head)
    for (; !part.done; part = await iterator.next()) await sendPart(outgoing, part.value)
    outgoing.end()
  } catch (error) {
    outgoing.destroy(error as Error)
  } finally {
    await iterator.return?.()
  }
}

async function sendPart(outgoing: Outgoing, part: SentPart): Promise<void> {
  if (Buffer.isBuffer(part)) return write(outgoing, part)
  if ('open' in part) {
    // Left early, the loop destroys the stream.
    for await (const bytes of await part.open()) await write(outgoing, bytes)
    return
  }
  const file = await openFile(part.path, 'r')
  try {
    await copy(outgoing, file, part.range)
  } finally {
    await closeFile(file)
  }
}

/** Sends a stream; both ends are closed whichever of them fails, and also where it ends before the announced length. */
export async function sendStream(outgoing: Outgoing, stream: Readable, head: Head): Promise<void> {
  begin(outgoing, head)
  try {
    await pipeline(stream, asLongAs(Number(head.fields['content-length'])), outgoing)
  } catch (error) {
    outgoing.destroy(error as Error)
  }
}

/** Lets bytes through and fails at an end that comes too early: a client would wait for the rest. */
function asLongAs(length: number): (source: AsyncIterable<Buffer>) => AsyncGenerator<Buffer> {
  return async function* (source) {
    let sent = 0
    for await (const bytes of source) {
      sent += bytes.length
      yield bytes
    }
    if (sent < length) throw new Error('the object is shorter than its row says')
  }
}

function begin(outgoing: Outgoing, { status, fields }: Head): void {
  // The two kinds of response have the call in common, but not its overloads.
  ;(outgoing as ServerResponse).writeHead(status, fields)
}
