import assert from 'node:assert/strict'
import { after, before, it } from 'node:test'
import { Failure } from '../errors.ts'
import type { Digest } from '../oci/digest.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { type Descriptor, sampleManifest, startRegistry, type TestRegistry } from '../testing/registry.ts'
import { openBase } from './import-base.ts'

let databases: TestDatabases
let registry: TestRegistry
before(async () => {
  databases = await startDatabases()
  registry = await startRegistry(await databases.fresh())
})
after(async () => {
  await registry?.stop()
  await databases?.stop()
})

const leftOutOf = ({ digest, size }: Descriptor) => ({ digest: digest as Digest, size })

it('reads the manifests that a bundle leaves out page by page, and refuses more than fit into memory', async () => {
  const pushed: Descriptor[] = []
  for (const name of ['one', 'two', 'three']) {
    const manifest = sampleManifest({ annotations: { name, filler: 'x'.repeat(1000) } })
    pushed.push(await registry.pushManifest(`app/${name}`, 'latest', manifest))
  }
  const leftOut = [...pushed, ...pushed.slice(0, 1)].map(leftOutOf)
  const bytes = pushed.reduce((sum, { size }) => sum + size, 0)
  const mayPull = () => true

  const found = await openBase(registry.deps, mayPull, { mostBytes: bytes, mostPage: 2500 }).manifests(leftOut)
  for (const { digest, size } of pushed) assert.equal(found.get(digest as Digest)?.length, size)
  assert.equal(found.size, 3)

  await assert.rejects(openBase(registry.deps, mayPull, { mostBytes: bytes - 1 }).manifests(leftOut), (error) => {
    assert.ok(error instanceof Failure)
    assert.equal(error.key, 'IMPORT_REFUSED')
    assert.match(String(error.detail), new RegExp(`more than ${bytes - 1} bytes together.*export fewer packs`))
    return true
  })
})
