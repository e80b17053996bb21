import assert from 'node:assert/strict'
import { after, before, it } from 'node:test'
import { type Digest, digestOf } from '../oci/digest.ts'
import { pathOf, tarOf } from '../testing/bundle.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { publish } from '../testing/packs.ts'
import { startRegistry, type TestRegistry } from '../testing/registry.ts'

// What the names in a layout are taken for: tags, with the pack before them or without.

let databases: TestDatabases
let there: TestRegistry
before(async () => {
  databases = await startDatabases()
  there = await startRegistry(await databases.fresh())
  await publish(there, { packId: 'base-rules' }, 'base')
  await publish(there, { packId: 'net', version: '2.0.0-rc.1+a', dependencies: ['base-rules'] }, 'net')
  const bundle = { packId: 'site', type: 'bundle', dependencies: ['net@2.0.0-rc.1', 'base-rules'] }
  const published = await publish(there, bundle, null)
  assert.equal(published.status, 201, JSON.stringify(published.body))
})
after(async () => {
  await there?.stop()
  await databases?.stop()
})

type Answer = { changed: boolean; packs: object[]; channels: { packId: string; channel: string }[] }

async function imported(bytes: Buffer, status: number, here: TestRegistry): Promise<Answer> {
  const answer = await here.call('POST', '/bundles/import', { body: bytes })
  const text = await answer.text()
  assert.equal(answer.status, status, text)
  return JSON.parse(text) as Answer
}

async function withRegistry(test: (registry: TestRegistry) => Promise<void>): Promise<void> {
  const registry = await startRegistry(await databases.fresh())
  try {
    await test(registry)
  } finally {
    await registry.stop()
  }
}

const bytesOf = async (path: string) => Buffer.from(await (await there.call('GET', path)).arrayBuffer())

async function tagsOf(packId: string, { call }: TestRegistry): Promise<string[]> {
  return ((await (await call('GET', `/v2/packs/${packId}/tags/list`)).json()) as { tags: string[] }).tags
}

it('the file of a bundle pack is imported without a tag that was not there, and once only', () =>
  withRegistry(async (here) => {
    const file = await bytesOf('/packs/site/1.0.0')
    const first = await imported(file, 201, here)
    assert.deepEqual(first.channels, [])
    for (const packId of ['site', 'net', 'base-rules'])
      assert.deepEqual(await tagsOf(packId, here), await tagsOf(packId, there), packId)
    const again = await imported(file, 200, here)
    assert.deepEqual([again.changed, again.packs.length, again.channels], [false, first.packs.length, []])
    assert.deepEqual(await tagsOf('site', here), await tagsOf('site', there))
    assert.deepEqual(await bytesOf('/packs/site/1.0.0'), file)
  }))

for (const [name, tags] of [
  ['base-rules--1.0.0', []],
  ['base-rules--stable', ['stable']],
  ['base-rules--', []],
  ['stable', ['stable']],
  ['packs/base-rules:stable', ['stable']],
  ['localhost:5000/packs/base-rules:base-rules--stable', ['stable']],
  // Of another pack: a tag as any other.
  ['rules--stable', ['rules--stable']],
] as const)
  it(`the name ${name} in a layout is the tag ${tags.join() || 'that the version has anyway'}`, () =>
    withRegistry(async (here) => {
      const manifest = await bytesOf('/v2/packs/base-rules/manifests/1.0.0')
      const { config, layers } = JSON.parse(manifest.toString()) as Record<string, { digest: string }[]>
      const mediaType = 'application/vnd.oci.image.manifest.v1+json'
      const digest = digestOf(manifest)
      const annotations = { 'org.opencontainers.image.ref.name': name }
      const index = { schemaVersion: 2, manifests: [{ mediaType, digest, size: manifest.length, annotations }] }
      const blobs = [config, layers].flat().map((blob) => blob?.digest as Digest)
      const file = tarOf([
        { name: 'oci-layout', bytes: Buffer.from('{"imageLayoutVersion":"1.0.0"}') },
        { name: 'index.json', bytes: Buffer.from(JSON.stringify(index)) },
        { name: pathOf(digest), bytes: manifest },
        ...(await Promise.all(
          blobs.map(async (blob) => ({
            name: pathOf(blob),
            bytes: await bytesOf(`/v2/packs/base-rules/blobs/${blob}`),
          })),
        )),
      ])
      const { channels } = await imported(file, 201, here)
      assert.deepEqual(
        channels.map(({ channel }) => channel),
        tags,
      )
      assert.deepEqual(await tagsOf('base-rules', here), ['1.0.0', ...tags, 'latest'].sort())
      assert.equal((await imported(file, 200, here)).changed, false)
    }))
