import { startS3 } from '../../src/testing/s3.ts'
import { atEnd } from './cleanup.ts'

export type BenchStore = {
  readonly env: Record<string, string>
  /** For how many bytes there is room. */
  readonly room: number
  /** Whether the bytes of a cancelled upload make room for others soon. */
  readonly frees: boolean
}

/** Ceph of scripts/services holds 4 GiB in memory, and collects what was cancelled hours later. */
const cephRoom = 3 * 2 ** 30

/**
 * The settings for an S3 store: the one that is named (with credentials in the environment, as the AWS SDK finds them),
 * else a Ceph on loopback that lives in memory. Undefined where there is none.
 */
export async function openS3ForBench(named: string | undefined): Promise<BenchStore | undefined> {
  if (named !== undefined) return { env: { BLOB_STORE: named }, room: Number.POSITIVE_INFINITY, frees: true }
  const s3 = await startS3()
  if (s3 === undefined) return undefined
  atEnd(() => s3.stop())
  const env = {
    BLOB_STORE: `s3://${s3.bucket}?endpoint=${s3.endpoint}&region=us-east-1&pathStyle=true`,
    AWS_ACCESS_KEY_ID: s3.accessKey,
    AWS_SECRET_ACCESS_KEY: s3.secretKey,
  }
  return { env, room: cephRoom, frees: false }
}
