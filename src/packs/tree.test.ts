import assert from 'node:assert/strict'
import { it } from 'node:test'
import type { LockedPack } from './lock.ts'
import type { PackId } from './pack.ts'
import { dependencyTree, type TreeNode } from './tree.ts'
import type { Version } from './version.ts'

const root = { packId: 'a' as PackId, version: '1.0.0' as Version }
const pack = (packId: string, ...dependencies: object[]) =>
  ({
    packId,
    version: '1.0.0',
    digest: `d-${packId}`,
    size: 1,
    manifestDigest: `m-${packId}`,
    dependencies,
  }) as unknown as LockedPack
const needs = (packId: string, over: object = {}) => ({ packId, version: '*', resolved: '1.0.0', ...over })

/** `b(c c*)`: a star for what is seen elsewhere, a dash for what is left out. */
const inWords = ({ packId, resolved, seen, dependencies }: TreeNode): string =>
  `${packId}${resolved ? '' : '-'}${seen ? '*' : ''}${dependencies.length > 0 ? `(${dependencies.map(inWords).join(' ')})` : ''}`

const cases: { name: string; packs: LockedPack[]; tree: string }[] = [
  { name: 'nothing', packs: [pack('a')], tree: '' },
  {
    name: 'what is nearest to the root there, and named elsewhere',
    packs: [pack('a', needs('b'), needs('c')), pack('b', needs('c'), needs('d')), pack('c', needs('d')), pack('d')],
    tree: 'b(c* d) c(d*)',
  },
  {
    name: 'circles once',
    packs: [pack('a', needs('b')), pack('b', needs('a'), needs('b'))],
    tree: 'b(a* b*)',
  },
  {
    name: 'what is optional and left out',
    packs: [pack('a', { packId: 'b', version: '*', optional: true })],
    tree: 'b-',
  },
]
for (const { name, packs, tree } of cases)
  it(`tells ${name}`, () => assert.equal(dependencyTree(packs, root).dependencies.map(inWords).join(' '), tree))

it('ends where readers of JSON would stop', () => {
  const chain = Array.from({ length: 5000 }, (_, i) => pack(`p${i}`, ...(i < 4999 ? [needs(`p${i + 1}`)] : [])))
  let node = dependencyTree(chain, { ...root, packId: 'p0' as PackId }).dependencies[0]
  for (let depth = 1; node?.dependencies[0]; depth++) {
    assert.ok(depth < 31)
    node = node.dependencies[0]
  }
  assert.equal(node?.truncated, true)
})
