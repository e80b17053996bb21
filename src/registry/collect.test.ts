import assert from 'node:assert/strict'
import { after, before, it } from 'node:test'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { emptyConfig, sampleManifest, startRegistry, type TestRegistry } from '../testing/registry.ts'
import { collectContent } from './collect.ts'

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

/** As if the grace of everything were over. */
async function age(): Promise<void> {
  const { sql } = registry.deps.db
  await sql`update repository_blobs set review_at = now() where review_at is not null`
  await sql`update blobs set review_at = now() where review_at is not null`
}

async function isThere(repository: string, { digest }: { digest: string }): Promise<boolean> {
  return (await registry.call('HEAD', `/v2/${repository}/blobs/${digest}`)).status === 200
}

it('collects what no manifest needs, and nothing before the grace is over', async () => {
  const layer = await registry.pushBlob('one', 'a layer')
  const loose = await registry.pushBlob('one', 'nobody needs this')
  await registry.pushManifest('one', 'v1', sampleManifest({ config: emptyConfig, layers: [layer] }))
  assert.deepEqual(await collectContent(registry.deps), { links: 0, blobs: 0, bytes: 0, kept: 0 })
  await age()
  assert.deepEqual(await collectContent(registry.deps), { links: 1, blobs: 1, bytes: loose.size, kept: 4 })
  assert.deepEqual(await Promise.all([layer, emptyConfig, loose].map((blob) => isThere('one', blob))), [
    true,
    true,
    false,
  ])
  assert.deepEqual(await collectContent(registry.deps), { links: 0, blobs: 0, bytes: 0, kept: 0 })
  await registry.call('DELETE', '/v2/one/manifests/v1')
  await age()
  assert.deepEqual(await collectContent(registry.deps), { links: 0, blobs: 0, bytes: 0, kept: 0 })
})
