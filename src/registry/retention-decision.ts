import type { RemovalKind } from '../db/retention.ts'
import { openPatterns } from '../packs/selection.ts'
import {
  compareVersions,
  isPrerelease,
  openRanges,
  parseRange,
  type Range,
  releaseOf,
  type Version,
} from '../packs/version.ts'
import { type Keeping, keepingOf, millisecondsOf, type Policy, type Rules } from './retention-policy.ts'

// From facts to decisions, and nothing else: no clock, no database, no order in which things come. What is bound stays
// whatever policies say; then what any policy keeps stays; then what a policy that acts does not keep goes.

/** Why something stays, in a word: to be counted. The first five are never overruled. */
export type KeepRule =
  | ('latest' | 'channel' | 'held' | 'needed' | 'bundle')
  | ('attachment' | 'referrer' | 'member')
  | ('newest' | 'newer' | 'matching' | 'unreleased')

/** `reason`: in words that go on from "kept: " or "removed: ". `policy`: the one that removes. */
export type Decision = { kind: RemovalKind; name: string } & (
  | { action: 'keep'; rule: KeepRule; reason: string }
  | { action: 'remove'; policy: string; reason: string }
)

/** Something that may be removed. `place`: how many of its kind are newer. `at`: milliseconds since 1970. */
type Thing = {
  kind: RemovalKind
  name: string
  place: number
  at: number
  isReleased: boolean
  bound: Bond | undefined
}
type Bond = { rule: KeepRule; reason: string }

/** A version of a pack. `needed`: what depends on it, in words; `bundle`: one that has it as a member. */
export type VersionFact = {
  version: Version
  state: 'active' | 'deprecated' | 'yanked'
  publishedAt: number
  channels: readonly string[]
  hold: { by: string; reason: string } | undefined
  needed: string | undefined
  bundle: string | undefined
}

/** Decides on all versions of a pack, the highest first. Kinds that no policy acts on are left out. */
export function decideVersions(versions: readonly VersionFact[], rules: Rules, now: number): Decision[] {
  const ordered = [...versions].sort((a, b) => compareVersions(b.version, a.version))
  const latest = latestOf(ordered)
  const releases = new Set(ordered.map(({ version }) => releaseOf(version) as string))
  const places = { version: 0, prerelease: 0 }
  return ordered.flatMap((fact) => {
    const { version, publishedAt } = fact
    const kind = isPrerelease(version) ? 'prerelease' : 'version'
    const isReleased = releases.has(version.split(/[-+]/, 1)[0] ?? '')
    const bound = fact === latest ? { rule: 'latest' as const, reason: 'it is the latest' } : bondOf(fact)
    const thing = { kind, name: version, place: places[kind]++, at: publishedAt, isReleased, bound } as const
    return decide(thing, rules, now) ?? []
  })
}

/** What lists show of a pack: the highest release that is not yanked, else the highest that is not, else the highest. */
function latestOf(ordered: readonly VersionFact[]): VersionFact | undefined {
  const alive = ordered.filter(({ state }) => state !== 'yanked')
  const among = alive.length > 0 ? alive : ordered
  return among.find(({ version }) => !isPrerelease(version)) ?? among[0]
}

function bondOf({ channels, hold, needed, bundle }: VersionFact): Bond | undefined {
  if (hold) return { rule: 'held', reason: `held by ${hold.by}: ${hold.reason}` }
  const [channel] = channels
  if (channel !== undefined) return { rule: 'channel', reason: `channel ${channel} points at it` }
  if (bundle !== undefined) return { rule: 'bundle', reason: `the bundle ${bundle} has it as a member` }
  if (needed !== undefined) return { rule: 'needed', reason: needed }
  return undefined
}

/** A range that something living gives for a pack. */
export type Given = { range: Range; dependent: string }

/**
 * What may use versions of a pack, in words; versions that nothing may use are left out. The rule is the one that keeps them
 * from being deleted: a range that accepts it. Each range is looked at once, and each version until one accepts it.
 */
export function needsOf(versions: readonly Version[], given: readonly Given[]): Map<Version, string> {
  const ordered = [...versions].sort((a, b) => compareVersions(b, a))
  const accepted = openRanges()
  const needs = new Map<Version, string>()
  const unneeded = openGaps(ordered.length)
  for (const { range, dependent } of given) {
    if (parseRange(range) === undefined) continue
    for (const { first, end } of accepted(range, ordered))
      for (let place = unneeded.from(first); place < end; place = unneeded.from(place + 1)) {
        needs.set(ordered[place] as Version, `${dependent} depends on it (${range})`)
        unneeded.fill(place)
      }
  }
  return needs
}

/** Places that are open. `from`: the first open one from there on, however many in between are filled. */
function openGaps(count: number) {
  const onward = Uint32Array.from({ length: count + 1 }, (_, place) => place)
  const at = (place: number) => onward[place] ?? count
  return {
    from(start: number): number {
      let place = start
      // What is passed points further from then on, so that a long way is gone once.
      for (; at(place) !== place; place = at(place)) onward[place] = at(at(place))
      return place
    },
    fill(place: number): void {
      onward[place] = place + 1
    },
  }
}

/** A tag of a plain repository. `attachedTo`: the manifest that it belongs to, where it is a tag of referrers. */
export type TagFact = { name: string; at: number; attachedTo: string | undefined }

/** Decides on all tags of a plain repository, those pushed last first. */
export function decideTags(tags: readonly TagFact[], rules: Rules, now: number): Decision[] {
  let place = 0
  return newestFirst(tags).flatMap(({ name, at, attachedTo }) => {
    const bound =
      attachedTo === undefined ? undefined : { rule: 'attachment' as const, reason: `it belongs to ${attachedTo}` }
    const thing = { kind: 'tag', name, place: bound ? 0 : place++, at, isReleased: true, bound } as const
    return decide(thing, rules, now) ?? []
  })
}

export function newestFirst(tags: readonly TagFact[]): TagFact[] {
  return [...tags].sort((a, b) => b.at - a.at || (a.name < b.name ? -1 : 1))
}

/** A manifest of a plain repository without a tag. `subject`: what it refers to and is there; `index`: what lists it. */
export type UntaggedFact = { digest: string; since: number; subject: string | undefined; index: string | undefined }

export function decideUntagged(facts: readonly UntaggedFact[], rules: Rules, now: number): Decision[] {
  const ordered = [...facts].sort((a, b) => (a.digest < b.digest ? -1 : 1))
  return ordered.flatMap(({ digest, since, subject, index }) => {
    const bound = untaggedBond(subject, index)
    return decide({ kind: 'untagged', name: digest, place: 0, at: since, isReleased: true, bound }, rules, now) ?? []
  })
}

function untaggedBond(subject: string | undefined, index: string | undefined): Bond | undefined {
  if (subject !== undefined) return { rule: 'referrer', reason: `it stays as long as ${subject}, which it refers to` }
  return index === undefined ? undefined : { rule: 'member', reason: `the index ${index} lists it` }
}

function decide(thing: Thing, { policies, acting }: Rules, now: number): Decision | undefined {
  const { kind, name, bound } = thing
  const about = policies
    .flatMap((policy) => ({ policy, keeping: keepingOf(policy, kind) }))
    .filter((entry): entry is { policy: Policy; keeping: Keeping } => entry.keeping !== undefined)
    .sort((a, b) => (a.policy.name < b.policy.name ? -1 : 1))
  const remover = about.find(({ policy }) => acting.has(policy.name))
  if (!remover) return undefined
  if (bound) return { kind, name, action: 'keep', ...bound }
  for (const { policy, keeping } of about) {
    const kept = keptBy(keeping, thing, now)
    const whose = about.length > 1 ? ` (policy ${policy.name})` : ''
    if (kept) return { kind, name, action: 'keep', rule: kept.rule, reason: kept.reason + whose }
  }
  return { kind, name, action: 'remove', policy: remover.policy.name, reason: notKept(remover.keeping) }
}

function keptBy(keeping: Keeping, { kind, name, place, at, isReleased }: Thing, now: number): Bond | undefined {
  const { keepNewest, keepNewerThan, keepMatching, keepUnreleased } = keeping
  if (keepNewest !== undefined && place < keepNewest)
    return { rule: 'newest', reason: `among the newest ${keepNewest}` }
  if (keepNewerThan !== undefined && now - at < millisecondsOf(keepNewerThan))
    return { rule: 'newer', reason: `newer than ${keepNewerThan}` }
  if (keepMatching && openPatterns(keepMatching)(name)) {
    const pattern = keepMatching.find((one) => openPatterns([one])(name))
    return { rule: 'matching', reason: `its name is like ${pattern}` }
  }
  if (keepUnreleased && kind === 'prerelease' && !isReleased)
    return { rule: 'unreleased', reason: 'its release is not out' }
  return undefined
}

function notKept({ keepNewest, keepNewerThan, keepMatching, keepUnreleased }: Keeping): string {
  const words = [
    keepNewerThan !== undefined && `older than ${keepNewerThan}`,
    keepNewest !== undefined && `not among the newest ${keepNewest}`,
    keepMatching && `its name is like none of ${keepMatching.join(', ')}`,
    keepUnreleased && 'its release is out',
  ]
  return words.filter(Boolean).join(' and ')
}
