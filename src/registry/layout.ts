import type { ObjectKey } from '../blobs/keys.ts'
import { askRead } from '../db/client.ts'
import { closureBlobs, closureManifests, storedPayloads } from '../db/closures.ts'
import type { Deps } from '../deps.ts'
import { Failure, unavailable } from '../errors.ts'
import type { Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { ByteRange } from '../oci/range.ts'
import { cut, layoutPieces, type Piece, sizeOf } from '../packs/layout.ts'
import { smallBytes } from './blobs.ts'
import { gone } from './damage.ts'

/** Where the bytes of a layout's blob are: a manifest of a repository, an object of the store, or at hand. */
export type Source = { digest: Digest; size: number } & (
  | { repository: RepositoryName }
  | { key: ObjectKey }
  | { bytes: Buffer }
)

/** An OCI image layout as one file that has not been made yet. `size` in bytes. */
export type Layout = { size: number; pieces: readonly Piece[]; sources: ReadonlyMap<Digest, Source> }

/** A part of the file as it is read: bytes, or the range of an object, for the sender to fetch as it does best. */
export type Part = Buffer | { digest: Digest; key: ObjectKey; range: ByteRange }

/**
 * The file of this index.json and these blobs. What several closures have in common may be given more than once.
 * `beside`: a file that stands right behind index.json.
 */
export function layoutOf(index: Buffer, sources: readonly Source[], beside?: { name: string; bytes: Buffer }): Layout {
  const byDigest = new Map(sources.map((source) => [source.digest, source]))
  const pieces = layoutPieces(index, [...byDigest.values()], beside)
  return { size: sizeOf(pieces), pieces, sources: byDigest }
}

/**
 * Everything that manifests of a repository stand on: manifests at any depth, and their blobs. Reads no content.
 * Throws BUNDLE_INCOMPLETE with what is listed there, but is not in the repository.
 */
export async function closureSources(
  deps: Deps,
  repository: RepositoryName,
  roots: readonly Digest[],
): Promise<Source[]> {
  const manifests = await askRead(deps.db, (sql) => closureManifests(sql, repository, roots))
  const missing = manifests.filter((manifest) => manifest.size === null).map(({ digest }) => digest)
  if (missing.length > 0) throw incomplete(repository, missing)
  const blobs = await askRead(deps.db, (sql) => closureBlobs(sql, repository, roots))
  return [...manifests.map(({ digest, size }) => ({ digest, size: size ?? 0, repository })), ...blobs]
}

export function incomplete(repository: RepositoryName, missing: readonly Digest[]): Failure {
  const more = missing.length > 3 ? ` and ${missing.length - 3} more` : ''
  return new Failure('BUNDLE_INCOMPLETE', {
    detail:
      `the index lists ${missing.slice(0, 3).join(', ')}${more}, which ${repository} does not have. ` +
      'Push what is missing there, by its digest; or pull the index by /v2 as it is',
    about: { missing: missing.slice(0, 100) },
  })
}

/** How many pieces are begun before their turn (a third of them are objects), and how many bytes make up one part. */
const ahead = 32
const joinedBytes = 256 * 1024

/**
 * The bytes of a range of the file, in order. In memory are at most some small blobs, and one or two batches of
 * manifests. Throws UNAVAILABLE, BLOB_UNKNOWN or MANIFEST_UNKNOWN where what was there when it was planned is not.
 */
export async function* readLayout(deps: Deps, layout: Layout, range: ByteRange): AsyncGenerator<Part> {
  const waiting: Buffer[] = []
  let bytes = 0
  for await (const part of inOrder(partsOf(deps, layout, range), ahead)) {
    const isSmall = Buffer.isBuffer(part)
    if (isSmall) {
      waiting.push(part)
      bytes += part.length
    }
    if (bytes > 0 && (!isSmall || bytes >= joinedBytes)) {
      yield Buffer.concat(waiting.splice(0))
      bytes = 0
    }
    if (!isSmall) yield part
  }
  if (bytes > 0) yield Buffer.concat(waiting)
}

/** The same as bytes. In memory is at most what the store gives at a time. */
export async function* layoutBytes(deps: Deps, layout: Layout, range: ByteRange): AsyncGenerator<Buffer> {
  for await (const part of readLayout(deps, layout, range)) {
    if (Buffer.isBuffer(part)) yield part
    else yield* readObjectBytes(deps, part.key, part.range)
  }
}

/** The bytes of an object, or a range of it, as they come. Throws UNAVAILABLE where there is none, or it is too short. */
export async function* readObjectBytes(deps: Deps, key: ObjectKey, range: ByteRange): AsyncGenerator<Buffer> {
  const stream = await deps.blobs.open(key, range)
  if (!stream) throw unavailable('blob store', new Error(`there is no object at ${key}`))
  let size = 0
  for await (const piece of stream as AsyncIterable<Buffer>) {
    size += piece.length
    yield piece
  }
  if (size !== range.last - range.first + 1)
    throw unavailable('blob store', new Error(`the object at ${key} is shorter than it should be`))
}

function* partsOf(deps: Deps, { pieces, sources }: Layout, range: ByteRange): Generator<() => Promise<Part>> {
  const parts = [...cut(pieces, range)]
  const manifests = manifestReader(
    deps,
    parts.flatMap(({ piece }) => {
      const source = 'digest' in piece ? sources.get(piece.digest) : undefined
      return source && 'repository' in source ? [source] : []
    }),
  )
  for (const { piece, first, last } of parts) {
    const source = 'digest' in piece ? sources.get(piece.digest) : undefined
    const large = source && 'key' in source && source.size > smallBytes
    if (large) {
      const { digest, key } = source
      yield async () => ({ digest, key, range: { first, last } })
    } else {
      const read = async () => {
        if ('make' in piece) return piece.make()
        if (!source) throw new Error(`${piece.digest} is in the layout, but nobody said where its bytes are`)
        if ('bytes' in source) return source.bytes
        return 'key' in source ? readObject(deps, source) : manifests(source.digest)
      }
      yield async () => (await read()).subarray(first, last + 1)
    }
  }
}

/** A small object. Not kept in memory afterwards: a closure would push out what many ask for. */
async function readObject(
  deps: Deps,
  { digest, key, size }: { digest: Digest; key: ObjectKey; size: number },
): Promise<Buffer> {
  const bytes = deps.bytes.get(digest) ?? (await deps.blobs.read(key))
  if (bytes?.length !== size) throw await gone(deps, digest, { key, size })
  return bytes
}

type StoredManifest = { digest: Digest; size: number; repository: RepositoryName }

/** As many manifests as one statement fetches: by number, and by bytes beyond the first. */
const batchManifests = 200
const batchBytes = 1024 * 1024

/** Reads manifests that are asked for in this order, many by one statement. */
function manifestReader(deps: Deps, order: readonly StoredManifest[]): (digest: Digest) => Promise<Buffer> {
  const coming = new Map<Digest, Promise<Map<Digest, Buffer>>>()
  let next = 0
  const fetchBatch = () => {
    const batch: StoredManifest[] = []
    for (let bytes = 0; batch.length < batchManifests; next++) {
      const manifest = order[next]
      bytes += manifest?.size ?? 0
      if (!manifest || (batch.length > 0 && bytes > batchBytes)) break
      batch.push(manifest)
    }
    if (batch.length === 0) return
    const fetched = askRead(deps.db, (sql) => storedPayloads(sql, batch)).then(
      (rows) => new Map(rows.map(({ digest, payload }) => [digest, payload])),
    )
    // Those that wait for it learn of a failure; the rest of the batch may never be asked for.
    fetched.catch(() => undefined)
    for (const { digest } of batch) coming.set(digest, fetched)
  }
  return async (digest) => {
    if (!coming.has(digest)) fetchBatch()
    const fetched = coming.get(digest)
    coming.delete(digest)
    const bytes = (await fetched)?.get(digest)
    if (!bytes) throw new Failure('MANIFEST_UNKNOWN', { detail: { digest } })
    return bytes
  }
}

/** Does the tasks some steps ahead of who takes the results, which come in order. */
async function* inOrder<T>(tasks: Iterable<() => Promise<T>>, steps: number): AsyncGenerator<T> {
  const begun: Promise<T>[] = []
  for (const task of tasks) {
    const result = task()
    // Should an earlier one fail, nobody waits for this one any more.
    result.catch(() => undefined)
    begun.push(result)
    const oldest = begun.length > steps ? begun.shift() : undefined
    if (oldest) yield await oldest
  }
  for (const result of begun) yield await result
}
