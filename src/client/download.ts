import type { Hash } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import type { IncomingMessage } from 'node:http'
import { type Call, type Connection, send, unreachable } from './connection.ts'
import { asPacksError, type Content, hashFor, isContent, settle } from './content.ts'
import { PacksError, unlessCancelled } from './failure.ts'
import { claimPartial, dropPartial, releasePartial } from './partial.ts'
import { Passing, persist } from './retry.ts'

/** Content at an address that never changes. `what`: how it is called in messages. */
export type Remote = Content & { path: string; headers?: Record<string, string>; what: string }

export type DownloadOptions = {
  /** Where it is received; on the file system of the target. */
  folder: string
  /** Keeps what was received of an interrupted download for the next try, of whatever process. */
  keep: boolean
  onReceived(bytes: number): void
  signal: AbortSignal | undefined
}

/** What has been received. The hash stands where the file ends. */
type Received = { file: FileHandle; bytes: number; hash: Hash }

/** A try that brought so much does not count as a failed one, in bytes. */
const gain = 1024 * 1024

/**
 * Fetches a file to the target, verified while it streams; goes on where an earlier try was interrupted. Throws
 * DIGEST_MISMATCH, SIZE_MISMATCH, with nothing left behind; UNREACHABLE, CANCELLED, and what the registry answers.
 */
export async function download(
  connection: Connection,
  remote: Remote,
  target: string,
  { folder, keep, onReceived, signal }: DownloadOptions,
): Promise<void> {
  const path = await claimPartial(folder, remote, connection.idleTimeoutMs)
  let isWorthKeeping = false
  try {
    // Windows has no O_NOFOLLOW.
    const file = await open(path, constants.O_RDWR | constants.O_CREAT | (constants.O_NOFOLLOW ?? 0))
    try {
      await receiveAll(connection, remote, await begun(file, remote, signal), { onReceived, signal })
    } catch (error) {
      isWorthKeeping = keep && !(error instanceof PacksError && /_MISMATCH$/.test(error.code))
      throw error
    } finally {
      await file.close()
    }
    await settle(path, target)
  } finally {
    if (isWorthKeeping) await releasePartial(path, remote)
    else await dropPartial(path)
  }
}

/** What the file has already, hashed. */
async function begun(file: FileHandle, remote: Remote, signal: AbortSignal | undefined): Promise<Received> {
  const received = { file, bytes: 0, hash: hashFor(remote) }
  if ((await file.stat()).size > remote.size) await startOver(received, remote)
  for await (const piece of file.createReadStream({ start: 0, autoClose: false, highWaterMark: 1024 * 1024 })) {
    unlessCancelled(signal)
    received.hash.update(piece as Buffer)
    received.bytes += (piece as Buffer).length
  }
  return received
}

async function startOver(received: Received, remote: Remote): Promise<void> {
  await received.file.truncate(0)
  received.bytes = 0
  received.hash = hashFor(remote)
}

type ReceiveOptions = Pick<DownloadOptions, 'onReceived' | 'signal'>

async function receiveAll(
  connection: Connection,
  remote: Remote,
  received: Received,
  options: ReceiveOptions,
): Promise<void> {
  const wasBegun = received.bytes > 0
  await persist(connection, options.signal, () => receive(connection, remote, received, options))
  if (isContent(received.hash, remote)) return
  // What an earlier process left may not have reached the disk before a power failure.
  if (wasBegun) {
    await startOver(received, remote)
    return receiveAll(connection, remote, received, options)
  }
  throw new PacksError(
    'DIGEST_MISMATCH',
    `${remote.what}: what arrived is not ${remote.digest}, so nothing of it was kept. Something between here and ${connection.base} changes what passes, or the registry's copy is damaged`,
    { about: { digest: remote.digest, size: remote.size } },
  )
}

/** One try to get what is missing. Throws Passing, PacksError. */
async function receive(
  connection: Connection,
  remote: Remote,
  received: Received,
  { onReceived, signal }: ReceiveOptions,
): Promise<void> {
  onReceived(received.bytes)
  if (received.bytes === remote.size) return
  const answer = await sendFor(connection, remote, received, signal)
  const first = answer.statusCode === 206 ? received.bytes : 0
  const gained = () => received.bytes - first >= gain
  try {
    requireFit(answer, remote, first)
    if (first !== received.bytes) await startOver(received, remote)
    for await (const piece of piecesOf(connection, answer, gained)) {
      if (received.bytes + piece.length > remote.size) throw wrongSize(remote, 'more arrived')
      const written = writeAll(received.file, piece, received.bytes)
      received.hash.update(piece)
      await written
      received.bytes += piece.length
      onReceived(received.bytes)
    }
  } finally {
    answer.destroy()
  }
  // Without an announced length, the end of a cut connection looks like the end of the content.
  if (received.bytes !== remote.size)
    throw new Passing(wrongSize(remote, `${received.bytes} arrived`), { gained: gained() })
}

/** The body as it comes. A connection that breaks off is a failure that may pass. */
async function* piecesOf(
  connection: Connection,
  answer: IncomingMessage,
  gained: () => boolean,
): AsyncGenerator<Buffer, void, undefined> {
  try {
    yield* answer as AsyncIterable<Buffer>
  } catch (error) {
    const failure = unreachable(new URL(connection.base), error)
    throw failure instanceof Passing ? new Passing(failure.failure, { gained: gained() }) : failure
  }
}

async function sendFor(
  connection: Connection,
  remote: Remote,
  received: Received,
  signal: AbortSignal | undefined,
): Promise<IncomingMessage> {
  const { path, headers, digest } = remote
  const resume = { range: `bytes=${received.bytes}-`, 'if-range': `"${digest}"` }
  const call: Call = { path, anywhere: true, signal, headers: { ...headers, ...(received.bytes > 0 ? resume : {}) } }
  try {
    return await send(connection, call)
  } catch (error) {
    // It has fewer bytes than we have got: one of the two is not the content.
    if (!(error instanceof PacksError) || error.status !== 416 || received.bytes === 0) throw error
    await startOver(received, remote)
    return send(connection, { path, anywhere: true, signal, headers: { ...headers } })
  }
}

/** Refuses an answer of another length, or another part, before a byte of it is read. */
function requireFit({ statusCode, headers }: IncomingMessage, remote: Remote, first: number): void {
  const length = headers['content-length']
  if (statusCode === 206) {
    const [, from, total] = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(headers['content-range'] ?? '') ?? []
    if (Number(from) !== first)
      throw new PacksError('ANSWER_INVALID', `${remote.what}: the answer is another part than the one asked for`)
    if (total !== '*' && Number(total) !== remote.size) throw wrongSize(remote, `the registry has ${total}`)
  } else if (length !== undefined && Number(length) !== remote.size)
    throw wrongSize(remote, `the registry has ${length}`)
}

function wrongSize(remote: Remote, found: string): PacksError {
  const { what, digest, size } = remote
  return new PacksError('SIZE_MISMATCH', `${what} has ${size} bytes, but ${found}; nothing of it was kept`, {
    about: { digest, size },
  })
}

/** Throws FILE_FAILED. */
async function writeAll(file: FileHandle, bytes: Buffer, position: number): Promise<void> {
  try {
    for (let done = 0; done < bytes.length; ) {
      const { bytesWritten } = await file.write(bytes, done, bytes.length - done, position + done)
      done += bytesWritten
    }
  } catch (error) {
    throw asPacksError(error)
  }
}
