import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import bcrypt from 'bcryptjs'
import { digestOf } from '../../oci/digest.ts'
import { startDatabases, type TestDatabases } from '../../testing/database.ts'
import { codeOf, startRegistry, type TestRegistry } from '../../testing/registry.ts'

let databases: TestDatabases
let folder: string
let registry: TestRegistry

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'packs-caps-'))
  const users = ['alice', 'bob'].map((name) => `${name}:${bcrypt.hashSync(name, 4)}`)
  await writeFile(join(folder, 'users'), users.join('\n'))
  databases = await startDatabases()
  registry = await startRegistry(await databases.fresh(), {
    ...{ AUTH: 'htpasswd', HTPASSWD_FILE: join(folder, 'users') },
    ...{ UPLOADS_OPEN: '2', UPLOADS_STAGED: '1000' },
  })
})
after(async () => {
  await registry?.stop()
  await databases?.stop()
  await rm(folder, { recursive: true, force: true })
})

const basic = (name: string) => `Basic ${Buffer.from(`${name}:${name}`).toString('base64')}`

/** Calls as a user, with a token for the repository where `byToken`, as docker does. */
async function callerOf(name: string, byToken = false) {
  let authorization = basic(name)
  if (byToken) {
    const answer = await registry.call('GET', '/token?scope=repository:a:pull,push', { headers: { authorization } })
    authorization = `Bearer ${((await answer.json()) as { token: string }).token}`
  }
  const call = (method: string, path: string, body?: Uint8Array | ReadableStream) =>
    registry.call(method, path, { headers: { authorization }, ...(body ? { body } : {}) })
  const begin = async () => (await call('POST', '/v2/a/blobs/uploads/')).headers.get('location') ?? ''
  const chunk = async (bytes: Uint8Array | ReadableStream, at?: string) => call('PATCH', at ?? (await begin()), bytes)
  return { call, begin, chunk }
}

async function requireRefused(answer: Response, words: RegExp): Promise<void> {
  assert.equal(answer.status, 429)
  assert.ok(Number(answer.headers.get('retry-after')) > 0)
  const text = await answer.clone().text()
  assert.equal(await codeOf(answer), 'TOOMANYREQUESTS')
  assert.match(text, words)
}

describe('uploads under way', () => {
  it('are at most so many for each user, however they show who they are; what has no chunk is none', async () => {
    const alice = await callerOf('alice')
    const byToken = await callerOf('alice', true)
    for (let i = 0; i < 5; i++) await alice.begin()
    const first = await alice.chunk(randomBytes(10))
    assert.equal(first.status, 202)
    const second = await byToken.chunk(randomBytes(10))
    assert.equal(second.status, 202)
    await requireRefused(await alice.chunk(randomBytes(10)), /2 uploads under way.*UPLOADS_OPEN/)
    await requireRefused(await byToken.chunk(randomBytes(10)), /2 uploads under way/)
    const bob = await callerOf('bob')
    const his = await bob.chunk(randomBytes(10))
    assert.equal(his.status, 202)
    // What is open goes on, and makes room when it ends.
    const more = randomBytes(20)
    assert.equal((await alice.chunk(more, first.headers.get('location') ?? '')).status, 202)
    assert.equal((await alice.call('DELETE', second.headers.get('location') ?? '')).status, 204)
    const third = await alice.chunk(more)
    assert.equal(third.status, 202)
    const close = `${third.headers.get('location')}?digest=${digestOf(more)}`
    assert.equal((await alice.call('PUT', close)).status, 201)
    const whole = await alice.call('POST', `/v2/a/blobs/uploads/?digest=${digestOf(more)}`, more)
    assert.equal(whole.status, 201)
    const left = [first, his].map((answer) => answer.headers.get('location') ?? '')
    assert.equal((await alice.call('DELETE', left[0] ?? '')).status, 204)
    assert.equal((await bob.call('DELETE', left[1] ?? '')).status, 204)
  })

  it('have at most so many bytes together, whether that is said beforehand or not', async () => {
    const alice = await callerOf('alice')
    const first = await alice.chunk(randomBytes(600))
    assert.equal(first.status, 202)
    await requireRefused(await alice.chunk(randomBytes(500)), /more bytes together.*UPLOADS_STAGED/)
    const unannounced = new Blob([new Uint8Array(500)]).stream()
    await requireRefused(await alice.chunk(unannounced), /more bytes together/)
    const at = first.headers.get('location') ?? ''
    await requireRefused(await alice.chunk(randomBytes(401), at), /more bytes together/)
    assert.equal((await alice.chunk(randomBytes(400), at)).status, 202)
    assert.equal((await alice.call('DELETE', at)).status, 204)
    // A blob that comes whole waits for nothing, and is no upload under way.
    const blob = randomBytes(5000)
    assert.equal((await alice.call('PUT', `${await alice.begin()}?digest=${digestOf(blob)}`, blob)).status, 201)
  })
})

it('without a login, an address counts as one', async () => {
  const open = await startRegistry(await databases.fresh(), { UPLOADS_OPEN: '1' })
  try {
    const begin = async () => (await open.call('POST', '/v2/a/blobs/uploads/')).headers.get('location') ?? ''
    assert.equal((await open.call('PATCH', await begin(), { body: randomBytes(10) })).status, 202)
    await requireRefused(await open.call('PATCH', await begin(), { body: randomBytes(10) }), /1 uploads under way/)
  } finally {
    await open.stop()
  }
})
