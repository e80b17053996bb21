import type { LinkedBlob } from '../db/blobs.ts'
import type { Transaction } from '../db/client.ts'
import { type NewEvent, recordEvents } from '../db/events.ts'
import { findRelease, insertVersion, lockDependencies, lockPack, refreshPack, versionsOfManifest } from '../db/packs.ts'
import { lockTag, type TagNow, tagsNow } from '../db/tags.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import type { Descriptor } from '../oci/descriptor.ts'
import type { Digest } from '../oci/digest.ts'
import type { Manifest } from '../oci/manifest.ts'
import type { Tag } from '../oci/reference.ts'
import { type Artifact, type Content, configOf, readArtifact } from '../packs/artifact.ts'
import { type Carried, carriedBy } from '../packs/bundle.ts'
import { roleOf } from '../packs/channel.ts'
import { type PackId, packIdOf, repositoryOf } from '../packs/pack.ts'
import type { Version } from '../packs/version.ts'
import { readSmall } from './blobs.ts'
import { movingChannels } from './channels.ts'
import { requireDependencies } from './dependencies.ts'
import type { Push } from './manifests.ts'
import { published } from './pack-events.ts'
import type { MayPull } from './resolve.ts'

// The rules of packs, the same whoever writes and by whichever door: every manifest of a repository under packs/ comes
// through here, in the transaction that stores it.
//
// Locks, always in this order: the pack's row (all changes to its versions take turns), then, where dependencies are
// concerned, one lock for all packs (publishing what depends on others, bundles above all, and deleting: neither sees the
// other half done), then whatever the statements lock. A version that two publish at once is there once: the second, when its turn
// comes, finds the release taken.

/** A push to the repository of a pack, read by the rules. */
export type PackPush = {
  packId: PackId
  /** `carried`: the packs that a bundle brings along, where it is an index. */
  versions: { version: Version; artifact: Artifact; content: Content; carried: Carried[] }[]
  channels: Tag[]
  /** It belongs to another manifest, as signatures do: it may have a name that is no channel. */
  isReferrer: boolean
  /** The client pushed `latest`: taken where it is what `latest` names anyway. */
  latest: boolean
  /** Tags that are stored as they are. */
  tags: Tag[]
  allowMissing: boolean
  mayPull: MayPull | undefined
}

/**
 * What a push to a pack's repository means. Reads the config blob, not the content.
 * Throws NAME_INVALID, TAG_INVALID, MANIFEST_INVALID, MANIFEST_BLOB_UNKNOWN, each with what to fix.
 */
export async function readPack(
  deps: Deps,
  push: Push,
  digest: Digest,
  manifest: Manifest,
  tags: readonly Tag[],
): Promise<PackPush> {
  const packId = packIdOf(push.repository)
  if (!packId)
    throw new Failure('NAME_INVALID', {
      detail: `under packs/ stands the id of a pack, and nothing below it: ${push.repository} has more than that`,
    })
  const pack: PackPush = {
    packId,
    versions: [],
    channels: [],
    isReferrer: manifest.subject !== undefined,
    latest: false,
    tags: [],
    allowMissing: push.allowMissing ?? false,
    mayPull: push.mayPull,
  }
  for (const tag of tags) {
    const role = roleOf(tag)
    if (role.kind === 'malformed')
      throw new Failure('TAG_INVALID', {
        detail: `the tag ${tag} looks like a version but is none by Semantic Versioning 2.0; write it as 1.2.3 or 1.2.3-rc.1, without a "v"`,
      })
    if (role.kind === 'latest') pack.latest = true
    else pack.tags.push(tag)
    // Whether it has a subject is no matter here: anybody can write one into a manifest.
    if (role.kind === 'version')
      pack.versions.push(await readVersion(deps, push, digest, manifest, packId, role.version))
    else if (role.kind === 'channel') pack.channels.push(tag)
  }
  return pack
}

/**
 * Reads a manifest as a version of a pack. Throws MANIFEST_INVALID, MANIFEST_BLOB_UNKNOWN, each with what to fix.
 */
export async function readVersion(
  deps: Deps,
  push: Pick<Push, 'repository' | 'bytes'>,
  digest: Digest,
  { mediaType }: Pick<Manifest, 'mediaType'>,
  packId: PackId,
  version: Version,
): Promise<PackPush['versions'][number]> {
  const { bytes } = push
  const document: unknown = JSON.parse(bytes.toString())
  const config = configOf(document)
  // Small by what the manifest says, so it is read only where that is true.
  const configBytes = config && (await readSmall(deps, config.digest, await linkedAs(deps, push, config, 'config')))
  const artifact = readArtifact(document, configBytes, { packId, version })
  const { content } = artifact
  // A bundle that is an index has no content but its members.
  if (!content)
    return { version, artifact, content: { digest, size: bytes.length, mediaType }, carried: carriedBy(bytes) }
  await linkedAs(deps, push, content, 'content')
  return { version, artifact, content, carried: [] }
}

/** A blob that a manifest names, which the repository has with the size that the manifest says. `what`: for people. */
async function linkedAs(
  deps: Deps,
  { repository }: Pick<Push, 'repository'>,
  { digest, size }: Pick<Descriptor, 'digest' | 'size'>,
  what: 'config' | 'content',
): Promise<LinkedBlob> {
  const blob = await deps.together.linkedBlob.load({ repository, digest })
  if (!blob) throw new Failure('MANIFEST_BLOB_UNKNOWN', { detail: { digests: [digest] } })
  if (blob.size !== size)
    throw new Failure('MANIFEST_INVALID', {
      detail: `the manifest says that the ${what} has ${size} bytes; it has ${blob.size}`,
    })
  return blob
}

/** `insert` stores a manifest with these tags; `requireMoved` throws DENIED where one of them could not be moved to it. */
type Store = {
  insert(tags: readonly Tag[]): Promise<'stored' | 'conflict'>
  requireMoved(tags: readonly Tag[]): Promise<void>
}

/**
 * Stores a manifest by the rules of packs. In a transaction of its own: what it throws undoes everything.
 * Throws VERSION_EXISTS, VERSION_SPENT, DEPENDENCY_INVALID, CHANNEL_INVALID, CHANNEL_BACKWARDS, DENIED.
 */
export async function publish(
  tx: Transaction,
  pack: PackPush,
  digest: Digest,
  { insert, requireMoved }: Store,
): Promise<'stored' | 'conflict'> {
  const { packId, versions, channels } = pack
  const insertWhole = async () => {
    if ((await insert(pack.tags)) === 'conflict') return 'conflict' as const
    // A version that is there is refused in better words than its tag.
    await insertVersions(tx, pack, digest)
    await requireMoved(pack.tags)
    return 'stored' as const
  }
  if (versions.length === 0 && channels.length === 0 && !pack.latest) return insertWhole()
  if (!(await lockPack(tx, packId, repositoryOf(packId)))) return 'conflict'
  for (const { artifact, carried } of versions) {
    if (artifact.document.dependencies.length === 0) continue
    await lockDependencies(tx)
    const { allowMissing, mayPull } = pack
    await requireDependencies(tx, artifact.document, { allowMissing, mayPull, carried })
  }
  const moving = channels.map((tag) => ({ packId, tag }))
  const before = pack.isReferrer && channels.length > 0 ? await tagsNow(tx, moving) : []
  if ((await movingChannels(tx, moving, insertWhole)) === 'conflict') return 'conflict'
  if (channels.length > 0 && (await versionsOfManifest(tx, packId, digest)).length === 0)
    requireNoChannel(pack, digest, before)
  if (pack.latest && (await lockTag(tx, repositoryOf(packId), 'latest' as Tag)) !== digest)
    throw new Failure('CHANNEL_INVALID', {
      detail: `latest is kept by the registry: it names the highest stable version of ${packId}. Push the version alone`,
    })
  return 'stored'
}

/** What is no version has no channel for its name. A signature or the like may have another one. */
function requireNoChannel({ packId, channels, isReferrer }: PackPush, digest: Digest, before: readonly TagNow[]): void {
  const taken = before.find(({ version }) => version !== null)
  if (taken)
    throw new Failure('CHANNEL_INVALID', {
      detail: `${taken.tag} is a channel of ${packId}, and ${digest} is none of its published versions. Push it by its digest, or under another name`,
    })
  if (isReferrer) return
  throw new Failure('CHANNEL_INVALID', {
    detail:
      `the tag ${channels[0]} is not a version, so it is a channel of ${packId} and must point at one of its published ` +
      `versions; ${digest} is none. Push it under its version first`,
  })
}

async function insertVersions(tx: Transaction, { packId, versions }: PackPush, digest: Digest): Promise<void> {
  if (versions.length === 0) return
  const events: NewEvent[] = []
  for (const { version, artifact, content } of versions) {
    const { document } = artifact
    const isNew = await insertVersion(tx, { document, manifestDigest: digest, content })
    if (isNew) events.push(published({ packId, version, type: document.type, manifestDigest: digest, content }))
    else await requireSame(tx, packId, version, digest)
  }
  // Both are on their way at once, in this order: the event costs no round trip.
  await Promise.all([recordEvents(tx, events), refreshPack(tx, packId)])
}

/** The release is taken: by this very manifest, which is fine, or by another. */
async function requireSame(tx: Transaction, packId: PackId, version: Version, digest: Digest): Promise<void> {
  const spent = await findRelease(tx, packId, version)
  if (spent?.manifestDigest === digest && spent.version === version) return
  if (spent && spent.manifestDigest === null)
    throw new Failure('VERSION_SPENT', {
      detail: `${packId} ${spent.version} was deleted, and the number of a version is never used again. Publish a higher one`,
    })
  const other =
    spent && spent.version !== version ? ` as ${spent.version}, and a build part makes no other version` : ''
  throw new Failure('VERSION_EXISTS', {
    detail: `${packId} ${version} is published already${other}, with other content (${spent?.manifestDigest}). Versions never change: publish a higher one`,
  })
}
