import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, describe, it } from 'node:test'
import { digestOf } from '../../oci/digest.ts'
import { startDatabases, type TestDatabases } from '../../testing/database.ts'
import { ask, codeIn, publish } from '../../testing/packs.ts'
import { startRegistry, type TestRegistry } from '../../testing/registry.ts'
import { noS3, startS3, type TestS3 } from '../../testing/s3.ts'

const s3: TestS3 | undefined = await startS3()
after(() => s3?.stop())

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

type Json = Record<string, unknown>

const get = (path: string) => ask(registry, 'GET', path)

describe('GET /packs/{id}/{version}', () => {
  const small = Buffer.from('0123456789')
  const large = randomBytes(300_000)
  const etag = (content: Uint8Array) => `"${digestOf(content)}"`
  before(async () => {
    for (const [packId, content] of [
      ['small', small],
      ['large', large],
    ] as const) {
      const json = { manifest: { packId, version: '1.0.0', type: 'policy' }, content: content.toString('base64') }
      await ask(registry, 'POST', '/packs', { ...json, filename: 'Größe "1"/β.tgz' })
    }
  })
  const read = async (packId: string, headers: Record<string, string> = {}, method = 'GET') => {
    const answer = await registry.call(method, `/packs/${packId}/1.0.0`, { headers })
    return { answer, bytes: Buffer.from(await answer.arrayBuffer()), headers: answer.headers }
  }

  for (const [packId, content] of [
    ['small', small],
    ['large', large],
  ] as const) {
    const size = content.length
    const digest = Buffer.from(digestOf(content).slice(7), 'hex').toString('base64')
    const cases: {
      name: string
      headers?: Record<string, string>
      status: number
      range?: [number, number]
      contentRange?: string
    }[] = [
      { name: 'whole', status: 200, range: [0, size - 1] },
      { name: 'its first bytes', headers: { range: 'bytes=0-3' }, status: 206, range: [0, 3] },
      { name: 'its last bytes', headers: { range: 'bytes=-4' }, status: 206, range: [size - 4, size - 1] },
      { name: 'from some byte on', headers: { range: 'bytes=5-' }, status: 206, range: [5, size - 1] },
      { name: 'more than there is', headers: { range: `bytes=5-${size + 9}` }, status: 206, range: [5, size - 1] },
      { name: 'whole for several ranges', headers: { range: 'bytes=0-1,3-4' }, status: 200, range: [0, size - 1] },
      { name: 'whole for another unit', headers: { range: 'lines=0-1' }, status: 200, range: [0, size - 1] },
      {
        name: 'nothing beyond the end',
        headers: { range: `bytes=${size}-` },
        status: 416,
        contentRange: `bytes */${size}`,
      },
      {
        name: 'a part, if it is the same',
        headers: { range: 'bytes=1-2', 'if-range': etag(content) },
        status: 206,
        range: [1, 2],
      },
      {
        name: 'whole, if it is another',
        headers: { range: 'bytes=1-2', 'if-range': '"x"' },
        status: 200,
        range: [0, size - 1],
      },
      { name: 'nothing to who has it', headers: { 'if-none-match': etag(content) }, status: 304 },
      { name: 'nothing to who has one of many', headers: { 'if-none-match': `"x", W/${etag(content)}` }, status: 304 },
      { name: 'nothing to who has any', headers: { 'if-none-match': '*' }, status: 304 },
      { name: 'whole to who has another', headers: { 'if-none-match': '"x"' }, status: 200, range: [0, size - 1] },
    ]
    for (const { name, headers, status, range, contentRange } of cases)
      it(`answers ${packId} content: ${name}`, async () => {
        const found = await read(packId, headers)
        assert.equal(found.answer.status, status)
        if (range) {
          assert.deepEqual(found.bytes, content.subarray(range[0], range[1] + 1))
          assert.equal(found.headers.get('content-length'), String(range[1] - range[0] + 1))
          const said = status === 206 ? `bytes ${range[0]}-${range[1]}/${size}` : null
          assert.equal(found.headers.get('content-range'), said)
        }
        if (contentRange) assert.equal(found.headers.get('content-range'), contentRange)
        if (status === 416) return
        assert.equal(found.headers.get('etag'), etag(content))
        assert.equal(found.headers.get('repr-digest'), `sha-256=:${digest}:`)
        assert.equal(
          found.headers.get('content-disposition'),
          `attachment; filename="_.tgz"; filename*=UTF-8''%CE%B2.tgz`,
        )
        assert.match(found.headers.get('cache-control') ?? '', /immutable/)
        assert.equal(found.headers.get('x-content-type-options'), 'nosniff')
      })
    it(`answers HEAD of ${packId} content as GET, without a body`, async () => {
      const found = await read(packId, {}, 'HEAD')
      assert.deepEqual([found.answer.status, found.bytes.length], [200, 0])
      assert.equal(found.headers.get('content-length'), String(size))
      assert.equal(found.headers.get('etag'), etag(content))
      assert.equal((await read(packId, { 'if-none-match': etag(content) }, 'HEAD')).answer.status, 304)
    })
  }

  it('selects by version, range, channel and latest, and says what it selected', async () => {
    for (const version of ['1.0.0', '1.2.0', '1.10.0', '2.0.0-rc.1', '2.0.0+linux', '3.0.0-beta'])
      await publish(registry, { packId: 'many', version }, `many ${version}`)
    await ask(registry, 'PUT', '/packs/many/channels/beta', { version: '3.0.0-beta' })
    await ask(registry, 'PATCH', '/packs/many/1.10.0', { state: 'yanked' })
    const selected = async (selector: string) => {
      const answer = await registry.call('GET', `/packs/many/${encodeURIComponent(selector)}`)
      const text = await answer.text()
      assert.equal(text, `many ${answer.headers.get('x-pack-version')}`)
      return answer.headers.get('x-pack-version')
    }
    for (const [selector, version] of [
      ['1.2.0', '1.2.0'],
      ['1.10.0', '1.10.0'],
      ['2.0.0+linux', '2.0.0+linux'],
      ['^1', '1.2.0'],
      ['1.x', '1.2.0'],
      ['>=1 <3', '2.0.0+linux'],
      ['<2', '1.2.0'],
      ['latest', '2.0.0+linux'],
      ['beta', '3.0.0-beta'],
      ['>=3.0.0-alpha', '3.0.0-beta'],
      ['*', '2.0.0+linux'],
    ] as const)
      assert.equal(await selected(selector), version, selector)
  })

  const absent: { name: string; path: string; code: string; says: RegExp; nearest?: string[] }[] = [
    {
      name: 'between',
      path: 'many/1.5.0',
      code: 'VERSION_UNKNOWN',
      says: /nearest: 1\.2\.0, 1\.10\.0/,
      nearest: ['1.2.0', '1.10.0'],
    },
    {
      name: 'above all',
      path: 'many/%5E9',
      code: 'VERSION_UNKNOWN',
      says: /"\^9".*nearest: 3\.0\.0-beta/,
      nearest: ['3.0.0-beta'],
    },
    { name: 'below all', path: 'many/%3C1.0.0', code: 'VERSION_UNKNOWN', says: /nearest: 1\.0\.0/, nearest: ['1.0.0'] },
    {
      name: 'a channel',
      path: 'many/nightly',
      code: 'VERSION_UNKNOWN',
      says: /"nightly"/,
      nearest: ['3.0.0-beta', '2.0.0+linux', '2.0.0-rc.1'],
    },
    { name: 'another build', path: 'many/2.0.0', code: 'VERSION_UNKNOWN', says: /"2\.0\.0"/ },
    { name: 'a pack', path: 'nowhere/1.0.0', code: 'PACK_UNKNOWN', says: /no pack nowhere/ },
    { name: 'an id that is none', path: 'No-Where/1.0.0', code: 'PACK_UNKNOWN', says: /not the id of a pack/ },
    { name: 'what leads out', path: '..%2Fx/1.0.0', code: 'PACK_UNKNOWN', says: /not the id of a pack/ },
    { name: 'NUL', path: 'many/%00', code: 'VERSION_UNKNOWN', says: /"\\u0000"/ },
  ]
  for (const { name, path, code, says, nearest } of absent)
    it(`names the nearest where there is none: ${name}`, async () => {
      const { status, body } = await get(`/packs/${path}`)
      assert.deepEqual([status, codeIn(body)], [404, code])
      assert.match(String(body.detail), says)
      if (nearest) assert.deepEqual((body.about as Json).nearest, nearest)
    })

  it('answers a runner with what it can run, or names the newest that it can', async () => {
    for (const [version, minRunnerVersion, maxRunnerVersion] of [
      ['1.0.0', '1.0.0', '1.9.0'],
      ['2.0.0', '1.5.0', undefined],
      ['3.0.0', '2.0.0', undefined],
    ] as const)
      await publish(
        registry,
        { packId: 'run', version, metadata: { minRunnerVersion, maxRunnerVersion } },
        `run ${version}`,
      )
    const shown = async (path: string) => ((await get(path)).body.pack as Json | undefined)?.version
    assert.equal(await shown('/packs/run?runner=1.5.0'), '2.0.0')
    assert.equal(await shown('/packs/run?runner=1.5.0-rc.1'), '1.0.0')
    assert.equal(await shown('/packs/run?runner=2.0.0'), '3.0.0')
    const versions = (await get('/packs/run/versions?runner=1.9.0')).body.versions as Json[]
    assert.deepEqual(
      versions.map((entry) => entry.version),
      ['2.0.0', '1.0.0'],
    )
    for (const path of [
      '/packs/run/3.0.0?runner=1.5.0',
      '/packs/run/3.0.0/manifest?runner=1.5.0',
      '/packs/run/%5E3?runner=1.5.0',
    ]) {
      const { status, body } = await get(path)
      assert.deepEqual([status, codeIn(body)], [409, 'RUNNER_TOO_OLD'])
      assert.match(
        String(body.detail),
        /run 3\.0\.0 does not run on runner 1\.5\.0.*newest version that does is 2\.0\.0/,
      )
      assert.deepEqual((body.about as Json).newestCompatible, '2.0.0')
    }
    const none = await get('/packs/run?runner=0.1.0')
    assert.match(String(none.body.detail), /No version of it does/)
  })

  for (const path of [
    '/packs/small?runner=1',
    '/packs/small?runer=1.0.0',
    '/packs/small/versions?limit=1',
    '/packs/small/1.0.0?x=1',
    '/packs/small/1.0.0/manifest?x=1',
    '/packs/small/1.0.0/dependents?x=1',
    '/packs/small?runner=1.0.0&runner=2.0.0',
  ])
    it(`refuses the query of ${path}`, async () => {
      const { status, body } = await get(path)
      assert.deepEqual([status, codeIn(body)], [400, 'QUERY_INVALID'])
    })
})

describe('GET /packs', () => {
  let lists: TestRegistry
  const list = (query = '') => ask(lists, 'GET', `/packs${query}`)
  const ids = async (query: string) => ((await list(query)).body.packs as Json[]).map((entry) => entry.packId)
  /** All pages of a question, one after another; `between` happens after the first. */
  async function pages(query: string, between: () => Promise<unknown> = async () => undefined): Promise<string[]> {
    const found: string[] = []
    let after: unknown
    do {
      const { body } = await list(`?${query}${after ? `&after=${after}` : ''}`)
      found.push(...(body.packs as Json[]).map((entry) => String(entry.packId)))
      if (!after) await between()
      after = body.next
    } while (after)
    return found
  }
  before(async () => {
    lists = await startRegistry(await databases.fresh())
    const packs: Json[] = [
      { packId: 'net-policy', name: 'Network policy', author: 'ada', metadata: { keywords: ['firewall'] } },
      { packId: 'net-rules', type: 'analyzer', description: 'rules for a policy', author: 'ada' },
      { packId: 'disk-scan', type: 'task', description: 'Scans disks; mentions policy once', author: 'bob' },
      { packId: 'baseline', type: 'bundle', name: 'Über-Baseline', metadata: { minRunnerVersion: '2.0.0' } },
    ]
    for (const pack of packs) await publish(lists, pack, String(pack.packId))
    await publish(lists, { packId: 'baseline', version: '0.9.0', type: 'bundle' }, 'baseline old')
    await ask(lists, 'PATCH', '/packs/disk-scan/1.0.0', { state: 'deprecated' })
  })
  after(() => lists?.stop())

  const found: { query: string; packs: string[] }[] = [
    { query: '', packs: ['baseline', 'disk-scan', 'net-policy', 'net-rules'] },
    { query: '?type=analyzer', packs: ['net-rules'] },
    { query: '?author=ada', packs: ['net-policy', 'net-rules'] },
    { query: '?author=ad', packs: [] },
    { query: '?state=deprecated', packs: ['disk-scan'] },
    { query: '?state=active&type=bundle', packs: ['baseline'] },
    { query: '?runner=1.0.0', packs: ['baseline', 'disk-scan', 'net-policy', 'net-rules'] },
    { query: '?q=policy', packs: ['net-policy', 'disk-scan', 'net-rules'] },
    { query: '?q=pol', packs: ['net-policy', 'disk-scan', 'net-rules'] },
    { query: '?q=net', packs: ['net-policy', 'net-rules'] },
    { query: '?q=net-pol', packs: ['net-policy', 'net-rules'] },
    { query: '?q=firewall', packs: ['net-policy'] },
    { query: '?q=%C3%BCber', packs: ['baseline'] },
    { query: '?q=policy+ada', packs: ['net-policy', 'net-rules'] },
    { query: '?q=nothing', packs: [] },
    { query: '?q=%26+%7C+!', packs: [] },
    { query: "?q=it's+%3A*+%5C", packs: [] },
    { query: '?q=policy&sort=id', packs: ['disk-scan', 'net-policy', 'net-rules'] },
    { query: '?sort=updated', packs: ['disk-scan', 'baseline', 'net-rules', 'net-policy'] },
  ]
  for (const { query, packs } of found)
    it(`finds ${packs.length} by ${query || 'nothing'}`, async () => {
      assert.deepEqual(await ids(query), packs)
    })

  it('shows a runner the newest that it can run', async () => {
    const packs = (await list('?runner=1.0.0&type=bundle')).body.packs as Json[]
    assert.deepEqual(
      packs.map((entry) => entry.version),
      ['0.9.0'],
    )
  })

  const refused: { query: string; says: RegExp }[] = [
    { query: '?sort=size', says: /sort must be one of id, updated, relevance/ },
    { query: '?sort=relevance', says: /needs words/ },
    { query: '?colour=red', says: /colour is not a parameter/ },
    { query: '?type=image', says: /type must be one of/ },
    { query: '?type=', says: /type must be one of/ },
    { query: '?type=policy&type=task', says: /more than once: type/ },
    { query: '?state=gone', says: /state must be one of/ },
    { query: '?limit=0', says: /1 to 1000/ },
    { query: '?limit=1001', says: /1 to 1000/ },
    { query: '?limit=ten', says: /1 to 1000/ },
    { query: '?limit=-1', says: /1 to 1000/ },
    { query: '?limit=', says: /1 to 1000/ },
    { query: `?q=${'x'.repeat(201)}`, says: /q / },
    { query: '?q=%00', says: /NUL/ },
    { query: '?author=%00', says: /NUL/ },
    { query: '?runner=new', says: /runner must be a version/ },
    { query: '?after=x', says: /not a cursor of this list/ },
    { query: '?after=', says: /not a cursor of this list/ },
    { query: '?after=%00.%00', says: /not a cursor of this list/ },
  ]
  for (const { query, says } of refused)
    it(`refuses ${query.slice(0, 30)}`, async () => {
      const { status, body } = await list(query)
      assert.deepEqual([status, codeIn(body)], [400, 'QUERY_INVALID'])
      assert.match(String(body.detail), says)
    })

  it('refuses a cursor that was changed, or belongs to another question', async () => {
    const { next } = (await list('?limit=1')).body
    const [position, mac] = String(next).split('.')
    const other = Buffer.from('{"key":"","packId":"a"}').toString('base64url')
    for (const after of [`${other}.${mac}`, `${position}.`, `${position}`, `${position}.${String(mac).slice(1)}x`])
      assert.equal((await list(`?limit=1&after=${after}`)).status, 400)
    for (const query of ['sort=updated', 'type=policy', 'q=policy', 'runner=1.0.0'])
      assert.equal((await list(`?limit=1&${query}&after=${next}`)).status, 400)
    assert.equal((await list(`?limit=3&after=${next}`)).status, 200)
  })

  for (const query of ['sort=id', 'sort=updated', 'q=policy', 'q=policy&sort=updated', 'runner=1.0.0'])
    it(`goes through all pages of ${query}, each pack once`, async () => {
      const whole = await ids(`?${query}`)
      for (const limit of [1, 2, 3]) assert.deepEqual(await pages(`${query}&limit=${limit}`), whole)
    })

  it('misses nothing that stays while others come, go and change', async () => {
    for (let i = 10; i < 30; i++) await publish(lists, { packId: `moving-${i}` }, `moving ${i}`)
    for (const query of ['sort=id', 'sort=updated', 'q=moving']) {
      const seen = await pages(`${query}&limit=7`, async () => {
        const suffix = query.replace(/\W/g, '-')
        await publish(lists, { packId: `moving-00-${suffix}` }, 'new')
        await publish(lists, { packId: `moving-99-${suffix}` }, 'new')
        await ask(lists, 'PATCH', '/packs/moving-11/1.0.0', { state: 'deprecated' })
        await ask(lists, 'DELETE', '/packs/moving-00-sort-id/1.0.0')
      })
      const counted = seen.filter((packId) => /^moving-\d\d$/.test(packId) && packId !== 'moving-11')
      assert.equal(new Set(counted).size, 19, `${query}: ${seen}`)
      assert.equal(counted.length, 19, `${query}: ${seen}`)
    }
  })
})

describe('content in S3', { skip: s3 ? false : noS3 }, () => {
  let remote: TestRegistry
  let direct: TestRegistry
  const content = randomBytes(300_000)
  before(async () => {
    const { endpoint, bucket, accessKey, secretKey } = s3 as TestS3
    process.env.AWS_ACCESS_KEY_ID = accessKey
    process.env.AWS_SECRET_ACCESS_KEY = secretKey
    const BLOB_STORE = `s3://${bucket}/packs?endpoint=${endpoint}&region=us-east-1&pathStyle=true`
    const url = await databases.fresh()
    remote = await startRegistry(url, { BLOB_STORE })
    direct = await startRegistry(url, { BLOB_STORE, BLOB_REDIRECT: 'false' })
    assert.equal((await publish(remote, { packId: 'stored' }, content)).status, 201)
  })
  after(async () => {
    await remote?.stop()
    await direct?.stop()
  })

  it('is had from the store itself, whole or in part', async () => {
    const answer = await remote.call('GET', '/packs/stored/latest')
    assert.equal(answer.status, 307)
    const location = answer.headers.get('location') ?? ''
    const whole = await fetch(location)
    assert.equal(digestOf(new Uint8Array(await whole.arrayBuffer())), answer.headers.get('docker-content-digest'))
    const part = await fetch(location, { headers: { range: 'bytes=5-9' } })
    assert.deepEqual(Buffer.from(await part.arrayBuffer()), content.subarray(5, 10))
  })

  it('is asked for without the store', async () => {
    const etag = `"${digestOf(content)}"`
    assert.equal((await remote.call('HEAD', '/packs/stored/latest')).headers.get('content-length'), '300000')
    const headers = { 'if-none-match': etag }
    assert.equal((await remote.call('GET', '/packs/stored/latest', { headers })).status, 304)
    assert.equal(
      (await remote.call('GET', '/packs/stored/latest', { headers: { range: 'bytes=300000-' } })).status,
      416,
    )
  })

  it('comes through the registry where the setting says so', async () => {
    const answer = await direct.call('GET', '/packs/stored/1.0.0', { headers: { range: 'bytes=100000-' } })
    assert.equal(answer.status, 206)
    assert.deepEqual(Buffer.from(await answer.arrayBuffer()), content.subarray(100_000))
  })
})
