import { ask, type Transaction, violated } from '../db/client.ts'
import { closureManifests, findMembers, manifestPayloads, mountManifests } from '../db/closures.ts'
import { recordEvents } from '../db/events.ts'
import { insertManifest } from '../db/manifests.ts'
import { findRelease, insertVersion, lockDependencies, lockPack, refreshPack, type Spent } from '../db/packs.ts'
import type { Deps } from '../deps.ts'
import { Failure, unavailable } from '../errors.ts'
import { digestOf } from '../oci/digest.ts'
import { maxManifestBytes, parseManifest } from '../oci/manifest.ts'
import { mediaTypes } from '../oci/media-types.ts'
import type { RepositoryName } from '../oci/name.ts'
import { createdOf, indexBytes, type Member } from '../packs/artifact.ts'
import { differenceInWords } from '../packs/bundle.ts'
import type { Violation } from '../packs/document.ts'
import { type PackDocument, type PackId, repositoryOf } from '../packs/pack.ts'
import { tagOf } from '../packs/version.ts'
import { resolveBundle } from './bundle-members.ts'
import { requireDependencies } from './dependencies.ts'
import { incomplete } from './layout.ts'
import { published } from './pack-events.ts'
import { checkPublish, now, type Publish, type Published, requireDeclared } from './publish.ts'

// A bundle without content of its own is resolved when it is published: its members are the closure's manifests, made
// readable in its own repository, and the index that lists them is the bundle. All of it in one transaction, under the
// pack's lock and the one for dependencies (see packs.ts): what was resolved cannot be deleted until the bundle is there.
// What comes or is yanked in the same moment counts as later. The members' own repositories are only read.

/** A bundle to be published. `mayPull`: whether whoever publishes may read a repository. */
export type BundlePublish = Pick<Publish, 'document' | 'created' | 'declared'> & {
  mayPull: (repository: RepositoryName) => boolean
}

/**
 * Resolves a bundle and publishes it. Again, with the same outcome, it is no error and changes nothing.
 * Throws PACK_INVALID where it depends on nothing, DENIED where a member may not be read, DEPENDENCY_INVALID,
 * UNRESOLVABLE, BUNDLE_INCOMPLETE where a member is an index that is not whole itself, VERSION_EXISTS, VERSION_SPENT,
 * MANIFEST_TOO_LARGE, DIGEST_INVALID and SIZE_INVALID where the index is not what was declared.
 */
export async function publishBundle(
  deps: Deps,
  bundle: BundlePublish,
  beforeCommit: (members: readonly Member[]) => void = () => undefined,
): Promise<Published> {
  if (bundle.document.dependencies.length === 0)
    throw new Failure('PACK_INVALID', {
      detail: 'a bundle without the part "content" is made of its dependencies, and this one has none: name them',
    })
  requireReadable(bundle.document.dependencies, bundle.mayPull)
  // What the collector or a deletion takes away in the same moment fails the statement; at the next try it is seen.
  for (let tries = 0; tries < 5; tries++) {
    try {
      const published = await ask(deps.db, (sql) => sql.begin((tx) => tryPublish(deps, tx, bundle, beforeCommit)))
      if (published) return published
    } catch (error) {
      if (violated(error) === undefined) throw error
    }
  }
  throw unavailable('database', new Error(`bundle ${bundle.document.packId} kept meeting other writers`))
}

async function tryPublish(
  deps: Deps,
  tx: Transaction,
  { document, created, declared, mayPull }: BundlePublish,
  beforeCommit: (members: readonly Member[]) => void,
): Promise<Published | undefined> {
  const { packId, version } = document
  const repository = repositoryOf(packId)
  if (!(await lockPack(tx, packId, repository))) return undefined
  await lockDependencies(tx)
  const spent = await findRelease(tx, packId, version)
  if (spent?.manifestDigest === null) throw spentVersion(document, spent)
  const members = await resolveMembers(deps, tx, document, mayPull)
  if (spent) return publishedBefore(tx, document, spent, members)

  const bytes = requireSize(indexBytes(document, members, created ?? now()), members)
  const [digest, size, mediaType] = [digestOf(bytes), bytes.length, mediaTypes.index]
  requireDeclared(declared, { digest, size })
  await mountManifests(tx, members, repository)
  const manifest = parseManifest(bytes, mediaType)
  if ((await insertManifest(tx, repository, digest, manifest, bytes, [tagOf(version)])) === 'conflict')
    throw unavailable('database', new Error(`manifest ${digest} could not be stored`))
  await requireWhole(tx, repository, members, digest)
  const content = { digest, size, mediaType }
  await insertVersion(tx, { document, manifestDigest: digest, content })
  const event = published({ packId, version, type: document.type, manifestDigest: digest, content })
  await Promise.all([recordEvents(tx, [event]), refreshPack(tx, packId)])
  beforeCommit(members)
  return { packId, version, digest, manifestDigest: digest, isNew: true }
}

/** What the bundle's dependencies resolve to now, by pack. */
async function resolveMembers(
  deps: Deps,
  tx: Transaction,
  document: PackDocument,
  mayPull: BundlePublish['mayPull'],
): Promise<Member[]> {
  await requireDependencies(tx, document, { allowMissing: false })
  const { packs } = await resolveBundle(deps, tx, document, (packId) => mayPull(repositoryOf(packId)))
  return findMembers(tx, packs)
}

/** What may not be read is unknown to the resolution; what is asked for by its name is refused by its name. */
function requireReadable(packs: readonly Pick<Member, 'packId'>[], mayPull: BundlePublish['mayPull']): void {
  for (const { packId } of packs) {
    const repository = repositoryOf(packId)
    if (!mayPull(repository)) throw new Failure('DENIED', { detail: { repository, action: 'pull' } })
  }
}

function requireSize(bytes: Buffer, members: readonly Member[]): Buffer {
  if (bytes.length <= maxManifestBytes) return bytes
  throw new Failure('MANIFEST_TOO_LARGE', {
    detail: `the index of ${members.length} members has ${bytes.length} bytes, and an index has at most ${maxManifestBytes}. Make several bundles, and one of them`,
  })
}

/** A member that is an index may lack what it lists; then the bundle would not carry its closure. */
async function requireWhole(
  tx: Transaction,
  repository: RepositoryName,
  members: readonly Member[],
  digest: Member['manifestDigest'],
): Promise<void> {
  const closure = await closureManifests(tx, repository, [digest])
  const missing = closure.filter((manifest) => manifest.size === null).map((manifest) => manifest.digest)
  if (missing.length === 0) return
  const direct = members.find((member) => missing.includes(member.manifestDigest))
  // Only somebody who deletes in this repository in the same moment comes between.
  if (direct) throw unavailable('database', new Error(`member ${direct.packId} was deleted while it was mounted`))
  throw incomplete(repository, missing)
}

function spentVersion({ packId }: PackDocument, spent: Spent): Failure {
  return new Failure('VERSION_SPENT', {
    detail: `${packId} ${spent.version} was deleted, and the number of a version is never used again. Publish a higher one`,
  })
}

/** The number is taken. By the same document with the same members: fine, nothing is to do. */
async function publishedBefore(
  tx: Transaction,
  document: PackDocument,
  { version, manifestDigest, contentDigest }: Spent,
  members: readonly Member[],
): Promise<Published> {
  const { packId } = document
  const refuse = (how: string) =>
    new Failure('VERSION_EXISTS', {
      detail: `${packId} ${version} is published already, ${how}. Versions never change: publish a higher one`,
    })
  if (version !== document.version) throw refuse('and a build part makes no other version')
  if (manifestDigest !== contentDigest) throw refuse('with content of its own')
  const [stored] = await manifestPayloads(tx, repositoryOf(packId), [contentDigest])
  if (!stored) throw new Error(`${packId} ${version} has no manifest`)
  const again = indexBytes(document, members, createdOf(stored.payload) ?? now())
  if (digestOf(again) !== contentDigest) {
    const difference = differenceInWords(stored.payload, again)
    throw refuse(
      difference ? `and its dependencies resolve to something else by now: ${difference}` : 'with another document',
    )
  }
  return { packId, version, digest: contentDigest, manifestDigest: contentDigest, isNew: false }
}

/**
 * Everything that would keep a bundle from being published now, and what it resolves to: it is published, and all of
 * that taken back.
 */
export async function checkBundle(
  deps: Deps,
  bundle: BundlePublish,
): Promise<{ violations: Violation[]; members: readonly Member[] }> {
  const mayPull = (packId: PackId) => bundle.mayPull(repositoryOf(packId))
  const violations = await checkPublish(deps, bundle.document, { allowMissing: false, mayPull })
  if (violations.length > 0) return { violations, members: [] }
  let members: readonly Member[] = []
  try {
    await publishBundle(deps, bundle, (found) => {
      members = found
      throw new TakeBack()
    })
  } catch (error) {
    if (error instanceof Failure && toldAsViolation.has(error.key))
      return { violations: [{ path: 'dependencies', message: String(error.detail) }], members: [] }
    if (!(error instanceof TakeBack)) throw error
  }
  return { violations: [], members }
}

/** Ends a transaction that was only tried. */
class TakeBack extends Error {}

const toldAsViolation = new Set<string>(['PACK_INVALID', 'UNRESOLVABLE', 'BUNDLE_INCOMPLETE', 'MANIFEST_TOO_LARGE'])
