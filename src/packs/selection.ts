import type { Tag } from '../oci/reference.ts'
import type { PackType } from './pack.ts'
import { openRanges, type Range, type Version } from './version.ts'

/** Which packs and versions something is about. Whatever is given must hold. */
export type Selection = {
  /** Patterns over pack ids, `*` for any run of characters: at least one must match. */
  packs: readonly string[]
  /** Versions that it accepts; absent: all, pre-releases too. */
  versions?: Range | undefined
  /** Only versions that one of these names, and only these are carried along; absent: all. */
  channels?: readonly Tag[] | undefined
  types?: readonly PackType[] | undefined
  /** Whether all they need comes along. */
  closure: boolean
  /** Whether signatures, SBOMs and attestations come along. */
  referrers: boolean
}

export const patternGrammar = /^[a-z0-9*._-]{1,128}$/

export function isPattern(text: string): boolean {
  return text.includes('*')
}

/** Tells whether a pack id, or a tag, matches one of these patterns. No regular expression: a pattern can be no trap. */
export function openPatterns(patterns: readonly string[]): (name: string) => boolean {
  const exact = new Set(patterns.filter((pattern) => !isPattern(pattern)))
  const open = patterns.filter(isPattern).map((pattern) => pattern.split('*'))
  return (name) => exact.has(name) || open.some((parts) => matches(name, parts))
}

/** The parts stand in the text in their order, the first at its start and the last at its end. */
function matches(text: string, parts: readonly string[]): boolean {
  const [first = '', ...rest] = parts
  const last = rest.pop() ?? ''
  if (!text.startsWith(first)) return false
  let place = first.length
  for (const part of rest) {
    const found = text.indexOf(part, place)
    if (found < 0) return false
    place = found + part.length
  }
  return text.length - last.length >= place && text.endsWith(last)
}

/** Those of a pack's versions, highest first, that the range accepts; all where there is none. */
export function versionsIn(range: Range | undefined, versions: readonly Version[]): Version[] {
  if (range === undefined) return [...versions]
  const accepted = openRanges()(range, versions).flatMap(({ first, end }) => versions.slice(first, end))
  const set = new Set(accepted)
  return versions.filter((version) => set.has(version))
}
