import type { Readable } from 'node:stream'
import type { ObjectKey } from './keys.ts'

/** Bytes `first` to `last`, both included, counted from 0. */
export type ByteRange = { first: number; last: number }

/** See `unfinished`. `size` in bytes, where the store can tell. */
export type Unfinished = {
  kind: 'file' | 'multipart upload'
  name: string
  size: number | undefined
  since: Date
  remove(): Promise<void>
}

/** Objects that could not be deleted, each with the reason. All others of the call are deleted. */
export class NotDeleted extends Error {
  override name = 'NotDeleted'
  readonly reasons: ReadonlyMap<ObjectKey, string>
  constructor(reasons: ReadonlyMap<ObjectKey, string>) {
    const [first] = reasons
    super(`cannot delete ${first?.[0]}: ${first?.[1]}${reasons.size > 1 ? `, nor ${reasons.size - 1} more` : ''}`)
    this.reasons = reasons
  }
}

/**
 * The one port to bytes. What every implementation promises (`suite.ts` holds each to it):
 *
 * - An object is visible under its key only when it is whole. A put that fails, is cut off, or whose `seal` throws
 *   leaves nothing under the key and nothing behind: no temp file, no half-done multipart upload, no open descriptor.
 * - A put that has returned is durable: it survives the machine losing power (`file:`), or is acknowledged by S3.
 * - Keys are never written twice; objects never change. Any process may read or delete what another wrote.
 * - Memory is bounded for content of any size; nothing is buffered whole but what came as a Buffer.
 * - A store that does not answer in time, is full, or refuses gives `Failure('UNAVAILABLE')`, with the cause.
 *   Absence is `undefined`.
 */
export type BlobStore = {
  /** In words, for the banner and the readiness page; no secret in it. E.g. `folder /srv/data/blobs`. */
  readonly description: string

  /** Stores small content at once. */
  put(key: ObjectKey, bytes: Buffer): Promise<void>

  /**
   * Stores a stream of unknown size. `onBytes` sees each piece in order, before it is stored (hashing goes there).
   * After the last byte and before anything is visible `seal` is called; if it throws, nothing is stored and the put
   * rejects with what it threw. An error of `source` does the same. Returns the number of bytes.
   * `source` stays the caller's: after a failure it is paused, not destroyed, so that a request can still be answered.
   */
  putStream(
    key: ObjectKey,
    source: Readable,
    { onBytes, seal }: { onBytes?: (bytes: Buffer) => void; seal?: () => void },
  ): Promise<number>

  /**
   * Stores the object at `from` under `to` as well, without passing its bytes through this process; false where there is
   * no object at `from`.
   */
  link(from: ObjectKey, to: ObjectKey): Promise<boolean>

  /** The whole of a small object (the caller knows its size), or undefined where there is none. */
  read(key: ObjectKey): Promise<Buffer | undefined>

  /** A readable of the object or a range of it, or undefined where there is none. Destroying it frees everything. */
  open(key: ObjectKey, range?: ByteRange): Promise<Readable | undefined>

  /** The path of the object's file, where the store is a folder: the fastest way out is to read it directly. */
  filePath?(key: ObjectKey): string

  /** A short-lived address at which a client may GET the object itself, where the store can give one. */
  presign?(key: ObjectKey, options: { expiresInSeconds: number }): Promise<string>

  /** The object's size in bytes, or undefined where there is none. */
  size(key: ObjectKey): Promise<number | undefined>

  /**
   * Deletes objects; ones that are not there are no error. One that cannot be deleted does not keep the others: where
   * some are left the cause of the failure is `NotDeleted`, and all others are gone.
   */
  delete(keys: readonly ObjectKey[]): Promise<void>

  /**
   * What writes have left that never ended, and that nobody has touched since `before`: files that never got their name,
   * uploads of parts. `name` says where, for a person. To remove what is there no more is no error.
   */
  unfinished(before: Date): AsyncIterable<Unfinished>

  /** Every key under a prefix (`blobs/`, `uploads/<id>/`), in no promised order. */
  list(prefix: string): AsyncIterable<{ key: ObjectKey; size: number; modifiedAt: Date }>

  /** Throws `Failure('UNAVAILABLE')` unless the store answers; cheap enough for a readiness probe. */
  ping(): Promise<void>

  /** Room for content in bytes, where there is a limit that can be asked for: a folder's disk. */
  space?(): Promise<{ free: number; total: number }>

  close(): Promise<void>
}
