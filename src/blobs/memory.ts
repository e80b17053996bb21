import { Readable } from 'node:stream'
import { consume } from './intake.ts'
import { type ObjectKey, storedKey } from './keys.ts'
import type { BlobStore } from './store.ts'

/** A store that forgets, for tests of what stands on a store. The one promise it cannot keep is bounded memory. */
export function openMemoryStore(): BlobStore {
  const objects = new Map<ObjectKey, { bytes: Buffer; modifiedAt: Date }>()
  const keep = (key: ObjectKey, bytes: Buffer) => objects.set(key, { bytes, modifiedAt: new Date() })
  return {
    description: 'memory of this process',
    async put(key, bytes) {
      keep(key, Buffer.from(bytes))
    },
    async putStream(key, source, { onBytes, seal }) {
      const pieces: Buffer[] = []
      await consume(source, (piece) => {
        onBytes?.(piece)
        pieces.push(piece)
        return undefined
      })
      seal?.()
      const bytes = Buffer.concat(pieces)
      keep(key, bytes)
      return bytes.length
    },
    async link(from, to) {
      const object = objects.get(from)
      if (object) objects.set(to, object)
      return object !== undefined
    },
    async read(key) {
      return objects.get(key)?.bytes
    },
    async open(key, range) {
      const bytes = objects.get(key)?.bytes
      return bytes && Readable.from([range ? bytes.subarray(range.first, range.last + 1) : bytes])
    },
    async size(key) {
      return objects.get(key)?.bytes.length
    },
    async delete(keys) {
      for (const key of keys) objects.delete(key)
    },
    // A write that has not ended is in nobody's memory but its own.
    async *unfinished() {},
    async *list(prefix) {
      for (const [key, { bytes, modifiedAt }] of objects) {
        if (key.startsWith(prefix)) yield { key: storedKey(key), size: bytes.length, modifiedAt }
      }
    },
    async ping() {},
    async close() {},
  }
}
