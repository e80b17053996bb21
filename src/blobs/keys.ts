import { randomBytes } from 'node:crypto'
import { algorithmOf, type Digest, hexOf } from '../oci/digest.ts'

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
  return `blobs/${algorithmOf(digest)}/${hex.slice(0, 2)}/${hex}.${randomBytes(4).toString('hex')}` as ObjectKey
}

/** Where one chunk of an unfinished upload is staged. Random, so two writers of one chunk never share an object. */
export function chunkKey(uploadId: string): ObjectKey {
  return `uploads/${uploadId}/${randomBytes(6).toString('hex')}` as ObjectKey
}

/** Where a part of a bundle file that was exported is kept. Random, so two writers of one part never share an object. */
export function exportKey(exportId: string): ObjectKey {
  return `exports/${exportId}/${randomBytes(6).toString('hex')}` as ObjectKey
}

/** A key as the database remembers it. */
export function storedKey(text: string): ObjectKey {
  return text as ObjectKey
}
