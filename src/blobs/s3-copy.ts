import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CopyObjectCommand,
  CreateMultipartUploadCommand,
  HeadObjectCommand,
  UploadPartCopyCommand,
} from '@aws-sdk/client-s3'
import { answered, found, type S3Connection } from './s3-connection.ts'

const MiB = 1024 * 1024
const partsAtOnce = 4
const maxParts = 10_000

/**
 * Objects larger than a part are copied in parts, some at once: a server says nothing while it copies, so one call must
 * not take long (see `copyTimeoutMs` of the location). S3 itself would copy up to 5 GiB in one.
 */
export type MultipartCopy = { partBytes?: number }

/** Copies within the bucket, on the server; false where there is no source. */
export async function copyObject(
  s3: S3Connection,
  from: string,
  to: string,
  { partBytes = 128 * MiB }: MultipartCopy = {},
): Promise<boolean> {
  const { client, copies, bucket: Bucket } = s3
  const source = [Bucket, ...from.split('/')].map(encodeURIComponent).join('/')
  const size = (await found(client.send(new HeadObjectCommand({ Bucket, Key: from }))))?.ContentLength
  if (size === undefined) return false
  if (size <= partBytes) {
    const copied = await found(copies.send(new CopyObjectCommand({ Bucket, Key: to, CopySource: source })))
    return copied !== undefined
  }
  await answered(copyInParts(s3, source, to, size, Math.max(partBytes, Math.ceil(size / maxParts))))
  return true
}

async function copyInParts(
  { client, copies, bucket: Bucket }: S3Connection,
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
      const answer = await copies.send(new UploadPartCopyCommand(call), { abortSignal: cancel.signal })
      part.ETag = answer.CopyPartResult?.ETag
    }
  }
  const copiers = Array.from({ length: partsAtOnce }, copySome)
  try {
    await Promise.all(copiers)
    await copies.send(new CompleteMultipartUploadCommand({ ...upload, MultipartUpload: { Parts } }))
  } catch (error) {
    cancel.abort()
    await Promise.allSettled(copiers)
    await client.send(new AbortMultipartUploadCommand(upload)).catch(() => {})
    throw error
  }
}
