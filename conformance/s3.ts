import assert from 'node:assert/strict'
import { ListMultipartUploadsCommand, ListObjectsV2Command, S3Client } from '@aws-sdk/client-s3'
import { startS3 } from '../src/testing/s3.ts'

export type ObjectStore = Awaited<ReturnType<typeof startObjectStore>>

/** A real S3 server, the settings that point a registry at it, and a view into its bucket. */
export async function startObjectStore() {
  const s3 = await startS3()
  assert.ok(s3, 'these tests need the S3 server that scripts/services/clients.sh installs')
  const client = new S3Client({
    endpoint: s3.endpoint,
    region: 'us-east-1',
    forcePathStyle: true,
    credentials: { accessKeyId: s3.accessKey, secretAccessKey: s3.secretKey },
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
  })
  return {
    ...s3,
    /** Settings of a server that keeps its blobs under `prefix`. */
    env: (prefix: string) => ({
      BLOB_STORE: `s3://${s3.bucket}/${prefix}?endpoint=${s3.endpoint}&region=us-east-1&pathStyle=true`,
      AWS_ACCESS_KEY_ID: s3.accessKey,
      AWS_SECRET_ACCESS_KEY: s3.secretKey,
    }),
    async objects(prefix: string): Promise<string[]> {
      const found: string[] = []
      for (let next: string | undefined, more = true; more; more = next !== undefined) {
        const page = await client.send(
          new ListObjectsV2Command({ Bucket: s3.bucket, Prefix: `${prefix}/`, ContinuationToken: next }),
        )
        found.push(...(page.Contents ?? []).map((object) => object.Key ?? ''))
        next = page.NextContinuationToken
      }
      return found
    },
    /** Multipart uploads that were begun and neither completed nor aborted. */
    async halfDone(): Promise<string[]> {
      const { Uploads = [] } = await client.send(new ListMultipartUploadsCommand({ Bucket: s3.bucket }))
      return Uploads.map((upload) => upload.Key ?? '')
    },
    async stop() {
      client.destroy()
      await s3.stop()
    },
  }
}
