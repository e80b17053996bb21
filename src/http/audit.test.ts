import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import bcrypt from 'bcryptjs'
import { openClient } from '../client/client.ts'
import { connect } from '../db/client.ts'
import { digestOf } from '../oci/digest.ts'
import { sealAudit } from '../registry/audit.ts'
import { sampleBundle } from '../testing/bundle.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { sayRaw } from '../testing/raw.ts'
import { imageType, sampleManifest, startRegistry, type TestRegistry } from '../testing/registry.ts'

const launcher = fileURLToPath(new URL('../packs.mjs', import.meta.url))
let databases: TestDatabases
let url: string
let folder: string
let registry: TestRegistry
const basic = (name: string, password = name) => `Basic ${Buffer.from(`${name}:${password}`).toString('base64')}`

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'packs-audit-'))
  await writeFile(
    join(folder, 'users'),
    ['admin', 'bob'].map((name) => `${name}:${bcrypt.hashSync(name, 4)}`).join('\n'),
  )
  const rules = [
    { repositories: ['**'], actions: ['pull', 'push', 'delete'], admin: true, claims: { sub: 'admin' } },
    { repositories: ['packs/open'], actions: ['pull'] },
  ]
  await writeFile(join(folder, 'policy.json'), JSON.stringify({ rules }))
  databases = await startDatabases()
  url = await databases.fresh()
  registry = await startRegistry(url, {
    AUTH: 'htpasswd',
    HTPASSWD_FILE: join(folder, 'users'),
    POLICY_FILE: join(folder, 'policy.json'),
    TRUSTED_PROXIES: '127.0.0.1',
  })
})
after(async () => {
  await registry?.stop()
  await databases?.stop()
  await rm(folder, { recursive: true, force: true })
})

const client = () =>
  openClient({ url: registry.url, attempts: 1, credentials: { username: 'admin', password: 'admin' } })

async function events() {
  const found = []
  for await (const event of client().audit.list({ pageSize: 3 })) found.push(event)
  return found.reverse()
}

/** Runs a command as the administrator; answers its exit code and what it said. */
function packs(...args: string[]): Promise<[code: number, said: string]> {
  const env = { PATH: process.env.PATH, HOME: folder, PACKS_REGISTRY: registry.url.replace('//', '//admin:admin@') }
  return new Promise((resolve) => {
    execFile(process.execPath, [launcher, ...args], { cwd: folder, env }, (error, out, said) =>
      resolve([error ? Number(error.code) : 0, out + said]),
    )
  })
}

describe('the audit', () => {
  it('has every write and every refusal, and nothing of what is only read', async () => {
    const call = (method: string, path: string, authorization?: string, body?: object) =>
      registry.call(method, path, {
        headers: {
          'content-type': 'application/json',
          'x-forwarded-for': '203.0.113.9, 198.51.100.7',
          ...(authorization ? { authorization } : {}),
        },
        ...(body ? { body: JSON.stringify(body) } : {}),
      })
    const manifest = { packId: 'net', version: '1.0.0', type: 'policy' }
    const published = await call('POST', '/packs', basic('admin'), { manifest, content: 'e30=' })
    const { manifestDigest } = (await published.json()) as { manifestDigest: string }
    await call('POST', '/packs?dryRun=true', basic('admin'), { manifest, content: 'e30=' })
    await call('POST', '/resolve', basic('admin'), { roots: ['net@1'] })
    await call('GET', '/packs/net', basic('admin'))
    await call('GET', '/v2/')
    await call('GET', '/packs/net', basic('bob'))
    await call('POST', '/packs', basic('bob'), { manifest: { ...manifest, packId: 'open' }, content: 'e30=' })
    await call('GET', '/token', basic('bob', 'wrong'))
    await call('PUT', '/packs/net/channels/stable', basic('admin'), { version: '1.0.0' })
    // What only a publish by REST knows is no way to go unseen elsewhere.
    await call('DELETE', '/v2/packs/net/manifests/stable?dryRun=true', basic('admin'))
    const { token, info } = await client().tokens.create({ name: 'ci', push: ['packs/*'] })
    await call('POST', '/v2/packs/net/blobs/uploads/', `Bearer ${token}`)
    await call('DELETE', '/packs/net/1.0.0', `Bearer ${token}`)
    const found = await events()
    assert.deepEqual(
      found.map(({ who, action, repository, outcome, status }) => [who, action, repository, outcome, status].join(' ')),
      [
        'admin POST /packs packs/net done 201',
        'bob GET /packs/:id packs/net refused 404',
        'bob POST /packs packs/open refused 403',
        'bob GET none  refused 401',
        'admin PUT /packs/:id/channels/:channel packs/net done 200',
        'admin DELETE /v2/:name{.+}/manifests/:reference packs/net done 202',
        'admin POST /tokens  done 201',
        'ci DELETE /packs/:id/:version packs/net refused 403',
      ],
    )
    assert.equal(found[0]?.digest, manifestDigest)
    assert.equal(found[0]?.address, '198.51.100.7')
    assert.equal(found.at(-1)?.tokenId, info.id)
    assert.ok(!JSON.stringify(found).includes(token))
  })
  it('is sealed, and shows what is changed or taken away', async () => {
    const unsealed = await client().audit.verify()
    assert.deepEqual([unsealed.intact, unsealed.seals], [true, 0])
    await sealAudit(registry.deps)
    await registry.call('DELETE', '/tokens/ci', { headers: { authorization: basic('admin') } })
    await Promise.all([sealAudit(registry.deps), sealAudit(registry.deps)])
    const before = await client().audit.verify()
    assert.deepEqual([before.intact, before.seals, before.events, before.unsealed], [true, 2, 9, 0])
    const [code, said] = await packs('audit', 'verify', '--head', before.head ?? '')
    assert.equal(code, 0, said)
    assert.match(said, /intact: 9 events under 2 seals/)

    const sql = connect(url, { max: 1 })
    try {
      await assert.rejects(sql`delete from audit_events where id = 2`, /only ever added to/)
      await assert.rejects(sql`update audit_events set who = 'eve' where id = 2`, /only ever added to/)
      await sql`alter table audit_events disable trigger user`
      await sql`alter table audit_seals disable trigger user`
      await sql`update audit_events set who = 'eve' where id = 2`
      assert.deepEqual((await client().audit.verify()).broken, [1])
      await sql`update audit_events set who = 'bob' where id = 2`
      assert.ok((await client().audit.verify()).intact)
      await sql`delete from audit_events where seal = 2`
      await sql`delete from audit_seals where number = 2`
      assert.ok((await client().audit.verify()).intact, 'a missing end shows by the head only')
      const [broken, words] = await packs('audit', 'verify', '--head', before.head ?? '')
      assert.equal(broken, 2)
      assert.match(words, /the seal with that digest is gone/)
    } finally {
      await sql.end()
    }
  })
  it('has the digest of what came by /v2, and the tags that were asked for beside its own', async () => {
    const headers = { authorization: basic('admin') }
    const bytes = Buffer.from('{}')
    const blob = digestOf(bytes)
    await registry.call('POST', `/v2/by/oci/blobs/uploads/?digest=${blob}`, { headers, body: bytes })
    const body = JSON.stringify(sampleManifest())
    const put = (query = '') =>
      registry.call('PUT', `/v2/by/oci/manifests/1${query}`, {
        headers: { ...headers, 'content-type': imageType },
        body,
      })
    assert.equal((await put('?tag=a&tag=b')).status, 201)
    assert.equal((await put()).status, 201)
    const ofOci = (await events()).filter(({ repository }) => repository === 'by/oci')
    const manifest = digestOf(Buffer.from(body))
    assert.deepEqual(
      ofOci.map(({ digest, tags }) => [digest, tags]),
      [
        [blob, undefined],
        [manifest, 'a, b'],
        [manifest, undefined],
      ],
    )
  })
})

describe('packs token and packs audit', () => {
  it('make a token that works, list it, and revoke it', async () => {
    const [made, said] = await packs(
      'token',
      'create',
      '--name',
      'build',
      '--push',
      'packs/net-*',
      '--expires',
      '90d',
      '--quiet',
    )
    assert.equal(made, 0, said)
    const headers = { authorization: `Bearer ${said.trim()}` }
    const push = () => registry.call('POST', '/v2/packs/net-a/blobs/uploads/', { headers })
    assert.equal((await push()).status, 202)
    assert.match((await packs('token', 'list'))[1], /build +active .*pull,push packs\/net-\*/)
    assert.equal((await packs('token', 'create', '--name', 'build'))[0], 11)
    assert.equal((await packs('token', 'revoke', 'build'))[0], 0)
    assert.equal((await push()).status, 401)
    assert.match((await packs('token', 'rotate-key'))[1], /tokens are signed by/)
  })

  it('show and export events', async () => {
    assert.match(
      (await packs('audit', 'list', '--who', 'bob', '--outcome', 'refused', '--limit', '1'))[1],
      /bob .*refused/,
    )
    const [, lines] = await packs('audit', 'export', '--of', 'packs/net')
    assert.ok(
      lines
        .trim()
        .split('\n')
        .every((line) => JSON.parse(line).repository === 'packs/net'),
    )
  })
})

describe('packs policy check', () => {
  it('reads the file as the registry does, and says what somebody may do', async () => {
    assert.match((await packs('policy', 'check', 'policy.json'))[1], /can be used: 2 rules/)
    const asked = ['--repository', 'packs/x', '--claim', 'sub=admin']
    assert.match(
      (await packs('policy', 'check', 'policy.json', ...asked))[1],
      /pull, push, overwrite, delete on packs\/x; and administers/,
    )
    await writeFile(join(folder, 'wrong.json'), '{"rules":[{"repositories":["a"],"actions":["fly"]}]}')
    const [code, said] = await packs('policy', 'check', 'wrong.json')
    assert.equal(code, 11)
    assert.match(said, /rules\.0\.actions\.0: must be one of/)
  })
})

describe('what only tries', () => {
  const count = async () => (await events()).length
  const json = { authorization: basic('admin'), 'content-type': 'application/json' }
  const raw = (method: string, target: string, body = '') =>
    sayRaw(
      registry,
      `${method} ${target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: ${basic('admin')}\r\nConnection: close\r\n` +
        `Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    )

  it('is no matter of what stands behind a # in the target: that is refused, and nothing is done', async () => {
    const manifest = { packId: 'sharp', version: '1.0.0', type: 'policy' }
    const publish = JSON.stringify({ manifest, content: 'e30=' })
    assert.equal((await registry.call('POST', '/packs', { headers: json, body: publish })).status, 201)
    const before = await count()
    const other = JSON.stringify({ manifest: { ...manifest, version: '1.1.0' }, content: 'e30=' })
    for (const [method, target, body] of [
      ['POST', '/tokens#?dryRun', JSON.stringify({ name: 'unseen' })],
      ['POST', '/tokens?dryRun#', JSON.stringify({ name: 'unseen' })],
      ['POST', '/packs#?dryRun=true', other],
      ['DELETE', '/packs/sharp/1.0.0#?dryRun=true', ''],
      ['GET', '/packs/sharp/1.0.0#', ''],
    ] as const) {
      const said = await raw(method, target, body)
      assert.match(said, /^HTTP\/1\.1 400 /, target)
      assert.match(said, /content-type: application\/problem\+json/i)
      assert.match(said, /urn:packs-registry:REQUEST_INVALID.*write # as %23/)
    }
    assert.match(await raw('GET', '/v2/packs/sharp/manifests/1.0.0#'), /^HTTP\/1\.1 400 .*"errors":\[\{"code"/s)
    assert.equal(await count(), before)
    assert.ok((await client().tokens.list()).every(({ name }) => name !== 'unseen'))
    assert.equal((await registry.call('GET', '/packs/sharp/1.0.0', { headers: json })).status, 200)
    assert.equal((await registry.call('GET', '/packs/sharp/1.1.0', { headers: json })).status, 404)
  })
  it('is told by its handler: a dry run that leaves a run behind is written down', async () => {
    const url = 'https://there.example'
    const body = JSON.stringify({ name: 'there', direction: 'pull', url })
    assert.equal((await registry.call('POST', '/mirrors', { headers: json, body })).status, 201)
    assert.equal((await registry.call('POST', '/mirrors/there/run?dryRun=true', { headers: json })).status, 202)
    assert.equal((await events()).at(-1)?.action, 'POST /mirrors/:name/run')
    const before = await count()
    const manifest = { packId: 'sharp', version: '2.0.0', type: 'policy' }
    const publish = JSON.stringify({ manifest, content: 'e30=' })
    for (const query of ['dryRun', 'dryRun=true', 'dryRun=%74rue', 'allowMissing&dryRun=']) {
      const answer = await registry.call('POST', `/packs?${query}`, { headers: json, body: publish })
      assert.equal(answer.status, 200, query)
    }
    const { bytes } = sampleBundle()
    const tried = await registry.call('POST', '/bundles/import?dryRun=true', { headers: json, body: bytes })
    assert.equal(tried.status, 200)
    assert.equal(await count(), before)
    assert.equal((await registry.call('POST', '/packs?dryRun=false', { headers: json, body: publish })).status, 201)
    assert.equal(await count(), before + 1)
  })
})

it('the audit has whoever tries to delete what is held', async () => {
  const call = (method: string, path: string, body?: object) =>
    registry.call(method, path, {
      headers: { 'content-type': 'application/json', authorization: basic('admin') },
      ...(body ? { body: JSON.stringify(body) } : {}),
    })
  const manifest = { packId: 'kept', version: '1.0.0', type: 'policy' }
  const published = await call('POST', '/packs', { manifest, content: 'e30=' })
  const { manifestDigest } = (await published.json()) as { manifestDigest: string }
  assert.ok((await call('PUT', '/retention/holds/kept/1.0.0', { reason: 'evidence' })).ok)
  const before = (await events()).length
  for (const path of ['/packs/kept/1.0.0?force=true', `/v2/packs/kept/manifests/${manifestDigest}`])
    assert.equal((await call('DELETE', path)).status, 409)
  assert.ok((await call('DELETE', '/retention/holds/kept/1.0.0')).ok)
  const told = (await events())
    .slice(before)
    .map(({ action, repository, outcome, status }) => [action, repository, outcome, status].join(' '))
  assert.deepEqual(told.slice(0, 2), [
    'DELETE /packs/:id/:version packs/kept refused 409',
    'DELETE /v2/:name{.+}/manifests/:reference packs/kept refused 409',
  ])
})
