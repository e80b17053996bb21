import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import bcrypt from 'bcryptjs'
import { digestOf } from '../oci/digest.ts'
import { sampleBundle } from '../testing/bundle.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import {
  codeOf,
  type Descriptor,
  imageType,
  indexType,
  sampleManifest,
  startRegistry,
  type TestRegistry,
} from '../testing/registry.ts'

// What went wrong in other registries, and is not to go wrong here, where no other test has it. See spec/security.md.

let databases: TestDatabases
let registry: TestRegistry
let folder: string

const policy = {
  rules: [
    { repositories: ['**'], actions: ['pull', 'push', 'delete'], admin: true, claims: { sub: 'admin' } },
    { repositories: ['team/*', 'packs/*'], actions: ['pull', 'push', 'overwrite'], claims: { sub: 'writer' } },
    { repositories: ['packs/secret-*'], actions: [], claims: { sub: 'writer' } },
    { repositories: ['team/open'], actions: ['pull'], claims: { sub: 'reader' } },
  ],
}

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'packs-lessons-'))
  const users = ['admin', 'writer', 'reader'].map((name) => `${name}:${bcrypt.hashSync(name, 4)}`)
  await writeFile(join(folder, 'users'), users.join('\n'))
  await writeFile(join(folder, 'policy.json'), JSON.stringify(policy))
  databases = await startDatabases()
  registry = await startRegistry(await databases.fresh(), {
    AUTH: 'htpasswd',
    HTPASSWD_FILE: join(folder, 'users'),
    POLICY_FILE: join(folder, 'policy.json'),
  })
})
after(async () => {
  await registry?.stop()
  await databases?.stop()
  await rm(folder, { recursive: true, force: true })
})

type Init = { headers?: Record<string, string>; body?: string | Uint8Array }

function as(name: string, method: string, path: string, { headers, body }: Init = {}): Promise<Response> {
  const authorization = `Basic ${Buffer.from(`${name}:${name}`).toString('base64')}`
  return registry.call(method, path, {
    headers: { authorization, ...headers },
    ...(body === undefined ? {} : { body }),
  })
}

async function pushBlob(repository: string, content: string): Promise<string> {
  const digest = digestOf(Buffer.from(content))
  const answer = await as('admin', 'POST', `/v2/${repository}/blobs/uploads/?digest=${digest}`, { body: content })
  assert.equal(answer.status, 201)
  return digest
}

async function pushManifest(repository: string, reference: string | undefined, manifest: object): Promise<Descriptor> {
  const body = JSON.stringify(manifest)
  const { mediaType = imageType } = manifest as { mediaType?: string }
  const digest = digestOf(Buffer.from(body))
  const path = `/v2/${repository}/manifests/${reference ?? digest}`
  const answer = await as('admin', 'PUT', path, { headers: { 'content-type': mediaType }, body })
  assert.equal(answer.status, 201, await answer.text())
  return { mediaType, digest, size: body.length }
}

it('a page has ten thousand entries at the most, whatever is asked for', async () => {
  await pushBlob('many/tags', '{}')
  await pushManifest('many/tags', 't', sampleManifest())
  await registry.deps.db.sql`
    insert into tags (repository_id, name, manifest_digest)
    select t.repository_id, 'n' || i, t.manifest_digest
    from tags t join repositories r on r.id = t.repository_id, generate_series(1, 10000) i where r.name = 'many/tags'`
  for (const n of ['10001', '4294967296', '99999999999999999999']) {
    const answer = await as('admin', 'GET', `/v2/many/tags/tags/list?n=${n}`)
    const { tags } = (await answer.json()) as { tags: string[] }
    assert.equal(tags.length, 10_000, n)
    assert.match(answer.headers.get('link') ?? '', /[?&]n=10000>/)
  }
})

describe('indexes that list each other in two ways on each of forty levels', () => {
  // Whoever walked every way would take a million million steps.
  const indexOf = (manifests: Descriptor[], over: object = {}) => ({
    ...{ schemaVersion: 2, mediaType: indexType, manifests },
    ...over,
  })
  before(async () => {
    let below: Descriptor[] = []
    for (let level = 0; level < 40; level++)
      below = await Promise.all(
        ['left', 'right'].map((side) =>
          pushManifest('packs/deep', undefined, indexOf(below, { annotations: { side: `${level} ${side}` } })),
        ),
      )
    const artifactType = 'application/vnd.stellaops.pack.bundle.v1'
    await pushManifest('packs/deep', '1.0.0', indexOf(below, { artifactType }))
  })

  it('are one file, in which each stands once', async () => {
    const answer = await as('admin', 'GET', '/packs/deep/1.0.0')
    assert.equal(answer.status, 200)
    const names = (await answer.text()).match(/blobs\/sha256\/[0-9a-f]{64}\0/g)
    assert.equal(names?.length, 81)
  })

  it('are exported, imported elsewhere, and deleted', async () => {
    const json = { 'content-type': 'application/json' }
    const exported = await as('admin', 'POST', '/bundles', { headers: json, body: '{"roots":["deep"]}' })
    assert.equal(exported.status, 200)
    const file = new Uint8Array(await exported.arrayBuffer())
    const elsewhere = await startRegistry(await databases.fresh())
    try {
      const headers = { 'content-type': 'application/x-tar' }
      const imported = await elsewhere.call('POST', '/bundles/import', { headers, body: file })
      assert.ok(imported.ok, await imported.text())
      assert.equal((await elsewhere.call('GET', '/packs/deep/1.0.0')).status, 200)
    } finally {
      await elsewhere.stop()
    }
    assert.equal((await as('admin', 'DELETE', '/packs/deep/1.0.0')).status, 200)
  })
})

describe('a path', () => {
  const encoded = (text: string) => [...Buffer.from(text)].map((byte) => `%${byte.toString(16)}`).join('')
  const name = `team/${'a'.repeat(250)}`

  it('longer than any that there is goes to no router, which would look for its parts in every way', async () => {
    for (const method of ['GET', 'POST', 'PATCH'])
      for (const path of [`/v2/${'a/'.repeat(1100)}manifests/x`, `/v2/${'tags/list/'.repeat(300)}`]) {
        const answer = await as('admin', method, path)
        assert.equal(answer.status, 404)
        assert.match(await answer.text(), /no path has more than 2048 characters/)
      }
  })

  it('of the longest name and digest is one, in every letter encoded, and so is one with a long query', async () => {
    const body = JSON.stringify(sampleManifest())
    const digest = digestOf(Buffer.from(body), 'sha512')
    await pushBlob(name, '{}')
    const path = `/v2/${encoded('team')}/${encoded('a'.repeat(250))}/manifests/${encoded(digest)}`
    const pushed = await as('admin', 'PUT', path, { headers: { 'content-type': imageType }, body })
    assert.equal(pushed.status, 201)
    assert.equal((await as('admin', 'GET', path)).status, 200)
    assert.equal((await as('admin', 'GET', `/v2/${name}/tags/list?last=${'x'.repeat(5000)}`)).status, 200)
  })
})

it('a blob is read where it was pushed and nowhere else, be it in memory or not', async () => {
  for (const content of ['small', 'large'.repeat(100_000)]) {
    const digest = await pushBlob('team/closed', content)
    const read = async (who: string, repository: string) =>
      Promise.all(['GET', 'HEAD'].map(async (m) => (await as(who, m, `/v2/${repository}/blobs/${digest}`)).status))
    // Twice: by the second time it may be in memory.
    for (let i = 0; i < 2; i++) {
      assert.deepEqual(await read('admin', 'team/closed'), [200, 200])
      assert.deepEqual(await read('admin', 'team/open'), [404, 404])
      assert.deepEqual(await read('reader', 'team/open'), [404, 404])
      assert.deepEqual(await read('reader', 'team/closed'), [404, 404])
    }
  }
})

it('an import completes itself from nothing that whoever sends it may not read', async () => {
  const content = 'confidential'
  const digest = await pushBlob('secret/area', content)
  const packs = [{ packId: 'taken', version: '1.0.0', content }]
  const { bytes } = sampleBundle({ packs, channels: [], referrer: false, leaveOut: (left) => left === digest })
  const send = async (who: string) => {
    const headers = { 'content-type': 'application/x-tar' }
    const answer = await as(who, 'POST', '/bundles/import', { headers, body: new Uint8Array(bytes) })
    return [answer.status, await answer.text()] as const
  }
  const [status, text] = await send('writer')
  assert.equal(status, 409, text)
  assert.match(text, /IMPORT_BASE_MISSING/)
  assert.equal((await as('writer', 'GET', '/packs/taken/1.0.0')).status, 404)
  assert.equal((await send('admin'))[0], 201, 'who may read it has it')
})

it('an import tells nothing of packs that whoever sends it may not read, and is satisfied by none of them', async () => {
  const publish = async (packId: string, version: string, dependencies: object[] = []) => {
    const body = JSON.stringify({ manifest: { packId, version, type: 'policy', dependencies }, content: 'e30=' })
    const answer = await as('admin', 'POST', '/packs', { headers: { 'content-type': 'application/json' }, body })
    assert.equal(answer.status, 201, await answer.text())
  }
  await publish('secret-plan', '1.2.3')
  await publish('needing', '1.0.0')
  await publish('secret-circle', '1.0.0', [{ packId: 'needing', version: '^1.0.0' }])
  const send = async (who: string, needed: string, version: string, query = '') => {
    const packs = [
      { packId: 'needing', version: '1.1.0', content: 'x', dependencies: [{ packId: needed, version }] },
      ...(who === 'admin' ? [] : [{ packId: 'along', version: '1.0.0', content: 'y' }]),
    ]
    const { bytes } = sampleBundle({ packs, channels: [], referrer: false })
    const headers = { 'content-type': 'application/x-tar' }
    const answer = await as(who, 'POST', `/bundles/import${query}`, { headers, body: new Uint8Array(bytes) })
    const text = (await answer.text()).replaceAll(needed, 'NAME').replaceAll(version, 'RANGE')
    return [answer.status, text.replaceAll(/[0-9a-f]{8}-[0-9a-f-]{27}/g, 'ID')] as const
  }
  for (const query of ['?dryRun=true', '', '?async=true']) {
    const nothing = await send('writer', 'nothing-plan', '^1.0.0', query)
    assert.match(nothing[1], /there is no such pack/)
    for (const range of ['^1.0.0', '^9.0.0'])
      assert.deepEqual(await send('writer', 'secret-plan', range, query), nothing, `${range} ${query}`)
    const circle = await send('writer', 'secret-circle', '^1.0.0', query)
    assert.match(circle[1], /there is no such pack.*needing needs a pack that you may not read needs needing/)
  }
  assert.equal((await send('writer', 'along', '^1.0.0', '?dryRun=true'))[0], 200, 'what comes along is there')
  assert.equal((await send('admin', 'secret-plan', '^1.0.0', '?dryRun=true'))[0], 200, 'who may read it has it')
})

it('who may not delete deletes in no way that there is, and what there is stays', async () => {
  const config = await pushBlob('team/kept', '{}')
  const { digest } = await pushManifest('team/kept', 'v1', sampleManifest())
  const free = await pushBlob('team/kept', 'free')
  const body = JSON.stringify({ manifest: { packId: 'kept', version: '1.0.0', type: 'policy' }, content: 'e30=' })
  const json = { 'content-type': 'application/json' }
  assert.equal((await as('admin', 'POST', '/packs', { headers: json, body })).status, 201)
  const { manifestDigest } = (
    (await (await as('admin', 'GET', '/packs/kept')).json()) as { pack: { manifestDigest: string } }
  ).pack
  const ways: [method: string, path: string, body?: string][] = [
    ['DELETE', '/v2/team/kept/manifests/v1'],
    ['DELETE', `/v2/team/kept/manifests/${digest}`],
    ['DELETE', `/v2/team/kept/blobs/${free}`],
    ['DELETE', `/v2/team/kept/blobs/${config}`],
    ['DELETE', '/v2/packs/kept/manifests/1.0.0'],
    ['DELETE', '/v2/packs/kept/manifests/latest'],
    ['DELETE', `/v2/packs/kept/manifests/${manifestDigest}`],
    ['DELETE', '/packs/kept/1.0.0'],
    ['DELETE', '/packs/kept/1.0.0?force=true'],
    ['PATCH', '/packs/kept/1.0.0', '{"state":"yanked"}'],
  ]
  for (const [method, path, body] of ways) {
    const answer = await as('writer', method, path, { headers: json, ...(body === undefined ? {} : { body }) })
    assert.equal(answer.status, 403, path)
  }
  for (const [, path] of ways.filter(([method, path]) => method === 'DELETE' && !path.includes('?')))
    assert.equal((await as('admin', 'HEAD', path)).status, 200, path)
})

describe('what a list is asked by', () => {
  const evil = ["'", '"; drop table packs; --', "' or '1'='1", '\\', '%', '_', '$1', "\u{1f600}'", '*/', 'name desc']
  // Lists that sort take nothing but what is on their list; text is compared as text.
  const refused = ['/packs?sort=', '/packs?type=', '/packs?state=', '/audit?outcome=', '/audit?since=', '/jobs?state=']
  const taken = [
    ...['/packs?q=', '/packs?author=', '/audit?who=', '/audit?repository=', '/audit?digest=', '/v2/_catalog?last='],
    ...['/v2/team/kept/tags/list?last=', `/v2/team/kept/referrers/${digestOf(Buffer.from('x'))}?artifactType=`],
  ]
  for (const path of refused)
    it(`is one of a list: ${path}`, async () => {
      for (const text of evil)
        assert.equal((await as('admin', 'GET', path + encodeURIComponent(text))).status, 400, text)
    })
  for (const path of taken)
    it(`is text, and nothing is done by it: ${path}`, async () => {
      for (const text of evil) {
        const answer = await as('admin', 'GET', path + encodeURIComponent(text))
        assert.equal(answer.status, 200, text)
        const told = (await answer.json()) as Record<string, unknown[]>
        if (!path.includes('last=')) assert.deepEqual(told.packs ?? told.events ?? told.manifests, [], text)
      }
      assert.equal((await as('admin', 'GET', '/packs/kept')).status, 200)
    })
})

it('a manifest that is an index too is taken under neither type', async () => {
  await pushBlob('team/both', '{}')
  for (const type of [imageType, indexType]) {
    const body = JSON.stringify({ ...sampleManifest({ mediaType: type }), manifests: [] })
    const answer = await as('admin', 'PUT', '/v2/team/both/manifests/v1', { headers: { 'content-type': type }, body })
    assert.deepEqual([answer.status, await codeOf(answer)], [400, 'MANIFEST_INVALID'])
  }
})
