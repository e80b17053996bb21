import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import {
  compareVersions,
  openRanges,
  parseRange,
  precedenceOf,
  type Range,
  releaseOf,
  satisfies,
  type Version,
  versionOfPrecedence,
} from './version.ts'

const number = fc.constantFrom('0', '1', '2', '9', '10', '123', '9007199254740991')
const identifier = fc.constantFrom('0', '1', '10', 'rc', 'alpha', 'a-b', '-', '0a', '9007199254740991')
const release = fc.tuple(number, number, number).map((numbers) => numbers.join('.'))
const version = fc
  .record({
    release,
    prerelease: fc.array(identifier, { maxLength: 3 }),
    build: fc.constantFrom('', '', '+1', '+a-b.2'),
  })
  .map(({ release, prerelease, build }) => {
    return `${release}${prerelease.length > 0 ? `-${prerelease.join('.')}` : ''}${build}` as Version
  })
const part = fc.oneof(
  fc.tuple(fc.constantFrom('', '^', '~', '>', '>=', '<', '<=', '='), version).map((parts) => parts.join('')),
  fc
    .tuple(fc.constantFrom('', '^', '~', '>', '<='), fc.constantFrom('1', '1.2', '1.x', '*', '2.10'))
    .map((p) => p.join('')),
  fc.tuple(version, version).map(([from, to]) => `${from} - ${to}`),
)
const range = fc
  .array(
    fc.array(part, { minLength: 1, maxLength: 2 }).map((parts) => parts.join(' ')),
    { minLength: 1, maxLength: 2 },
  )
  .map((alternatives) => parseRange(alternatives.join(' || ')))
  .filter((text): text is Range => text !== undefined)

describe('precedences', () => {
  it('sort by bytes as versions do', () => {
    fc.assert(
      fc.property(version, version, (a, b) => {
        const [x, y] = [precedenceOf(a), precedenceOf(b)]
        assert.equal(Math.sign(compareVersions(a, b)), x < y ? -1 : x > y ? 1 : 0)
      }),
    )
  })
  it('say what version they are of', () => {
    fc.assert(fc.property(version, (a) => assert.equal(versionOfPrecedence(precedenceOf(a)), releaseOf(a))))
  })
})

it('finds the versions in a range that it accepts one by one', () => {
  const spansIn = openRanges()
  const placesIn = (text: Range, list: readonly Version[]) => {
    const places = list.map((_, place) => place)
    const spans = spansIn(text, list)
    return places.filter((place) => spans.some(({ first, end }) => first <= place && place < end))
  }
  const lists = fc.uniqueArray(version, { maxLength: 20, selector: releaseOf })
  fc.assert(
    fc.property(lists, range, (list, text) => {
      const sorted = list.toSorted((a, b) => compareVersions(b, a))
      const expected = sorted.flatMap((entry, place) => (satisfies(entry, text) ? [place] : []))
      assert.deepEqual(placesIn(text, sorted), expected)
    }),
    { numRuns: 5000 },
  )
})
