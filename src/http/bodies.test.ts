import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { inventoryBytes, inventoryType } from '../bundles/inventory.ts'
import { digestOf } from '../oci/digest.ts'
import { packMediaTypes } from '../packs/pack.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { imageType, startRegistry, type TestRegistry } from '../testing/registry.ts'

// Bodies that are small to send, and would be large to look at: each is refused in few words, for its form alone.

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

const mebibyte = 1024 * 1024
const document = { packId: 'a', version: '1.0.0', type: 'policy' }
/** A list of as many of these as have so many bytes. */
const list = (entry: string, bytes: number) => `[${Array(Math.floor(bytes / (entry.length + 1))).fill(entry)}]`
const filled = (value: object, text: string) => JSON.stringify(value).replace('"here"', text)
const publish = (over: object, text: string) => filled({ manifest: { ...document, ...over }, content: 'e30=' }, text)

async function post(path: string, body: string | Uint8Array) {
  const answer = await registry.call('POST', path, { headers: { 'content-type': 'application/json' }, body })
  return { status: answer.status, said: await answer.text() }
}

/** An inventory with this line and these many bytes of digests. */
const inventoryOf = (line: string, digests = Buffer.alloc(0)) => ({
  payload: Buffer.concat([Buffer.from(`${line}\n`), digests]).toString('base64'),
  payloadType: inventoryType,
  signatures: [],
})

const costly: [name: string, path: string, body: () => string, status: number, says: RegExp][] = [
  [
    'dependencies',
    '/packs',
    () => publish({ dependencies: 'here' }, list('{}', 4e5)),
    422,
    /dependencies must be at most 500/,
  ],
  ['keywords', '/packs', () => publish({ metadata: { keywords: 'here' } }, list('0', 4e5)), 422, /must be at most 50"/],
  [
    'packs of a lock',
    '/resolve',
    () => filled({ roots: ['a'], lock: { lockVersion: 1, roots: [], packs: 'here' } }, list('{}', 8e5)),
    400,
    /lock\.packs\.0\.packId is missing.*and many more/,
  ],
  [
    'roots of a lock',
    '/resolve',
    () => filled({ roots: ['a'], lock: { lockVersion: 1, roots: 'here', packs: [] } }, list('0', 8e5)),
    400,
    /lock\.roots must be at most 10,000/,
  ],
  ['roots', '/resolve', () => filled({ roots: 'here' }, list('0', 8e5)), 400, /roots must be at most 1000/],
  [
    'metadata',
    '/packs',
    () => publish({ metadata: { x: 'here' } }, list('{}', 2 * mebibyte)),
    413,
    /at most 200000 objects/,
  ],
  [
    'an inventory that is none',
    '/bundles/plan',
    () => filled({ roots: ['a'], inventory: { a: 'here' } }, list('{}', 2 * mebibyte)),
    413,
    /at most 200000 objects/,
  ],
  [
    'an inventory whose line is too long',
    '/bundles/plan',
    () => JSON.stringify({ roots: ['a'], inventory: inventoryOf(`{"packs":${list('[]', 4 * mebibyte)}}`) }),
    422,
    /more than 2000000 parts/,
  ],
]

describe('of a list without end', () => {
  for (const [name, path, body, status, says] of costly)
    it(`in the place of ${name} little is told, and no more is looked at`, async () => {
      const answer = await post(path, body())
      assert.equal(answer.status, status, answer.said.slice(0, 500))
      assert.match(answer.said, says)
      assert.ok(answer.said.length < 10_000)
    })

  it('in a config that was pushed no more is told', async () => {
    const config = filled({ ...document, dependencies: 'here' }, list('{}', 4e5))
    const content = await registry.pushBlob('packs/a', '{}')
    const { digest, size } = await registry.pushBlob('packs/a', config)
    const answer = await registry.call('PUT', '/v2/packs/a/manifests/1.0.0', {
      headers: { 'content-type': imageType },
      body: JSON.stringify({
        ...{ schemaVersion: 2, mediaType: imageType, artifactType: packMediaTypes.artifact('policy') },
        config: { mediaType: packMediaTypes.config, digest, size },
        layers: [{ ...content, mediaType: packMediaTypes.content }],
      }),
    })
    assert.equal(answer.status, 400)
    assert.match(await answer.text(), /do not describe a pack: dependencies must be at most 500"/)
  })
})

describe('a large body that is text', () => {
  it('is taken, whatever stands in the text', async () => {
    const manifest = { ...document, metadata: { readme: ',[{'.repeat(80_000) } }
    const content = Buffer.alloc(2 * mebibyte, ',[{"')
    const answer = await post('/packs', JSON.stringify({ manifest, content: content.toString('base64') }))
    assert.equal(answer.status, 201, answer.said)
    assert.equal(JSON.parse(answer.said).digest, digestOf(content))
  })
  it('is taken where it is the inventory of a large site', async () => {
    const blobs = Buffer.alloc(32 * 300_000)
    for (let i = 0; i < 300_000; i++) blobs.writeUInt32BE(i, i * 32)
    const versions = Array.from({ length: 100_000 }, (_, i) => ({
      version: `1.0.${i}` as never,
      manifestDigest: `sha256:${i.toString(16).padStart(64, '0')}` as never,
    }))
    const inventory = inventoryBytes({ blobs, otherBlobs: [], packs: [{ packId: 'far' as never, versions }] }, [])
    const body = Buffer.concat([Buffer.from('{"roots":["a"],"inventory":'), inventory, Buffer.from('}')])
    const answer = await post('/bundles/plan', body)
    assert.equal(answer.status, 200, answer.said.slice(0, 500))
    assert.equal(JSON.parse(answer.said).inventory.signature, 'none')
  })
})
