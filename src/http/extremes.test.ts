import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { ask, codeIn, publish } from '../testing/packs.ts'
import { startRegistry, type TestRegistry } from '../testing/registry.ts'

// Names and times at the ends of what can be written: each is answered, and none is an error of ours.

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

describe('a name with NUL in it', () => {
  const asked: [method: string, path: string, code: string | undefined][] = [
    ['GET', '/mirrors/NAME', 'MIRROR_UNKNOWN'],
    ['GET', '/mirrors/NAME/runs', 'MIRROR_UNKNOWN'],
    ['GET', '/mirrors/NAME/parity', 'MIRROR_UNKNOWN'],
    ['PATCH', '/mirrors/NAME', 'MIRROR_UNKNOWN'],
    ['POST', '/mirrors/NAME/run', 'MIRROR_UNKNOWN'],
    ['DELETE', '/mirrors/NAME', undefined],
    ['GET', '/keys/NAME', 'KEY_UNKNOWN'],
    ['GET', '/keys/NAME.pem', 'KEY_UNKNOWN'],
    ['POST', '/keys/NAME/rotate', 'KEY_UNKNOWN'],
    ['DELETE', '/keys/NAME', 'KEY_UNKNOWN'],
    ['DELETE', '/tokens/NAME', 'TOKEN_UNKNOWN'],
  ]
  before(async () => {
    assert.equal((await ask(registry, 'POST', '/tokens', { name: 'ab' })).status, 201)
    assert.equal((await ask(registry, 'POST', '/keys', { name: 'ab' })).status, 201)
    const mirror = { name: 'ab', direction: 'pull', url: 'https://registry.example' }
    assert.equal((await ask(registry, 'POST', '/mirrors', mirror)).status, 201)
  })
  for (const [method, path, code] of asked)
    it(`is that of nothing: ${method} ${path}`, async () => {
      for (const name of ['%00', 'a%00b', 'ab%00']) {
        const answer = await ask(registry, method, path.replace('NAME', name), method === 'PATCH' ? {} : undefined)
        if (code === undefined) assert.deepEqual(answer, { status: 200, body: { deleted: false } })
        else assert.deepEqual([answer.status, codeIn(answer.body)], [404, code])
      }
    })
})

describe('a time', () => {
  const none = [
    '0000-01-01',
    '2027-02-29',
    '2027-02-30T12:00:00Z',
    '2027-01-01T00:00:00+23:59',
    '2027-01-01T00:00:00-16:00',
    '2027-01-01T24:00:00Z',
    '9999-12-31T23:59:59-15:59',
    '2027-01-01T00:00:00.0000000001Z',
  ]
  for (const time of none)
    it(`that there is not is refused: ${time}`, async () => {
      for (const name of ['since', 'until']) {
        const { status, body } = await ask(registry, 'GET', `/audit?${name}=${encodeURIComponent(time)}`)
        assert.deepEqual([status, codeIn(body)], [400, 'QUERY_INVALID'])
      }
      for (const path of ['/tokens', '/keys']) {
        const { status, body } = await ask(registry, 'POST', path, { name: 'late', expires: time })
        assert.deepEqual([status, codeIn(body)], [400, 'REQUEST_INVALID'])
      }
      assert.equal((await publish(registry, { packId: 'timely', created: time })).status, 422)
    })

  it('beyond the years that can be stored is refused, however it is written', async () => {
    for (const expires of ['99999y', '8000y']) {
      const { status, body } = await ask(registry, 'POST', '/tokens', { name: 'ever', expires })
      assert.deepEqual([status, codeIn(body)], [400, 'REQUEST_INVALID'])
    }
  })

  it('at the end of them is taken, and a key that is to live until then can be rotated', async () => {
    for (const time of ['0001-01-02', '9999-12-31T23:59:59.999999999Z', '2028-02-29', '2027-01-01T00:00:00+15:59'])
      assert.equal((await ask(registry, 'GET', `/audit?since=${encodeURIComponent(time)}`)).status, 200, time)
    const expires = '9999-12-31T23:59:59.999Z'
    assert.equal((await ask(registry, 'POST', '/tokens', { name: 'long', expires })).status, 201)
    assert.equal((await ask(registry, 'POST', '/keys', { name: 'long', expires })).status, 201)
    const { status, body } = await ask(registry, 'POST', '/keys/long/rotate')
    assert.deepEqual([status, (body.key as { expiresAt: string }).expiresAt], [201, expires])
  })
})

it('the name of what every object has is that of no digest algorithm', async () => {
  for (const name of ['toString', '__proto__', 'constructor']) {
    const answer = await registry.call('POST', `/v2/a/blobs/uploads/?digest-algorithm=${name}`)
    assert.equal(answer.status, 400, name)
  }
})
