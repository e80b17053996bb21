import { type Hash, hash } from 'node:crypto'

declare const brand: unique symbol

/** A digest this registry can verify: `sha256:` and 64, or `sha512:` and 128 lowercase hex digits. */
export type Digest = string & { readonly [brand]: 'Digest' }

export type Algorithm = 'sha256' | 'sha512'

const hexLength: Record<Algorithm, number> = { sha256: 64, sha512: 128 }
const supported = /^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/

/** The text as a digest, or undefined where it is not one of a supported algorithm. Source: image-spec, descriptor.md. */
export function parseDigest(text: string): Digest | undefined {
  return supported.test(text) ? (text as Digest) : undefined
}

export function parseAlgorithm(text: string): Algorithm | undefined {
  return Object.hasOwn(hexLength, text) ? (text as Algorithm) : undefined
}

export function algorithmOf(digest: Digest): Algorithm {
  return digest.slice(0, 6) as Algorithm
}

export function hexOf(digest: Digest): string {
  return digest.slice(7)
}

/** The digest of what `hash` has read so far; the hash itself can go on. */
export function digestSoFar(algorithm: Algorithm, hash: Hash): Digest {
  return `${algorithm}:${hash.copy().digest('hex')}` as Digest
}

export function digestOf(bytes: Uint8Array, algorithm: Algorithm = 'sha256'): Digest {
  return `${algorithm}:${hash(algorithm, bytes, 'hex')}` as Digest
}
