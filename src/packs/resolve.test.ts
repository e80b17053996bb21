import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import type { Constraint } from './conflict.ts'
import type { Dependency, PackId } from './pack.ts'
import { type Candidate, type Catalogue, type Request, resolve } from './resolve.ts'
import { runs, satisfies, type Version } from './version.ts'

/** `{ a: { '1.0.0': 'b@^1 c?@*' } }`: of each pack its versions, highest first, and what they need. */
type Written = Record<string, Record<string, string>>

const dependencyOf = (text: string): Dependency => {
  const [, packId, optional, version] = /^([^?@]+)(\?)?@(.*)$/.exec(text) ?? []
  return { packId, version, ...(optional ? { optional: true } : {}) } as Dependency
}
const listOf = (text: string) => text.split(' ').filter(Boolean).map(dependencyOf)

/** Words after a `;` say more of a version: `yanked`, `preferred`, `min=1.5.0`, `max=2.0.0`. */
function catalogueOf(written: Written): Catalogue {
  const candidate = (version: string, text: string): Candidate => {
    const [dependencies = '', more = ''] = text.split(';')
    const [, min] = /min=(\S+)/.exec(more) ?? []
    const [, max] = /max=(\S+)/.exec(more) ?? []
    return {
      version: version as Version,
      state: more.includes('yanked') ? 'yanked' : more.includes('deprecated') ? 'deprecated' : 'active',
      dependencies: listOf(dependencies),
      ...(min ? { minRunner: min as Version } : {}),
      ...(max ? { maxRunner: max as Version } : {}),
      ...(more.includes('preferred') ? { preferred: true } : {}),
    }
  }
  return new Map(
    Object.entries(written).map(([id, versions]) => [
      id as PackId,
      Object.entries(versions).map(([version, text]) => candidate(version, text)),
    ]),
  )
}

function requestOf(roots: string, over: { runner?: string; locked?: string } = {}): Request {
  const locked = listOf(over.locked ?? '').map(({ packId, version }) => [packId, version as string as Version] as const)
  return { roots: listOf(roots), runner: over.runner as Version | undefined, locked: new Map(locked) }
}

function inWords(catalogue: Catalogue, request: Request): string {
  const resolution = resolve(catalogue, request)
  if ('conflict' in resolution) return resolution.conflict.words
  return [...resolution.chosen].map(([packId, version]) => `${packId} ${version}`).join(', ')
}

type Case = { name: string; packs: Written; roots: string; runner?: string; locked?: string; gives: string }

const cases: Case[] = [
  {
    name: 'takes the highest in range',
    packs: { a: { '2.0.0': '', '1.9.0': '', '1.2.0': '' } },
    roots: 'a@^1.0.0',
    gives: 'a 1.9.0',
  },
  {
    name: 'gives what is nearer to the roots the newer version',
    packs: { a: { '1.1.0': 'c@^1', '1.0.0': 'c@*' }, b: { '1.0.0': 'c@*' }, c: { '2.0.0': '', '1.0.0': '' } },
    roots: 'b@* a@*',
    gives: 'a 1.1.0, b 1.0.0, c 1.0.0',
  },
  {
    name: 'goes back to another version where the highest leads nowhere',
    packs: { a: { '1.1.0': 'c@^2', '1.0.0': 'c@^1' }, b: { '1.0.0': 'c@^1' }, c: { '2.0.0': '', '1.0.0': '' } },
    roots: 'a@* b@*',
    gives: 'a 1.0.0, b 1.0.0, c 1.0.0',
  },
  {
    name: 'takes a pre-release where a range names one of that release only',
    packs: { a: { '2.0.0-rc.1': '', '1.0.0': '' }, b: { '2.0.0-rc.1': '', '1.0.0': '' } },
    roots: 'a@>=1.0.0 b@>=2.0.0-rc.0',
    gives: 'a 1.0.0, b 2.0.0-rc.1',
  },
  { name: 'leaves yanked ones out', packs: { a: { '1.1.0': ';yanked', '1.0.0': '' } }, roots: 'a@*', gives: 'a 1.0.0' },
  {
    name: 'takes a yanked one that is locked, and no other',
    packs: { a: { '1.2.0': ';yanked', '1.1.0': ';yanked', '1.0.0': '' } },
    roots: 'a@*',
    locked: 'a@1.1.0',
    gives: 'a 1.1.0',
  },
  { name: 'takes deprecated ones', packs: { a: { '1.1.0': ';deprecated' } }, roots: 'a@*', gives: 'a 1.1.0' },
  {
    name: 'takes only what the runner runs',
    packs: { a: { '3.0.0': ';min=1.6.0', '2.0.0': ';min=1.5.0', '1.0.0': ';max=1.4.0' } },
    roots: 'a@*',
    runner: '1.5.0',
    gives: 'a 2.0.0',
  },
  {
    name: 'prefers what is locked, then what the channel names',
    packs: {
      a: { '3.0.0': '', '2.0.0': ';preferred', '1.0.0': '' },
      b: { '3.0.0': '', '2.0.0': ';preferred', '1.0.0': '' },
      c: { '3.0.0': '', '2.0.0': ';preferred yanked', '1.0.0': '' },
    },
    roots: 'a@* b@* c@*',
    locked: 'a@1.0.0',
    gives: 'a 1.0.0, b 2.0.0, c 3.0.0',
  },
  {
    name: 'gives up a preference that does not fit',
    packs: { a: { '2.0.0': '', '1.0.0': ';preferred' } },
    roots: 'a@^2',
    gives: 'a 2.0.0',
  },
  {
    name: 'takes what is optional where it fits, with what it needs',
    packs: { a: { '1.0.0': 'b?@*' }, b: { '1.0.0': 'c@*' }, c: { '1.0.0': '' } },
    roots: 'a@*',
    gives: 'a 1.0.0, b 1.0.0, c 1.0.0',
  },
  {
    name: 'leaves out what is optional where nothing fits, or it would change what is needed',
    packs: {
      a: { '1.0.0': 'no?@* old?@^9 b?@* c@*' },
      b: { '1.0.0': 'c@^1' },
      c: { '2.0.0': '', '1.0.0': '' },
      old: { '1.0.0': '' },
    },
    roots: 'a@*',
    gives: 'a 1.0.0, c 2.0.0',
  },
  {
    name: 'holds an optional range against a pack that is there anyway',
    packs: { a: { '1.0.0': 'c?@^1' }, b: { '1.0.0': 'c@*' }, c: { '2.0.0': '', '1.0.0': '' } },
    roots: 'a@* b@*',
    gives: 'a 1.0.0, b 1.0.0, c 1.0.0',
  },
  {
    name: 'holds the optional range of one optional pack against the next',
    packs: {
      a: { '1.0.0': 'b?@* c?@*' },
      b: { '1.0.0': 'd?@^1' },
      c: { '1.0.0': 'd@^2' },
      d: { '2.0.0': '', '1.0.0': '' },
    },
    roots: 'a@*',
    gives: 'a 1.0.0, b 1.0.0, d 1.0.0',
  },
  {
    name: 'resolves packs that need each other in a circle',
    packs: { a: { '2.0.0': 'b@^2', '1.0.0': 'b@^1' }, b: { '2.0.0': 'a@^1', '1.0.0': 'a@^1' } },
    roots: 'a@*',
    gives: 'a 1.0.0, b 1.0.0',
  },
  {
    name: 'resolves a pack that needs another version of itself in no way',
    packs: { a: { '2.0.0': 'a@^1', '1.0.0': 'a@^1' } },
    roots: 'a@*',
    gives: 'a 1.0.0',
  },
]

const conflicts: Case[] = [
  {
    name: 'two that need different versions of a third',
    packs: { a: { '1.2.0': 'c@^2.0.0' }, b: { '3.0.0': 'c@^1.0.0' }, c: { '2.0.0': '', '1.0.0': '' } },
    roots: 'a@^1.0.0 b@* x@*',
    gives: 'the request asks for x *, and there is no such pack',
  },
  {
    name: 'the chain from the roots, and nothing that does not matter',
    packs: {
      a: { '1.2.0': 'm@* n@*', '0.1.0': '' },
      m: { '1.0.0': 'c@^2.0.0 n@*' },
      b: { '3.0.0': 'c@^1.0.0 n@*' },
      c: { '2.0.0': 'n@*', '1.0.0': '' },
      n: { '1.0.0': '' },
    },
    roots: 'n@* a@^1.0.0 b@*',
    gives:
      'the request asks for a ^1.0.0; the request asks for b *; a 1.2.0 needs m *; b 3.0.0 needs c ^1.0.0; m 1.0.0 needs c ^2.0.0',
  },
  {
    name: 'many versions with the same need as one',
    packs: {
      a: { '1.2.0': 'c@^2', '1.1.0': 'c@^2', '1.0.0': 'c@^2', '0.9.0': 'c@^2' },
      c: { '2.0.0': '', '1.0.0': '' },
    },
    roots: 'a@^1 c@^1',
    gives: 'the request asks for a ^1; the request asks for c ^1; a 1.0.0 to 1.2.0 need c ^2',
  },
  {
    name: 'a range that nothing is in',
    packs: { a: { '1.0.0': 'c@^9' }, c: { '4.0.0': '', '3.0.0': '', '2.0.0': '', '1.0.0': '' } },
    roots: 'a@*',
    gives:
      'the request asks for a *; a 1.0.0 needs c ^9, and there is none (there is 4.0.0, 3.0.0, 2.0.0, and 1 lower)',
  },
  {
    name: 'pre-releases that no range names',
    packs: { a: { '1.0.0-rc.1': '' } },
    roots: 'a@*',
    gives:
      'the request asks for a *, and there is none (there is 1.0.0-rc.1; a pre-release is taken only where a range names one)',
  },
  {
    name: 'what is yanked, and what the runner does not run',
    packs: { a: { '3.0.0': ';yanked', '2.1.0': ';min=1.6.0', '2.0.0': ';min=1.6.0', '1.0.0': ';yanked' } },
    roots: 'a@>=2',
    runner: '1.5.0',
    gives: 'the request asks for a >=2; a 2.0.0 to 2.1.0 do not run on runner 1.5.0; a 3.0.0 is yanked',
  },
  {
    name: 'an optional range against a pack that is needed',
    packs: { a: { '1.0.0': 'c?@^1' }, b: { '1.0.0': 'c@^2' }, c: { '2.0.0': '', '1.0.0': '' } },
    roots: 'a@* b@*',
    gives: 'the request asks for a *; the request asks for b *; a 1.0.0 goes only with c ^1; b 1.0.0 needs c ^2',
  },
]

describe('resolve', () => {
  for (const { name, packs, roots, gives, ...over } of cases)
    it(name, () => assert.equal(inWords(catalogueOf(packs), requestOf(roots, over)), gives))
  for (const { name, packs, roots, gives, ...over } of conflicts)
    it(`explains ${name}`, () => assert.equal(inWords(catalogueOf(packs), requestOf(roots, over)), gives))

  it('gives up what is too much to try out, and says so', () => {
    // Each of 31 packs is one of thirty numbers, and no two may be the same: there is one number too few.
    const numbers = Array.from({ length: 30 }, (_, i) => 30 - i)
    const packs = Array.from({ length: 31 }, (_, i) => `p${i}`)
    const written = Object.fromEntries(
      packs.map((id) => [
        id,
        Object.fromEntries(
          numbers.map((n) => [
            `${n}.0.0`,
            packs.flatMap((other) => (other === id ? [] : [`${other}@<${n}.0.0||>${n}.0.0`])).join(' '),
          ]),
        ),
      ]),
    )
    assert.match(inWords(catalogueOf(written), requestOf('p0@*')), /^the search was given up, for too many versions/)
    const chain = Object.fromEntries(Array.from({ length: 1500 }, (_, i) => [`p${i}`, { '1.0.0': `p${i + 1}@*` }]))
    assert.match(inWords(catalogueOf(chain), requestOf('p0@*')), /^the search was given up, for it goes down more than/)
  })

  it('tells the constraints of a conflict as facts', () => {
    const catalogue = catalogueOf({ a: { '1.2.0': 'c@^2' }, b: { '3.0.0': 'c@^1' }, c: { '2.0.0': '', '1.0.0': '' } })
    const resolution = resolve(catalogue, requestOf('a@* b@*'))
    assert.deepEqual('conflict' in resolution && resolution.conflict.constraints, [
      { packId: 'a', range: '*' },
      { packId: 'b', range: '*' },
      { packId: 'c', requiredBy: { packId: 'a', version: '1.2.0' }, range: '^2' },
      { packId: 'c', requiredBy: { packId: 'b', version: '3.0.0' }, range: '^1' },
    ])
  })
})

// The same, found by trying everything in order.

const candidatesAllowed = (catalogue: Catalogue, { runner, locked }: Request, packId: PackId) => {
  const wanted = locked?.get(packId)
  const all = catalogue.get(packId) ?? []
  const first = all.find((candidate) => candidate.preferred)
  const rank = (candidate: Candidate) => (candidate.version === wanted ? 0 : candidate === first ? 1 : 2)
  return all
    .filter((candidate) => candidate.state !== 'yanked' || candidate.version === wanted)
    .filter(({ minRunner: min, maxRunner: max }) => !runner || runs(runner, { min, max }))
    .toSorted((x, y) => rank(x) - rank(y))
}

type Chosen = Map<PackId, Candidate>

function fits(chosen: Chosen, roots: Request['roots']): boolean {
  const asked = [...roots, ...[...chosen.values()].flatMap((candidate) => candidate.dependencies)]
  return asked.every(({ packId, version }) => {
    const found = chosen.get(packId)
    return !found || satisfies(found.version, version)
  })
}

/** Plain backtracking: the packs of the queue from `at` on, each by each. */
function tryAll(catalogue: Catalogue, request: Request, queue: PackId[], chosen: Chosen): Chosen | undefined {
  const packId = queue.find((id) => !chosen.has(id))
  if (packId === undefined) return chosen
  for (const candidate of candidatesAllowed(catalogue, request, packId)) {
    const next = new Map(chosen).set(packId, candidate)
    if (!fits(next, request.roots)) continue
    const needed = candidate.dependencies.filter((entry) => !entry.optional).map((entry) => entry.packId)
    const found = tryAll(catalogue, request, [...queue, ...needed.sort()], next)
    if (found) return found
  }
  return undefined
}

function bruteForce(catalogue: Catalogue, request: Request): Chosen | undefined {
  const queue = request.roots.map((root) => root.packId).sort()
  let chosen = tryAll(catalogue, request, queue, new Map())
  const tried = new Set<PackId>()
  while (chosen) {
    const wave = [...chosen.values()].flatMap(({ dependencies }) =>
      dependencies
        .filter((entry) => entry.optional)
        .map((entry) => entry.packId)
        .sort(),
    )
    const next = [...new Set(wave)].filter((packId) => !tried.has(packId) && !chosen?.has(packId))
    if (next.length === 0) break
    for (const packId of next) {
      tried.add(packId)
      chosen = tryAll(catalogue, request, [packId], chosen) ?? chosen
    }
  }
  return chosen
}

const ids = ['a', 'b', 'c', 'd', 'e', 'f'] as const
const versions = ['3.0.0', '2.1.0', '2.0.0', '2.0.0-rc.1', '1.0.0']
const ranges = ['*', '^1', '^2', '>=2', '<3', '2.0.0', '>=2.0.0-rc.0', '^9', '1 || 3']
const dependency = fc.record({
  packId: fc.constantFrom(...ids, 'unknown'),
  version: fc.constantFrom(...ranges),
  optional: fc.constantFrom(true, false, false),
})
const candidate = (version: string, ...more: string[]) =>
  fc.record({
    version: fc.constant(version),
    dependencies: fc.uniqueArray(dependency, { maxLength: 3, selector: (entry) => entry.packId }),
    more: fc.constantFrom(...more),
  })
const facts = ['', '', '', '', 'yanked', 'preferred', 'min=2.0.0', 'max=1.0.0']
const catalogues = (...more: string[]) =>
  fc
    .record(
      Object.fromEntries(
        ids.map((id) => [
          id,
          fc.tuple(fc.subarray(versions), fc.tuple(...versions.map((version) => candidate(version, ...more)))),
        ]),
      ),
    )
    .map(
      (packs): Written =>
        Object.fromEntries(
          Object.entries(packs).map(([id, [there, all]]) => [
            id,
            Object.fromEntries(
              all
                .filter((entry) => there.includes(entry.version))
                .map(({ version, dependencies, more }) => [
                  version,
                  `${dependencies.map((d) => `${d.packId}${d.optional ? '?' : ''}@${d.version.replaceAll(' ', '')}`).join(' ')};${more}`,
                ]),
            ),
          ]),
        ),
    )
const requests = fc
  .record({
    roots: fc.uniqueArray(fc.record({ packId: fc.constantFrom(...ids), version: fc.constantFrom('*', '^1', '>=2') }), {
      minLength: 1,
      maxLength: 3,
      selector: (root) => root.packId,
    }),
    runner: fc.constantFrom(undefined, '1.5.0'),
    locked: fc.constantFrom('', 'a@1.0.0 b@2.0.0', 'c@2.1.0 d@9.0.0'),
  })
  .map(({ roots, runner, locked }) =>
    requestOf(roots.map((root) => `${root.packId}@${root.version}`).join(' '), {
      ...(runner ? { runner } : {}),
      locked,
    }),
  )

const shuffled = <T>(list: readonly T[], seed: number) =>
  list
    .map((entry, i) => ({ entry, key: Math.sin(seed + i * 7919) }))
    .sort((x, y) => x.key - y.key)
    .map(({ entry }) => entry)

describe('resolve, over small random catalogues', () => {
  it('finds what plain backtracking would find first', () => {
    fc.assert(
      fc.property(catalogues(...facts), requests, (written, request) => {
        const catalogue = catalogueOf(written)
        const expected = bruteForce(catalogue, request)
        const actual = resolve(catalogue, request)
        if (!expected) return assert.ok('conflict' in actual, 'a conflict')
        assert.ok('chosen' in actual, 'conflict' in actual ? actual.conflict.words : '')
        const names = (chosen: Iterable<readonly [PackId, Version]>) => Object.fromEntries(chosen)
        assert.deepEqual(names(actual.chosen), names([...expected].map(([id, { version }]) => [id, version] as const)))
        assert.ok(fits(expected, request.roots))
      }),
      { numRuns: 3000 },
    )
  })

  it('gives the constraints that make a conflict, and none that does not matter', () => {
    const keyOf = (c: Constraint) => `${c.requiredBy?.packId} ${c.packId} ${c.range}`
    /** The catalogue with these dependencies only. */
    const only = (catalogue: Catalogue, constraints: readonly Constraint[]): Catalogue => {
      const kept = new Set(constraints.map(keyOf))
      const isKept = (id: PackId, entry: Dependency) => kept.has(`${id} ${entry.packId} ${entry.version}`)
      return new Map(
        [...catalogue].map(([id, list]) => [
          id,
          list.map((c) => ({ ...c, dependencies: c.dependencies.filter((entry) => isKept(id, entry)) })),
        ]),
      )
    }
    const rootsOf = (constraints: readonly Constraint[]) =>
      constraints.filter((c) => !c.requiredBy).map((c) => ({ packId: c.packId, version: c.range }))
    const conflicts = (catalogue: Catalogue, constraints: readonly Constraint[]) =>
      'conflict' in resolve(only(catalogue, constraints), { roots: rootsOf(constraints) })
    /** A constraint does not say whether it is optional: then the same by two versions of a pack is told apart by nothing. */
    const isAmbiguous = (catalogue: Catalogue) =>
      [...catalogue.values()].some((list) => {
        const all = list.flatMap((candidate) => candidate.dependencies)
        const written = (optional: boolean) =>
          all.filter((d) => (d.optional ?? false) === optional).map((d) => `${d.packId} ${d.version}`)
        const needed = new Set(written(false))
        return written(true).some((dependency) => needed.has(dependency))
      })
    let seen = 0
    fc.assert(
      fc.property(catalogues(''), requests, (written, { roots }) => {
        const catalogue = catalogueOf(written)
        fc.pre(!isAmbiguous(catalogue))
        const resolution = resolve(catalogue, { roots })
        if (!('conflict' in resolution)) return
        const { constraints } = resolution.conflict
        seen++
        assert.ok(conflicts(catalogue, constraints))
        for (const left of constraints) {
          const others = constraints.filter((constraint) => keyOf(constraint) !== keyOf(left))
          assert.ok(!conflicts(catalogue, others), `without ${JSON.stringify(left)}`)
        }
      }),
      { numRuns: 2000 },
    )
    assert.ok(seen > 100)
  })

  it('answers the same however its input is ordered', () => {
    fc.assert(
      fc.property(catalogues(...facts), requests, fc.nat(), (written, request, seed) => {
        const catalogue = catalogueOf(written)
        const other: Catalogue = new Map(
          shuffled([...catalogue], seed).map(([id, list]) => [
            id,
            list.map((entry) => ({ ...entry, dependencies: shuffled(entry.dependencies, seed) })),
          ]),
        )
        const again = resolve(other, { ...request, roots: shuffled(request.roots, seed) })
        assert.deepEqual(again, resolve(catalogue, request))
      }),
      { numRuns: 1000 },
    )
  })
})
