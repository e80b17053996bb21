import { createHash, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { Failure } from '../errors.ts'

declare const brand: unique symbol

/** The name of a key that follows from the key itself: `sha256:` and the hex SHA-256 of its public part (SPKI, DER). */
export type KeyId = string & { readonly [brand]: 'KeyId' }

/** A public key that somebody trusts. From `expiresAt` on, what it signed is not accepted any more. */
export type PublicKey = { keyid: KeyId; key: KeyObject; name?: string | undefined; expiresAt?: Date | undefined }

/** A key that somebody trusted once. */
export type DistrustedKey = { keyid: string; name: string; distrustedAt: Date }

/** A key that signs. */
export type SigningKey = { keyid: KeyId; privateKey: KeyObject }

/** Enough of a key's name for a person to tell it from others; never enough to trust it by. */
export function shortKeyId(keyid: KeyId): string {
  return keyid.slice(0, 'sha256:'.length + 16)
}

/** The key id of a public part: SPKI, DER. */
export function keyIdOf(spki: Uint8Array): KeyId {
  return `sha256:${createHash('sha256').update(spki).digest('hex')}` as KeyId
}

/** A new Ed25519 key: the public part as SPKI, the private one as PKCS 8, both DER. Source: RFC 8410. */
export function generateKey(): { keyid: KeyId; spki: Buffer; pkcs8: Buffer } {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519')
  const spki = publicKey.export({ type: 'spki', format: 'der' })
  return { keyid: keyIdOf(spki), spki, pkcs8: privateKey.export({ type: 'pkcs8', format: 'der' }) }
}

/** A public part (SPKI, DER) that was checked before, such as one out of the database. */
export function publicKeyOf(spki: Buffer): PublicKey {
  return { keyid: keyIdOf(spki), key: createPublicKey({ key: spki, type: 'spki', format: 'der' }) }
}

/** The public part as PEM, the form in which it is handed to others. */
export function publicPem({ key }: PublicKey): string {
  return key.export({ type: 'spki', format: 'pem' }).toString()
}

/** An Ed25519 key in PEM has some 120 characters; the rest is room for comments around it. */
const maxPemCharacters = 16 * 1024
const block = /-----BEGIN ([A-Z0-9 ]{1,40})-----[\s\S]*?-----END \1-----/g

/**
 * An Ed25519 public key from PEM (SPKI, what `packs keys export` and `openssl pkey -pubout` write).
 * Throws KEY_INVALID, in words that say what it is instead.
 */
export function readPublicKey(pem: string): PublicKey {
  const invalid = (detail: string, cause?: unknown) => new Failure('KEY_INVALID', { detail, cause })
  if (pem.length > maxPemCharacters)
    throw invalid(`a public key in PEM has some 120 characters; this has ${pem.length}, more than ${maxPemCharacters}`)
  const found = [...pem.matchAll(block)]
  const [first] = found
  if (!first)
    throw invalid('this is no PEM: it must have the lines -----BEGIN PUBLIC KEY----- and -----END PUBLIC KEY-----')
  if (found.length > 1) throw invalid(`there are ${found.length} keys or certificates in this; give one public key`)
  const [text, label = ''] = first
  if (label.endsWith('PRIVATE KEY'))
    throw invalid(
      'this is a private key: give the public part ("openssl pkey -pubout"), and replace the key if others saw it',
    )
  if (label !== 'PUBLIC KEY') throw invalid(`this is a ${label.toLowerCase()}; a public key is needed`)
  let key: KeyObject
  try {
    key = createPublicKey(text)
  } catch (cause) {
    throw invalid('this PEM holds no public key that can be read; copy it again, whole', cause)
  }
  if (key.asymmetricKeyType !== 'ed25519')
    throw invalid(`this is a key of the kind ${key.asymmetricKeyType}; bundles are signed with Ed25519`)
  const spki = key.export({ type: 'spki', format: 'der' })
  if (isOfSmallOrder(spki))
    throw invalid('this key belongs to nobody: anyone can make signatures that it takes; ask the sender for another')
  return { keyid: keyIdOf(spki), key }
}

/**
 * The points of small order, in every way to write them, without the sign bit. Anybody can make
 * signatures that such a key takes, without a private part. Source: Chalkias and others, "Taming the many EdDSAs", table 2.
 */
const smallOrder = new Set([
  '0100000000000000000000000000000000000000000000000000000000000000',
  'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  '0000000000000000000000000000000000000000000000000000000000000000',
  '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
  'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a',
  'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
])

function isOfSmallOrder(spki: Buffer): boolean {
  const point = Buffer.from(spki.subarray(-32))
  point[31] = (point[31] as number) & 0x7f
  return smallOrder.has(point.toString('hex'))
}
