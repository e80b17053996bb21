import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { openLog } from '../../log.ts'
import { digestOf } from '../../oci/digest.ts'
import { type Lock, parseLock } from '../../packs/lock.ts'
import { startDatabases, type TestDatabases } from '../../testing/database.ts'
import { startRegistry, type TestRegistry } from '../../testing/registry.ts'

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

/** Publishes `id@version`, whether or not what it needs is there; answers its manifest's digest. */
async function publish(name: string, dependencies: unknown[] = [], metadata: Json = {}): Promise<string> {
  const [packId, version] = name.split('@')
  const manifest = { packId, version, type: 'policy', dependencies, metadata }
  const form = new FormData()
  form.append('manifest', new Blob([JSON.stringify(manifest)]), 'pack.json')
  form.append('content', new Blob([`content of ${name}`]), `${packId}.tgz`)
  const answer = await fetch(`${here.url}/packs?allowMissing=true`, { method: 'POST', body: form })
  const made = (await answer.json()) as { manifestDigest: string }
  assert.equal(answer.status, 201, JSON.stringify(made))
  return made.manifestDigest
}

const post = (body: unknown, to = here) => to.call('POST', '/resolve', { body: JSON.stringify(body) })

/** Resolves, and answers what was chosen: `a 1.0.0, b 2.0.0`. */
async function chosen(body: unknown): Promise<string> {
  const answer = await post(body)
  const text = await answer.text()
  assert.equal(answer.status, 200, text)
  return (JSON.parse(text) as Lock).packs.map(({ packId, version }) => `${packId} ${version}`).join(', ')
}

async function refused(body: unknown): Promise<{ status: number; type: string; detail: string; about: Json }> {
  const answer = await post(body)
  const problem = (await answer.json()) as { type: string; detail: string; about: Json }
  assert.equal(answer.headers.get('content-type'), 'application/problem+json')
  return { status: answer.status, ...problem }
}

describe('POST /resolve', () => {
  it('answers a lock, the same bytes from every process', async () => {
    const digest = await publish('base@1.2.0')
    await publish('base@2.0.0')
    await publish('top@1.0.0', ['base@^1.0.0', { packId: 'extra', version: '*', optional: true }])
    const answer = await post({ roots: ['top@ ^1.0.0 '], runner: '1.5.0' })
    const bytes = Buffer.from(await answer.arrayBuffer())
    assert.equal(answer.status, 200, bytes.toString())
    assert.equal(answer.headers.get('content-type'), 'application/vnd.stellaops.pack.lock.v1+json')
    assert.equal(answer.headers.get('etag'), `"${digestOf(bytes)}"`)
    const sha256 = Buffer.from(digestOf(bytes).slice(7), 'hex').toString('base64')
    assert.equal(answer.headers.get('repr-digest'), `sha-256=:${sha256}:`)
    const lock = parseLock(JSON.parse(bytes.toString())) as Lock
    assert.equal(JSON.stringify(lock), bytes.toString())
    assert.deepEqual(lock.roots, [{ packId: 'top', version: '^1.0.0' }])
    const [base, top] = lock.packs
    assert.deepEqual(base, {
      packId: 'base',
      version: '1.2.0',
      type: 'policy',
      digest: digestOf(Buffer.from('content of base@1.2.0')),
      size: 21,
      mediaType: 'application/vnd.stellaops.pack.content.v1.tar+gzip',
      title: 'base.tgz',
      manifestDigest: digest,
      manifestSize: (await (await here.call('GET', `/v2/packs/base/manifests/${digest}`)).arrayBuffer()).byteLength,
      dependencies: [],
    })
    assert.deepEqual(top?.dependencies, [
      { packId: 'base', version: '^1.0.0', resolved: '1.2.0' },
      { packId: 'extra', version: '*', optional: true },
    ])
    const again = await post({ runner: '1.5.0', roots: [{ version: '^1.0.0', packId: 'top' }] }, there)
    assert.deepEqual(Buffer.from(await again.arrayBuffer()), bytes)
  })
})
