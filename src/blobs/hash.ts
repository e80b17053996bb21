import { createHash } from 'node:crypto'
import { type FileHandle, open } from 'node:fs/promises'
import { unavailable } from '../errors.ts'
import { type Algorithm, type Digest, digestSoFar } from '../oci/digest.ts'
import type { ObjectKey } from './keys.ts'
import type { BlobStore } from './store.ts'

const bufferBytes = 1024 * 1024

/**
 * Hashes an object as it is in the store; undefined where there is none. `pace` is told of every piece, and waited for.
 * Memory: two buffers of a megabyte. A file is read directly, the next megabyte while the last one is hashed.
 * Throws UNAVAILABLE where the store cannot read it.
 */
export async function hashObject(
  store: BlobStore,
  key: ObjectKey,
  algorithm: Algorithm,
  pace: (bytes: number) => Promise<void> | undefined,
): Promise<{ digest: Digest; size: number } | undefined> {
  const hash = createHash(algorithm)
  let size = 0
  const add = async (bytes: Buffer) => {
    hash.update(bytes)
    size += bytes.length
    await pace(bytes.length)
  }
  if (!(await (store.filePath ? readFile(store.filePath(key), add) : readStream(store, key, add)))) return undefined
  return { digest: digestSoFar(algorithm, hash), size }
}

type Add = (bytes: Buffer) => Promise<void>

async function readStream(store: BlobStore, key: ObjectKey, add: Add): Promise<boolean> {
  const stream = await store.open(key)
  if (!stream) return false
  // Left early, the loop destroys the stream.
  for await (const bytes of stream) await add(bytes as Buffer)
  return true
}

async function readFile(path: string, add: Add): Promise<boolean> {
  let file: FileHandle | undefined
  let coming: Promise<{ bytesRead: number; buffer: Buffer }> | undefined
  try {
    file = await open(path, 'r')
    const { size } = await file.stat()
    const buffers = [size, Math.max(0, size - bufferBytes)].map((most) =>
      // One byte more than there should be: a small file is known to have ended after one read.
      Buffer.allocUnsafe(Math.min(bufferBytes, most + 1)),
    ) as [Buffer, Buffer]
    const from = file
    let position = 0
    coming = from.read(buffers[0], 0, buffers[0].length, 0)
    for (let turn = 1; ; turn ^= 1) {
      const read: { bytesRead: number; buffer: Buffer } = await coming
      const { bytesRead, buffer } = read
      coming = undefined
      if (bytesRead === 0) return true
      position += bytesRead
      const next = buffers[turn as 0 | 1]
      const ended = position === size && bytesRead < buffer.length
      coming = ended ? undefined : from.read(next, 0, next.length, position)
      // Should hashing fail, nobody waits for this one any more.
      coming?.catch(() => undefined)
      await add(buffer.subarray(0, bytesRead))
      if (!coming) return true
    }
  } catch (error) {
    const { code, errno } = error as NodeJS.ErrnoException
    if (code === 'ENOENT') return false
    throw errno === undefined ? error : unavailable('blob store', error)
  } finally {
    await coming?.catch(() => undefined)
    await file?.close()
  }
}
