import { Readable } from 'node:stream'
import { parseIndex } from '../bundles/contents.ts'
import { readLayout } from '../bundles/read.ts'
import { documentsOf, openCollection } from '../bundles/survey.ts'
import { verify } from '../bundles/verify.ts'
import { PacksError } from '../client/failure.ts'
import { digestOf } from '../oci/digest.ts'
import type { Run } from './run.ts'
import { openVolumes, type Received, type Target, type Volumes } from './volumes.ts'

/**
 * A file to be received. `read`: its bytes from byte `from` on. `index`: the digest of index.json in it, without which
 * any other whole bundle would do. `sha256`: of all of it, where that is known.
 */
export type Remote = { index: string; sha256: string | undefined; read(from: number): AsyncIterable<Buffer> }

/** Bytes of the file that are there, and verified as far as they can be. */
export type OnReceived = (bytes: number) => void

/**
 * Receives a bundle file and verifies it on the way: structure, digests, sizes and whether it is complete. Goes on
 * where an earlier try, of whatever process, was interrupted. Throws DIGEST_INVALID, BUNDLE_INVALID, DIGEST_MISMATCH,
 * SIZE_MISMATCH, with nothing left behind, and with what stood under the file's name as it was.
 */
export async function receiveBundle(at: Run, file: Remote, target: Target, onReceived: OnReceived): Promise<Received> {
  const volumes = await openVolumes(target)
  const began = { bytes: 0 }
  try {
    const index = await readThrough(pieces(at, file, volumes, began, onReceived))
    if (index !== file.index)
      throw new PacksError('DIGEST_MISMATCH', `another bundle arrived: its index is ${index}, and not ${file.index}`)
    return await volumes.finish(file.sha256)
  } catch (error) {
    if (!isDamage(error)) {
      await volumes.close()
      throw error
    }
    await volumes.discard()
    // What an earlier process left may not have reached the disk before a power failure.
    if (began.bytes > 0) return receiveBundle(at, file, target, onReceived)
    throw error
  }
}

function isDamage(error: unknown): boolean {
  const { key, code } = Object(error) as { key?: string; code?: string }
  return /^(?:DIGEST|SIZE|BUNDLE)_(?:INVALID|MISMATCH)$/.test(key ?? code ?? '')
}

/** The whole file: what is there already, then what is missing, written as it comes. */
async function* pieces(
  { signal }: Run,
  file: Remote,
  volumes: Volumes,
  began: { bytes: number },
  onReceived: OnReceived,
): AsyncGenerator<Buffer, void, undefined> {
  for await (const piece of volumes.begun()) {
    signal.throwIfAborted()
    onReceived(volumes.received)
    yield piece
  }
  began.bytes = volumes.received
  for await (const some of gathered(file.read(volumes.received))) {
    // Written while they are verified.
    const writing = volumes.write(some)
    writing.catch(() => undefined)
    yield* some
    await writing
    onReceived(volumes.received)
  }
}

/** A network gives 64 KiB at a time; to write that much costs about as much as to write a megabyte. */
const gatheredBytes = 1024 * 1024

/** Pieces, some at a time; those that came before a failure are given before it. */
async function* gathered(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer[], void, undefined> {
  let some: Buffer[] = []
  let bytes = 0
  try {
    for await (const piece of source) {
      some.push(piece)
      bytes += piece.length
      if (bytes < gatheredBytes) continue
      yield some
      some = []
      bytes = 0
    }
  } catch (error) {
    if (some.length > 0) yield some
    throw error
  }
  if (some.length > 0) yield some
}

/** Verifies a bundle on its way; answers the digest of its index.json. */
async function readThrough(source: AsyncIterable<Buffer>): Promise<string> {
  const stream = Readable.from(source, { objectMode: false, highWaterMark: 1024 * 1024 })
  const { found, take } = openCollection()
  try {
    const layout = await readLayout(stream, {
      async onBlob({ digest, size }, content) {
        const blob = take(digest, size)
        for await (const piece of content as AsyncIterable<Buffer>) blob.piece(piece)
        blob.end()
      },
    })
    // What stands behind the end of the archive belongs to the file as well.
    for await (const _ of stream);
    const contents = parseIndex(layout.index)
    const { blobs, manifests } = found
    const read = { layout, contents, blobs, manifests, ...documentsOf(contents, found) }
    verify(read, { keys: [], policy: 'never', now: new Date() })
    return digestOf(layout.index)
  } finally {
    stream.destroy()
  }
}
