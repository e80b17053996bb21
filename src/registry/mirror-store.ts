import { Failure } from '../errors.ts'
import type { Digest } from '../oci/digest.ts'
import { blobSizes, parseManifest } from '../oci/manifest.ts'
import type { Tag } from '../oci/reference.ts'
import { type PackId, repositoryOf } from '../packs/pack.ts'
import { getManifest, type RemoteManifest } from '../remote/manifests.ts'
import { confirmBlob, mount } from './blobs.ts'
import { type Fetch, fetchBlob } from './fetch-blob.ts'
import { putManifest } from './manifests.ts'
import { type Mirroring, manifestHere, placeOf, remember } from './mirroring.ts'

/** `mostDeep`: of indexes in indexes. `mostMembers`: of one index, at any depth. */
type TreeLimits = { mostDeep: number; mostMembers: number }
const treeLimits: TreeLimits = { mostDeep: 8, mostMembers: 50_000 }

/**
 * A manifest with all it stands on: members of an index and blobs first. Throws REMOTE_INVALID where an index is larger
 * or deeper than any is: those can be made without end, and each member is asked for.
 */
export function storeTree(
  run: Mirroring,
  packId: PackId,
  manifest: RemoteManifest,
  tag: Tag | undefined,
  limits = treeLimits,
): Promise<void> {
  return storeBelow(run, packId, { manifest, tag, depth: 0 }, { seen: new Set(), limits })
}

type Node = { manifest: RemoteManifest; tag: Tag | undefined; depth: number }

async function storeBelow(
  run: Mirroring,
  packId: PackId,
  { manifest: { digest, mediaType, bytes }, tag, depth }: Node,
  walk: { seen: Set<Digest>; limits: TreeLimits },
): Promise<void> {
  const { remote, report, deps } = run
  const repository = repositoryOf(packId)
  const place = placeOf(run, packId)
  const manifest = parseManifest(bytes, mediaType || undefined)
  for (const child of manifest.children) {
    if (walk.seen.has(child)) continue
    walk.seen.add(child)
    if (walk.seen.size > walk.limits.mostMembers || depth >= walk.limits.mostDeep) throw tooLarge(digest, walk.limits)
    if (await manifestHere(run, repository, child, 'all')) continue
    // An index may list what its registry does not have.
    const member = await getManifest(remote, place, child, run)
    if (member) await storeBelow(run, packId, { manifest: member, tag: undefined, depth: depth + 1 }, walk)
  }
  const sizes = blobSizes(bytes)
  for (const blob of manifest.blobs) await storeBlob(run, { repository, place, digest: blob, size: sizes.get(blob) })
  await putManifest(deps, {
    repository,
    // By its digest with a tag: a tag alone would not say by which algorithm.
    reference: { digest },
    contentType: mediaType || undefined,
    bytes,
    extraTags: tag === undefined ? [] : [tag],
    ifMatch: undefined,
    allowMissing: true,
  })
  report.moved.manifests++
  report.moved.bytes += bytes.length
}

function tooLarge(digest: Digest, { mostDeep, mostMembers }: TreeLimits): Failure {
  return new Failure('REMOTE_INVALID', {
    detail: `the index ${digest} is too large: no more than ${mostMembers} members are taken, in indexes ${mostDeep} deep`,
  })
}

async function storeBlob(run: Mirroring, fetch: Fetch): Promise<void> {
  const { repository, place, digest } = fetch
  const { deps, remote, report, places } = run
  const here = await confirmBlob(deps, repository, digest)
  const from = places.get(digest)
  if (!here && from && (await mount(deps, { from, to: repository, digest }, () => true))) {
    report.moved.mounted++
    return
  }
  if (!here) {
    const key = `${repository}@${digest}`
    const size = await fetchBlob(deps, remote, fetch, {
      signal: run.signal,
      session: run.sessions.get(key),
      async onSession(session) {
        run.sessions.set(key, session)
        await run.keepSessions()
      },
    })
    run.sessions.delete(key)
    if (size === undefined)
      throw new Failure('REMOTE_INVALID', {
        detail: `${remote.url.host} lacks ${digest}, which a manifest of ${place} needs`,
      })
    report.moved.blobs++
    report.moved.bytes += size
  }
  if (!from) remember(run, digest, repository)
  deps.log.debug({ repository, digest, from: remote.url.host }, 'blob mirrored')
}
