import assert from 'node:assert/strict'
import { it } from 'node:test'
import { type Lock, lockBytes, parseLock } from './lock.ts'

const digest = `sha256:${'0'.repeat(64)}`
const pack = (packId: string, over: object = {}) => ({
  packId,
  version: '1.0.0',
  type: 'policy',
  digest,
  size: 1,
  mediaType: 'a/b',
  title: 'a.tgz',
  manifestDigest: digest,
  manifestSize: 2,
  dependencies: [],
  ...over,
})
const dependencies = [
  { packId: 'c', version: '*', optional: true },
  { packId: 'b', version: '^1.0.0', resolved: '1.0.0' },
]
const lock = {
  lockVersion: 1,
  roots: [
    { packId: 'b', version: '^1.0.0' },
    { packId: 'a', version: '*' },
  ],
  packs: [pack('b'), pack('a', { dependencies })],
}

it('writes a lock in one way, whatever order it comes in', () => {
  const [b, a] = lock.packs
  const text = JSON.stringify({
    lockVersion: 1,
    roots: lock.roots.toReversed(),
    packs: [{ ...a, dependencies: dependencies.toReversed() }, b],
  })
  assert.equal(lockBytes(parseLock(lock) as Lock).toString(), text)
  const turned = Object.fromEntries(Object.entries(JSON.parse(text) as object).toReversed())
  assert.equal(lockBytes(parseLock(turned) as Lock).toString(), text)
})

const wrong: { name: string; lock: unknown; path: string; says: RegExp }[] = [
  { name: 'what is no object', lock: 'a', path: '', says: /must be a lock/ },
  { name: 'another lock version', lock: { ...lock, lockVersion: 2 }, path: 'lockVersion', says: /must be 1/ },
  { name: 'a field of its own', lock: { ...lock, when: 'now' }, path: 'when', says: /not a field of a lock/ },
  {
    name: 'a pack twice',
    lock: { ...lock, packs: [pack('a'), pack('a', { version: '2.0.0' })] },
    path: 'packs',
    says: /once only/,
  },
  {
    name: 'a malformed digest',
    lock: { ...lock, packs: [pack('a', { digest: 'x' })] },
    path: 'packs.0.digest',
    says: /sha256/,
  },
]
for (const { name, lock: value, path, says } of wrong)
  it(`refuses ${name}`, () => {
    const result = parseLock(value)
    assert.ok('violations' in result)
    assert.equal(result.violations[0]?.path, path)
    assert.match(result.violations[0]?.message ?? '', says)
  })
