import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CopyObjectCommand,
  CreateMultipartUploadCommand,
  HeadObjectCommand,
  UploadPartCopyCommand,
} from '@aws-sdk/client-s3'
import { answered, found, type S3Connection } from './s3-connection.ts'

const GiB = 1024 ** 3
const partsAtOnce = 4
const maxParts = 10_000

/** Sizes from which objects are copied in parts, and of the parts: S3's limit is 5 GiB, tests use less. */
export type MultipartCopy = { aboveBytes?: number; partBytes?: number }

/** Copies within the bucket, on the server. Throws an Error where there is no source. */
export async function copyObject(
  s3: S3Connection,
  from: string,
  to: string,
  { aboveBytes = 5 * GiB, partBytes = GiB }: MultipartCopy = {},
): Promise<void> {
  const { client, bucket: Bucket } = s3
  const source = encodeURI(`${Bucket}/${from}`)
  const size = (await found(client.send(new HeadObjectCommand({ Bucket, Key: from }))))?.ContentLength
  if (size === undefined) throw new Error(`there is no object at ${from}`)
  if (size <= aboveBytes) {
    await answered(client.send(new CopyObjectCommand({ Bucket, Key: to, CopySource: source })))
  } else {
    await answered(copyInParts(s3, source, to, size, Math.max(partBytes, Math.ceil(size / maxParts))))
  }
}

async function copyInParts(
  { client, bucket: Bucket }: S3Connection,
  source: string,
  to: string,
  size: number,
  partBytes: number,
): Promise<void> {
  const { UploadId } = await client.send(new CreateMultipartUploadCommand({ Bucket, Key: to }))
  const upload = { Bucket, Key: to, UploadId }
  const cancel = new AbortController()
  const Parts = Array.from({ length: Math.ceil(size / partBytes) }, (_, index) => ({
    PartNumber: index + 1,
    ETag: undefined as string | undefined,
  }))
  const rest = Parts.values()
  const copySome = async () => {
    // The copiers share one iterator: each part goes to whoever is free.
    for (const part of rest) {
      const first = (part.PartNumber - 1) * partBytes
      const CopySourceRange = `bytes=${first}-${Math.min(size, first + partBytes) - 1}`
      const call = { ...upload, PartNumber: part.PartNumber, CopySource: source, CopySourceRange }
      const answer = await client.send(new UploadPartCopyCommand(call), { abortSignal: cancel.signal })
      part.ETag = answer.CopyPartResult?.ETag
    }
  }
  const copiers = Array.from({ length: partsAtOnce }, copySome)
  try {
    await Promise.all(copiers)
    await client.send(new CompleteMultipartUploadCommand({ ...upload, MultipartUpload: { Parts } }))
  } catch (error) {
    cancel.abort()
    await Promise.allSettled(copiers)
    await client.send(new AbortMultipartUploadCommand(upload)).catch(() => {})
    throw error
  }
}
