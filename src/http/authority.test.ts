import assert from 'node:assert/strict'
import { createHmac, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { exportJWK, type JWTPayload, SignJWT } from 'jose'
import { openIssuer } from '../auth/issuer.ts'
import { type Authority, startAuthority } from '../testing/authority.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { startRegistry, type TestRegistry } from '../testing/registry.ts'

let databases: TestDatabases
before(async () => {
  databases = await startDatabases()
})
after(() => databases?.stop())

const status = async (registry: TestRegistry, authorization: string, path = '/v2/', method = 'GET') =>
  (await registry.call(method, path, { headers: { authorization } })).status

describe('an OpenID provider as the Authority', () => {
  let authority: Authority
  let registry: TestRegistry
  before(async () => {
    authority = await startAuthority()
    registry = await startRegistry(await databases.fresh(), {
      AUTH: 'oidc',
      AUTHORITY_ISSUER: authority.issuer,
      AUTHORITY_AUDIENCE: authority.audience,
    })
  })
  after(async () => {
    await registry?.stop()
    await authority?.stop()
  })

  const scopes = [
    { scope: 'packs.read', pull: 404, push: 403, remove: 403, keys: 200, makeKey: 403 },
    { scope: 'packs.write', pull: 404, push: 202, remove: 403, keys: 200, makeKey: 403 },
    { scope: 'packs.approve', pull: 404, push: 403, remove: 404, keys: 200, makeKey: 403 },
    { scope: 'packs.admin', pull: 404, push: 202, remove: 404, keys: 200, makeKey: 400 },
  ]
  for (const { scope, ...wanted } of scopes)
    it(`${scope} lets do what it says, as a bearer and as a password`, async () => {
      const token = await authority.token(scope)
      for (const authorization of [`Bearer ${token}`, `Basic ${Buffer.from(`any:${token}`).toString('base64')}`]) {
        const told = {
          pull: await status(registry, authorization, '/v2/a/tags/list'),
          push: await status(registry, authorization, '/v2/a/blobs/uploads/', 'POST'),
          remove: await status(registry, authorization, '/v2/a/manifests/1', 'DELETE'),
          keys: await status(registry, authorization, '/keys'),
          makeKey: await status(registry, authorization, '/keys', 'POST'),
        }
        assert.deepEqual(told, wanted)
      }
    })

  it('its tokens are exchanged at /token', async () => {
    const authorization = `Basic ${Buffer.from(`any:${await authority.token('packs.write')}`).toString('base64')}`
    const answer = await registry.call('GET', '/token?scope=repository:a:pull,push&offline_token=true', {
      headers: { authorization },
    })
    const { token, scope, refresh_token: refresh } = (await answer.json()) as Record<string, string>
    assert.deepEqual([scope, refresh], ['repository:a:pull,push', undefined])
    assert.equal(await status(registry, `Bearer ${token}`, '/v2/a/blobs/uploads/', 'POST'), 202)
  })

  it('what /token gave is exchanged for nothing newer, and for nothing more, in whichever field it comes', async () => {
    const admin = `Bearer ${await authority.token('packs.admin')}`
    const made = await registry.call('POST', '/tokens', {
      headers: { authorization: admin, 'content-type': 'application/json' },
      body: JSON.stringify({ name: 'wide', pull: ['**'], push: ['**'], delete: ['**'] }),
    })
    const { token: wide } = (await made.json()) as { token: string }
    const narrow = async (authorization: string) => {
      const answer = await registry.call('GET', '/token?scope=repository:a:pull', { headers: { authorization } })
      return ((await answer.json()) as { token: string }).token
    }
    for (const authorization of [admin, `Bearer ${wide}`]) {
      const password = await narrow(authorization)
      const form = { grant_type: 'password', username: 'any', password, access_type: 'offline' }
      const answer = await registry.call('POST', '/token', {
        headers: { 'content-type': 'application/x-www-form-urlencoded' },
        body: new URLSearchParams({ ...form, scope: 'repository:a:pull,push,delete' }).toString(),
      })
      assert.equal(answer.status, 401, await answer.text())
      const asPassword = `Basic ${Buffer.from(`any:${password}`).toString('base64')}`
      for (const shown of [asPassword, `Bearer ${password}`]) assert.equal(await status(registry, shown, '/token'), 401)
    }
  })

  it('may put new keys in the place of the old', async () => {
    const issuer = openIssuer(authority.issuer, authority.audience, { pauseMs: 0 })
    const before = await authority.token('packs.read')
    await issuer.verify(before)
    await authority.rotate()
    const afterwards = await authority.token('packs.read')
    assert.equal((await issuer.verify(afterwards)).scope, 'packs.read')
    await assert.rejects(issuer.verify(before), /key that its issuer does not have/)
  })

  it('may be down: known keys go on checking, and nothing is let in by others', async () => {
    let time = Date.now()
    const issuer = openIssuer(authority.issuer, authority.audience, { now: () => time, pauseMs: 0, maxAgeMs: 10_000 })
    const token = await authority.token('packs.read')
    await issuer.verify(token)
    const neverReached = openIssuer(authority.issuer, authority.audience, { pauseMs: 0 })
    await authority.rotate()
    const newer = await authority.token('packs.read')
    await authority.stop()
    time += 60_000
    for (let i = 0; i < 3; i++) await issuer.verify(token)
    await assert.rejects(issuer.verify(newer), /key that its issuer does not have/)
    await assert.rejects(neverReached.verify(token), /could not be fetched/)
    await authority.start()
    await issuer.verify(newer)
    await neverReached.verify(newer)
  })

  it('may be down: whoever cannot be told who they are is not counted as somebody without a login', async () => {
    const limited = await startRegistry(await databases.fresh(), {
      AUTH: 'oidc',
      AUTHORITY_ISSUER: authority.issuer,
      AUTHORITY_AUDIENCE: authority.audience,
      RATE_LIMIT: '5',
    })
    const authorization = `Bearer ${await authority.token('packs.read')}`
    await authority.stop()
    for (let i = 0; i < 8; i++) assert.equal(await status(limited, authorization), 503)
    await authority.start()
    const wrong: number[] = []
    for (let i = 0; i < 8; i++) wrong.push(await status(limited, 'Negotiate x'))
    assert.deepEqual(wrong, [401, 401, 401, 401, 401, 429, 429, 429])
    await limited.stop()
  })
})

describe('forged tokens', () => {
  const audience = 'packs'
  const pair = (type: 'rsa' | 'ec') =>
    type === 'rsa'
      ? generateKeyPairSync('rsa', { modulusLength: 2048 })
      : generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const [rsa, other, ec, attacker] = [pair('rsa'), pair('rsa'), pair('ec'), pair('rsa')]
  let server: Server
  let issuer: string
  let workloads: string
  let registry: TestRegistry
  let folder: string

  before(async () => {
    const jwk = async (key: KeyObject, kid: string, alg: string) => ({
      ...(await exportJWK(key)),
      kid,
      alg,
      use: 'sig',
    })
    const keys = [
      await jwk(rsa.publicKey, 'rsa', 'RS256'),
      await jwk(other.publicKey, 'other', 'RS256'),
      await jwk(ec.publicKey, 'ec', 'ES256'),
    ]
    server = createServer((request, response) => {
      const base = request.url?.startsWith('/ci') ? workloads : issuer
      response.setHeader('content-type', 'application/json')
      if (request.url?.endsWith('/keys')) response.end(JSON.stringify({ keys }))
      else response.end(JSON.stringify({ issuer: base, jwks_uri: `${base}/keys` }))
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    workloads = `${issuer}/ci`
    folder = await mkdtemp(join(tmpdir(), 'packs-authority-'))
    const policy = {
      rules: [
        { repositories: ['**'], actions: ['pull', 'push'], claims: { sub: 'alice' } },
        { repositories: ['packs/net'], actions: ['push'], issuer: workloads, claims: { repository: 'acme/net' } },
      ],
      issuers: [{ issuer: workloads, audience: 'registry' }],
    }
    await writeFile(join(folder, 'policy.json'), JSON.stringify(policy))
    registry = await startRegistry(await databases.fresh(), {
      AUTH: 'oidc',
      AUTHORITY_ISSUER: issuer,
      AUTHORITY_AUDIENCE: audience,
      POLICY_FILE: join(folder, 'policy.json'),
    })
  })
  after(async () => {
    await registry?.stop()
    server?.close()
    await rm(folder, { recursive: true, force: true })
  })

  const now = () => Math.floor(Date.now() / 1000)
  const claims = (over: object = {}): JWTPayload => ({
    ...{ iss: issuer, aud: audience, sub: 'alice', scope: 'packs.write', exp: now() + 300 },
    ...over,
  })
  const sign = (over: object = {}, header: object = {}, key: KeyObject = rsa.privateKey) =>
    new SignJWT(claims(over)).setProtectedHeader({ alg: 'RS256', kid: 'rsa', ...header }).sign(key)
  /** Signed by hand: what a library would not sign. */
  const raw = (header: object, payload: object, signature: (text: string) => string) => {
    const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
    const text = `${part(header)}.${part(payload)}`
    return `${text}.${signature(text)}`
  }

  it('those that hold are taken', async () => {
    for (const token of [
      await sign(),
      await sign({}, { alg: 'ES256', kid: 'ec' }, ec.privateKey),
      await sign({ exp: now() - 30 }),
      await sign({ aud: ['others', audience] }),
      await sign({ scope: { toString: 1, valueOf: 1 } }),
      await sign({ scope: undefined, scp: ['packs.read', { toString: 1, valueOf: 1 }] }),
    ])
      assert.equal(await status(registry, `Bearer ${token}`), 200)
  })

  const forged: { name: string; token: () => Promise<string> | string }[] = [
    { name: 'expired', token: () => sign({ exp: now() - 90 }) },
    { name: 'without an end', token: () => sign({ exp: undefined }) },
    { name: 'not yet good', token: () => sign({ nbf: now() + 120 }) },
    { name: 'for another audience', token: () => sign({ aud: 'others' }) },
    { name: 'for no audience', token: () => sign({ aud: undefined }) },
    { name: 'for others, of whom we are none', token: () => sign({ aud: ['others', 'packs2', 'PACKS'] }) },
    { name: 'for an audience that is no text', token: () => sign({ aud: { packs: 1 } }) },
    { name: 'of another issuer', token: () => sign({ iss: 'https://evil.example' }) },
    { name: 'of an issuer that differs by a slash', token: () => sign({ iss: `${issuer}/` }) },
    { name: 'of nobody', token: () => sign({ sub: undefined }) },
    { name: 'of somebody whose name is no text', token: () => sign({ sub: 7 }) },
    { name: 'of somebody with NUL in the name', token: () => sign({ sub: 'a\0b' }) },
    { name: 'of somebody whose name a terminal would obey', token: () => sign({ sub: 'a\u001b[2J' }) },
    { name: 'signed by another key under a kid of the set', token: () => sign({}, {}, attacker.privateKey) },
    { name: 'with the kid of another key', token: () => sign({}, { kid: 'other' }) },
    { name: 'with an unknown kid', token: () => sign({}, { kid: 'mine' }, attacker.privateKey) },
    { name: 'with a path as kid', token: () => sign({}, { kid: '../../dev/null' }, attacker.privateKey) },
    { name: 'without a kid', token: () => sign({}, { kid: undefined }) },
    {
      name: 'with its own key inside',
      token: async () => sign({}, { jwk: await exportJWK(attacker.publicKey) }, attacker.privateKey),
    },
    { name: 'with the address of its own keys', token: () => sign({}, { jku: 'http://127.0.0.1:1/keys' }) },
    { name: 'with a certificate', token: () => sign({}, { x5c: ['MIIB'] }) },
    {
      name: 'with an extension nobody knows',
      token: () => raw({ alg: 'RS256', kid: 'rsa', crit: ['x'], x: 1 }, claims(), () => 'AAAA'),
    },
    { name: 'not for access', token: () => sign({}, { typ: 'logout+jwt' }) },
    { name: 'not signed', token: () => raw({ alg: 'none', kid: 'rsa' }, claims(), () => '') },
    { name: 'not signed, spelled otherwise', token: () => raw({ alg: 'nOnE', kid: 'rsa' }, claims(), () => '') },
    {
      name: 'signed with the public key as a secret',
      token: () => {
        const secret = rsa.publicKey.export({ type: 'spki', format: 'pem' })
        return raw({ alg: 'HS256', kid: 'rsa' }, claims(), (text) =>
          createHmac('sha256', secret).update(text).digest('base64url'),
        )
      },
    },
    {
      name: 'changed after it was signed',
      token: async () => {
        const [header, , signature] = (await sign({ sub: 'bob' })).split('.')
        return [header, Buffer.from(JSON.stringify(claims())).toString('base64url'), signature].join('.')
      },
    },
    { name: 'in the name of the registry', token: () => sign({ iss: 'packs-registry', aud: 'packs-registry' }) },
    { name: 'of the Authority for a workload', token: () => sign({ iss: workloads }) },
    { name: 'no token at all', token: () => 'a.b.c' },
  ]
  for (const { name, token } of forged)
    it(`one that is ${name} is refused`, async () => {
      const shown = await token()
      const answer = await registry.call('GET', '/v2/', { headers: { authorization: `Bearer ${shown}` } })
      const text = await answer.text()
      assert.equal(answer.status, 401, text)
      assert.ok(!text.includes(shown), 'nothing of a credential is told')
      assert.match(answer.headers.get('www-authenticate') ?? '', /error="invalid_token"$/)
    })

  it('a workload does what its rule says, and is nobody else', async () => {
    const workload = async (over: object) =>
      `Bearer ${await sign({ iss: workloads, aud: 'registry', scope: undefined, ...over })}`
    const push = async (over: object, name = 'packs/net') =>
      status(registry, await workload(over), `/v2/${name}/blobs/uploads/`, 'POST')
    assert.equal(await push({ sub: 'build', repository: 'acme/net' }), 202)
    assert.equal(await push({ sub: 'build', repository: 'acme/other' }), 403)
    assert.equal(await push({ sub: 'build', repository: 'acme/net' }, 'packs/other'), 403)
    assert.equal(await push({ sub: 'alice' }), 403, 'the word of a workload issuer makes nobody a person')
  })

  it('too many wrong API tokens of one address are not looked at any more', async () => {
    const statuses: number[] = []
    for (let i = 0; i < 32; i++) statuses.push(await status(registry, `Bearer pkr_${i}`))
    assert.deepEqual([statuses[0], statuses.at(-1)], [401, 429])
    assert.equal(await status(registry, `Bearer ${await sign()}`), 200, 'those that hold are')
  })
})
