import { patternOf } from '../auth/glob.ts'
import type { RemovalKind } from '../db/retention.ts'
import type { RepositoryName } from '../oci/name.ts'

// A policy names repositories, and for each kind of thing in them what is kept of it: what no rule keeps is removed. A
// kind that it does not name it leaves alone. So a rule more never removes more, and rules are read one by one.

/** `90d`, `12h`, `4w`: hours, days or weeks. */
export type Age = string

/** What is kept of a kind of things: whatever one of these rules says. */
export type Keeping = {
  /** So many: of versions the highest, of tags those that were pushed last. */
  keepNewest?: number | undefined
  /** What was published, pushed or left without a tag less long ago than this. */
  keepNewerThan?: Age | undefined
  /** Tags whose name is like one of these, with `*` for any characters. */
  keepMatching?: readonly string[] | undefined
  /** Pre-releases whose release is not published. */
  keepUnreleased?: boolean | undefined
}

/** `repositories` and `except` are globs over names: `packs/net-*`, `images/**`. Of packs there are versions only. */
export type PolicyDocument = {
  repositories: readonly string[]
  except?: readonly string[] | undefined
  /** Releases, without pre-releases. */
  versions?: Keeping | undefined
  prereleases?: Keeping | undefined
  /** Tags of plain repositories. A manifest stays when its tag goes, until `untagged` says otherwise. */
  tags?: Keeping | undefined
  /** Manifests of plain repositories that have no tag. */
  untagged?: Keeping | undefined
}

export type Policy = PolicyDocument & { name: string }

const sections = { version: 'versions', prerelease: 'prereleases', tag: 'tags', untagged: 'untagged' } as const

/** What a policy keeps of a kind; undefined where it leaves it alone. */
export function keepingOf(policy: Policy, kind: RemovalKind): Keeping | undefined {
  return policy[sections[kind]]
}

export const agePattern = /^([1-9]\d{0,4})([hdw])$/
const hours = { h: 1, d: 24, w: 168 } as const

/** In milliseconds. */
export function millisecondsOf(age: Age): number {
  const [, count = '', unit = ''] = agePattern.exec(age) ?? []
  return Number(count) * hours[unit as keyof typeof hours] * 60 * 60 * 1000
}

/** Policies that are applied together: `acting` remove, and what any of them keeps stays. */
export type Rules = {
  policies: readonly Policy[]
  acting: ReadonlySet<string>
}

/** The policies that a repository falls under. */
export function openCoverage(rules: Rules): (repository: RepositoryName) => Rules {
  const compiled = rules.policies.map((policy) => ({
    policy,
    within: policy.repositories.map((glob) => new RegExp(patternOf(glob))),
    without: (policy.except ?? []).map((glob) => new RegExp(patternOf(glob))),
  }))
  return (repository) => ({
    acting: rules.acting,
    policies: compiled
      .filter(({ within }) => within.some((pattern) => pattern.test(repository)))
      .filter(({ without }) => !without.some((pattern) => pattern.test(repository)))
      .map(({ policy }) => policy),
  })
}

/** Expressions for the repositories that those who act are about, for the database. */
export function patternsOf({ policies, acting }: Rules): string[] {
  return policies.filter(({ name }) => acting.has(name)).flatMap(({ repositories }) => repositories.map(patternOf))
}
