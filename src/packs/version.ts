import semver from 'semver'
import type { Tag } from '../oci/reference.ts'

declare const brand: unique symbol

/** A version of a pack, as it was written: strict SemVer 2.0, at most 128 characters (the length of a tag). */
export type Version = string & { readonly [brand]: 'Version' }

/** What a dependency accepts, in npm's notation: `^1.2.0`, `>=1 <3 || 5.x`, `*`. */
export type Range = string & { readonly [brand]: 'Range' }

/** Source: semver.org 2.0.0, its own regular expression. */
export const grammar =
  /^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?(?:\+([0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?$/

/** The text as a version, or undefined. No `v` in front, no missing parts. */
export function parseVersion(text: string): Version | undefined {
  return text.length <= 128 && grammar.test(text) && semver.parse(text) !== null ? (text as Version) : undefined
}

/** The text as a range, or undefined. Empty means any version. */
export function parseRange(text: string): Range | undefined {
  return text.length <= 256 && semver.validRange(text) !== null ? ((text.trim() || '*') as Range) : undefined
}

/** The tag of a version: `+` becomes `_`. One to one, for a version has no `_` and a tag no `+`. */
export function tagOf(version: Version): Tag {
  return version.replace('+', '_') as string as Tag
}

/** The version that a tag names, or undefined where the tag is the name of a channel. */
export function versionOfTag(tag: string): Version | undefined {
  return parseVersion(tag.replace('_', '+'))
}

/** Without the build part, which says nothing about order: two versions alike in this are the same release. */
export function releaseOf(version: Version): Version {
  const [release = version] = version.split('+', 1)
  return release as Version
}

export function isPrerelease(version: Version): boolean {
  return releaseOf(version).includes('-')
}

/** Below zero where `a` comes before `b`. Source: semver.org 2.0.0, section 11. */
export function compareVersions(a: Version | string, b: Version | string): number {
  return semver.compare(a, b)
}

/** Whether a range accepts a version; a pre-release only where the range names one of the same release. */
export function satisfies(version: Version, range: Range): boolean {
  return semver.satisfies(version, range)
}

/** Whether a runner of this version may run a pack that asks for these: at least `min`, at most `max`. */
export function runs(runner: Version, { min, max }: { min?: string | undefined; max?: string | undefined }): boolean {
  if (min !== undefined && semver.lt(runner, min)) return false
  return max === undefined || semver.lte(runner, max)
}

/**
 * A text that sorts by bytes as the versions do by precedence, so that the database can sort them.
 * Numbers carry their length in front; identifiers end in "!", which is below every character they may have; and a
 * release, "~", comes after all its pre-releases.
 */
export function precedenceOf(version: Version): string {
  const [, major = '', minor = '', patch = '', prerelease] = grammar.exec(version) ?? []
  const number = (digits: string) => `${String.fromCharCode(0x40 + digits.length)}${digits}`
  const identifier = (text: string) => (/^\d+$/.test(text) ? `0${number(text)}` : `1${text}`)
  const release = [major, minor, patch].map(number).join('')
  return prerelease === undefined ? `${release}~` : `${release}${prerelease.split('.').map(identifier).join('!')}`
}
