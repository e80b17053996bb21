import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import type { RepositoryName } from '../oci/name.ts'
import { actionsOn, listFilter, type Principal } from './access.ts'
import { isGlob, matcherOf, patternOf } from './glob.ts'
import { parsePolicy, rightsOf } from './policy.ts'

const as = (rights: ReturnType<typeof rightsOf>): Principal => ({
  ...{ name: 'x', kind: 'user', shown: 'credential' },
  ...rights,
  listing: rights.grants,
})
const policy = parsePolicy(
  JSON.stringify({
    rules: [
      { repositories: ['**'], actions: ['pull'] },
      { repositories: ['packs/net-*'], actions: ['pull', 'push'], claims: { groups: 'net' } },
      { repositories: ['packs/net-secret'], actions: [], claims: { groups: 'net' } },
      { repositories: ['packs/net-secret'], actions: ['pull'], claims: { groups: 'net', level: 3 } },
      { repositories: ['team/**'], actions: ['delete'], claims: { sub: ['alice', 'bob'] } },
      {
        repositories: ['packs/ci'],
        actions: ['push'],
        issuer: 'https://ci.example',
        claims: { repository: 'acme/ci' },
      },
    ],
    issuers: [{ issuer: 'https://ci.example', audience: 'packs' }],
  }),
)

describe('a policy', () => {
  const asked = [
    { claims: {}, on: 'packs/net-a', may: 'pull' },
    { claims: { groups: ['x', 'net'] }, on: 'packs/net-a', may: 'pull push' },
    { claims: { groups: 'net' }, on: 'packs/net-a', may: 'pull push' },
    { claims: { groups: 'network' }, on: 'packs/net-a', may: 'pull' },
    { claims: { groups: 'net' }, on: 'packs/net-secret', may: '' },
    { claims: { groups: 'net', level: 3 }, on: 'packs/net-secret', may: 'pull' },
    { claims: { groups: 'net', level: '3' }, on: 'packs/net-secret', may: '' },
    { claims: { sub: 'alice' }, on: 'team/a/b', may: 'overwrite delete' },
    { claims: { sub: 'alice' }, on: 'team', may: 'pull' },
    { claims: { sub: 'carol' }, on: 'team/a', may: 'pull' },
    { claims: { repository: 'acme/ci' }, on: 'packs/ci', may: 'pull' },
    { issuer: 'https://ci.example', claims: { repository: 'acme/ci' }, on: 'packs/ci', may: 'push' },
    { issuer: 'https://ci.example', claims: { repository: 'acme/ci' }, on: 'packs/other', may: '' },
    { issuer: 'https://other.example', claims: { repository: 'acme/ci' }, on: 'packs/ci', may: '' },
    { claims: { __proto__: { groups: 'net' } }, on: 'packs/net-a', may: 'pull' },
    { claims: { sub: 'alice' }, scopes: ['packs.read'], on: 'team/a', may: '' },
    { claims: { sub: 'alice' }, scopes: ['packs.approve'], on: 'team/a', may: 'overwrite delete' },
    { claims: {}, scopes: ['constructor', 'packs.reader', 'PACKS.READ'], on: 'packs/x', may: '' },
  ]
  for (const { issuer, claims, scopes, on, may } of asked)
    it(`lets ${JSON.stringify(claims)}${issuer ? ` of ${issuer}` : ''}${scopes ? ` with ${scopes}` : ''} ${may || 'do nothing'} on ${on}`, () => {
      const rights = rightsOf(policy, { issuer, claims }, scopes)
      assert.equal(actionsOn(as(rights), on as RepositoryName).join(' '), may)
      const filter = listFilter(rights.grants)
      const first = filter?.find(({ pattern }) => new RegExp(pattern).test(on))
      assert.equal(filter ? (first?.readable ?? false) : true, may.includes('pull'), 'lists agree')
    })

  const wrong: [string, RegExp][] = [
    ['{', /not JSON/],
    ['[]', /must be an object with "rules"/],
    ['{"rules":[{"repositories":["packs/*"],"actions":["fly"]}]}', /rules\.0\.actions\.0: must be one of pull, push/],
    ['{"rules":[{"repositories":["PACKS"],"actions":[]}]}', /rules\.0\.repositories\.0: must be a glob/],
    ['{"rules":[{"repositories":[],"actions":[]}]}', /must name a repository/],
    ['{"rules":[{"repositories":["a"],"actions":[],"who":1}]}', /who: is not a field of a rule/],
    ...['__proto__', 'prototype', 'constructor'].map((name): [string, RegExp] => [
      `{"rules":[{"repositories":["**"],"actions":["delete"],"claims":{"${name}":"x"}}]}`,
      /claims: must not name __proto__, prototype or constructor/,
    ]),
    [
      '{"rules":[{"repositories":["a"],"actions":[],"issuer":"https://a.example","claims":{"a":"b"}}]}',
      /does not stand under "issuers"/,
    ],
    [
      '{"rules":[{"repositories":["a"],"actions":[],"issuer":"https://a.example"}],"issuers":[{"issuer":"https://a.example","audience":"a"}]}',
      /has to name claims/,
    ],
    ['{"rules":[],"issuers":[{"issuer":"http://a.example","audience":"a"}]}', /must be an https address/],
  ]
  for (const [text, says] of wrong)
    it(`that is ${text} is refused in words`, () => {
      assert.throws(() => parsePolicy(text), says)
    })
})

describe('globs', () => {
  const matches: [string, string, boolean][] = [
    ['packs/*', 'packs/a', true],
    ['packs/*', 'packs/a/b', false],
    ['packs/**', 'packs/a/b', true],
    ['**', 'a', true],
    ['a.b', 'axb', false],
    ['*/net-*', 'packs/net-a', true],
    ['packs/net-*', 'xpacks/net-a', false],
  ]
  for (const [glob, name, wanted] of matches)
    it(`${glob} ${wanted ? 'is about' : 'is not about'} ${name}`, () => {
      assert.equal(new RegExp(patternOf(glob)).test(name), wanted)
    })

  it('are about the same names in whichever way that is asked', () => {
    const text = (...parts: string[]) =>
      fc.array(fc.constantFrom(...parts), { maxLength: 8 }).map((all) => all.join(''))
    const glob = text('a', 'b', '/', '*', '**', 'ab', 'a/').filter((one) => !one.includes('***'))
    fc.assert(
      fc.property(glob, text('a', 'b', '/', 'ab'), (one, name) => {
        assert.equal(matcherOf(one).test(name), new RegExp(patternOf(one)).test(name))
      }),
      { numRuns: 20_000 },
    )
  })

  it('are held against a name in as many steps as it has characters, and not in every way that there is', () => {
    const name = 'a'.repeat(255)
    assert.equal(matcherOf(`${'**a'.repeat(80)}b`).test(name), false)
    assert.equal(matcherOf(`${'*a**a'.repeat(50)}*`).test(name), true)
  })

  it('are nothing but that', () => {
    for (const text of ['', 'a|b', '(a)', 'a+', '***', 'A', 'a b', '^a$', 'a\\.b', '[ab]', '*a*b*c*'])
      assert.ok(!isGlob(text), text)
  })
})
