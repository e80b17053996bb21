import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import type { Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import { openBlob } from '../remote/blobs.ts'
import type { Remote } from '../remote/remote.ts'
import { storeContent } from './blobs.ts'

/** A blob of `place` at a remote, to be readable in `repository` here. */
export type Fetch = { repository: RepositoryName; place: RepositoryName; digest: Digest }

/**
 * Stores a blob from a remote, hashed as it comes, so that it is visible when it is whole and right, or not at all.
 * Answers its size; undefined where the remote does not have it. Throws REMOTE_INVALID where the bytes are others.
 */
export async function fetchBlob(
  deps: Deps,
  remote: Remote,
  { repository, place, digest }: Fetch,
  { signal }: { signal?: AbortSignal | undefined } = {},
): Promise<number | undefined> {
  const blob = await openBlob(remote, place, digest, { signal })
  if (!blob) return undefined
  try {
    await storeContent(deps, { repository, digest, body: blob })
  } catch (error) {
    throw blamed(error, `${remote.url.host} sends other bytes for ${digest} of ${place} than the digest says`)
  } finally {
    blob.stream.destroy()
  }
  return (await deps.together.linkedBlob.load({ repository, digest }))?.size ?? 0
}

/** A failure of the stream's is the remote's, whatever the store made of it; so are wrong bytes. */
function blamed(error: unknown, words: string): unknown {
  if (!(error instanceof Failure)) return error
  if (error.key === 'DIGEST_INVALID' || error.key === 'SIZE_INVALID')
    return new Failure('REMOTE_INVALID', { detail: `${words}; nothing of it was kept`, cause: error })
  return error.key === 'BLOB_UPLOAD_INVALID' && error.cause instanceof Failure ? error.cause : error
}
