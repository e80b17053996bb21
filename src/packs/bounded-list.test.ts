import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import * as v from 'valibot'
import { boundedList, mostViolations } from './bounded-list.ts'
import { checkDocument, inWords, violationsOf } from './document.ts'
import { parseLock } from './lock.ts'

const document = { packId: 'a', version: '1.0.0', type: 'policy' }
const many = <T>(count: number, entry: T): T[] => Array.from({ length: count }, () => entry)

/** A list whose elements count how often they are looked at. */
function counting(most: number) {
  let looks = 0
  const item = v.pipe(
    v.unknown(),
    v.check((value) => {
      looks += 1
      return value !== 'wrong'
    }, 'is wrong'),
    v.transform(String),
  )
  const list = v.pipe(
    boundedList(item, most),
    v.check((entries) => entries.every((entry) => entry.length > 0), 'has an empty one'),
  )
  return { parse: (value: unknown) => v.safeParse(list, value), looks: () => looks }
}

describe('a list that is bounded', () => {
  it('is looked at element by element, and is what they are made into', () => {
    const { parse, looks } = counting(3)
    assert.deepEqual(parse([1, 2, 3]).output, ['1', '2', '3'])
    assert.equal(looks(), 3)
    assert.deepEqual(parse([]).output, [])
    assert.deepEqual(violationsOf(parse('a').issues ?? []), [{ path: '', message: 'must be a list' }])
    const issues = parse([1, 'wrong', '']).issues ?? []
    assert.deepEqual(violationsOf(issues), [{ path: '1', message: 'is wrong' }])
  })
  it('is refused for its length before any element of it is looked at, and before any check of the whole', () => {
    const { parse, looks } = counting(3)
    const result = parse(['wrong', null, {}, 1])
    assert.equal(looks(), 0)
    assert.deepEqual(violationsOf(result.issues ?? []), [{ path: '', message: 'must be at most 3' }])
  })
  it('is looked at no longer than there is something to tell', () => {
    const { parse, looks } = counting(100_000)
    const violations = violationsOf(parse(many(100_000, 'wrong')).issues ?? [])
    assert.equal(looks(), mostViolations + 1)
    assert.equal(violations.length, mostViolations + 1)
    assert.deepEqual(violations.at(-1), { path: '', message: 'more is wrong than these 100' })
    assert.match(inWords(violations), /19 is wrong; and many more$/)
  })
})

describe('a document', () => {
  it('tells one thing of a list that is too long, whatever is in it', () => {
    for (const wrong of [{}, 0, 'b@^1']) {
      const dependencies = many(130_000, wrong)
      assert.deepEqual(checkDocument({ ...document, dependencies }), {
        violations: [{ path: 'dependencies', message: 'must be at most 500' }],
      })
      assert.deepEqual(checkDocument({ ...document, metadata: { keywords: dependencies } }), {
        violations: [{ path: 'metadata.keywords', message: 'must be at most 50' }],
      })
    }
  })
  it('tells a hundred things that are wrong, and that there are more', () => {
    const result = checkDocument({ ...document, dependencies: many(500, {}) })
    assert.ok('violations' in result)
    assert.equal(result.violations.length, mostViolations + 1)
    assert.deepEqual(result.violations[0], { path: 'dependencies.0.packId', message: 'is missing' })
  })
  it('tells that it names itself beside what else is wrong with it', () => {
    const dependencies = ['a@^1', 'b', 'b']
    assert.deepEqual(checkDocument({ ...document, dependencies }), {
      violations: [
        { path: 'dependencies', message: 'must name a pack once only' },
        { path: 'dependencies', message: 'must not name the pack itself' },
      ],
    })
    assert.deepEqual(checkDocument({ ...document, dependencies: ['a'] }), {
      violations: [{ path: 'dependencies', message: 'must not name the pack itself' }],
    })
  })
})

it('a lock tells one thing of a list that is too long, and little of what is in one that is not', () => {
  const lock = { lockVersion: 1, roots: [], packs: [] }
  const told = (over: object) => {
    const result = parseLock({ ...lock, ...over })
    return 'violations' in result ? result.violations : []
  }
  assert.deepEqual(told({ roots: many(10_001, 0) }), [{ path: 'roots', message: 'must be at most 10,000' }])
  assert.deepEqual(told({ packs: many(300_001, 0) }), [{ path: 'packs', message: 'must be at most 300,000' }])
  const [first] = told({ packs: [{ dependencies: many(1001, 0) }] }).filter(({ path }) => path.endsWith('dependencies'))
  assert.equal(first?.message, 'must be at most 1000')
  assert.equal(told({ packs: many(300_000, {}) }).length, mostViolations + 1)
})
