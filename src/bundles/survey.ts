import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import type { Readable } from 'node:stream'
import { Failure } from '../errors.ts'
import { isObject } from '../oci/descriptor.ts'
import type { Digest } from '../oci/digest.ts'
import { hasMoreParts } from '../oci/json.ts'
import { maxManifestBytes } from '../oci/manifest.ts'
import { inWords } from '../packs/document.ts'
import { type Lock, parseLock } from '../packs/lock.ts'
import { type Described, describe } from './closure.ts'
import {
  type Contents,
  documentOf,
  invalid,
  type LeftOut,
  mostParts,
  parseIndex,
  parseJson,
  parseMissing,
} from './contents.ts'
import { filesOfFolder } from './folder.ts'
import { defaultLimits, type Layout, type LayoutReader, type Limits, readFiles, readLayout } from './read.ts'

// What a file says, read in one pass whatever its order: manifests, the lock and the list of what is left out are
// recognised by themselves, since at the time they come nothing may be known about them yet.

/** Everything that a file says. `lock` and `leftOut` are of bundles only. */
export type Survey = {
  layout: Layout
  contents: Contents
  /** Every file under blobs/, with its size. */
  blobs: ReadonlyMap<Digest, number>
  manifests: ReadonlyMap<Digest, Described | Failure>
  lock: { digest: Digest; lock: Lock } | undefined
  leftOut: readonly LeftOut[]
}

/** The largest lock or list of what is left out, in bytes: some 100,000 packs. */
export const maxDocumentBytes = 64 * 1024 * 1024
/** As much as all manifests and documents of a file may have together, in bytes; they are kept in memory. */
export const maxKeptBytes = 256 * 1024 * 1024

/** What was recognised while a file passed by. `raw`: the bytes of locks, of lists of what is left out and of theirs. */
export type Collection = {
  blobs: Map<Digest, number>
  manifests: Map<Digest, Described | Failure>
  raw: Map<Digest, Buffer>
}

/**
 * Recognises documents among blobs as they come. `take` wants every blob; `piece` of it is called with the bytes in
 * order, and `end` when they are known to be what their digest says. So whoever stores the blobs can look at them too.
 * Throws BUNDLE_INVALID where they are too many to keep.
 */
export function openCollection() {
  const found: Collection = { blobs: new Map(), manifests: new Map(), raw: new Map() }
  let kept = 0
  const take = (digest: Digest, size: number) => {
    let pieces: Buffer[] | undefined = size > 0 && size <= maxDocumentBytes ? [] : undefined
    return {
      piece(bytes: Buffer): void {
        // Every document here is a JSON object, written without space in front.
        if (pieces?.length === 0 && bytes.length > 0 && bytes[0] !== 0x7b) pieces = undefined
        if (bytes.length > 0) pieces?.push(bytes)
      },
      end(): void {
        found.blobs.set(digest, size)
        const bytes = pieces && Buffer.concat(pieces)
        if (!bytes || !keep(found, digest, bytes)) return
        kept += bytes.length
        if (kept > maxKeptBytes) throw invalid(`its manifests have more than ${maxKeptBytes} bytes together`)
      },
    }
  }
  return { found, take }
}

/** Whether something of it is kept. */
function keep({ manifests, raw }: Collection, digest: Digest, bytes: Buffer): boolean {
  if (hasMoreParts(bytes, mostParts)) return false
  let value: unknown
  try {
    value = JSON.parse(bytes.toString('utf8'))
  } catch {
    return false
  }
  if (!isObject(value)) return false
  if ('lockVersion' in value || 'digests' in value) {
    raw.set(digest, bytes)
    return true
  }
  if (bytes.length > maxManifestBytes || !looksLikeManifest(value)) return false
  try {
    const described = describe(bytes)
    manifests.set(digest, described)
    // The two that lead to a document are read again, whole.
    if (/\.pack\.(?:lock|missing)\.v1\+json$/.test(described.artifactType ?? '')) raw.set(digest, bytes)
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    manifests.set(digest, error)
  }
  return true
}

function looksLikeManifest(value: Record<string, unknown>): boolean {
  const { config, layers, manifests } = value
  return Array.isArray(layers) || Array.isArray(manifests) || (isObject(config) && 'digest' in config)
}

/**
 * Reads a layout at a path: a folder, or a tar, plain or compressed.
 * Throws as `readLayout` does, and the error of the file system where there is none.
 */
export async function readLayoutAt(
  path: string,
  reader: LayoutReader,
  { signal, limits = {} }: { signal?: AbortSignal | undefined; limits?: Partial<Limits> } = {},
): Promise<Layout> {
  const effective = { ...defaultLimits, ...limits }
  if ((await stat(path)).isDirectory()) return readFiles(filesOfFolder(path, effective), reader, effective)
  const source = createReadStream(path, { highWaterMark: 1024 * 1024, ...(signal ? { signal } : {}) })
  try {
    return await readLayout(source, reader, limits)
  } finally {
    source.destroy()
  }
}

/** Reads all of a file at a path. Throws as `readLayoutAt` does, and BUNDLE_INVALID for an index or a lock that is none. */
export async function survey(path: string, options: Parameters<typeof readLayoutAt>[2] = {}): Promise<Survey> {
  const { found, take } = openCollection()
  const onBlob = async ({ digest, size }: { digest: Digest; size: number }, content: Readable) => {
    const blob = take(digest, size)
    for await (const piece of content as AsyncIterable<Buffer>) blob.piece(piece)
    blob.end()
  }
  const layout = await readLayoutAt(path, { onBlob }, options)
  const contents = parseIndex(layout.index)
  return { layout, contents, blobs: found.blobs, manifests: found.manifests, ...documentsOf(contents, found) }
}

/** The lock and the list of what is left out. Throws BUNDLE_INVALID where one is named and is not there or none. */
export function documentsOf(contents: Contents, { raw }: Collection): Pick<Survey, 'lock' | 'leftOut'> {
  const documentAt = (kind: 'lock' | 'missing') => {
    const entry = contents.entries.find((candidate) => candidate.kind === kind)
    if (!entry) return undefined
    const manifest = raw.get(entry.descriptor.digest)
    if (!manifest) throw invalid(`the manifest of the ${kind}, ${entry.descriptor.digest}, is not in it, or is none`)
    const { digest } = documentOf(manifest, kind)
    const bytes = raw.get(digest)
    if (!bytes) throw invalid(`the ${kind} ${digest} is not in it, or is none`)
    return { digest, bytes }
  }
  const lock = documentAt('lock')
  const missing = documentAt('missing')
  return {
    lock: lock && { digest: lock.digest, lock: readLock(lock.bytes) },
    leftOut: missing ? parseMissing(missing.bytes) : [],
  }
}

function readLock(bytes: Buffer): Lock {
  const lock = parseLock(parseJson(bytes, 'the lock'))
  if ('violations' in lock) throw invalid(`the lock: ${inWords(lock.violations)}`)
  return lock
}
