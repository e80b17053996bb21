import assert from 'node:assert/strict'
import { after, before, it } from 'node:test'
import fc from 'fast-check'
import { digestOf } from '../../oci/digest.ts'
import { startDatabases, type TestDatabases } from '../../testing/database.ts'
import { openRaw, type RawClient } from '../../testing/raw.ts'
import { imageType, indexType, sampleManifest, startRegistry, type TestRegistry } from '../../testing/registry.ts'

let databases: TestDatabases
let registry: TestRegistry
let raw: RawClient
before(async () => {
  databases = await startDatabases()
  registry = await startRegistry(await databases.fresh())
  raw = openRaw(registry)
  await registry.pushManifest('fuzz/known', 'v1')
})
after(async () => {
  raw?.close()
  await registry?.stop()
  await databases?.stop()
})

const digest = digestOf(Buffer.from('{}'))
const uuid = '11111111-1111-4111-8111-111111111111'
const word = fc.oneof(
  fc.constantFrom(
    'fuzz/known',
    'a',
    'A',
    '',
    '..',
    '%00',
    '%2e%2e',
    '%',
    '%ff',
    'v1',
    digest,
    'sha256:',
    `sha512:${'a'.repeat(128)}`,
    uuid,
    '_catalog',
  ),
  fc.string({ maxLength: 20 }).map((text) => encodeURIComponent(text)),
)
const path = fc.oneof(
  fc
    .tuple(word, fc.constantFrom('manifests', 'blobs', 'blobs/uploads', 'referrers', 'tags'), word)
    .map((parts) => `/v2/${parts.join('/')}`),
  fc.array(word, { maxLength: 6 }).map((parts) => `/v2/${parts.join('/')}`),
  fc.constantFrom(
    '/v2/fuzz/known/blobs/uploads/',
    `/v2/fuzz/known/blobs/uploads/${uuid}`,
    '/v2/fuzz/known/manifests/v1',
    '/v2/_catalog',
  ),
)
const query = fc
  .array(
    fc.tuple(fc.constantFrom('n', 'last', 'digest', 'mount', 'from', 'tag', 'artifactType', 'digest-algorithm'), word),
    { maxLength: 3 },
  )
  .map((pairs) => pairs.map(([key, value]) => `${key}=${value}`).join('&'))
const printable = fc.string({ maxLength: 30 }).map((text) => text.replace(/[^\x20-\x7e]/g, '?'))
const headers = fc.record(
  {
    'content-type': fc.oneof(fc.constantFrom(imageType, indexType, 'text/html'), printable),
    'content-range': fc.oneof(fc.constantFrom('0-1', '5-1', 'bytes 0-1/2'), printable),
    range: fc.oneof(fc.constantFrom('bytes=0-', 'bytes=-0', 'bytes=9-1'), printable),
    'if-none-match': printable,
    'if-match': printable,
    'x-request-id': printable,
  },
  { requiredKeys: [] },
)
/** A valid manifest with one value, at any depth, put in another's place. */
const mutated = fc
  .tuple(
    fc.jsonValue({ maxDepth: 3 }),
    fc.constantFrom(
      'config',
      'layers',
      'subject',
      'annotations',
      'artifactType',
      'mediaType',
      'manifests',
      'schemaVersion',
    ),
  )
  .map(([value, key]) => Buffer.from(JSON.stringify(sampleManifest({ [key]: value }))))
const body = fc.oneof(
  mutated,
  fc.json().map((text) => Buffer.from(text)),
  fc.uint8Array({ maxLength: 2000 }).map((bytes) => Buffer.from(bytes)),
)

it('answers 1,000 random requests with anything but a 5xx', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom('GET', 'HEAD', 'PUT', 'POST', 'PATCH', 'DELETE', 'OPTIONS'),
      path,
      query,
      headers,
      body,
      async (method, path, query, headers, body) => {
        const status = await raw.send(
          method,
          `${path}?${query}`,
          headers,
          method === 'GET' || method === 'HEAD' ? Buffer.alloc(0) : body,
        )
        assert.ok(status >= 200 && status < 500, `${method} ${path}?${query} gave ${status}`)
      },
    ),
    { numRuns: 1000 },
  )
})

it('answers 500 mutated manifests with 201 or a 4xx, and serves what it took', async () => {
  await fc.assert(
    fc.asyncProperty(mutated, async (bytes) => {
      const status = await raw.send(
        'PUT',
        `/v2/fuzz/known/manifests/${digestOf(bytes)}`,
        { 'content-type': imageType },
        bytes,
      )
      assert.ok(status === 201 || (status >= 400 && status < 500), `${bytes} gave ${status}`)
      const read = await registry.call('GET', `/v2/fuzz/known/manifests/${digestOf(bytes)}`)
      assert.equal(read.status, status === 201 ? 200 : 404)
      if (status === 201) assert.deepEqual(Buffer.from(await read.arrayBuffer()), bytes)
      if (status === 201) await registry.call('DELETE', `/v2/fuzz/known/manifests/${digestOf(bytes)}`)
    }),
    { numRuns: 500 },
  )
})
