import { execFile } from 'node:child_process'
import { accessSync, constants, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3'
import { freePort } from '../../scripts/services/processes.ts'

const run = promisify(execFile)
const script = fileURLToPath(new URL('../../scripts/services/ceph-s3.sh', import.meta.url))
const programs = ['radosgw', 'ceph-mon', 'ceph-osd', 'ceph', 'radosgw-admin', 'monmaptool']

/** Why tests that need `startS3` are skipped, in the words a reader of the test output needs. */
export const noS3 = 'no S3 server: apt-get install --no-install-recommends radosgw ceph-mon ceph-osd ceph-common'

export type TestS3 = {
  endpoint: string
  accessKey: string
  secretKey: string
  /** Exists and is empty. */
  bucket: string
  /** Requests are taken and not answered, until `thaw`. */
  freeze(): Promise<void>
  thaw(): Promise<void>
  /** The server is killed and starts again; what it had acknowledged is kept. */
  restart(): Promise<void>
  stop(): Promise<void>
}

/**
 * A real S3 server (Ceph's radosgw) on loopback, for one test file. Undefined where its programs are not installed;
 * with REQUIRE_S3=1 that is an Error, so that a pipeline cannot pass by skipping. What the environment has of somebody's
 * own credentials, e.g. AWS_PROFILE, is forgotten: it would be used in place of this server's.
 */
export async function startS3(): Promise<TestS3 | undefined> {
  if (!programs.every(isInstalled)) {
    if (process.env.REQUIRE_S3 === '1') throw new Error(`REQUIRE_S3=1, but ${noS3}`)
    return undefined
  }
  for (const name of Object.keys(process.env)) if (name.startsWith('AWS_')) delete process.env[name]
  const [accessKey, secretKey, bucket] = ['test-access-key', 'test-secret-key', 'blobs']
  const dir = mkdtempSync(join(tmpdir(), 'ceph-s3-'))
  const ceph = (command: string, ...args: string[]) => run('bash', [script, command, dir, ...args])
  const stop = async () => {
    await ceph('down')
    rmSync(dir, { recursive: true, force: true })
  }
  try {
    const port = await freePort(2)
    await ceph('up', String(port), accessKey, secretKey, String(process.pid))
    const endpoint = `http://127.0.0.1:${port}`
    const credentials = { accessKeyId: accessKey, secretAccessKey: secretKey }
    const client = new S3Client({ endpoint, region: 'us-east-1', forcePathStyle: true, credentials })
    await client.send(new CreateBucketCommand({ Bucket: bucket }))
    client.destroy()
    return {
      endpoint,
      accessKey,
      secretKey,
      bucket,
      freeze: async () => void (await ceph('freeze')),
      thaw: async () => void (await ceph('thaw')),
      restart: async () => void (await ceph('restart-rgw')),
      stop,
    }
  } catch (error) {
    await stop()
    throw error
  }
}

function isInstalled(program: string): boolean {
  return (process.env.PATH ?? '').split(':').some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}
