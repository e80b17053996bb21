import { join } from 'node:path'
import { findPostmaster } from './embedded-postmaster.ts'
import { socketUrl } from './embedded-url.ts'

/**
 * The address of the embedded PostgreSQL that a running PacksRegistry has on `<dataDir>/postgres`, for a command that works
 * beside it; undefined where none runs. It goes away with its owner.
 */
export async function runningUrl(dataDir: string): Promise<string | undefined> {
  const postmaster = await findPostmaster(join(dataDir, 'postgres'))
  return postmaster?.status === 'ready' ? socketUrl(postmaster.socketFolder) : undefined
}
