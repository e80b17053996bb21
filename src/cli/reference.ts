import { PacksError } from '../client/failure.ts'
import { type PackId, parsePackId } from '../packs/pack.ts'
import { parseRange, parseVersion, type Version } from '../packs/version.ts'

/** A pack as it is written on the command line: `id`, or `id@` and a version, a range or a channel. */
export type Reference = { packId: PackId; selector: string | undefined }

/** Throws REFERENCE_INVALID. */
export function parseReference(text: string): Reference {
  const at = text.indexOf('@')
  const packId = parsePackId(at < 0 ? text : text.slice(0, at))
  const selector = at < 0 ? undefined : text.slice(at + 1).trim()
  if (packId && selector !== '') return { packId, selector }
  throw invalid(
    text,
    'write the id of a pack (lowercase letters and digits, joined by single ".", "_" or "-"), or id@version',
  )
}

/** Throws REFERENCE_INVALID where it names no exact version. */
export function parseExact(text: string): { packId: PackId; version: Version } {
  const { packId, selector } = parseReference(text)
  const version = parseVersion(selector ?? '')
  if (version) return { packId, version }
  throw invalid(
    text,
    `this needs one exact version, such as ${packId}@1.4.0. See what there is: packs versions ${packId}`,
  )
}

/** Whether a selector is a range (or a version); else it is the name of a channel. */
export function isRange(selector: string): boolean {
  return parseRange(selector) !== undefined
}

function invalid(text: string, advice: string): PacksError {
  return new PacksError('REFERENCE_INVALID', `${JSON.stringify(text)} does not name a pack: ${advice}`)
}
