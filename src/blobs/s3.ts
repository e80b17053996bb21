import { randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import {
  DeleteObjectCommand,
  DeleteObjectsCommand,
  GetObjectCommand,
  HeadBucketCommand,
  HeadObjectCommand,
  paginateListObjectsV2,
} from '@aws-sdk/client-s3'
import { getSignedUrl } from '@aws-sdk/s3-request-presigner'
import { unavailable } from '../errors.ts'
import { type ObjectKey, storedKey } from './keys.ts'
import { answered, checkBucket, connect, found, type S3Connection, type S3Location } from './s3-connection.ts'
import { copyObject, type MultipartCopy } from './s3-copy.ts'
import { Leftovers, unfinished } from './s3-leftovers.ts'
import { putObject, S3Upload } from './s3-upload.ts'
import { type BlobStore, type ByteRange, NotDeleted } from './store.ts'

const deleteBatch = 1000
const pingTimeoutMs = 3_000

/**
 * A store in a bucket of S3 or of a server that speaks its protocol (tried with Ceph 16).
 * Throws an Error in words where the bucket cannot be reached, read or written.
 */
export async function openS3Store(location: S3Location, copying: MultipartCopy = {}): Promise<BlobStore> {
  const s3 = connect(location)
  const { client, bucket: Bucket, prefix } = s3
  const at = (key: ObjectKey) => ({ Bucket, Key: prefix + key })
  const leftovers = new Leftovers(s3)
  const close = async () => {
    leftovers.close()
    client.destroy()
    s3.downloads.destroy()
    s3.copies.destroy()
  }

  async function remove(keys: readonly ObjectKey[]): Promise<void> {
    const reasons = new Map<ObjectKey, string>()
    for (let first = 0; first < keys.length; first += deleteBatch) {
      const Objects = keys.slice(first, first + deleteBatch).map((key) => ({ Key: prefix + key }))
      // Every server takes Content-MD5 for this call; the CRC32 the SDK would send is newer than some.
      const call = { Bucket, Delete: { Quiet: true, Objects }, ChecksumAlgorithm: 'MD5' as const }
      const { Errors = [] } = await answered(client.send(new DeleteObjectsCommand(call)))
      for (const { Key = '', Code = '' } of Errors)
        if (Code !== 'NoSuchKey') reasons.set(storedKey(Key.slice(prefix.length)), Code)
    }
    if (reasons.size > 0) throw unavailable('blob store', new NotDeleted(reasons))
  }

  try {
    const probe = storedKey(`probe-${randomBytes(9).toString('base64url')}`)
    await checkBucket(s3, async () => {
      await putObject(s3, prefix + probe, Buffer.from('probe'))
      await client.send(new DeleteObjectCommand(at(probe)))
    })
  } catch (error) {
    await close()
    throw error
  }

  return {
    description: `bucket ${Bucket} at ${s3.where}`,
    put: (key, bytes) => leftovers.guard(prefix + key, () => putObject(s3, prefix + key, bytes)),
    async putStream(key, source, handlers) {
      const upload = new S3Upload(s3, prefix + key)
      const run = () => upload.run(source, handlers)
      return leftovers.guard(prefix + key, run, () => upload.abort())
    },
    link: (from, to) => leftovers.guard(prefix + to, () => copyObject(s3, prefix + from, prefix + to, copying)),
    async read(key) {
      const body = await open(s3, at(key))
      return body && answered(buffer(body))
    },
    open: (key, range) => open(s3, at(key), range),
    presign: (key, { expiresInSeconds }) =>
      answered(getSignedUrl(client, new GetObjectCommand(at(key)), { expiresIn: expiresInSeconds })),
    async size(key) {
      return (await found(client.send(new HeadObjectCommand(at(key)))))?.ContentLength
    },
    delete: remove,
    list: (under) => list(s3, under),
    unfinished: (before) => unfinished(s3, before),
    async ping() {
      const abortSignal = AbortSignal.timeout(Math.min(pingTimeoutMs, s3.idleTimeoutMs))
      await answered(client.send(new HeadBucketCommand({ Bucket }), { abortSignal }))
    },
    close,
  }
}

async function* list({ client, bucket: Bucket, prefix }: S3Connection, under: string): ReturnType<BlobStore['list']> {
  const pages = paginateListObjectsV2({ client }, { Bucket, Prefix: prefix + under })[Symbol.asyncIterator]()
  for (let page = await answered(pages.next()); !page.done; page = await answered(pages.next())) {
    for (const { Key = '', Size = 0, LastModified = new Date(0) } of page.value.Contents ?? []) {
      yield { key: storedKey(Key.slice(prefix.length)), size: Size, modifiedAt: LastModified }
    }
  }
}

async function open(
  { downloads, idleTimeoutMs }: S3Connection,
  object: { Bucket: string; Key: string },
  range?: ByteRange,
): Promise<Readable | undefined> {
  const part = range && { Range: `bytes=${range.first}-${range.last}` }
  const get = downloads.send(new GetObjectCommand({ ...object, ...part })).catch((error: Error) => {
    // Nothing of the range exists: no bytes, as a file gives.
    if (error.name === 'InvalidRange') return { Body: Readable.from([]) }
    throw error
  })
  const body = (await found(get))?.Body as Readable | undefined
  if (body) watch(body, idleTimeoutMs)
  return body
}

/**
 * Ends a body that has stopped arriving: none buffered at two looks, and not a byte between them. Where the reader takes
 * its time some is buffered, and the body may stand; right after such a reader has gone on, one look could mistake it.
 */
function watch(body: Readable, idleTimeoutMs: number): void {
  const socket = (body as Readable & { socket?: { bytesRead: number } }).socket
  let empty = false
  let arrived = 0
  const timer = setInterval(() => {
    const before = { empty, arrived }
    empty = body.readableLength === 0
    arrived = socket?.bytesRead ?? 0
    if (empty && before.empty && arrived === before.arrived) {
      body.destroy(unavailable('blob store', new Error(`no byte from S3 for ${idleTimeoutMs} ms`)))
    }
  }, idleTimeoutMs)
  timer.unref()
  body.once('close', () => clearInterval(timer))
}
