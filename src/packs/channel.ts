import { type Digest, parseDigest } from '../oci/digest.ts'
import type { Tag } from '../oci/reference.ts'
import { compareVersions, type Version, versionOfTag } from './version.ts'

/** What a tag is in the repository of a pack. */
export type TagRole =
  | { kind: 'version'; version: Version }
  /** `latest`, which the registry keeps. */
  | { kind: 'latest' }
  | { kind: 'channel'; name: Tag }
  /** The referrers fallback and cosign's tags: they belong to another manifest. */
  | { kind: 'attachment' }
  /** Nearly a version: surely meant as one. */
  | { kind: 'malformed' }

const attachment = /^(?:sha256-[0-9a-f]{64}|sha512-[0-9a-f]{128})(?:\.[a-z]+)?$/
const nearlyVersion = /^[vV]?\d+\.\d+\.\d+/

/** What a tag of the referrers fallback, or one of cosign's, belongs to; undefined for other tags. */
export function attachedTo(tag: Tag): Digest | undefined {
  return attachment.test(tag) ? parseDigest((tag.split('.')[0] ?? '').replace('-', ':')) : undefined
}

export function roleOf(tag: Tag): TagRole {
  const version = versionOfTag(tag)
  if (version) return { kind: 'version', version }
  if (tag === 'latest') return { kind: 'latest' }
  if (attachment.test(tag)) return { kind: 'attachment' }
  return nearlyVersion.test(tag) ? { kind: 'malformed' } : { kind: 'channel', name: tag }
}

/** Whether a channel that names `from` (nothing: it is new, or what it names is no version) would go back to `to`. */
export function goesBack(from: Version | string | null | undefined, to: Version | string): boolean {
  return from != null && compareVersions(to, from) < 0
}
