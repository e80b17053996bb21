import type { Digest } from '../oci/digest.ts'
import { checkClosure, refusalOf } from './closure.ts'
import type { DistrustedKey, PublicKey } from './keys.ts'
import { checkSignature, decideVerification, type SignatureOutcome, type VerifyPolicy } from './signature.ts'
import type { Survey } from './survey.ts'

/** `unnamed`: blobs that nothing in the file names; harmless, and left behind by an import. */
export type Verified = { signature: SignatureOutcome; unnamed: readonly Digest[] }

/**
 * Judges a file that was read: the signature first, then whether it is complete and says one thing.
 * Throws SIGNATURE_INVALID, SIGNATURE_MISSING, BUNDLE_INVALID.
 */
export function verify(
  survey: Survey,
  { keys, policy, now }: { keys: readonly PublicKey[]; policy: VerifyPolicy | undefined; now: Date },
): Verified {
  const { contents, blobs, manifests, lock, leftOut } = survey
  const signature = signatureOf(survey, keys, now)
  const refused = decideVerification(policy, keys.length > 0, signature)
  if (refused) throw refused
  const { violations, reached } = checkClosure({
    contents,
    lock: lock?.lock,
    leftOut,
    sizeOf: (digest) => blobs.get(digest),
    manifestOf: (digest) => manifests.get(digest),
  })
  const invalid = refusalOf(violations)
  if (invalid) throw invalid
  return { signature, unnamed: [...blobs.keys()].filter((digest) => !reached.has(digest)) }
}

/** Looks at the signature of a file that was read, and at whether the file is what the signature says. Never throws. */
export function signatureOf(
  { layout, contents, lock }: Pick<Survey, 'layout' | 'contents' | 'lock'>,
  keys: readonly PublicKey[],
  now: Date,
  distrusted: readonly DistrustedKey[] = [],
): SignatureOutcome {
  const outcome = checkSignature(layout.envelope, { index: layout.index, lock: lock?.digest }, keys, now, distrusted)
  if (outcome.kind !== 'verified') return outcome
  const { packs, blobs: count, size, base } = outcome.predicate
  const here = contents.entries.filter(({ kind }) => kind === 'pack').length
  if (packs !== here || count !== layout.blobs || size !== layout.size || base !== contents.base)
    return {
      kind: 'refused',
      reason: `it was made for ${packs} packs in ${count} blobs of ${size} bytes, and here are ${here} in ${layout.blobs} of ${layout.size}`,
    }
  return outcome
}
