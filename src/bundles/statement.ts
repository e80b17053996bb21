import { Failure } from '../errors.ts'
import { isObject } from '../oci/descriptor.ts'
import { type Digest, digestOf, hexOf, parseDigest } from '../oci/digest.ts'

// What a signature on a bundle says: these are the bytes of index.json, and this is the lock. Everything else in the
// file is named by its digest from there, so it is covered too. The counts let a receiver see what it is about to get.
// Source: in-toto attestation framework, spec/v1/statement.md.

/** The type of a DSSE payload that is an in-toto statement. */
export const statementType = 'application/vnd.in-toto+json'
const inToto = 'https://in-toto.io/Statement/v1'
const predicateType = 'https://stellaops.org/attestations/pack-bundle/v1'

/**
 * `packs`: versions in the file. `blobs`, `size`: files under blobs/ and the sum of their bytes. `base`: the inventory
 * that an incremental bundle was made against.
 */
export type Predicate = { packs: number; blobs: number; size: number; base?: Digest | undefined }

/** The bytes of the statement. `lock`: the sha256 digest of the lock's bytes. No clock in it. */
export function statementBytes(index: Buffer, lock: Digest, { packs, blobs, size, base }: Predicate): Buffer {
  const subject = [
    { name: 'index.json', digest: { sha256: hexOf(digestOf(index)) } },
    { name: 'lock', digest: { sha256: hexOf(lock) } },
  ]
  const predicate = { bundleVersion: 1, packs, blobs, size, ...(base ? { base } : {}) }
  return Buffer.from(JSON.stringify({ _type: inToto, subject, predicateType, predicate }))
}

/**
 * Checks that the statement speaks of this index and this lock; answers what else it says.
 * Throws SIGNATURE_INVALID, in words that say where it does not.
 */
export function checkStatement(payload: Buffer, index: Buffer, lock: Digest | undefined): Predicate {
  const invalid = (detail: string) => new Failure('SIGNATURE_INVALID', { detail })
  const value = parseObject(payload)
  if (!value) throw invalid('what is signed is not a JSON object in UTF-8')
  if (value._type !== inToto) throw invalid(`what is signed is not an in-toto statement (${inToto})`)
  if (value.predicateType !== predicateType)
    throw invalid(`the statement is about something else than a bundle: ${shown(value.predicateType)}`)
  const signedIndex = subjectOf(value.subject, 'index.json')
  if (signedIndex !== hexOf(digestOf(index)))
    throw invalid('index.json is not the one that was signed: it was changed, or the signature is of another bundle')
  const signedLock = subjectOf(value.subject, 'lock')
  if (!lock) throw invalid('the statement names a lock, and the file has none')
  if (signedLock !== hexOf(lock)) throw invalid('the lock is not the one that was signed')
  return parsePredicate(value.predicate, invalid)
}

function parsePredicate(value: unknown, invalid: (detail: string) => Failure): Predicate {
  const { bundleVersion, packs, blobs, size, base } = isObject(value) ? value : {}
  if (bundleVersion !== 1)
    throw invalid(`the statement is of bundle version ${shown(bundleVersion)}; this program knows version 1`)
  const count = (name: string, number: unknown) => {
    if (!Number.isSafeInteger(number) || Number(number) < 0) throw invalid(`the statement's ${name} must be a count`)
    return Number(number)
  }
  const parsed = typeof base === 'string' ? parseDigest(base) : undefined
  if (base !== undefined && !parsed) throw invalid("the statement's base must be a digest")
  return {
    packs: count('packs', packs),
    blobs: count('blobs', blobs),
    size: count('size', size),
    ...(parsed ? { base: parsed } : {}),
  }
}

/** The sha256 that the statement has for one subject; undefined where it names it not at all or twice. */
function subjectOf(subjects: unknown, name: string): string | undefined {
  if (!Array.isArray(subjects)) return undefined
  const found = subjects.filter((entry) => isObject(entry) && entry.name === name)
  const [subject] = found
  const sha256 = found.length === 1 && isObject(subject?.digest) ? subject.digest.sha256 : undefined
  return typeof sha256 === 'string' ? sha256 : undefined
}

function parseObject(bytes: Buffer): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
    return isObject(value) ? value : undefined
  } catch {
    return undefined
  }
}

function shown(value: unknown): string {
  return JSON.stringify(value)?.slice(0, 200) ?? 'nothing'
}
