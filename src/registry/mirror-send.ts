import { repositoriesWithBlob } from '../db/blobs.ts'
import { askRead } from '../db/client.ts'
import { Failure } from '../errors.ts'
import type { Digest } from '../oci/digest.ts'
import { parseManifest } from '../oci/manifest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Tag } from '../oci/reference.ts'
import { type PackId, packIdOf, repositoryOf } from '../packs/pack.ts'
import { blobSize } from '../remote/blobs.ts'
import { hasManifest, putManifest } from '../remote/manifests.ts'
import { uploadBlob } from '../remote/uploads.ts'
import { gone } from './damage.ts'
import { type Mirroring, manifestHere, placeOf, remember } from './mirroring.ts'

/** A manifest with all it stands on. Answers whether the remote took it for a referrer, where it is one. */
export async function pushTree(
  run: Mirroring,
  packId: PackId,
  digest: Digest,
  reference: Tag | Digest,
): Promise<{ subjectTaken: boolean }> {
  const { deps, remote, report } = run
  const repository = repositoryOf(packId)
  const place = placeOf(run, packId)
  const stored = await manifestHere(run, repository, digest)
  const bytes = stored?.payload
  if (!stored || !bytes) throw new Failure('MANIFEST_UNKNOWN', { detail: `${digest} was deleted meanwhile` })
  const manifest = parseManifest(bytes, stored.mediaType)
  for (const child of manifest.children) {
    // An index may list what is not here.
    if (!(await manifestHere(run, repository, child, 'all')) || (await hasManifest(remote, place, child, run))) continue
    await pushTree(run, packId, child, child)
  }
  for (const blob of manifest.blobs) await pushBlob(run, repository, place, blob)
  const put = await putManifest(remote, place, reference, { mediaType: stored.mediaType, bytes }, run)
  report.moved.manifests++
  report.moved.bytes += bytes.length
  deps.log.debug({ place, reference, digest }, 'mirrored')
  return put
}

async function pushBlob(
  run: Mirroring,
  repository: RepositoryName,
  place: RepositoryName,
  digest: Digest,
): Promise<void> {
  const { deps, remote, report, sessions, signal } = run
  if (run.places.get(digest) === place) return
  if ((await blobSize(remote, place, digest, { signal })) !== undefined) return remember(run, digest, place)
  const blob = await deps.together.linkedBlob.load({ repository, digest })
  if (!blob) throw await gone(deps, digest)
  const source = {
    digest,
    size: blob.size,
    async *open(range: { first: number; last: number }) {
      const stream = await deps.blobs.open(blob.key, range)
      if (!stream) throw await gone(deps, digest, blob)
      yield* stream
    },
  }
  const key = `${place}@${digest}`
  const outcome = await uploadBlob(remote, place, source, {
    from: await siblingOf(run, repository, place, digest),
    session: sessions.get(key),
    signal,
    async onSession(session) {
      sessions.set(key, session)
      await run.keepSessions()
    },
  })
  sessions.delete(key)
  remember(run, digest, place)
  if (outcome === 'mounted') report.moved.mounted++
  else {
    report.moved.blobs++
    report.moved.bytes += blob.size
  }
}

/** Another repository there that has the blob, or should have it because its pack here does. */
async function siblingOf(
  run: Mirroring,
  repository: RepositoryName,
  place: RepositoryName,
  digest: Digest,
): Promise<RepositoryName | undefined> {
  const known = run.places.get(digest)
  if (known && known !== place) return known
  for (const name of await askRead(run.deps.db, (sql) => repositoriesWithBlob(sql, digest, 3))) {
    const packId = packIdOf(name)
    if (!packId || name === repository) continue
    const sibling = placeOf(run, packId)
    if ((await blobSize(run.remote, sibling, digest, run)) !== undefined) return sibling
  }
  return undefined
}
