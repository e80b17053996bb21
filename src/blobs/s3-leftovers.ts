import { AbortMultipartUploadCommand, DeleteObjectCommand, ListMultipartUploadsCommand } from '@aws-sdk/client-s3'
import { Failure } from '../errors.ts'
import { answered, type S3Connection } from './s3-connection.ts'
import type { BlobStore } from './store.ts'

const longestDelayMs = 5 * 60 * 1000
const mostKeys = 10_000

/**
 * Takes care that a write that failed leaves nothing in the bucket. A server that did not answer in time may still
 * carry out what it was asked: begin a multipart upload, or store the whole object. No answer tells, so everything
 * under the key is removed some time later, again and again until that has succeeded twice, the second time after
 * another pause for a request that was still stuck the first time. Safe because a key is never used for two writes.
 *
 * Lives with the process. What a process that died left behind is for scrub (objects) and for `unfinished` (parts).
 */
export class Leftovers {
  #s3: S3Connection
  #timers = new Set<NodeJS.Timeout>()

  constructor(s3: S3Connection) {
    this.#s3 = s3
  }

  /** Runs a write under `key`; where it fails, undoes it: at once by `undo`, and later if S3 left that in doubt. */
  async guard<T>(key: string, write: () => Promise<T>, undo: () => Promise<void> = async () => {}): Promise<T> {
    try {
      return await write()
    } catch (error) {
      const undone = await undo().then(
        () => true,
        () => false,
      )
      if (!undone || (error instanceof Failure && error.key === 'UNAVAILABLE')) this.later(key)
      throw error
    }
  }

  /** Removes the object and any multipart upload under `key`, when S3 lets us. */
  later(key: string): void {
    if (this.#timers.size < mostKeys) this.#schedule(key, this.#s3.idleTimeoutMs, 0)
  }

  close(): void {
    for (const timer of this.#timers) clearTimeout(timer)
    this.#timers.clear()
  }

  #schedule(key: string, delayMs: number, successes: number): void {
    const timer = setTimeout(async () => {
      const succeeded = await this.#remove(key).then(
        () => successes + 1,
        () => successes,
      )
      // Gone from the set: closed meanwhile.
      if (this.#timers.delete(timer) && succeeded < 2) {
        this.#schedule(key, Math.min(longestDelayMs, delayMs * 2), succeeded)
      }
    }, delayMs)
    timer.unref()
    this.#timers.add(timer)
  }

  async #remove(key: string): Promise<void> {
    const { client, bucket: Bucket } = this.#s3
    const { Uploads = [] } = await client.send(new ListMultipartUploadsCommand({ Bucket, Prefix: key }))
    for (const { Key, UploadId } of Uploads) {
      if (Key === key) await client.send(new AbortMultipartUploadCommand({ Bucket, Key, UploadId }))
    }
    await client.send(new DeleteObjectCommand({ Bucket, Key: key }))
  }
}

/** Multipart uploads below our prefix that began before, page by page. A bucket's own rule may be faster. */
export async function* unfinished(
  { client, bucket: Bucket, prefix: Prefix }: S3Connection,
  before: Date,
): ReturnType<BlobStore['unfinished']> {
  let place: { KeyMarker?: string | undefined; UploadIdMarker?: string | undefined } = {}
  for (;;) {
    const page = await answered(client.send(new ListMultipartUploadsCommand({ Bucket, Prefix, ...place })))
    for (const { Key = '', UploadId, Initiated = new Date() } of page.Uploads ?? []) {
      if (Initiated >= before || !Key.startsWith(Prefix)) continue
      const remove = async () => {
        const aborting = client.send(new AbortMultipartUploadCommand({ Bucket, Key, UploadId }))
        await answered(
          aborting.catch((error: Error) => {
            if (error.name !== 'NoSuchUpload') throw error
          }),
        )
      }
      yield { kind: 'multipart upload', name: Key.slice(Prefix.length), size: undefined, since: Initiated, remove }
    }
    if (!page.IsTruncated) return
    place = { KeyMarker: page.NextKeyMarker, UploadIdMarker: page.NextUploadIdMarker }
  }
}
