import { hash, timingSafeEqual } from 'node:crypto'

// The one place where something secret is compared with what somebody shows. Passwords go by bcrypt (passwords.ts), and API
// tokens are looked up by their digest (api-token.ts): how long that takes tells of the digest, from which there is no way
// back to the token.

/**
 * Whether what was shown is what was expected. Takes as long whatever the two have in common, and however long they are:
 * their digests are compared.
 */
export function isSameSecret(shown: string, expected: string): boolean {
  return timingSafeEqual(digestOf(shown), digestOf(expected))
}

function digestOf(text: string): Buffer {
  return hash('sha256', text, 'buffer')
}
