import { subtle } from 'node:crypto'
import type { Readable } from 'node:stream'
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  HeadObjectCommand,
  PutObjectCommand,
  type S3Client,
  UploadPartCommand,
} from '@aws-sdk/client-s3'
import { consume, Pieces, releaseOf } from './intake.ts'
import { PartBudget } from './part-budget.ts'
import { answered, type S3Connection } from './s3-connection.ts'

const MiB = 1024 * 1024
/** A body up to this size needs no buffer of the budget: many small uploads never wait for a few large ones. */
const smallBytes = 256 * 1024
/** Beside the part being filled, one upload has at most this many being sent. */
const sendingParts = 3
/** 64 uploads at once fill 320 MiB; the rest is for sending. */
const budget = new PartBudget(384 * MiB)

/**
 * The length of part `number`, from 1. S3 takes 10,000 parts of at least 5 MiB and the size of a body is not known
 * beforehand, so parts grow: 5 MiB up to 2.5 GB, then doubling every 500 parts up to 160 MiB. That is room for 1.3 TB.
 */
export function partBytes(number: number): number {
  return 5 * MiB * 2 ** Math.min(5, Math.floor((number - 1) / 500))
}

/**
 * The multipart calls directly, not lib-storage's `Upload`: its parts all have one size, so it either cannot store a
 * large body or buffers large parts for every one; and it bounds the memory of one upload, not that of 64.
 */
export class S3Upload {
  #s3: S3Connection
  #key: string
  #cancel = new AbortController()
  #pieces = new Pieces()
  #part: Buffer | undefined
  #filled = 0
  #total = 0
  #uploadId: string | undefined
  #sent: { PartNumber: number; ETag: string | undefined }[] = []
  #sending = new Set<Promise<void>>()
  #failure: { error: unknown } | undefined
  /** Told of pieces that are in a part. */
  #copied: (piece: Buffer) => void = () => undefined

  constructor(s3: S3Connection, key: string) {
    this.#s3 = s3
    this.#key = key
  }

  /** Stores the body; returns its size. Where it rejects, call `abort`. */
  async run(
    source: Readable,
    { onBytes, seal }: { onBytes?: (bytes: Buffer) => void; seal?: () => void },
  ): Promise<number> {
    this.#copied = releaseOf(source)
    await consume(source, (piece) => {
      if (this.#failure) throw this.#failure.error
      onBytes?.(piece)
      this.#total += piece.length
      return this.#add(piece)
    })
    if (this.#uploadId === undefined) {
      seal?.()
      await putObject(this.#s3, this.#key, this.#part?.subarray(0, this.#filled) ?? Buffer.concat(this.#pieces.take()))
    } else {
      if (this.#filled > 0) await this.#send()
      await Promise.all(this.#sending)
      if (this.#failure) throw this.#failure.error
      seal?.()
      await this.#complete(this.#uploadId)
    }
    if (this.#part) this.#release(this.#part, { reuse: true })
    return this.#total
  }

  /** Stops what is being sent and removes what S3 has of it. Throws where S3 does not confirm that. */
  async abort(): Promise<void> {
    this.#cancel.abort()
    await Promise.all(this.#sending)
    if (this.#part) this.#release(this.#part, { reuse: false })
    if (this.#uploadId === undefined) return
    const { client, bucket, idleTimeoutMs } = this.#s3
    const call = new AbortMultipartUploadCommand({ Bucket: bucket, Key: this.#key, UploadId: this.#uploadId })
    await answered(client.send(call, { abortSignal: AbortSignal.timeout(idleTimeoutMs) }))
  }

  #add(piece: Buffer): Promise<void> | undefined {
    if (this.#part && piece.length <= this.#part.length - this.#filled) {
      this.#filled += piece.copy(this.#part, this.#filled)
      this.#copied(piece)
      return undefined
    }
    if (!this.#part && this.#total <= smallBytes) {
      this.#pieces.add(piece)
      return undefined
    }
    return this.#spread([...this.#pieces.take(), piece])
  }

  /** Copies pieces into parts, sending each part that is full as soon as it is known not to be the last. */
  async #spread(pieces: readonly Buffer[]): Promise<void> {
    for (const piece of pieces) {
      for (let done = 0; done < piece.length; ) {
        if (this.#part && this.#filled === this.#part.length) await this.#send()
        this.#part ??= await budget.take(partBytes(this.#sent.length + 1))
        const copied = piece.copy(this.#part, this.#filled, done)
        this.#filled += copied
        done += copied
      }
      this.#copied(piece)
    }
  }

  /** Starts sending the part that has been filled; waits for an earlier one where too many are under way. */
  async #send(): Promise<void> {
    this.#uploadId ??= await this.#create()
    while (this.#sending.size >= sendingParts) await Promise.race(this.#sending)
    if (this.#failure) throw this.#failure.error
    const { bucket: Bucket, client } = this.#s3
    const [part, body] = [this.#part as Buffer, (this.#part as Buffer).subarray(0, this.#filled)]
    const entry = { PartNumber: this.#sent.length + 1, ETag: undefined as string | undefined }
    this.#sent.push(entry)
    this.#part = undefined
    this.#filled = 0
    const transfer = async () => {
      const call = { Bucket, Key: this.#key, UploadId: this.#uploadId, PartNumber: entry.PartNumber, Body: body }
      // Over TLS every byte is authenticated already; over plain HTTP the signature has to cover the bytes.
      const hash = this.#s3.secure ? 'UNSIGNED-PAYLOAD' : (await sha256(body)).toString('hex')
      const command = withPayloadHash(new UploadPartCommand(call), hash)
      entry.ETag = (await client.send(command, { abortSignal: this.#cancel.signal })).ETag
    }
    const sending: Promise<void> = answered(transfer())
      .then(
        () => this.#release(part, { reuse: true }),
        (error) => {
          this.#failure ??= { error }
          this.#release(part, { reuse: false })
        },
      )
      .finally(() => this.#sending.delete(sending))
    this.#sending.add(sending)
  }

  #release(part: Buffer, { reuse }: { reuse: boolean }): void {
    if (part === this.#part) this.#part = undefined
    budget.release(part, { reuse })
  }

  async #create(): Promise<string> {
    const call = new CreateMultipartUploadCommand({ Bucket: this.#s3.bucket, Key: this.#key })
    const { UploadId } = await answered(this.#s3.client.send(call))
    if (!UploadId) throw new Error('S3 began a multipart upload without naming it')
    return UploadId
  }

  async #complete(UploadId: string): Promise<void> {
    const { client, bucket: Bucket } = this.#s3
    const call = { Bucket, Key: this.#key, UploadId, MultipartUpload: { Parts: this.#sent } }
    try {
      await client.send(new CompleteMultipartUploadCommand(call))
    } catch (error) {
      // The SDK tries again when an answer is lost, and the second try of a completed upload fails: look.
      const head = client.send(new HeadObjectCommand({ Bucket, Key: this.#key }))
      const { ContentLength } = await head.catch(() => ({ ContentLength: undefined }))
      if (ContentLength !== this.#total) await answered(Promise.reject(error))
    }
  }
}

/** One PutObject. The server checks the bytes against the hash; AWS also keeps it with the object. */
export async function putObject({ client, bucket }: S3Connection, key: string, bytes: Buffer): Promise<void> {
  const hash = await sha256(bytes)
  const call = { Bucket: bucket, Key: key, Body: bytes, ChecksumSHA256: hash.toString('base64') }
  await answered(client.send(withPayloadHash(new PutObjectCommand(call), hash.toString('hex'))))
}

let hashing: Promise<unknown> = Promise.resolve()

/**
 * WebCrypto hashes in the thread pool, while this thread goes on receiving and hashing other bytes. One at a time, since
 * it copies what it hashes.
 */
async function sha256(bytes: Buffer): Promise<Buffer> {
  const hash = hashing.then(() => subtle.digest('SHA-256', bytes))
  hashing = hash
  return Buffer.from(await hash)
}

/** Tells the signer the hash of the body, which it would otherwise compute itself, on this thread. */
function withPayloadHash<T extends PutObjectCommand | UploadPartCommand>(command: T, hash: string): T {
  const stack = command.middlewareStack as unknown as S3Client['middlewareStack']
  stack.add(
    (next) => (args) => {
      const request = args.request as { headers: Record<string, string> }
      request.headers['x-amz-content-sha256'] = hash
      return next(args)
    },
    { step: 'build', name: 'payloadHash' },
  )
  return command
}
