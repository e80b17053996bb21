import { Failure } from '../errors.ts'
import type { Digest } from '../oci/digest.ts'
import { type Envelope, parseEnvelope, signEnvelope, signersOf } from './dsse.ts'
import { type DistrustedKey, type PublicKey, type SigningKey, shortKeyId } from './keys.ts'
import { checkStatement, type Predicate, statementBytes, statementType } from './statement.ts'

/** The signed parts of a bundle: the exact bytes of index.json and the digest of the lock, where there is one. */
export type Signed = { index: Buffer; lock: Digest | undefined }

/** What became of looking at a bundle's signature. `by`: the trusted keys that made it. */
export type SignatureOutcome =
  | { kind: 'missing' }
  | { kind: 'verified'; by: readonly PublicKey[]; predicate: Predicate }
  | { kind: 'refused'; reason: string }

/** `always`: no signature by a trusted key, no import. `if-present`: what is signed must verify. `never`: not looked at. */
export type VerifyPolicy = 'always' | 'if-present' | 'never'

/** The bytes of `bundle.dsse.json`. Sign with every current key, so that a receiver may trust the old or the new one. */
export function signBundle(index: Buffer, lock: Digest, predicate: Predicate, keys: readonly SigningKey[]): Buffer {
  return signEnvelope(statementType, statementBytes(index, lock, predicate), keys)
}

/**
 * Looks at the signature of a bundle: is it one, of this content, by a trusted key, and was that key still good at
 * `now`? One good signature is enough. Never throws: what is wrong is the outcome's reason, for the policy to judge.
 * `distrusted`: for the words of that reason only.
 */
export function checkSignature(
  envelope: Buffer | undefined,
  { index, lock }: Signed,
  keys: readonly PublicKey[],
  now: Date,
  distrusted: readonly DistrustedKey[] = [],
): SignatureOutcome {
  if (!envelope) return { kind: 'missing' }
  try {
    const parsed = parseEnvelope(envelope)
    if (parsed.payloadType !== statementType)
      return { kind: 'refused', reason: `it is of the type ${JSON.stringify(parsed.payloadType.slice(0, 200))}` }
    // Before the statement is read: nothing in it means anything until somebody trusted has signed it.
    const signers = signersOf(parsed, keys)
    const by = signers.filter(({ expiresAt }) => !expiresAt || now < expiresAt)
    if (by.length === 0) return { kind: 'refused', reason: whyNobody(parsed, signers, keys, distrusted) }
    return { kind: 'verified', by, predicate: checkStatement(parsed.payload, index, lock) }
  } catch (error) {
    if (error instanceof Failure && error.key === 'SIGNATURE_INVALID')
      return { kind: 'refused', reason: String(error.detail) }
    throw error
  }
}

function whyNobody(
  { signatures }: Envelope,
  expired: readonly PublicKey[],
  trusted: readonly PublicKey[],
  distrusted: readonly DistrustedKey[],
): string {
  const [old] = expired
  if (old)
    return `the key ${nameOf(old)} expired at ${old.expiresAt?.toISOString()}; ask the sender to sign with a current one`
  const isNamed = ({ keyid }: { keyid: string }) => signatures.some((signature) => signature.keyid === keyid)
  const known = trusted.find(isNamed)
  if (known) return `it names the trusted key ${nameOf(known)}, but that key did not sign this: the file was changed`
  const fallen = distrusted.find(isNamed)
  if (fallen)
    return `it names the key ${fallen.name} (${fallen.keyid}), and that key was distrusted here on ${fallen.distrustedAt.toISOString().slice(0, 10)}; ask the sender to sign with another one`
  const named = signatures.map(({ keyid }) => (keyid ? JSON.stringify(keyid) : 'a key it does not name')).join(', ')
  return `it is by ${named}, and no trusted key signed it; if the sender is known to you, trust that public key first`
}

function nameOf({ keyid, name }: PublicKey): string {
  return name ? `${name} (${shortKeyId(keyid)})` : keyid
}

/**
 * Whether a bundle may be taken: undefined, or the failure to throw. Without a policy it is `always` as soon as a key was
 * ever trusted: whoever trusts a key expects that nothing else comes in, and more so once it is distrusted.
 */
export function decideVerification(
  policy: VerifyPolicy | undefined,
  hadKeys: boolean,
  outcome: SignatureOutcome,
): Failure | undefined {
  const effective = policy ?? (hadKeys ? 'always' : 'if-present')
  if (effective === 'never' || outcome.kind === 'verified') return undefined
  if (outcome.kind === 'refused')
    return new Failure('SIGNATURE_INVALID', { detail: `the signature does not hold: ${outcome.reason}` })
  if (effective === 'if-present') return undefined
  return new Failure('SIGNATURE_MISSING', {
    detail:
      'the bundle is not signed, and only signed ones are taken here; ask the sender to sign it ("packs keys create")',
  })
}
