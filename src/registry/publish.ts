import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'
import { askRead } from '../db/client.ts'
import { findRelease, type Spent } from '../db/packs.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import { type Digest, digestOf } from '../oci/digest.ts'
import { mediaTypes } from '../oci/media-types.ts'
import type { RepositoryName } from '../oci/name.ts'
import { type Content, configBytes, manifestBytes } from '../packs/artifact.ts'
import { inWords, type Violation } from '../packs/document.ts'
import { type PackDocument, type PackId, packMediaTypes, repositoryOf } from '../packs/pack.ts'
import { tagOf, type Version } from '../packs/version.ts'
import { smallBytes, storeContent } from './blobs.ts'
import { badDependencies } from './dependencies.ts'
import { putManifest } from './manifests.ts'
import { requireRoom } from './quotas.ts'
import type { MayPull } from './resolve.ts'
import { append, cancel, findSession, finish, sessionIdOf, startUpload } from './uploads.ts'

/** A pack to be published by the facade. `created`: RFC 3339; else now. `declared`: what its bytes must turn out to be. */
export type Publish = {
  document: PackDocument
  content: { stream: Readable; mediaType: string | undefined; title: string | undefined }
  created: string | undefined
  declared: { digest?: Digest | undefined; size?: number | undefined }
  /** How many bytes the content has at least, as far as can be told before it is read. */
  atLeast?: number
  allowMissing: boolean
  /** Which packs whoever publishes may read; absent: all. */
  mayPull?: MayPull
  /** Resolves when the request was well-formed to its end: only then is anything published. */
  complete: Promise<unknown>
}

export type Published = { packId: string; version: Version; digest: Digest; manifestDigest: Digest; isNew: boolean }

/**
 * Publishes a pack: the content is hashed while it streams to the store, then config and manifest follow, by the rules
 * that a push by any client goes through. To publish again what is published is no error and changes nothing.
 * Throws VERSION_EXISTS, VERSION_SPENT, DEPENDENCY_INVALID, QUOTA_EXCEEDED where that can be told, before any content is stored; DIGEST_INVALID, SIZE_INVALID
 * where the content is not what was declared.
 */
export async function publishPack(deps: Deps, { document, content, ...rest }: Publish): Promise<Published> {
  const { packId, version } = document
  const repository = repositoryOf(packId)
  const spent = await askRead(deps.db, (sql) => findRelease(sql, packId, version))
  if (spent) return publishedBefore(spent, { document, content, ...rest })
  await requireRoom(deps, repository, rest.declared.size ?? rest.atLeast ?? 0, rest.declared.digest)
  const bad = await askRead(deps.db, (sql) => badDependencies(sql, document, rest))
  if (bad.length > 0) throw new Failure('DEPENDENCY_INVALID', { detail: inWords(bad), about: { violations: bad } })

  const { digest, size } = await storeUnknown(deps, { document, content, ...rest })
  const bytes = manifestBytes(document, describe(document, content, { digest, size }), rest.created ?? now())
  const push = { repository, reference: { tag: tagOf(version) }, contentType: mediaTypes.manifest, bytes }
  const { allowMissing, mayPull } = rest
  try {
    const stored = await putManifest(deps, {
      ...push,
      extraTags: [],
      ifMatch: undefined,
      allowMissing,
      ...(mayPull ? { mayPull } : {}),
    })
    return { packId, version, digest, manifestDigest: stored.digest, isNew: true }
  } catch (error) {
    if (!(error instanceof Failure) || error.key !== 'VERSION_EXISTS') throw error
    // Somebody was faster, with another time of publishing. What they published may well be the same.
    const other = await askRead(deps.db, (sql) => findRelease(sql, packId, version))
    if (!other) throw error
    return sameAs(other, document, digest)
  }
}

/** The time without fractions of a second, as `oras push` writes it. */
export function now(): string {
  return new Date().toISOString().replace(/\.\d+Z$/, 'Z')
}

function describe(
  { packId, version }: PackDocument,
  { mediaType, title }: Publish['content'],
  { digest, size }: { digest: Digest; size: number },
): Content {
  const generic = !mediaType || mediaType === mediaTypes.octetStream
  return {
    digest,
    size,
    mediaType: generic ? packMediaTypes.content : mediaType,
    title: title ?? `${packId}-${version}.tgz`,
  }
}

/** The number is taken. By the same content: fine, nothing is to do. */
async function publishedBefore(spent: Spent, { document, content, declared, complete }: Publish): Promise<Published> {
  if (spent.manifestDigest === null) throw deleted(document.packId, spent)
  const found = await hashOf(content.stream)
  await complete
  requireDeclared(declared, found)
  return sameAs(spent, document, found.digest)
}

function sameAs(spent: Spent, document: PackDocument, digest: Digest): Published {
  const { packId, version } = document
  const { manifestDigest } = spent
  if (manifestDigest === null) throw deleted(packId, spent)
  const other =
    spent.version !== version
      ? 'and a build part makes no other version'
      : spent.contentDigest !== digest
        ? `with the content ${spent.contentDigest}; this is ${digest}`
        : spent.document !== JSON.stringify(document)
          ? 'with this content, but another document'
          : undefined
  if (!other) return { packId, version, digest, manifestDigest, isNew: false }
  throw new Failure('VERSION_EXISTS', {
    detail: `${packId} ${spent.version} is published already, ${other}. Versions never change: publish a higher one`,
  })
}

function deleted(packId: PackId, { version }: Spent): Failure {
  return new Failure('VERSION_SPENT', {
    detail: `${packId} ${version} was deleted, and the number of a version is never used again. Publish a higher one`,
  })
}

/** Reads content that is stored nowhere, for what it is. */
export async function hashOf(stream: Readable): Promise<{ digest: Digest; size: number }> {
  const hash = createHash('sha256')
  let size = 0
  for await (const piece of stream as AsyncIterable<Buffer>) {
    hash.update(piece)
    size += piece.length
  }
  return { digest: `sha256:${hash.digest('hex')}` as Digest, size }
}

/** Stores content whose digest nobody knows yet, and the config. Nothing is visible unless it is whole and as declared. */
async function storeUnknown(deps: Deps, { document, content, declared, complete }: Publish) {
  const repository = repositoryOf(document.packId)
  const first = await readStart(content.stream)
  if (first.rest === undefined) {
    await complete
    const digest = digestOf(first.bytes)
    requireDeclared(declared, { digest, size: first.bytes.length })
    // Side by side, for each waits for the disk twice.
    await Promise.all([first.bytes, configBytes(document)].map((bytes) => storeBytes(deps, repository, bytes)))
    return { digest, size: first.bytes.length }
  }
  const id = sessionIdOf(deps, repository, startUpload(deps, repository, 'sha256'))
  const size = await append(deps, id, { stream: first.rest, length: undefined }, undefined)
  try {
    await complete
    const { digestSoFar: digest } = await findSession(deps, id)
    if (!digest) throw new Error('a session of one chunk has no digest')
    requireDeclared(declared, { digest, size })
    await storeBytes(deps, repository, configBytes(document))
    await finish(deps, id, digest, { stream: Readable.from([]), length: 0 }, undefined)
    return { digest, size }
  } catch (error) {
    // Nobody knows this session but us: what it holds need not wait until it expires.
    await cancel(deps, id).catch((cause) => deps.log.warn({ error: cause }, 'a failed publish left an open upload'))
    throw error
  }
}

function storeBytes(deps: Deps, repository: RepositoryName, bytes: Buffer): Promise<void> {
  const body = { stream: Readable.from([bytes]), length: bytes.length }
  return storeContent(deps, { repository, digest: digestOf(bytes), body })
}

/** All of a small stream, or its start put back in front of the rest. */
async function readStart(stream: Readable): Promise<{ bytes: Buffer; rest?: Readable }> {
  const pieces: Buffer[] = []
  let size = 0
  const iterator = stream[Symbol.asyncIterator]() as AsyncIterator<Buffer>
  for (let next = await iterator.next(); !next.done; next = await iterator.next()) {
    pieces.push(next.value)
    size += next.value.length
    if (size > smallBytes)
      return { bytes: Buffer.alloc(0), rest: Readable.from(continued(pieces, iterator), { objectMode: false }) }
  }
  return { bytes: Buffer.concat(pieces) }
}

async function* continued(pieces: Buffer[], iterator: AsyncIterator<Buffer>) {
  yield* pieces
  yield* { [Symbol.asyncIterator]: () => iterator }
}

/** Throws DIGEST_INVALID, SIZE_INVALID where content is not what its publisher declared. */
export function requireDeclared(
  declared: Publish['declared'],
  { digest, size }: { digest: Digest; size: number },
): void {
  if (declared.digest !== undefined && declared.digest !== digest)
    throw new Failure('DIGEST_INVALID', { detail: `the content was declared as ${declared.digest}, but is ${digest}` })
  if (declared.size !== undefined && declared.size !== size)
    throw new Failure('SIZE_INVALID', { detail: `the content was declared as ${declared.size} bytes, but has ${size}` })
}

/** Everything that would keep a valid document from being published now. Stores nothing. */
export async function checkPublish(
  deps: Deps,
  document: PackDocument,
  { allowMissing, mayPull }: { allowMissing: boolean; mayPull?: MayPull },
): Promise<Violation[]> {
  const { packId, version } = document
  const spent = await askRead(deps.db, (sql) => findRelease(sql, packId, version))
  const taken: Violation[] = []
  if (spent?.manifestDigest === null)
    taken.push({ path: 'version', message: `${spent.version} was deleted, and its number is not used again` })
  else if (spent) taken.push({ path: 'version', message: `${spent.version} is published already` })
  return [...taken, ...(await askRead(deps.db, (sql) => badDependencies(sql, document, { allowMissing, mayPull })))]
}
