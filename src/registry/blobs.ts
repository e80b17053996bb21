import { createHash } from 'node:crypto'
import { blobKey, type ObjectKey } from '../blobs/keys.ts'
import {
  type Arrival,
  ensureRepository,
  holdBlob,
  type LinkedBlob,
  mountBlob,
  postponeReview,
  repositoriesWithBlob,
  unlinkBlob,
} from '../db/blobs.ts'
import { ask, askRead, askRelaxed, violated } from '../db/client.ts'
import { queueDeletions } from '../db/deletions.ts'
import type { Deps } from '../deps.ts'
import { Failure, unavailable } from '../errors.ts'
import { algorithmOf, type Digest, digestOf, digestSoFar } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import { type Body, pieces, readWhole } from './body.ts'
import { gone, reportDamage } from './damage.ts'
import { discardSoon } from './deletions.ts'
import { requireRoom } from './quotas.ts'

/** Bodies up to this size are taken into memory and stored by one call; they may be cached too. In bytes. */
export const smallBytes = 64 * 1024

type Content = { repository: RepositoryName; digest: Digest; body: Body; uploadId?: string }

/**
 * Takes content whose digest is known beforehand, and makes it readable in the repository.
 * Content that the registry has already is hashed and linked, and not stored again. Whether it has it is for a small
 * body `held` or a guess: where that was wrong, the bytes are still at hand. A large body goes by once, so what it is
 * compared with is kept from the collector meanwhile.
 * Throws DIGEST_INVALID where the bytes are not what the digest says, SIZE_INVALID where they are not as many as
 * announced, QUOTA_EXCEEDED where it has no room, before it is read if that can be told; then nothing is stored.
 */
export async function storeContent(deps: Deps, content: Content, held?: boolean): Promise<void> {
  const { digest, body } = content
  if (body.length !== undefined && body.length <= smallBytes) {
    const bytes = await readWhole(body, smallBytes)
    if (!bytes || bytes.length !== body.length) throw new Failure('SIZE_INVALID')
    requireDigest(digest, digestOf(bytes, algorithmOf(digest)))
    return storeSmall(deps, content, bytes, held ?? deps.bytes.has(digest))
  }
  await requireRoom(deps, content.repository, body.length ?? 0, digest)
  const grace = deps.config.gcGraceSeconds
  const hold = () => ask(deps.db, (sql) => holdBlob(sql, digest, grace))
  if (held !== false && (await hold())) {
    const size = await hashOnly(content, hold, grace / 3)
    if (await link(deps, arrivalOf(content, size))) return
    // The body stood still for longer than the grace, or the content was found damaged just now, and the bytes have gone
    // by. The client's next try stores them.
    throw unavailable('blob store', new Error(`${digest} was collected while it was pushed again`))
  }
  await storeStream(deps, content)
}

async function storeSmall(deps: Deps, content: Content, bytes: Buffer, held: boolean): Promise<void> {
  const { digest, repository } = content
  // Asked before it travels with others, which would all have to be sent again without it.
  await requireRoom(deps, repository, bytes.length, digest)
  if (held && (await link(deps, arrivalOf(content, bytes.length)))) return
  const key = blobKey(digest)
  await deps.blobs.put(key, bytes)
  await commit(deps, { ...arrivalOf(content, bytes.length), key })
  // Whoever pushes it will pull it soon, and the next push of the same finds out here that it is held.
  deps.bytes.set(digest, bytes)
}

async function storeStream(deps: Deps, content: Content): Promise<void> {
  const { digest, body } = content
  const key = blobKey(digest)
  const check = checker(digest, body.length)
  const size = await deps.blobs.putStream(key, body.stream, { onBytes: check.add, seal: check.seal })
  await commit(deps, { ...arrivalOf(content, size), key })
}

/** Hashes as bytes go by, and at the end compares: the digest always, the length where one was announced. */
export function checker(digest: Digest, length: number | undefined) {
  const algorithm = algorithmOf(digest)
  const hash = createHash(algorithm)
  let size = 0
  return {
    add(bytes: Uint8Array) {
      size += bytes.length
      hash.update(bytes)
    },
    seal() {
      if (length !== undefined && size !== length) throw new Failure('SIZE_INVALID', { detail: { length, size } })
      requireDigest(digest, digestSoFar(algorithm, hash))
    },
  }
}

export function requireDigest(wanted: Digest, actual: Digest): void {
  if (wanted !== actual) throw new Failure('DIGEST_INVALID', { detail: { digest: wanted, actual } })
}

/** Reads and compares; as long as bytes come, `hold` is called every so often. */
async function hashOnly({ digest, body }: Content, hold: () => Promise<unknown>, seconds: number): Promise<number> {
  const check = checker(digest, body.length)
  let size = 0
  let next = performance.now() + seconds * 1000
  for await (const piece of pieces(body)) {
    check.add(piece)
    if (performance.now() > next) {
      await hold()
      next = performance.now() + seconds * 1000
    }
    size += piece.length
  }
  check.seal()
  return size
}

function arrivalOf({ repository, digest, uploadId }: Content, size: number): Arrival {
  return { repository, digest, size, ...(uploadId ? { uploadId } : {}) }
}

/**
 * Makes stored content visible. Should the database fail here, the object stays without a row: whether the statement
 * was carried out cannot be known, and bytes that may have a row must not be deleted. Reconciling finds it later.
 */
export async function commit(deps: Deps, arrival: Arrival & { key: ObjectKey }): Promise<void> {
  if (await linkOrDrop(deps, arrival)) return
  const { uploadId: id, repository } = arrival
  const { session } = id ? await deps.together.upload.load({ id, repository }) : { session: undefined }
  if (session?.state === 'cancelled') {
    await ask(deps.db, (sql) => queueDeletions(sql, [arrival.key]))
    throw new Failure('BLOB_UPLOAD_UNKNOWN', { detail: 'the upload was cancelled' })
  }
  throw unavailable('database', new Error(`could not link ${arrival.digest}`))
}

/** The whole of a small blob, from memory or the store; checked against its digest as it enters memory. */
export async function readSmall(
  deps: Deps,
  digest: Digest,
  { key, size }: Pick<LinkedBlob, 'key' | 'size'>,
): Promise<Buffer> {
  const cached = deps.bytes.get(digest)
  if (cached) return cached
  const bytes = await deps.blobs.read(key)
  if (bytes?.length !== size) throw await gone(deps, digest, { key, size })
  const actual = digestOf(bytes, algorithmOf(digest))
  if (actual !== digest) {
    await reportDamage(deps, { kind: 'wrong-bytes', digest, key, size, expected: digest, actual })
    throw await gone(deps, digest)
  }
  deps.bytes.set(digest, bytes)
  return bytes
}

/** What a quota refuses has no row by this push. */
async function linkOrDrop(deps: Deps, arrival: Arrival & { key: ObjectKey }): Promise<boolean> {
  try {
    return await link(deps, arrival)
  } catch (error) {
    if (error instanceof Failure && error.key === 'QUOTA_EXCEEDED') {
      discardSoon(deps, await askRelaxed(deps.db, (relaxed) => queueDeletions(relaxed, [arrival.key])))
    }
    throw error
  }
}

/**
 * Links content into a repository. False where the registry does not have it, or the session was cancelled.
 * Throws QUOTA_EXCEEDED.
 */
export async function link(deps: Deps, arrival: Arrival): Promise<boolean> {
  if (await linkOnce(deps, arrival)) return true
  // The first push to a repository comes here.
  await ask(deps.db, (sql) => ensureRepository(sql, arrival.repository))
  return linkOnce(deps, arrival)
}

async function linkOnce(deps: Deps, arrival: Arrival): Promise<boolean> {
  const linked = await deps.together.arrival.load(arrival)
  if (linked instanceof Failure) throw linked
  return linked
}

/** Whether content can be read in the repository; if so it stays for the grace, for the client relies on it now. */
export async function confirmBlob(
  deps: Deps,
  repository: RepositoryName,
  digest: Digest,
): Promise<LinkedBlob | undefined> {
  const { gcGraceSeconds: grace } = deps.config
  for (;;) {
    const found = await deps.together.linkedBlob.load({ repository, digest })
    // Throttled: with a grace of a day, pushed forward at most once an hour.
    if (found?.reviewDueSeconds === undefined || found.reviewDueSeconds > grace * (23 / 24)) return found
    // Where there is nothing to postpone, the collector was there in the same moment: either way it is looked at anew.
    if (await ask(deps.db, (sql) => postponeReview(sql, { repository, digest }, grace))) return found
  }
}

/**
 * Links a blob that another repository has. `from` undefined: any repository that `mayPull` allows.
 * False where none has it that the client may read: it uploads then, and learns nothing.
 */
export async function mount(
  deps: Deps,
  { from, to, digest }: { from: RepositoryName | undefined; to: RepositoryName; digest: Digest },
  mayPull: (repository: RepositoryName) => boolean,
): Promise<boolean> {
  const candidates = from ? [from] : await askRead(deps.db, (sql) => repositoriesWithBlob(sql, digest, 100))
  const source = candidates.find(mayPull)
  if (!source) return false
  // Twice: see link().
  for (let tries = 0; tries < 2; tries++)
    if (await ask(deps.db, (sql) => mountBlob(sql, { from: source, to, digest }, deps.config.gcGraceSeconds)))
      return true
  return false
}

/**
 * Takes a blob out of a repository. False where it was not there.
 * Throws BLOB_IN_USE while a manifest of the repository needs it.
 */
export async function removeBlob(deps: Deps, repository: RepositoryName, digest: Digest): Promise<boolean> {
  try {
    return await ask(deps.db, (sql) => unlinkBlob(sql, { repository, digest }, deps.config.gcGraceSeconds))
  } catch (cause) {
    if (violated(cause) !== 'manifest_blobs_link') throw cause
    throw new Failure('BLOB_IN_USE', {
      detail: `${digest} is part of a manifest in ${repository}; delete that manifest first`,
      cause,
    })
  }
}
