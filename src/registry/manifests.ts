import { ask, askRead, type Database, type Sql, type Transaction, violated } from '../db/client.ts'
import { deleteManifest, findManifests, insertManifest, missingBlobs } from '../db/manifests.ts'
import { deleteTag, lockTag, tagsElsewhere } from '../db/tags.ts'
import type { Deps } from '../deps.ts'
import { Failure, unavailable } from '../errors.ts'
import { algorithmOf, type Digest, digestOf } from '../oci/digest.ts'
import { type Manifest, parseManifest } from '../oci/manifest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Reference, Tag } from '../oci/reference.ts'
import { roleOf } from '../packs/channel.ts'
import { isPackRepository, packIdOf } from '../packs/pack.ts'
import { belongsToPack, removeFromPack } from './pack-removal.ts'
import { type PackPush, publish, readPack } from './packs.ts'
import type { MayPull } from './resolve.ts'

/** How often a write begins anew that meets others. */
const mostTries = 5

/** A manifest as it arrives. `ifMatch`: the digest the tag must have now (RFC 9110, section 13.1.1). */
export type Push = {
  repository: RepositoryName
  reference: Reference
  contentType: string | undefined
  bytes: Buffer
  extraTags: readonly Tag[]
  ifMatch: Digest | undefined
  /** Whether a tag that names something else may be moved, and a channel of a pack be made; absent: it may. */
  mayOverwrite?: boolean
  /** For packs: dependencies that are not published yet are no reason to refuse. */
  allowMissing?: boolean
  /** For packs: which others whoever pushes may read; absent: all. */
  mayPull?: MayPull
}

/**
 * Stores a manifest, its edges and its tags: all at once, or nothing.
 * Throws MANIFEST_INVALID, DIGEST_INVALID (pushed by another digest than its bytes have), MANIFEST_BLOB_UNKNOWN with
 * the blobs that are missing, PRECONDITION_FAILED, DENIED where a tag would be moved that may not be.
 */
export async function putManifest(deps: Deps, push: Push): Promise<{ digest: Digest; manifest: Manifest }> {
  const { reference, bytes } = push
  const digest = digestOf(bytes, reference.digest ? algorithmOf(reference.digest) : 'sha256')
  if (reference.digest && reference.digest !== digest)
    throw new Failure('DIGEST_INVALID', { detail: { digest: reference.digest, actual: digest } })
  const manifest = parseManifest(bytes, push.contentType)
  const tags = [...new Set(reference.tag ? [reference.tag, ...push.extraTags] : push.extraTags)]
  const pack = isPackRepository(push.repository) ? await readPack(deps, push, digest, manifest, tags) : undefined
  // A row that another request creates or deletes in the same moment (the repository, the manifest, a link) makes the
  // statement fail or come to nothing; at the next try it is seen as it is now.
  for (let tries = 0; tries < mostTries; tries++) {
    if (await tryPut(deps.db, push, digest, manifest, tags, pack)) return { digest, manifest }
  }
  throw unavailable('database', new Error(`manifest ${digest} kept meeting other writers`))
}

async function tryPut(
  db: Database,
  push: Push,
  digest: Digest,
  manifest: Manifest,
  tags: readonly Tag[],
  pack: PackPush | undefined,
): Promise<boolean> {
  const { repository, reference, bytes, ifMatch, mayOverwrite = true } = push
  const insert = (sql: Sql | Transaction, names = tags) =>
    insertManifest(sql, repository, digest, manifest, bytes, names, { mayMove: mayOverwrite })
  try {
    const outcome = await ask(db, async (sql) => {
      const { tag } = reference
      if (!pack && (ifMatch === undefined || tag === undefined) && (mayOverwrite || tags.length === 0))
        return insert(sql)
      return sql.begin(async (tx) => {
        const insertIfMatched = async (names = tags) => {
          if (tag !== undefined && ifMatch !== undefined && (await lockTag(tx, repository, tag)) !== ifMatch)
            throw new Failure('PRECONDITION_FAILED')
          return insert(tx, names)
        }
        const requireMoved = async (names: readonly Tag[]) => {
          if (!mayOverwrite) await requireUnmoved(tx, push, names, digest)
        }
        if (pack) return publish(tx, pack, digest, { insert: insertIfMatched, requireMoved })
        const outcome = await insertIfMatched()
        if (outcome === 'stored') await requireMoved(tags)
        return outcome
      })
    })
    if (outcome === 'stored') return true
  } catch (error) {
    const constraint = violated(error)
    if (constraint === undefined) throw error
    if (constraint === 'manifest_blobs_link') {
      const missing = await askRead(db, (sql) => missingBlobs(sql, repository, manifest.blobs))
      if (missing.length > 0)
        throw new Failure('MANIFEST_BLOB_UNKNOWN', { detail: { digests: missing.slice(0, 100) }, cause: error })
    }
    return false
  }
  await refuseOtherMediaType(db, repository, digest, manifest)
  return false
}

/**
 * Throws DENIED where one of the tags was there and names something else, or is a channel. The insert has locked every
 * tag that it found and left it as it was: whoever made one first in the same moment was waited for, and is seen here.
 */
async function requireUnmoved(tx: Transaction, push: Push, tags: readonly Tag[], digest: Digest): Promise<void> {
  const { repository } = push
  const isPack = isPackRepository(repository)
  const channel = isPack ? tags.find((tag) => roleOf(tag).kind === 'channel') : undefined
  const [moved = channel] = await tagsElsewhere(tx, repository, tags, digest)
  if (moved === undefined) return
  throw new Failure('DENIED', {
    detail:
      isPack && roleOf(moved).kind === 'channel'
        ? `${moved} is a channel of ${repository}; to set it takes the right to overwrite`
        : `${repository}:${moved} is there already, and to make it name something else takes the right to overwrite`,
  })
}

/** The same bytes under another media type would be read as something else by those who have the digest. */
async function refuseOtherMediaType(
  db: Database,
  repository: RepositoryName,
  digest: Digest,
  { mediaType }: Manifest,
): Promise<void> {
  const question = { repository, digest, tag: undefined, known: 'all' as const }
  const [present] = await askRead(db, (sql) => findManifests(sql, [question]))
  if (present && present.mediaType !== mediaType)
    throw new Failure('MANIFEST_INVALID', {
      detail: `${digest} is stored as ${present.mediaType}; it cannot be ${mediaType} as well`,
    })
}

/**
 * Deletes a tag, or a manifest with its tags and its untagged referrers.
 * Throws MANIFEST_UNKNOWN where there is nothing to delete.
 */
export async function removeManifest(
  deps: Deps,
  repository: RepositoryName,
  reference: Reference,
  mayPull?: MayPull,
): Promise<void> {
  // What is none of a pack's matter when it is looked at can have become a version or a channel when it is deleted.
  for (let tries = 0; tries < mostTries; tries++) {
    const gone = await tryRemove(deps, repository, reference, mayPull)
    if (gone) return
    if (gone === false)
      throw new Failure('MANIFEST_UNKNOWN', { detail: { reference: reference.tag ?? reference.digest } })
  }
  throw unavailable('database', new Error(`the deletion of ${reference.digest} kept meeting those who publish it`))
}

/** False where there is nothing to delete; undefined where it came to be a part of a pack in the same moment. */
async function tryRemove(
  deps: Deps,
  repository: RepositoryName,
  reference: Reference,
  mayPull: MayPull | undefined,
): Promise<boolean | undefined> {
  const { tag, digest } = reference
  const packId = packIdOf(repository)
  if (packId && (await removeFromPack(deps, packId, reference, mayPull))) return true
  try {
    return await ask(deps.db, async (sql) => {
      if (tag !== undefined && !packId) return deleteTag(sql, repository, tag)
      return sql.begin(async (tx) => {
        if (tag === undefined)
          return (await deleteManifest(tx, { repository, digest }, deps.config.gcGraceSeconds)).length > 0
        const gone = await deleteTag(tx, repository, tag)
        if (gone && packId && (await belongsToPack(tx, packId, tag))) throw new BelongsToPack()
        return gone
      })
    })
  } catch (error) {
    if (error instanceof BelongsToPack || violated(error) !== undefined) return undefined
    throw error
  }
}

/** What is being deleted goes by the rules of packs. */
class BelongsToPack extends Error {}
