import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { compareVersions, isPrerelease, type Range, releaseOf, satisfies, type Version } from '../packs/version.ts'
import {
  type Decision,
  decideTags,
  decideUntagged,
  decideVersions,
  needsOf,
  type TagFact,
  type VersionFact,
} from './retention-decision.ts'
import { type Keeping, openCoverage, type Policy, type Rules } from './retention-policy.ts'

const day = 24 * 60 * 60 * 1000
const now = 1000 * day

const fact = (version: string, over: Partial<VersionFact> = {}): VersionFact => ({
  version: version as Version,
  state: 'active',
  publishedAt: now - 100 * day,
  channels: [],
  hold: undefined,
  needed: undefined,
  bundle: undefined,
  ...over,
})
const policy = (over: Partial<Policy>): Policy => ({ name: 'p', repositories: ['**'], ...over })
const only = (...policies: Policy[]): Rules => ({ policies, acting: new Set(policies.map(({ name }) => name)) })

const inWords = (decisions: readonly Decision[]) =>
  decisions.map(({ name, action, reason }) => `${name} ${action === 'keep' ? 'kept' : 'removed'}: ${reason}`)

describe('what is decided on versions', () => {
  const rows: { name: string; policy: Partial<Policy>; facts: VersionFact[]; says: string[] }[] = [
    {
      name: 'keeps the newest, and what is new, and says so',
      policy: { versions: { keepNewest: 2, keepNewerThan: '90d' } },
      facts: [fact('1.0.0'), fact('1.1.0'), fact('1.2.0', { publishedAt: now - 89 * day }), fact('2.0.0')],
      says: [
        '2.0.0 kept: it is the latest',
        '1.2.0 kept: among the newest 2',
        '1.1.0 removed: older than 90d and not among the newest 2',
        '1.0.0 removed: older than 90d and not among the newest 2',
      ],
    },
    {
      name: 'leaves kinds alone that the policy does not name, and does not count them',
      policy: { versions: { keepNewest: 1 } },
      facts: [fact('1.0.0'), fact('1.1.0'), fact('2.0.0-rc.1'), fact('2.0.0-rc.2')],
      says: ['1.1.0 kept: it is the latest', '1.0.0 removed: not among the newest 1'],
    },
    {
      name: 'drops pre-releases once their release is out',
      policy: { prereleases: { keepUnreleased: true } },
      facts: [fact('1.0.0-rc.1'), fact('1.0.0'), fact('1.1.0-rc.1'), fact('1.1.0-rc.2')],
      says: [
        '1.1.0-rc.2 kept: its release is not out',
        '1.1.0-rc.1 kept: its release is not out',
        '1.0.0-rc.1 removed: its release is out',
      ],
    },
    {
      name: 'counts a release with a build part as out',
      policy: { prereleases: { keepUnreleased: true } },
      facts: [fact('1.0.0-rc.1+a'), fact('1.0.0+b')],
      says: ['1.0.0-rc.1+a removed: its release is out'],
    },
    {
      name: 'never removes what is bound',
      policy: { versions: { keepNewerThan: '1d' } },
      facts: [
        fact('1.0.0', { hold: { by: 'alice', reason: 'case 7' } }),
        fact('1.1.0', { channels: ['edge', 'stable'] }),
        fact('1.2.0', { needed: 'app 1.0.0 depends on it (^1.2)' }),
        fact('1.3.0', { bundle: 'suite 1.0.0' }),
        fact('1.4.0'),
        fact('1.5.0'),
        fact('2.0.0', { state: 'yanked' }),
      ],
      says: [
        '2.0.0 removed: older than 1d',
        '1.5.0 kept: it is the latest',
        '1.4.0 removed: older than 1d',
        '1.3.0 kept: the bundle suite 1.0.0 has it as a member',
        '1.2.0 kept: app 1.0.0 depends on it (^1.2)',
        '1.1.0 kept: channel edge points at it',
        '1.0.0 kept: held by alice: case 7',
      ],
    },
    {
      name: 'keeps what lists show where there is no release',
      policy: { prereleases: { keepNewerThan: '1d' } },
      facts: [fact('1.0.0-a'), fact('1.0.0-b')],
      says: ['1.0.0-b kept: it is the latest', '1.0.0-a removed: older than 1d'],
    },
  ]
  for (const { name, policy: over, facts, says } of rows)
    it(name, () => assert.deepEqual(inWords(decideVersions(facts, only(policy(over)), now)), says))

  it('what one policy keeps no other removes, be it that it does not act', () => {
    const strict = policy({ name: 'a', versions: { keepNewest: 1 } })
    const lax = policy({ name: 'b', versions: { keepNewest: 2 } })
    const facts = ['1.0.0', '1.1.0', '1.2.0'].map((version) => fact(version))
    assert.deepEqual(inWords(decideVersions(facts, { policies: [strict, lax], acting: new Set(['a']) }, now)), [
      '1.2.0 kept: it is the latest',
      '1.1.0 kept: among the newest 2 (policy b)',
      '1.0.0 removed: not among the newest 1',
    ])
  })

  it('a need is a range that accepts the version, as it is for deleting', () => {
    const given = [
      { range: '^2' as Range, dependent: 'b 1.0.0' },
      { range: '>=1.2 <2' as Range, dependent: 'a 1.0.0' },
    ]
    const needs = needsOf(['1.3.0', '1.1.0', '2.1.0-rc.1'] as Version[], [
      ...given,
      { range: 'x y' as Range, dependent: 'c' },
    ])
    assert.deepEqual([...needs], [['1.3.0', 'a 1.0.0 depends on it (>=1.2 <2)']])
  })
})

describe('what is decided on plain repositories', () => {
  it('keeps tags by their time and their name, and never those of referrers', () => {
    const attached = `sha256-${'a'.repeat(64)}`
    const tags: TagFact[] = [
      { name: 'v1', at: now - 9 * day, attachedTo: undefined },
      { name: 'old', at: now - 8 * day, attachedTo: undefined },
      { name: attached, at: now - 1 * day, attachedTo: 'sha256:a' },
      { name: 'new', at: now - 2 * day, attachedTo: undefined },
    ]
    const rules = only(policy({ tags: { keepNewest: 1, keepMatching: ['v*', 'release-*'] } }))
    assert.deepEqual(inWords(decideTags(tags, rules, now)), [
      `${attached} kept: it belongs to sha256:a`,
      'new kept: among the newest 1',
      'old removed: not among the newest 1 and its name is like none of v*, release-*',
      'v1 kept: its name is like v*',
    ])
  })

  it('keeps untagged manifests that are new, listed, or refer to something', () => {
    const facts = [
      { digest: 'a', since: now - 10 * day, subject: undefined, index: undefined },
      { digest: 'b', since: now - 1 * day, subject: undefined, index: undefined },
      { digest: 'c', since: now - 10 * day, subject: 'x', index: undefined },
      { digest: 'd', since: now - 10 * day, subject: undefined, index: 'y' },
    ]
    assert.deepEqual(inWords(decideUntagged(facts, only(policy({ untagged: { keepNewerThan: '1w' } })), now)), [
      'a removed: older than 1w',
      'b kept: newer than 1w',
      'c kept: it stays as long as x, which it refers to',
      'd kept: the index y lists it',
    ])
  })

  it('a repository falls under the policies whose globs match its name', () => {
    const names = ({ policies }: Rules) => policies.map(({ name }) => name)
    const covering = openCoverage(
      only(
        policy({ name: 'all' }),
        policy({ name: 'packs', repositories: ['packs/*'], except: ['packs/core-*'] }),
        policy({ name: 'images', repositories: ['images/**', 'ci/*'] }),
      ),
    )
    assert.deepEqual(names(covering('packs/net' as never)), ['all', 'packs'])
    assert.deepEqual(names(covering('packs/core-net' as never)), ['all'])
    assert.deepEqual(names(covering('images/a/b' as never)), ['all', 'images'])
  })
})

const versions = fc
  .uniqueArray(
    fc
      .tuple(fc.nat(3), fc.nat(3), fc.nat(3), fc.constantFrom('', '', '-rc.1', '-rc.2', '-beta'))
      .map(([major, minor, patch, rest]) => `${major}.${minor}.${patch}${rest}` as Version),
    { maxLength: 25 },
  )
  .chain((list) =>
    fc.tuple(
      ...list.map((version) =>
        fc.record<VersionFact>({
          version: fc.constant(version),
          state: fc.constantFrom('active', 'active', 'deprecated', 'yanked'),
          publishedAt: fc.integer({ min: now - 200 * day, max: now }),
          channels: fc.constantFrom([], [], [], ['stable']),
          hold: fc.constantFrom(undefined, undefined, undefined, { by: 'a', reason: 'b' }),
          needed: fc.constantFrom(undefined, undefined, undefined, 'x needs it'),
          bundle: fc.constantFrom(undefined, undefined, undefined, 'suite 1.0.0'),
        }),
      ),
    ),
  )
const keepings = fc.record<Keeping>(
  {
    keepNewest: fc.integer({ min: 1, max: 10 }),
    keepNewerThan: fc.integer({ min: 1, max: 200 }).map((days) => `${days}d`),
    keepUnreleased: fc.constant(true),
  },
  { requiredKeys: [] },
)
const policies = fc.uniqueArray(
  fc.record<Policy>({
    name: fc.constantFrom('a', 'b', 'c'),
    repositories: fc.constant(['**']),
    versions: fc.option(keepings, { nil: undefined }),
    prereleases: fc.option(keepings, { nil: undefined }),
  }),
  { selector: ({ name }) => name, minLength: 1, maxLength: 3 },
)
const rulesOf = fc.tuple(policies, fc.subarray(['a', 'b', 'c'], { minLength: 1 }))
const rules = rulesOf.map(([list, acting]): Rules => ({ policies: list, acting: new Set(acting) }))

const removedOf = (decisions: readonly Decision[]) =>
  new Set(decisions.filter(({ action }) => action === 'remove').map(({ name }) => name))

describe('whatever the policies say', () => {
  it('a version is needed where a range accepts it, and only there', () => {
    const range = fc
      .tuple(fc.constantFrom('^', '~', '>=', '<', ''), fc.nat(3), fc.nat(3), fc.constantFrom('', '.1-rc.1', '.0'))
      .map(([operator, major, minor, rest]) => `${operator}${major}.${minor}${rest}` as Range)
    fc.assert(
      fc.property(versions, fc.array(range, { maxLength: 4 }), (facts, list) => {
        const all = facts.map(({ version }) => version)
        const needs = needsOf(
          all,
          list.map((one) => ({ range: one, dependent: 'x' })),
        )
        for (const version of all) {
          const first = list.find((one) => satisfies(version, one))
          const words = first === undefined ? undefined : `x depends on it (${first})`
          assert.equal(needs.get(version), words, `${version} ${list}`)
        }
      }),
    )
  })

  it('nothing that is bound is removed', () => {
    fc.assert(
      fc.property(versions, rules, (facts, given) => {
        const removed = removedOf(decideVersions(facts, given, now))
        for (const { version, channels, hold, needed, bundle } of facts)
          if (channels.length > 0 || hold || needed || bundle) assert.ok(!removed.has(version), version)
      }),
    )
  })

  it('the latest stays, and so does a pack', () => {
    fc.assert(
      fc.property(versions, rules, (facts, given) => {
        const removed = removedOf(decideVersions(facts, given, now))
        const alive = facts.filter(({ state, version }) => state !== 'yanked' && !isPrerelease(version))
        const [latest] = alive.map(({ version }) => version).sort((a, b) => compareVersions(b, a))
        if (latest) assert.ok(!removed.has(latest))
        assert.ok(facts.length === 0 || removed.size < facts.length)
      }),
    )
  })

  it('the order in which versions and policies come is nothing to it', () => {
    const shuffled = versions.chain((facts) =>
      fc.tuple(fc.constant(facts), fc.shuffledSubarray(facts, { minLength: facts.length, maxLength: facts.length })),
    )
    fc.assert(
      fc.property(shuffled, rules, ([facts, others], given) => {
        const turned = { ...given, policies: [...given.policies].reverse() }
        assert.deepEqual(decideVersions(others, turned, now), decideVersions(facts, given, now))
      }),
    )
  })

  it('what is left after it is left alone by it', () => {
    // A pre-release whose release goes is unreleased then: it is kept by one rule more, and never by one less.
    fc.assert(
      fc.property(versions, rules, (facts, given) => {
        const removed = removedOf(decideVersions(facts, given, now))
        const left = facts.filter(({ version }) => !removed.has(version))
        assert.deepEqual([...removedOf(decideVersions(left, given, now))], [])
      }),
    )
  })

  it('to keep more of the newest, or longer, or by one policy more, removes nothing more', () => {
    const more = fc.record({ newest: fc.integer({ min: 0, max: 5 }), days: fc.integer({ min: 0, max: 90 }) })
    const wider =
      ({ newest, days }: { newest: number; days: number }) =>
      (keeping: Keeping | undefined) =>
        keeping && {
          ...keeping,
          ...(keeping.keepNewest === undefined ? {} : { keepNewest: keeping.keepNewest + newest }),
          ...(keeping.keepNewerThan === undefined
            ? {}
            : { keepNewerThan: `${Number.parseInt(keeping.keepNewerThan, 10) + days}d` }),
        }
    fc.assert(
      fc.property(versions, rules, more, keepings, (facts, given, by, further) => {
        const removed = removedOf(decideVersions(facts, given, now))
        const widened = given.policies.map((one) => ({
          ...one,
          versions: wider(by)(one.versions),
          prereleases: wider(by)(one.prereleases),
        }))
        const added = policy({ name: 'z', versions: further, prereleases: further })
        for (const list of [widened, [...given.policies, added]])
          for (const name of removedOf(decideVersions(facts, { ...given, policies: list }, now)))
            assert.ok(removed.has(name), name)
      }),
    )
  })

  it('every version of a kind that is acted on is decided once', () => {
    fc.assert(
      fc.property(versions, rules, (facts, given) => {
        const acting = given.policies.filter(({ name }) => given.acting.has(name))
        const wanted = facts.filter(({ version }) =>
          acting.some((one) => (isPrerelease(version) ? one.prereleases : one.versions)),
        )
        const decided = decideVersions(facts, given, now).map(({ name }) => releaseOf(name as Version))
        assert.deepEqual([...decided].sort(), wanted.map(({ version }) => releaseOf(version)).sort())
      }),
    )
  })
})
