import { algorithmOf, type Digest, hexOf, parseDigest } from '../oci/digest.ts'
import { randomHex } from '../random.ts'

declare const brand: unique symbol

/** The name of one object in the blob store. Made here only; no text from a client is ever part of one. */
export type ObjectKey = string & { readonly [brand]: 'ObjectKey' }

/**
 * Where verified content lives: its content address and a short random generation. Content that is deleted and pushed
 * again gets another generation, so a deletion under way can never meet the new bytes. The generation is a suffix
 * rather than a folder of its own: one directory less to create and sync for every blob.
 */
export function blobKey(digest: Digest): ObjectKey {
  const hex = hexOf(digest)
  return `blobs/${algorithmOf(digest)}/${hex.slice(0, 2)}/${hex}.${randomHex(4)}` as ObjectKey
}

/** Where one chunk of an unfinished upload is staged. Random, so two writers of one chunk never share an object. */
export function chunkKey(uploadId: string): ObjectKey {
  return `uploads/${uploadId}/${randomHex(6)}` as ObjectKey
}

/** Where wrong bytes are kept for a person to look at. Nothing is ever served from there. */
export function quarantineKey(digest: Digest): ObjectKey {
  return `quarantine/${algorithmOf(digest)}/${hexOf(digest)}.${randomHex(4)}` as ObjectKey
}

/** What the keys of all generations of content begin with; its folder where `digest` is only the first two digits. */
export function generationsOf(digest: Digest): string {
  const hex = hexOf(digest)
  return `blobs/${algorithmOf(digest)}/${hex.slice(0, 2)}/${hex}.`
}

/** The folders that content is spread over, by the first two digits. */
export function* contentFolders(): Generator<string> {
  for (const algorithm of ['sha256', 'sha512'])
    for (let first = 0; first < 256; first++) yield `blobs/${algorithm}/${first.toString(16).padStart(2, '0')}/`
}

/** What an object is by its key: content of a digest, a chunk of an upload, a part of an export, in quarantine, or none of ours. */
export type KeyKind =
  | { kind: 'blob'; digest: Digest }
  | { kind: 'chunk'; uploadId: string }
  | { kind: 'export' }
  | { kind: 'quarantine' }
  | { kind: 'probe' }

const content = /^blobs\/(sha256|sha512)\/([0-9a-f]{2})\/(\2[0-9a-f]+)\.[0-9a-f]{8}$/
const chunk = /^uploads\/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\/[0-9a-f]{12}$/

/** Reads a key that is made above; undefined where it is none. */
export function parseKey(key: string): KeyKind | undefined {
  const [, algorithm, , hex] = content.exec(key) ?? []
  const digest = hex === undefined ? undefined : parseDigest(`${algorithm}:${hex}`)
  if (digest) return { kind: 'blob', digest }
  const [, uploadId] = chunk.exec(key) ?? []
  if (uploadId !== undefined) return { kind: 'chunk', uploadId }
  if (/^exports\/[0-9a-f]{64}\/[0-9a-f]{12}$/.test(key)) return { kind: 'export' }
  if (key.startsWith('quarantine/')) return { kind: 'quarantine' }
  // What a start of the registry writes to see whether it may (s3.ts), left where it could not be deleted.
  return /^probe-[\w-]{12}$/.test(key) ? { kind: 'probe' } : undefined
}

/** Where a part of a bundle file that was exported is kept. Random, so two writers of one part never share an object. */
export function exportKey(exportId: string): ObjectKey {
  return `exports/${exportId}/${randomHex(6)}` as ObjectKey
}

/** A key as the database remembers it. */
export function storedKey(text: string): ObjectKey {
  return text as ObjectKey
}
