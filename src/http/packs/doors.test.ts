import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import type { ObjectKey } from '../../blobs/keys.ts'
import { openLog } from '../../log.ts'
import { digestOf } from '../../oci/digest.ts'
import { startDatabases, type TestDatabases } from '../../testing/database.ts'
import { publish as publishPack } from '../../testing/packs.ts'
import { emptyConfig, imageType, startRegistry, type TestRegistry } from '../../testing/registry.ts'

// The same rules by both doors: a pack goes in by one and comes out of the other.

let databases: TestDatabases
let here: TestRegistry
let there: TestRegistry

before(async () => {
  databases = await startDatabases()
  const url = await databases.fresh()
  here = await startRegistry(url, {}, openLog('error'))
  // Another process over the same facts.
  there = await startRegistry(url, { BLOB_STORE: here.deps.config.blobStore })
})
after(async () => {
  await there?.stop()
  await here?.stop()
  await databases?.stop()
})

type Json = Record<string, unknown>

async function publish(document: Json, content: string, { query = '', to = here } = {}): Promise<[number, Json]> {
  const { status, body } = await publishPack(to, document, content, query)
  return [status, body]
}

/** What `oras push --artifact-type …` does: no config, the pack is described by tag, type and annotations. */
async function push(packId: string, tag: string, content: string, over: Json = {}): Promise<[number, string]> {
  const repository = `packs/${packId}`
  await here.pushBlob(repository, '{}')
  const layer = await here.pushBlob(repository, content)
  const artifactType = 'application/vnd.stellaops.pack.policy.v1'
  const manifest = {
    schemaVersion: 2,
    mediaType: imageType,
    artifactType,
    config: emptyConfig,
    layers: [layer],
    ...over,
  }
  const answer = await here.call('PUT', `/v2/${repository}/manifests/${tag}`, {
    body: JSON.stringify(manifest),
    headers: { 'content-type': imageType },
  })
  return [answer.status, await answer.text()]
}

async function get(path: string): Promise<[number, Json]> {
  const answer = await here.call('GET', path)
  return [answer.status, (await answer.json()) as Json]
}
const tagsOf = async (packId: string) => (await get(`/v2/packs/${packId}/tags/list`))[1].tags

describe('one store, two doors', () => {
  it('publishes by REST what /v2 serves, byte for byte', async () => {
    const [status, made] = await publish({ packId: 'rest', created: '2026-01-31T12:00:00Z' }, 'the content')
    assert.equal(status, 201)
    const manifest = await here.call('GET', '/v2/packs/rest/manifests/latest')
    const bytes = Buffer.from(await manifest.arrayBuffer())
    assert.equal(digestOf(bytes), made.manifestDigest)
    const config = '{"packId":"rest","version":"1.0.0","type":"policy","name":"rest","dependencies":[],"metadata":{}}'
    assert.equal(
      bytes.toString(),
      '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",' +
        '"artifactType":"application/vnd.stellaops.pack.policy.v1",' +
        `"config":{"mediaType":"application/vnd.stellaops.pack.config.v1+json","digest":"${digestOf(Buffer.from(config))}","size":${config.length}},` +
        `"layers":[{"mediaType":"application/vnd.stellaops.pack.content.v1.tar+gzip","digest":"${digestOf(Buffer.from('the content'))}","size":11,` +
        '"annotations":{"org.opencontainers.image.title":"content.tgz"}}],' +
        '"annotations":{"org.opencontainers.image.created":"2026-01-31T12:00:00Z","org.opencontainers.image.title":"rest","org.opencontainers.image.version":"1.0.0"}}',
    )
    const blob = await here.call('GET', `/v2/packs/rest/blobs/${made.digest}`)
    assert.equal(await blob.text(), 'the content')
  })

  it('serves by REST what was pushed by /v2', async () => {
    const annotations = {
      'org.opencontainers.image.title': 'Pushed',
      'vnd.stellaops.pack.dependencies': 'rest@^1.0.0',
      'vnd.stellaops.pack.minRunnerVersion': '1.5.0',
    }
    assert.equal((await push('pushed', '1.0.0', 'other content', { annotations }))[0], 201)
    const [, { pack }] = await get('/packs/pushed')
    const { name, dependencies, metadata, channels, state } = pack as Json
    assert.deepEqual(
      { name, dependencies, metadata, channels, state },
      {
        name: 'Pushed',
        dependencies: [{ packId: 'rest', version: '^1.0.0' }],
        metadata: { minRunnerVersion: '1.5.0' },
        channels: ['latest'],
        state: 'active',
      },
    )
    const content = await here.call('GET', '/packs/pushed/%5E1')
    assert.equal(await content.text(), 'other content')
    const [status, problem] = await get('/packs/pushed/1.0.0?runner=1.4.0')
    assert.equal(status, 409)
    assert.match(String(problem.detail), /does not run on runner 1\.4\.0/)
  })

  it('takes a version once', async () => {
    assert.equal((await publish({ packId: 'once' }, 'a'))[0], 201)
    assert.equal((await publish({ packId: 'once' }, 'a'))[0], 200)
    assert.equal((await publish({ packId: 'once' }, 'b'))[0], 409)
    assert.equal((await publish({ packId: 'once', version: '1.0.0+other' }, 'b'))[0], 409)
    const [status, text] = await push('once', '1.0.0', 'b')
    assert.equal(status, 409)
    assert.match(text, /DENIED/)
    const [, { deleted }] = await (async () => {
      const answer = await here.call('DELETE', '/packs/once/1.0.0')
      return [answer.status, (await answer.json()) as Json] as const
    })()
    assert.equal(deleted, true)
    assert.equal((await publish({ packId: 'once' }, 'a'))[0], 409)
    assert.equal((await push('once', '1.0.0', 'a'))[0], 409)
  })

  it('lets one of many publishers win, on several processes', async () => {
    const many = Array.from({ length: 16 }, (_, i) =>
      publish({ packId: 'race' }, `content ${i}`, { to: i % 2 ? here : there }),
    )
    const answers = await Promise.all(many)
    const [winner, ...more] = answers.filter(([status]) => status === 201)
    assert.deepEqual([more.length, answers.filter(([status]) => status === 409).length], [0, 15])
    assert.equal(
      (await get('/packs/race/1.0.0/manifest'))[1].pack && winner?.[1].digest,
      digestOf(Buffer.from(await (await here.call('GET', '/packs/race/1.0.0')).arrayBuffer())),
    )
  })

  it('keeps latest: the highest release that is not yanked', async () => {
    const shown = async () => ((await get('/packs/kept'))[1].pack as Json).version
    for (const [version, latest] of [
      ['1.0.0', '1.0.0'],
      ['2.0.0', '2.0.0'],
      ['1.1.0', '2.0.0'],
      ['3.0.0-rc.1', '2.0.0'],
    ]) {
      assert.equal((await publish({ packId: 'kept', version }, `kept ${version}`))[0], 201)
      assert.equal(await shown(), latest)
    }
    const yank = await here.call('PATCH', '/packs/kept/2.0.0', { body: '{"state":"yanked"}' })
    assert.equal(yank.status, 200)
    assert.equal(await shown(), '1.1.0')
    assert.deepEqual(await tagsOf('kept'), ['1.0.0', '1.1.0', '2.0.0', '3.0.0-rc.1', 'latest'])
    assert.equal((await push('kept', 'latest', 'x'))[0], 409)
  })

  it('points channels at published versions only', async () => {
    await publish({ packId: 'channels' }, 'c')
    const put = (body: string, headers = {}) => here.call('PUT', '/packs/channels/channels/stable', { body, headers })
    assert.equal((await put('{"version":"9.0.0"}')).status, 404)
    const set = await put('{"version":"1.0.0"}')
    assert.equal(set.status, 200)
    assert.equal((await put('{"version":"1.0.0"}', { 'if-match': `"sha256:${'0'.repeat(64)}"` })).status, 412)
    assert.equal((await put('{"version":"1.0.0"}', { 'if-match': set.headers.get('etag') ?? '' })).status, 200)
    assert.equal((await push('channels', 'edge', 'never published'))[0], 409)
    assert.deepEqual(await tagsOf('channels'), ['1.0.0', 'latest', 'stable'])
  })

  it('knows dependents, refuses what cannot be satisfied, and circles', async () => {
    await publish({ packId: 'base' }, 'base')
    assert.equal((await publish({ packId: 'top', dependencies: ['base@^1'] }, 'top'))[0], 201)
    assert.equal((await publish({ packId: 'bad', dependencies: ['base@^2'] }, 'bad'))[0], 422)
    assert.equal(
      (await publish({ packId: 'bad', dependencies: ['base@^2'] }, 'bad', { query: '?allowMissing=true' }))[0],
      201,
    )
    const [status, circle] = await publish({ packId: 'base', version: '1.1.0', dependencies: ['top@*'] }, 'circle')
    assert.equal(status, 422)
    assert.match(String(circle.detail), /circle: base needs top needs base/)
    const refused = await here.call('DELETE', '/packs/base/1.0.0')
    assert.equal(refused.status, 409)
    assert.match(((await refused.json()) as { detail: string }).detail, /top 1\.0\.0/)
    assert.equal((await here.call('DELETE', '/v2/packs/base/manifests/1.0.0')).status, 409)
    assert.equal((await here.call('DELETE', '/packs/base/1.0.0?force=true')).status, 200)
  })

  const refused: { name: string; tag: string; over?: Json; status: number; says: RegExp }[] = [
    {
      name: 'a manifest that is no pack',
      tag: '1.0.0',
      over: { artifactType: 'a/b' },
      status: 400,
      says: /artifactType must be/,
    },
    { name: 'a tag that nearly is a version', tag: 'v1.0.0', status: 400, says: /looks like a version/ },
    { name: 'a pack without content', tag: '1.0.0', over: { layers: [] }, status: 400, says: /one layer/ },
    {
      name: 'another version than its tag',
      tag: '1.0.0',
      over: { annotations: { 'org.opencontainers.image.version': '1.0.1' } },
      status: 400,
      says: /must be the same/,
    },
  ]
  for (const { name, tag, over, status, says } of refused)
    it(`refuses ${name}`, async () => {
      const [actual, text] = await push('refused', tag, 'x', over)
      assert.equal(actual, status, text)
      assert.match(text, says)
      assert.equal((await get('/packs/refused'))[0], 404)
    })
  it('refuses a config that is larger than its manifest says, without reading it', async () => {
    const mediaType = 'application/vnd.stellaops.pack.config.v1+json'
    const large = await here.pushBlob('packs/refused', Buffer.alloc(3_000_000, ' '))
    const { sql } = here.deps.db
    const [stored] = await sql<
      { key: ObjectKey }[]
    >`select storage_key as key from blobs where digest = ${large.digest}`
    assert.ok(stored)
    // Whoever read it now would find it lost.
    await here.deps.blobs.delete([stored.key])
    const [status, text] = await push('refused', '1.0.0', 'x', { config: { ...large, mediaType, size: 2 } })
    assert.equal(status, 400, text)
    assert.match(text, /the config has 2 bytes; it has 3000000/)
  })
  it('takes signatures and fallback tags as they are', async () => {
    const [, { manifestDigest }] = await publish({ packId: 'signed' }, 'signed')
    const subject = { mediaType: imageType, digest: manifestDigest, size: 1 }
    assert.equal(
      (await push('signed', String(manifestDigest).replace(':', '-'), 'sig', { artifactType: 'a/b', subject }))[0],
      201,
    )
    assert.equal(
      (await push('signed', `${String(manifestDigest).replace(':', '-')}.sig`, 'sig', { artifactType: 'a/b' }))[0],
      201,
    )
  })
})
