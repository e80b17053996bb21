import assert from 'node:assert/strict'
import { createHash, createPublicKey } from 'node:crypto'
import { after, before, describe, it } from 'node:test'
import { parseEnvelope, signEnvelope, signersOf } from '../bundles/dsse.ts'
import { generateKey, publicKeyOf, publicPem } from '../bundles/keys.ts'
import { openClient, PacksError } from '../client/client.ts'
import { openLog } from '../log.ts'
import { signers, trustedKeys } from '../registry/keys.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { startRegistry, type TestRegistry } from '../testing/registry.ts'

let databases: TestDatabases
let here: TestRegistry
let there: TestRegistry
const logged: string[] = []

before(async () => {
  databases = await startDatabases()
  const url = await databases.fresh()
  here = await startRegistry(url, {}, openLog('trace', { write: (line) => void logged.push(line) }))
  // Another process over the same facts.
  there = await startRegistry(url)
})
after(async () => {
  await there?.stop()
  await here?.stop()
  await databases?.stop()
})

const client = (registry = here) => openClient({ url: registry.url, attempts: 1 })
const failsWith =
  (code: string, words = /./) =>
  (error: unknown) => {
    assert.ok(error instanceof PacksError, String(error))
    assert.equal(error.code, code)
    assert.match(error.message, words)
    return true
  }
const foreign = () => publicPem(publicKeyOf(generateKey().spki))
const nameOf = async (keyid: string) => (await client().keys.get(keyid)).name
const signing = async (registry = here) => Promise.all((await signers(registry.deps)).map(({ keyid }) => nameOf(keyid)))

describe('keys of a site', () => {
  it('are made, and sign on every process at once', async () => {
    assert.deepEqual(await signers(there.deps), [])
    const { keyid, state, own, publicKey } = await client().keys.create('release', { comment: 'for the field' })
    assert.deepEqual([state, own], ['signing', true])
    const der = createPublicKey(publicKey).export({ type: 'spki', format: 'der' })
    assert.equal(keyid, `sha256:${createHash('sha256').update(der).digest('hex')}`)
    const envelope = parseEnvelope(signEnvelope('t', Buffer.from('{}'), await signers(there.deps)))
    assert.deepEqual(
      signersOf(envelope, await trustedKeys(here.deps)).map((key) => key.keyid),
      [keyid],
    )
    assert.deepEqual(await client(there).keys.get('release'), await client().keys.get(keyid))
  })

  it('are given to others as PEM', async () => {
    const answer = await here.call('GET', '/keys/release.pem')
    assert.equal(answer.status, 200)
    assert.match(answer.headers.get('content-disposition') ?? '', /"release\.pem"/)
    assert.equal(await answer.text(), (await client().keys.get('release')).publicKey)
    assert.equal((await here.call('GET', '/keys/nobody.pem')).status, 404)
  })

  it('are rotated: the successor signs, and what the old one signed is taken', async () => {
    const old = await client().keys.create('rotated', { expires: new Date(Date.now() + 86_400_000).toISOString() })
    const signed = parseEnvelope(signEnvelope('t', Buffer.from('{}'), await signers(here.deps)))
    const before = Date.now()
    const successor = await client().keys.rotate('rotated')
    assert.equal(successor.name, 'rotated')
    assert.notEqual(successor.keyid, old.keyid)
    const begins = Date.parse(successor.expiresAt ?? '') - (Date.parse(old.expiresAt ?? '') - Date.parse(old.createdAt))
    assert.ok(begins >= before && begins <= Date.now(), 'it lives as long as the old one was meant to')
    const retired = await client().keys.get(old.keyid)
    assert.deepEqual([retired.state, retired.own], ['verifying', true])
    assert.equal((await client().keys.get('rotated')).keyid, successor.keyid)
    assert.ok(signersOf(signed, await trustedKeys(here.deps)).some(({ keyid }) => keyid === old.keyid))
    assert.ok(!(await signers(here.deps)).some(({ keyid }) => keyid === old.keyid))
    const body = { headers: { 'content-type': 'application/json' }, body: '{}' }
    const again = await here.call('POST', `/keys/${old.keyid}/rotate`, body)
    assert.equal(again.status, 409)
    assert.match(await again.text(), /KEY_NOT_SIGNING.*retired already/)
  })

  it('are rotated once by ten who do it at once', async () => {
    const { keyid } = await client().keys.create('busy')
    const answers = await Promise.all(
      Array.from({ length: 10 }, (_, i) => (i % 2 ? here : there).call('POST', `/keys/${keyid}/rotate`)),
    )
    const statuses = answers.map(({ status }) => status).sort()
    assert.deepEqual(statuses, [201, ...Array(9).fill(409)])
    assert.equal((await signing()).filter((name) => name === 'busy').length, 1)
  })

  it('are made once by ten who want the same name', async () => {
    const answers = await Promise.allSettled(
      Array.from({ length: 10 }, (_, i) => client(i % 2 ? here : there).keys.create('wanted')),
    )
    assert.equal(answers.filter(({ status }) => status === 'fulfilled').length, 1)
    for (const answer of answers) if (answer.status === 'rejected') failsWith('KEY_EXISTS', /wanted/)(answer.reason)
  })

  it('are not more than a bundle has room for', async () => {
    const made: string[] = []
    const all = async () => {
      for (let i = 0; i < 20; i++) made.push((await client().keys.create(`many-${i}`)).keyid)
    }
    await assert.rejects(all, failsWith('KEY_EXISTS', /16 keys sign/))
    assert.equal((await signers(here.deps)).length, 16)
    for (const keyid of made) await client().keys.distrust(keyid)
  })

  it('that expired sign nothing, and what they signed is not taken', async () => {
    const { keyid } = await client().keys.create('short')
    await here.deps.db.sql`
      update signing_keys set created_at = now() - interval '1 hour', expires_at = now() - interval '1 second'
      where keyid = ${keyid}`
    assert.equal((await client().keys.get('short')).state, 'expired')
    assert.ok(!(await signers(here.deps)).some((key) => key.keyid === keyid))
    const known = (await trustedKeys(here.deps)).find((key) => key.keyid === keyid)
    assert.ok((known?.expiresAt?.getTime() ?? Number.POSITIVE_INFINITY) < Date.now())
    assert.equal((await client().keys.rotate('short')).state, 'signing')
  })
})

describe('keys of others', () => {
  it('are trusted, until they are not', async () => {
    const pem = foreign()
    const key = await client().keys.trust('headquarters', pem, { comment: 'told by phone' })
    assert.deepEqual([key.state, key.own, key.comment], ['verifying', false, 'told by phone'])
    assert.ok((await trustedKeys(there.deps)).some(({ keyid }) => keyid === key.keyid))
    assert.deepEqual(await client().keys.trust('headquarters', pem), key, 'the same again')
    await assert.rejects(client().keys.trust('another', pem), failsWith('KEY_EXISTS', /as headquarters/))
    await assert.rejects(client().keys.trust('headquarters', foreign()), failsWith('KEY_EXISTS', /headquarters/))
    await assert.rejects(client().keys.rotate('headquarters'), failsWith('KEY_NOT_SIGNING', /another site/))
    assert.equal((await client().keys.distrust('headquarters')).state, 'distrusted')
    assert.ok(!(await trustedKeys(there.deps)).some(({ keyid }) => keyid === key.keyid))
    await assert.rejects(client().keys.get('headquarters'), failsWith('KEY_UNKNOWN'))
    assert.equal((await client().keys.distrust(key.keyid)).state, 'distrusted', 'the same again')
    const again = await client().keys.trust('the-new-name', pem)
    assert.deepEqual([again.keyid, again.state, again.name], [key.keyid, 'verifying', 'the-new-name'])
  })

  it('may be ours: distrusted, one signs nothing, and trusted again it only verifies', async () => {
    const { keyid, publicKey } = await client().keys.create('fallen')
    await client().keys.distrust('fallen')
    assert.ok(!(await signers(here.deps)).some((key) => key.keyid === keyid))
    const again = await client().keys.trust('risen', publicKey)
    assert.deepEqual([again.keyid, again.state, again.own], [keyid, 'verifying', true])
    assert.ok(!(await signers(here.deps)).some((key) => key.keyid === keyid))
  })

  const refused: [name: string, path: string, body: object, status: number, words: RegExp][] = [
    ['no name', '/keys', {}, 400, /name is missing/],
    ['a name that looks like a key id', '/keys', { name: 'sha256:aa' }, 400, /lowercase/],
    ['a name that ends as a PEM', '/keys', { name: 'a.pem' }, 400, /\.pem/],
    ['a past end', '/keys', { name: 'a', expires: '2020-01-01' }, 400, /future/],
    ['no time', '/keys', { name: 'a', expires: 'soon' }, 400, /a time such as/],
    ['a time that is none', '/keys', { name: 'a', expires: '2099-19-01' }, 400, /that there is/],
    ['a private part', '/keys', { name: 'a', privateKey: 'x' }, 400, /privateKey/],
    ['no PEM', '/keys/trusted', { name: 'a', publicKey: 'x' }, 422, /no PEM/],
    ['a key that is not there', '/keys/nobody/rotate', {}, 404, /no key .*nobody/],
  ]
  for (const [name, path, body, status, words] of refused)
    it(`are refused with ${name}`, async () => {
      const answer = await here.call('POST', path, {
        body: JSON.stringify(body),
        headers: { 'content-type': 'application/json' },
      })
      assert.equal(answer.status, status)
      assert.equal(answer.headers.get('content-type'), 'application/problem+json')
      assert.match(await answer.text(), words)
    })
})

describe('private parts', () => {
  it('are in no answer and no line of the log, and are erased with the last signature', async () => {
    const rows = await here.deps.db.sql<{ keyid: string; secret: Buffer | null; signs: boolean }[]>`
      select keyid, private_key as secret, retired_at is null and own as signs from signing_keys`
    const secrets = rows.flatMap(({ secret }) => (secret ? [secret.subarray(-32)] : []))
    assert.ok(secrets.length > 3)
    for (const { secret, signs } of rows) assert.equal(secret !== null, signs)
    const told = [...logged, await (await here.call('GET', '/keys')).text()].join('\n')
    for (const secret of secrets)
      for (const form of ['base64', 'base64url', 'hex'] as const)
        assert.ok(!told.includes(secret.toString(form).slice(0, 40)))
  })
})
