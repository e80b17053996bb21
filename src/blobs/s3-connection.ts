import { Agent } from 'node:http'
import { Agent as TlsAgent } from 'node:https'
import { HeadBucketCommand, S3Client } from '@aws-sdk/client-s3'
import { NodeHttpHandler } from '@smithy/node-http-handler'
import { Failure, unavailable } from '../errors.ts'

/** Which bucket, and how to reach it. Credentials come from the AWS SDK's usual chain. */
export type S3Location = {
  bucket: string
  /** Put before every key; empty, or ending in `/`. */
  prefix?: string
  /** An S3-compatible server; AWS itself where there is none. */
  endpoint?: string | undefined
  region?: string | undefined
  /** Address objects as endpoint/bucket/key rather than bucket.endpoint/key. */
  pathStyle?: boolean
  /** How long S3 may let a request, or an object being read, stand without one byte moving. Transfers have no limit. */
  idleTimeoutMs?: number
  /** How long S3 may be silent while it copies an object, or a part of one, itself: nothing moves until it is done. */
  copyTimeoutMs?: number
  connectTimeoutMs?: number
}

export type S3Connection = {
  bucket: string
  prefix: string
  /** The server, in words. */
  where: string
  /** Reached over TLS. */
  secure: boolean
  idleTimeoutMs: number
  client: S3Client
  /** For reading objects: a reader may be slow, so it has sockets of its own and the time-out is ours (`s3.ts`). */
  downloads: S3Client
  /** For what S3 copies within itself. */
  copies: S3Client
}

const sockets = 128

export function connect(location: S3Location): S3Connection {
  const { bucket, prefix = '', endpoint, region, pathStyle = false } = location
  // A part of a copy (128 MiB, see s3-copy.ts) is done in time by a server that copies 1 MiB/s.
  const { idleTimeoutMs = 10_000, copyTimeoutMs = 128_000, connectTimeoutMs = 3_000 } = location
  const options = (timeouts: { socketTimeout: number; requestTimeout?: number; throwOnRequestTimeout?: boolean }) => ({
    ...(endpoint && { endpoint }),
    ...((region || endpoint) && { region: region || 'us-east-1' }),
    forcePathStyle: pathStyle,
    // The SDK's own default, trailing checksums, is refused by Ceph 16 and others. What we know we send ourselves.
    requestChecksumCalculation: 'WHEN_REQUIRED' as const,
    responseChecksumValidation: 'WHEN_REQUIRED' as const,
    expectContinueHeader: false,
    maxAttempts: 2,
    requestHandler: new NodeHttpHandler({
      connectionTimeout: connectTimeoutMs,
      ...timeouts,
      httpAgent: new Agent({ keepAlive: true, maxSockets: sockets }),
      httpsAgent: new TlsAgent({ keepAlive: true, maxSockets: sockets }),
    }),
  })
  return {
    bucket,
    prefix,
    where: endpoint ?? 'AWS',
    secure: !endpoint?.startsWith('http:'),
    idleTimeoutMs,
    client: new S3Client(options({ socketTimeout: idleTimeoutMs })),
    // The socket time-out goes on counting while a reader is not ready for more, so here it ends with the headers.
    downloads: new S3Client(options({ socketTimeout: 0, requestTimeout: idleTimeoutMs, throwOnRequestTimeout: true })),
    copies: new S3Client(options({ socketTimeout: copyTimeoutMs })),
  }
}

/** Whatever S3 fails or refuses to do is a store that is unavailable. */
export async function answered<T>(call: Promise<T>): Promise<T> {
  try {
    return await call
  } catch (error) {
    throw error instanceof Failure ? error : unavailable('blob store', error)
  }
}

/** What S3 answers, or undefined where there is no such object. */
export async function found<T>(call: Promise<T>): Promise<T | undefined> {
  try {
    return await call
  } catch (error) {
    if (isAbsence(error)) return undefined
    throw unavailable('blob store', error)
  }
}

export function isAbsence(error: unknown): boolean {
  return error instanceof Error && (error.name === 'NoSuchKey' || error.name === 'NotFound')
}

/** Throws an Error that says what to do where the bucket cannot be used. `write` puts and deletes a probe. */
export async function checkBucket({ client, bucket, where }: S3Connection, write: () => Promise<void>): Promise<void> {
  let doing = 'reading'
  try {
    await client.send(new HeadBucketCommand({ Bucket: bucket }))
    doing = 'writing'
    await write()
  } catch (error) {
    const reason = explain(error instanceof Failure ? error.cause : error, doing)
    throw new Error(`cannot keep blobs in the bucket ${bucket} at ${where}: ${reason}`, { cause: error })
  }
}

function explain(error: unknown, doing: string): string {
  const { name, message, $metadata } = error as Error & { $metadata?: { httpStatusCode?: number } }
  const status = $metadata?.httpStatusCode
  if (name === 'CredentialsProviderError') {
    return 'no credentials found. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give this machine a role'
  }
  if (name === 'Error' && message === 'Region is missing') return 'no region given. Add region=… to BLOB_STORE'
  if (status === 404) return 'there is no such bucket. Create it, or name another one in BLOB_STORE'
  if (status === 403 || status === 401) {
    return `${doing} is refused to these credentials. Check the access key, and that it may read, write, delete and list`
  }
  if (status === 301 || status === 400)
    return `the server refuses (${name}). Check region, endpoint and pathStyle in BLOB_STORE`
  if (status === undefined) return `no answer (${message || name}). Check the endpoint in BLOB_STORE, and that it runs`
  return `${doing} failed (${name}, HTTP ${status})`
}
