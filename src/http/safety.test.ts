import assert from 'node:assert/strict'
import { after, before, it } from 'node:test'
import { digestOf } from '../oci/digest.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { publish } from '../testing/packs.ts'
import { startRegistry, type TestRegistry } from '../testing/registry.ts'

let databases: TestDatabases
let registry: TestRegistry
before(async () => {
  databases = await startDatabases()
  registry = await startRegistry(await databases.fresh())
  await registry.pushManifest('a', '1')
  await registry.pushBlob('a', '<script>alert(1)</script>')
  await publish(registry, { packId: 'net' }, '<html>')
})
after(async () => {
  await registry?.stop()
  await databases?.stop()
})

const script = digestOf(Buffer.from('<script>alert(1)</script>'))

const calls: [method: string, path: string, status: number][] = [
  ['GET', '/v2/', 200],
  ['GET', '/v2/a/manifests/1', 200],
  ['HEAD', '/v2/a/manifests/1', 200],
  ['GET', '/v2/a/tags/list', 200],
  ['GET', `/v2/a/blobs/${script}`, 200],
  ['HEAD', `/v2/a/blobs/${script}`, 200],
  ['GET', '/v2/_catalog', 200],
  ['GET', `/v2/a/referrers/${script}`, 200],
  ['GET', '/v2/a/blobs/sha256:7f1a9a60d0d58d0fdd5d2e9ac7b7b7f9a0f6ac4c3b7c1d60d0d58d0fdd5d2e9a', 404],
  ['PUT', '/v2/a/manifests/1', 400],
  ['PATCH', '/v2/a/manifests/1', 405],
  ['GET', '/packs', 200],
  ['GET', '/packs/net', 200],
  ['GET', '/packs/net/1.0.0', 200],
  ['GET', '/packs/net/1.0.0/manifest', 200],
  ['GET', '/packs/net/latest', 200],
  ['GET', '/packs/net/versions', 200],
  ['GET', '/packs/none', 404],
  ['GET', '/audit', 200],
  ['GET', '/events', 200],
  ['POST', '/packs', 400],
  ['GET', '/token', 200],
  ['GET', '/healthz', 200],
  ['GET', '/metrics', 200],
  ['GET', '/nowhere', 404],
]
for (const [method, path, status] of calls)
  it(`${method} ${path}: a browser takes it for what it is and runs nothing of it, and no cache gives it to others`, async () => {
    for (const again of [false, true]) {
      // By the second time it may be in memory, and be answered without the router.
      const answer = await registry.call(method, path)
      await answer.arrayBuffer()
      assert.equal(answer.status, status, `again: ${again}`)
      assert.equal(answer.headers.get('x-content-type-options'), 'nosniff')
      assert.match(
        answer.headers.get('content-security-policy') ?? '',
        /^default-src 'none'; (?:frame-ancestors 'none'|sandbox)$/,
      )
      assert.match(
        answer.headers.get('cache-control') ?? '',
        /^(?:private, (?:no-cache|max-age=\d+, immutable)|no-store)$/,
      )
      assert.equal(answer.headers.get('strict-transport-security'), null)
    }
  })
