import { createCipheriv, createDecipheriv, hkdfSync, type KeyObject, randomBytes } from 'node:crypto'

// Secrets at rest. The key follows from the registry's own secret, so this keeps them from whoever sees a row, a query or
// a log, not from whoever has the whole database.

const cipher = 'aes-256-gcm'
const [nonceBytes, tagBytes] = [12, 16]

function keyOf(secret: KeyObject | Buffer, purpose: string): Buffer {
  return Buffer.from(hkdfSync('sha256', secret, '', `packs-registry ${purpose}`, 32))
}

/** Seals a text. `purpose`: it can be opened for the same only. */
export function seal(secret: KeyObject | Buffer, purpose: string, text: string): Buffer {
  const nonce = randomBytes(nonceBytes)
  const sealing = createCipheriv(cipher, keyOf(secret, purpose), nonce)
  const sealed = Buffer.concat([sealing.update(text, 'utf8'), sealing.final()])
  return Buffer.concat([nonce, sealing.getAuthTag(), sealed])
}

/** Undefined where it was not sealed with this secret for this purpose. */
export function unseal(secret: KeyObject | Buffer, purpose: string, sealed: Buffer): string | undefined {
  try {
    const opening = createDecipheriv(cipher, keyOf(secret, purpose), sealed.subarray(0, nonceBytes))
    opening.setAuthTag(sealed.subarray(nonceBytes, nonceBytes + tagBytes))
    return opening.update(sealed.subarray(nonceBytes + tagBytes), undefined, 'utf8') + opening.final('utf8')
  } catch {
    return undefined
  }
}
