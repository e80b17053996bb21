import { sign, verify } from 'node:crypto'
import { Failure } from '../errors.ts'
import { isObject } from '../oci/descriptor.ts'
import type { PublicKey, SigningKey } from './keys.ts'

// Dead Simple Signing Envelope. What is signed is the payload and its type, never the JSON around them, so nothing has
// to be put into a canonical form, and a signature for one type is none for another.
// Source: github.com/secure-systems-lab/dsse, protocol.md and envelope.md, version 1.

/** One signature of an envelope. `keyid` is a hint that anybody may have changed; it proves nothing. */
type Signature = { keyid?: string; sig: Buffer }
export type Envelope = { payloadType: string; payload: Buffer; signatures: readonly Signature[] }

/** The largest envelope that is read, in bytes. Ours have less than 2 KiB. */
export const maxEnvelopeBytes = 1024 * 1024
/** As many keys as may sign one bundle. Each signature is tried with each trusted key, so this bounds the work. */
export const maxSignatures = 16
const signatureBytes = 64

/** What a signature is made over: `DSSEv1`, the type and the payload, each after its length in bytes. */
export function preAuthEncoding(payloadType: string, payload: Uint8Array): Buffer {
  const type = Buffer.from(payloadType)
  return Buffer.concat([Buffer.from(`DSSEv1 ${type.length} `), type, Buffer.from(` ${payload.length} `), payload])
}

/** The envelope's bytes. The same keys and payload give the same bytes: Ed25519 uses no chance, and keys are sorted. */
export function signEnvelope(payloadType: string, payload: Buffer, keys: readonly SigningKey[]): Buffer {
  const message = preAuthEncoding(payloadType, payload)
  const signatures = [...keys]
    .sort((a, b) => (a.keyid < b.keyid ? -1 : 1))
    .map(({ keyid, privateKey }) => ({ keyid, sig: sign(null, message, privateKey).toString('base64') }))
  return Buffer.from(JSON.stringify({ payload: payload.toString('base64'), payloadType, signatures }))
}

/** Reads an envelope. Throws SIGNATURE_INVALID, in words that say which part of it is none. */
export function parseEnvelope(bytes: Buffer): Envelope {
  const invalid = (detail: string, cause?: unknown) =>
    new Failure('SIGNATURE_INVALID', { detail: `the signature cannot be read: ${detail}`, cause })
  if (bytes.length > maxEnvelopeBytes) throw invalid(`it has more than ${maxEnvelopeBytes} bytes`)
  let value: unknown
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (cause) {
    throw invalid('it is not JSON in UTF-8', cause)
  }
  if (!isObject(value)) throw invalid('it is not a JSON object')
  const { payloadType, payload, signatures } = value
  if (typeof payloadType !== 'string') throw invalid('payloadType must be text')
  const content = fromBase64(payload)
  if (!content) throw invalid('payload must be base64')
  const read = readSignatures(signatures, invalid)
  if (read.length === 0) throw invalid('it lists no signatures')
  return { payloadType, payload: content, signatures: read }
}

/** The signatures of an envelope. Throws what `invalid` makes of what is wrong. */
export function readSignatures(signatures: unknown, invalid: (detail: string) => Failure): Signature[] {
  if (!Array.isArray(signatures)) throw invalid('it lists no signatures')
  if (signatures.length > maxSignatures) throw invalid(`it lists more than ${maxSignatures} signatures`)
  return signatures.map((entry: unknown, i): Signature => {
    const { keyid, sig } = isObject(entry) ? entry : {}
    const decoded = fromBase64(sig)
    if (decoded?.length !== signatureBytes)
      throw invalid(`signatures[${i}].sig must be an Ed25519 signature, ${signatureBytes} bytes in base64`)
    if (keyid !== undefined && keyid !== null && (typeof keyid !== 'string' || keyid.length > 256))
      throw invalid(`signatures[${i}].keyid must be text of at most 256 characters`)
    return { ...(keyid ? { keyid } : {}), sig: decoded }
  })
}

/** Either alphabet, with or without padding, as envelope.md asks of readers; nothing else in between. */
const base64 = /^(?:[A-Za-z0-9+/]*|[A-Za-z0-9_-]*)={0,2}$/

function fromBase64(value: unknown): Buffer | undefined {
  return typeof value === 'string' && base64.test(value) ? Buffer.from(value, 'base64') : undefined
}

/**
 * Which of the keys signed this. Every signature is tried with every key, whatever its keyid says: the hint is not
 * signed, so it must not decide, and a wrong one must not hide a good signature.
 */
export function signersOf(envelope: Envelope, keys: readonly PublicKey[]): PublicKey[] {
  const message = preAuthEncoding(envelope.payloadType, envelope.payload)
  return keys.filter(({ key }) => envelope.signatures.filter(({ sig }) => verify(null, message, key, sig)).length > 0)
}
