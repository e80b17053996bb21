import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import bcrypt from 'bcryptjs'
import { decodeJwt } from 'jose'
import { closeDeps, openDeps } from '../deps.ts'
import { digestOf } from '../oci/digest.ts'
import { rotateTokenKey } from '../registry/token-keys.ts'
import { sampleBundle } from '../testing/bundle.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { codeOf, imageType, sampleManifest, startRegistry, type TestRegistry } from '../testing/registry.ts'
import { waitFor } from '../testing/wait.ts'
import { identifyBy } from './identify.ts'
import { openLimits } from './limits.ts'

let databases: TestDatabases
let folder: string
let here: TestRegistry
let there: TestRegistry

const policy = {
  rules: [
    { repositories: ['**'], actions: ['pull', 'push', 'delete'], admin: true, claims: { sub: 'admin' } },
    { repositories: ['team/*'], actions: ['pull', 'push'], claims: { sub: 'alice' } },
    { repositories: ['packs/*'], actions: ['pull'], claims: { sub: ['alice', 'bob'] } },
  ],
}
const basic = (name: string, password = name) => `Basic ${Buffer.from(`${name}:${password}`).toString('base64')}`

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'packs-auth-'))
  const users = ['admin', 'alice', 'bob'].map((name) => `${name}:${bcrypt.hashSync(name, 4)}`)
  await writeFile(join(folder, 'users'), users.join('\n'))
  await writeFile(join(folder, 'policy.json'), JSON.stringify(policy))
  databases = await startDatabases()
  const url = await databases.fresh()
  const env = {
    AUTH: 'htpasswd',
    HTPASSWD_FILE: join(folder, 'users'),
    POLICY_FILE: join(folder, 'policy.json'),
    ANONYMOUS_PULL: 'public/**',
  }
  here = await startRegistry(url, env)
  there = await startRegistry(url, env)
})
after(async () => {
  await here?.stop()
  await there?.stop()
  await databases?.stop()
  await rm(folder, { recursive: true, force: true })
})

type Told = {
  token: string
  access_token: string
  expires_in: number
  issued_at: string
  refresh_token?: string
  scope: string
}

async function tokenFor(query: string, authorization?: string, registry = here): Promise<Told> {
  const answer = await registry.call(
    'GET',
    `/token?service=packs-registry&${query}`,
    authorization ? { headers: { authorization } } : {},
  )
  assert.equal(answer.status, 200)
  return (await answer.json()) as Told
}
const accessOf = (token: string) =>
  (decodeJwt(token) as { access?: { name: string; actions: string[] }[] }).access?.map(
    ({ name, actions }) => `${name}:${actions.join(',')}`,
  )
const withBearer = (token: string) => ({ headers: { authorization: `Bearer ${token}` } })

async function put(repository: string, tag: string, authorization: string, annotation = 'one', registry = here) {
  const headers = { authorization, 'content-type': 'application/octet-stream' }
  const digest = 'sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a'
  const blob = await registry.call('POST', `/v2/${repository}/blobs/uploads/?digest=${digest}`, { headers, body: '{}' })
  if (blob.status !== 201) return blob
  const body = JSON.stringify(sampleManifest({ annotations: { annotation } }))
  return registry.call('PUT', `/v2/${repository}/manifests/${tag}`, {
    headers: { authorization, 'content-type': imageType },
    body,
  })
}

describe('the challenge', () => {
  it('names the token endpoint on the host that was asked, and the scope', async () => {
    const answer = await here.call('GET', '/v2/team/a/manifests/1')
    assert.equal(answer.status, 401)
    assert.equal(
      answer.headers.get('www-authenticate'),
      `Bearer realm="${here.url}/token",service="packs-registry",scope="repository:team/a:pull"`,
    )
    assert.equal(await codeOf(answer), 'UNAUTHORIZED')
  })

  it('comes from /v2/ though some repositories are open', async () => {
    const answer = await here.call('GET', '/v2/')
    assert.equal(answer.status, 401)
    assert.equal(answer.headers.get('www-authenticate'), `Bearer realm="${here.url}/token",service="packs-registry"`)
    const { token } = await tokenFor('')
    assert.equal((await here.call('GET', '/v2/', withBearer(token))).status, 200)
  })

  it('of a mount asks for a token that may read the source too', async () => {
    const answer = await here.call('POST', '/v2/team/a/blobs/uploads/?mount=sha256:0&from=team/b')
    assert.match(
      answer.headers.get('www-authenticate') ?? '',
      /scope="repository:team\/a:pull,push repository:team\/b:pull"$/,
    )
  })

  it('believes no forwarded host from whoever is no proxy', async () => {
    const headers = { 'x-forwarded-host': 'evil.example', 'x-forwarded-proto': 'https' }
    const answer = await here.call('GET', '/v2/', { headers })
    assert.match(answer.headers.get('www-authenticate') ?? '', new RegExp(`realm="${here.url}/token"`))
  })

  it('says that the scope is too small, and which it takes', async () => {
    const { token } = await tokenFor('scope=repository:team/a:pull', basic('alice'))
    const answer = await here.call('POST', '/v2/team/a/blobs/uploads/', withBearer(token))
    assert.equal(answer.status, 401)
    assert.match(
      answer.headers.get('www-authenticate') ?? '',
      /scope="repository:team\/a:pull,push",error="insufficient_scope"$/,
    )
  })
})

describe('/token', () => {
  const asked = [
    { query: 'scope=repository:team/a:pull,push', who: 'alice', access: ['team/a:pull,push'] },
    {
      query: 'scope=repository:team/a:pull&scope=repository:packs/x:pull,push',
      who: 'alice',
      access: ['team/a:pull', 'packs/x:pull'],
    },
    {
      query: 'scope=repository:team/a:pull%20repository:packs/x:pull',
      who: 'alice',
      access: ['team/a:pull', 'packs/x:pull'],
    },
    { query: 'scope=repository:team/a:*', who: 'alice', access: ['team/a:pull,push'] },
    { query: 'scope=repository:team/a:*', who: 'admin', access: ['team/a:pull,push,overwrite,delete'] },
    { query: 'scope=repository:team/a:pull,push', who: 'admin', access: ['team/a:pull,push,overwrite'] },
    { query: 'scope=repository:team/a:fly,pull', who: 'alice', access: ['team/a:pull'] },
    { query: 'scope=repository:team/a:pull', who: 'bob', access: [] },
    { query: 'scope=nonsense&scope=repository:team/A:pull&scope=repository:**:pull', who: 'admin', access: [] },
    { query: 'scope=repository(plugin):team/a:pull', who: 'alice', access: ['team/a:pull'] },
    { query: 'scope=repository:public/x:pull,push', who: undefined, access: ['public/x:pull'] },
    { query: 'scope=repository:team/a:pull', who: undefined, access: [] },
  ]
  for (const { query, who, access } of asked)
    it(`grants ${JSON.stringify(access)} to ${who ?? 'nobody'} for ${decodeURIComponent(query)}`, async () => {
      const told = await tokenFor(query, who && basic(who))
      assert.deepEqual(accessOf(told.token), access)
      assert.equal(told.token, told.access_token)
      assert.ok(told.expires_in >= 60)
      assert.ok(!Number.isNaN(Date.parse(told.issued_at)))
    })

  it('refuses wrong passwords, and users that there are not, alike', async () => {
    for (const authorization of [basic('alice', 'wrong'), basic('nobody'), basic('alice', 'x'.repeat(100))]) {
      const answer = await here.call('GET', '/token', { headers: { authorization } })
      assert.equal(answer.status, 401)
      assert.match(answer.headers.get('www-authenticate') ?? '', /error="invalid_token"/)
      assert.match(await answer.text(), /wrong user or password/)
    }
  })

  it('takes the OAuth2 form: a password, then its refresh token', async () => {
    const post = async (form: Record<string, string>) => {
      const headers = { 'content-type': 'application/x-www-form-urlencoded' }
      return here.call('POST', '/token', { headers, body: new URLSearchParams(form).toString() })
    }
    const scope = 'repository:team/a:pull'
    const first = await post({
      grant_type: 'password',
      username: 'alice',
      password: 'alice',
      scope,
      access_type: 'offline',
      service: 's',
      client_id: 'c',
    })
    const { refresh_token: refresh = '', access_token: token } = (await first.json()) as Told
    assert.deepEqual(accessOf(token), ['team/a:pull'])
    const second = (await (
      await post({ grant_type: 'refresh_token', refresh_token: refresh, scope: 'repository:team/b:push' })
    ).json()) as Told
    assert.deepEqual(accessOf(second.access_token), ['team/b:push'])
    assert.equal((await post({ grant_type: 'password', username: 'alice', password: 'no' })).status, 401)
    assert.equal((await post({ grant_type: 'refresh_token', refresh_token: token })).status, 401, 'not an access token')
    assert.equal((await here.call('GET', '/v2/', withBearer(refresh))).status, 401, 'not for access')
    assert.equal((await post({ grant_type: 'magic' })).status, 400)
  })

  it('does not exchange its own tokens for newer ones', async () => {
    const { token } = await tokenFor('scope=repository:team/a:pull', basic('alice'))
    assert.equal((await here.call('GET', '/token', withBearer(token))).status, 401)
  })

  it('gives tokens that every process takes, before and after the key is rotated', async () => {
    const { token: before } = await tokenFor('', basic('alice'))
    assert.equal((await there.call('GET', '/v2/', withBearer(before))).status, 200)
    const { token: another } = await tokenFor('scope=repository:team/a:pull', basic('alice'))
    await rotateTokenKey(here.deps)
    const { token: afterwards } = await tokenFor('scope=repository:team/a:pull', basic('alice'))
    for (const token of [another, afterwards])
      assert.equal((await there.call('GET', '/v2/', withBearer(token))).status, 200)
  })
})

describe('rights', () => {
  it('to push make what is not there; to overwrite is another one, for every tag of a push', async () => {
    assert.equal((await put('team/made', '1', basic('alice'))).status, 201)
    assert.equal((await put('team/made', '1', basic('alice'))).status, 201, 'the same again')
    for (const place of ['1', '2?tag=1', '3?tag=4&tag=1']) {
      const refused = await put('team/made', place, basic('alice'), 'two')
      assert.equal(refused.status, 403, place)
      assert.equal(await codeOf(refused), 'DENIED')
    }
    const tags = await (
      await here.call('GET', '/v2/team/made/tags/list', { headers: { authorization: basic('alice') } })
    ).json()
    assert.deepEqual((tags as { tags: string[] }).tags, ['1'], 'what is refused leaves nothing')
    assert.equal((await put('team/made', '2?tag=1', basic('admin'), 'two')).status, 201)
  })

  it('of two that make one tag at once, one makes it', async () => {
    const all = await Promise.all(
      [1, 2, 3, 4, 5, 6].map((i) => put('team/race', 'tag', basic('alice'), `by ${i}`, i % 2 ? here : there)),
    )
    assert.deepEqual(all.map(({ status }) => status).sort(), [201, 403, 403, 403, 403, 403])
  })

  it('hide what may not be read: it answers as if it were not there', async () => {
    await put('secret/a', '1', basic('admin'))
    const headers = { authorization: basic('alice') }
    const digest = `sha256:${'0'.repeat(64)}`
    for (const path of ['manifests/1', `blobs/${digest}`, 'tags/list', `referrers/${digest}`]) {
      const told = async (name: string) => {
        const answer = await here.call('GET', `/v2/${name}/${path}`, { headers })
        return { status: answer.status, text: (await answer.text()).replaceAll(name, 'NAME') }
      }
      assert.deepEqual(await told('secret/a'), await told('secret/nothing'), path)
      assert.deepEqual(
        await told('secret/a'),
        await told('team/nothing'),
        `${path}, as one that may be read and is not there`,
      )
    }
  })

  it('filter the catalog before it is paged', async () => {
    for (const name of ['public/a', 'team/a', 'team/b', 'zoo/a'])
      assert.equal((await put(name, '1', basic('admin'))).status, 201)
    const list = async (authorization?: string, query = '') => {
      const answer = await here.call('GET', `/v2/_catalog${query}`, authorization ? { headers: { authorization } } : {})
      return ((await answer.json()) as { repositories: string[] }).repositories
    }
    assert.deepEqual(await list(), ['public/a'])
    assert.deepEqual(await list(basic('alice')), ['public/a', 'team/a', 'team/b', 'team/made', 'team/race'])
    assert.deepEqual(await list(basic('alice'), '?n=1&last=team/a'), ['team/b'])
    assert.deepEqual(await list(basic('bob')), ['public/a'])
    const { token } = await tokenFor('scope=registry:catalog:*', basic('alice'))
    assert.deepEqual(await list(`Bearer ${token}`), ['public/a', 'team/a', 'team/b', 'team/made', 'team/race'])
    const without = await tokenFor('', basic('alice'))
    assert.equal((await here.call('GET', '/v2/_catalog', withBearer(without.token))).status, 401)
  })

  it('are no less for those who log in than for those who do not', async () => {
    assert.equal((await put('public/all', '1', basic('admin'))).status, 201)
    const elsewhere = await tokenFor('scope=repository:team/a:pull,push', basic('alice'))
    for (const authorization of [basic('bob'), `Bearer ${elsewhere.token}`]) {
      const answer = await here.call('GET', '/v2/public/all/manifests/1', { headers: { authorization } })
      assert.equal(answer.status, 200)
      assert.equal((await put('public/all', '2', authorization)).status, authorization === basic('bob') ? 403 : 401)
    }
    // So what is public can be mounted with a token for the target alone, whether its source is named or not.
    const blob = Buffer.from('public')
    const digest = digestOf(blob)
    const headers = { authorization: basic('admin') }
    const pushed = await here.call('POST', `/v2/public/all/blobs/uploads/?digest=${digest}`, { headers, body: blob })
    assert.equal(pushed.status, 201)
    for (const from of ['', '&from=public/all']) {
      const mount = `/v2/team/a/blobs/uploads/?mount=${digest}${from}`
      assert.equal((await here.call('POST', mount, withBearer(elsewhere.token))).status, 201, from)
    }
  })

  it('tell nobody of packs that they may not read, nor that something needs them', async () => {
    const post = async (who: string, manifest: object) => {
      const headers = { authorization: basic(who), 'content-type': 'application/json' }
      const body = JSON.stringify({ manifest: { version: '1.0.0', type: 'policy', ...manifest }, content: 'e30=' })
      const answer = await here.call('POST', '/packs', { headers, body })
      return { status: answer.status, text: await answer.text() }
    }
    const create = { name: 'net', pull: ['packs/net-*'], push: ['packs/net-*'], delete: ['packs/net-*'] }
    const made = await here.call('POST', '/tokens', {
      headers: { authorization: basic('admin'), 'content-type': 'application/json' },
      body: JSON.stringify(create),
    })
    const { token } = (await made.json()) as { token: string }
    assert.equal((await post('admin', { packId: 'net-base' })).status, 201)
    assert.equal((await post('admin', { packId: 'hidden', dependencies: ['net-base@^1'] })).status, 201)
    const asToken = async (method: string, path: string, body?: object) => {
      const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
      const answer = await here.call(method, path, { headers, ...(body ? { body: JSON.stringify(body) } : {}) })
      return { status: answer.status, text: await answer.text() }
    }
    const needs = (packId: string) =>
      asToken('POST', '/packs', {
        manifest: { packId: 'net-new', version: '1.0.0', type: 'policy', dependencies: [`${packId}@^1`] },
        content: 'e30=',
      })
    const [there, nowhere] = [await needs('hidden'), await needs('nothing')]
    assert.equal(there.status, 422)
    assert.equal(there.text.replaceAll('hidden', 'nothing'), nowhere.text)
    assert.deepEqual((await asToken('GET', '/packs/net-base/1.0.0/dependents')).text, '{"dependents":[]}')
    const refused = await asToken('DELETE', '/packs/net-base/1.0.0')
    assert.equal(refused.status, 409)
    assert.ok(!refused.text.includes('hidden'), refused.text)
    assert.match(refused.text, /packs that you may not read may use net-base 1\.0\.0/)
  })

  it('let nobody mount what they may not read', async () => {
    await put('secret/source', '1', basic('admin'))
    const blob = 'sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a'
    const mount = async (name: string, from: string) => {
      const headers = { authorization: basic(name) }
      return (await here.call('POST', `/v2/team/target/blobs/uploads/?mount=${blob}&from=${from}`, { headers })).status
    }
    assert.equal(await mount('alice', 'secret/source'), 202)
    assert.equal(await mount('admin', 'secret/source'), 201)
  })

  it('change with the policy file', async () => {
    const pull = async () =>
      (await here.call('GET', '/v2/zoo/a/tags/list', { headers: { authorization: basic('bob') } })).status
    assert.equal(await pull(), 404)
    const rules = [...policy.rules, { repositories: ['zoo/*'], actions: ['pull'], claims: { sub: 'bob' } }]
    await writeFile(join(folder, 'policy.json'), JSON.stringify({ rules }))
    await waitFor('the new rule to hold', async () => (await pull()) === 200)
    await writeFile(join(folder, 'policy.json'), '{"rules": [')
    const generation = here.deps.auth.generation()
    await waitFor('the policy file to be read again', () => here.deps.auth.generation() !== generation)
    assert.equal(await pull(), 200, 'a file that cannot be used changes nothing')
  })
})

it('users change with their file', async () => {
  const asks = async (password: string) =>
    (await here.call('GET', '/v2/', { headers: { authorization: basic('bob', password) } })).status
  /** Undefined: there is no such user any more. */
  const setPassword = async (password: string | undefined) => {
    const words = { admin: 'admin', alice: 'alice', ...(password === undefined ? {} : { bob: password }) }
    const lines = Object.entries(words).map(([name, word]) => `${name}:${bcrypt.hashSync(word, 4)}`)
    const generation = here.deps.auth.generation()
    await writeFile(join(folder, 'users'), lines.join('\n'))
    await waitFor('the file of users to be read again', () => here.deps.auth.generation() !== generation)
  }
  const logIn = await here.call('GET', '/token?offline_token=true', { headers: { authorization: basic('bob') } })
  const { refresh_token: refresh = '' } = (await logIn.json()) as Told
  const refreshes = async () => {
    const headers = { 'content-type': 'application/x-www-form-urlencoded' }
    const body = new URLSearchParams({ grant_type: 'refresh_token', refresh_token: refresh }).toString()
    return (await here.call('POST', '/token', { headers, body })).status
  }
  assert.deepEqual([await asks('bob'), await refreshes()], [200, 200])
  await setPassword('another')
  assert.deepEqual([await asks('bob'), await asks('another'), await refreshes()], [401, 200, 401])
  await setPassword(undefined)
  assert.deepEqual([await asks('bob'), await asks('another'), await refreshes()], [401, 401, 401])
  await setPassword('bob')
  assert.equal(await asks('bob'), 200)
})

it('a check of a password that began before the users changed lets nobody in who comes after that', async () => {
  const { deps } = here
  let goOn = () => {}
  const told = new Promise<void>((resolve) => {
    goOn = resolve
  })
  const usual = openLimits({ requestsAMinute: 0, shared: false })
  const slow = {
    ...usual,
    inTurn: async (address: string, check: () => Promise<boolean>) => {
      const holds = await usual.inTurn(address, check)
      await told
      return holds
    },
  }
  const words = await readFile(join(folder, 'users'), 'utf8')
  deps.auth.verified.clear()
  const begun = identifyBy(deps, slow, basic('bob'), '192.0.2.1')
  const generation = deps.auth.generation()
  await writeFile(join(folder, 'users'), words.replace(/^bob:.*$/m, ''))
  await waitFor('the file of users to be read again', () => deps.auth.generation() !== generation)
  const late = identifyBy(deps, usual, basic('bob'), '192.0.2.1')
  goOn()
  assert.equal((await begun).name, 'bob')
  await assert.rejects(late, { key: 'UNAUTHORIZED' })
  await writeFile(join(folder, 'users'), words)
  await waitFor('the file of users to be read once more', () => deps.auth.generation() !== generation + 1)
})

describe('API tokens', () => {
  const create = async (body: object, who = 'admin') =>
    here.call('POST', '/tokens', {
      headers: { authorization: basic(who), 'content-type': 'application/json' },
      body: JSON.stringify(body),
    })

  it('are made by administrators only', async () => {
    assert.equal((await create({ name: 'mine', pull: ['**'] }, 'alice')).status, 403)
    assert.equal((await here.call('GET', '/tokens')).status, 401)
  })

  it('that end while a body is on its way let nothing be published by what comes after', async () => {
    const form = [
      '--edge\r\ncontent-disposition: form-data; name="manifest"\r\n\r\n',
      '{"packId":"late","version":"1.0.0","type":"policy"}\r\n',
      '--edge\r\ncontent-disposition: form-data; name="content"; filename="a"\r\n\r\nbytes',
      '\r\n--edge--\r\n',
    ]
    const config = digestOf(Buffer.from('{}'))
    const pushed = await here.call('POST', `/v2/team/late/blobs/uploads/?digest=${config}`, {
      headers: { authorization: basic('admin') },
      body: '{}',
    })
    assert.equal(pushed.status, 201)
    const bundle = sampleBundle({ channels: [], referrer: false }).bytes
    const ways = [
      { method: 'POST', path: '/packs', type: 'multipart/form-data; boundary=edge', body: Buffer.from(form.join('')) },
      {
        method: 'PUT',
        path: '/v2/team/late/manifests/1',
        type: imageType,
        body: Buffer.from(JSON.stringify(sampleManifest())),
      },
      { method: 'POST', path: '/bundles/import', type: 'application/x-tar', body: bundle },
    ]
    for (const { method, path, type, body } of ways) {
      const { token, info } = (await (await create({ name: 'ending', push: ['**'], delete: ['**'] })).json()) as {
        token: string
        info: { id: string }
      }
      let send = (_bytes: Uint8Array) => {}
      let end = () => {}
      const stream = new ReadableStream<Uint8Array>({
        start(controller) {
          send = (bytes) => controller.enqueue(bytes)
          end = () => controller.close()
        },
      })
      send(new Uint8Array(body.subarray(0, -10)))
      const headers = { authorization: `Bearer ${token}`, 'content-type': type }
      const answer = there.call(method, path, { headers, body: stream })
      const isUsed = async () => {
        const [row] = await here.deps.db.sql`select last_used_at from api_tokens where id = ${info.id}`
        return row?.last_used_at !== null
      }
      await waitFor('the request to be let in', isUsed)
      await here.call('DELETE', `/tokens/${info.id}`, { headers: { authorization: basic('admin') } })
      send(new Uint8Array(body.subarray(-10)))
      end()
      assert.equal((await answer).status, 401, path)
    }
    for (const path of ['/packs/late', '/packs/alpha', '/v2/team/late/manifests/1'])
      assert.equal((await here.call('GET', path, { headers: { authorization: basic('admin') } })).status, 404, path)
  })

  it('are kept by their digest only, and found by it', async () => {
    const { token, info } = (await (await create({ name: 'kept' })).json()) as { token: string; info: { id: string } }
    const rows = await here.deps.db.sql<{ row: string; hash: Buffer }[]>`
      select t::text as row, hash from api_tokens t where id = ${info.id}`
    assert.deepEqual(rows[0]?.hash, createHash('sha256').update(token).digest())
    for (const part of [token, token.slice(4), Buffer.from(token.slice(4), 'base64url').toString('hex')])
      assert.ok(!rows[0]?.row.includes(part))
  })

  it('log in by every door, and are revoked at once on every process', async () => {
    const answer = await create({ name: 'ci', pull: ['team/*'], push: ['team/ci-*'], expires: '90d' })
    assert.equal(answer.status, 201)
    const { token, info } = (await answer.json()) as { token: string; info: { id: string; state: string } }
    assert.match(token, /^pkr_[\w-]{43}$/)
    assert.equal((await create({ name: 'ci' })).status, 409)
    const ways = [`Bearer ${token}`, basic('anything', token)]
    const exchanged = await tokenFor('scope=repository:team/a:pull,push', basic('x', token))
    assert.deepEqual(accessOf(exchanged.token), ['team/a:pull'])
    const reads = () =>
      Promise.all(
        [...ways, `Bearer ${exchanged.token}`].flatMap((authorization) =>
          [here, there].map(
            async (registry) =>
              (await registry.call('GET', '/v2/team/a/manifests/1', { headers: { authorization } })).status,
          ),
        ),
      )
    assert.deepEqual(await reads(), [200, 200, 200, 200, 200, 200])
    assert.deepEqual(await reads(), [200, 200, 200, 200, 200, 200], 'remembered')
    assert.equal((await put('team/ci-1', '1', `Bearer ${token}`)).status, 201)
    assert.equal((await put('team/other', '1', `Bearer ${token}`)).status, 403)
    const listed = await here.call('GET', '/tokens', { headers: { authorization: basic('admin') } })
    const text = await listed.text()
    assert.ok(text.includes('"lastUsedAt"') && !text.includes(token))
    assert.equal(
      (await here.call('DELETE', `/tokens/${info.id}`, { headers: { authorization: basic('admin') } })).status,
      200,
    )
    assert.deepEqual(await reads(), [401, 401, 401, 401, 401, 401])
  })
})

it('an embedded registry needs no user', async () => {
  const deps = await openDeps(
    { ...here.deps.config, auth: { mode: 'none', anonymousPull: [], trustedProxies: [] } },
    await databases.fresh(),
  )
  assert.ok(deps.auth.anonymous.admin)
  await closeDeps(deps)
})

it('of guesses that come all at once no more are looked at than of those that come one by one', async () => {
  // A hash that takes longer than bcrypt keeps others waiting for at a time: they come while the first is looked at.
  await writeFile(join(folder, 'slow'), `alice:${bcrypt.hashSync('alice', 11)}`)
  const env = { AUTH: 'htpasswd', HTPASSWD_FILE: join(folder, 'slow') }
  const registry = await startRegistry(await databases.fresh(), env)
  try {
    const { hostname, port } = new URL(registry.url)
    const sockets = Array.from({ length: 36 }, () => connect(Number(port), hostname))
    await Promise.all(sockets.map((socket) => once(socket, 'connect')))
    const answers = sockets.map(async (socket, i) => {
      const authorization = basic('alice', `guess ${i}`)
      socket.write(`GET /v2/ HTTP/1.1\r\nhost: a\r\nconnection: close\r\nauthorization: ${authorization}\r\n\r\n`)
      let text = ''
      for await (const piece of socket.setEncoding('utf8')) text += piece
      return text.slice('HTTP/1.1 '.length, 'HTTP/1.1 '.length + 3)
    })
    const statuses = await Promise.all(answers)
    assert.deepEqual([...statuses].sort(), [...Array(30).fill('401'), ...Array(6).fill('429')])
  } finally {
    await registry.stop()
  }
})
