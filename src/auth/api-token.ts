import { hash, randomBytes } from 'node:crypto'

/** So that a token is known by its looks, to people and to programs that search for leaked ones. */
const prefix = 'pkr_'

/** A new token, and the hash that is kept of it. With 256 random bits a plain hash cannot be turned back. */
export function newApiToken(): { token: string; hash: Buffer } {
  const token = prefix + randomBytes(32).toString('base64url')
  return { token, hash: hashOf(token) }
}

export function isApiToken(text: string): boolean {
  return text.startsWith(prefix)
}

export function hashOf(token: string): Buffer {
  return hash('sha256', token, 'buffer')
}
