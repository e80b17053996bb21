import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { startDatabases, type TestDatabases } from '../../testing/database.ts'
import { startRegistry, type TestRegistry } from '../../testing/registry.ts'

let databases: TestDatabases
let here: TestRegistry
let there: TestRegistry

before(async () => {
  databases = await startDatabases()
  const url = await databases.fresh()
  here = await startRegistry(url)
  there = await startRegistry(url, { BLOB_STORE: here.deps.config.blobStore })
})
after(async () => {
  await there?.stop()
  await here?.stop()
  await databases?.stop()
})

async function publish(packId: string, version: string, filename: string): Promise<void> {
  const form = new FormData()
  form.append('manifest', new Blob([JSON.stringify({ packId, version, type: 'policy' })]), 'pack.json')
  form.append('content', new Blob([`content of ${version}`]), filename)
  const answer = await fetch(`${here.url}/packs`, { method: 'POST', body: form })
  assert.equal(answer.status, 201, await answer.text())
}

/** Status, fields and body. An If-Range without a Range changes nothing, but is the routes' matter. */
async function answerTo(path: string, { routed }: { routed: boolean }) {
  const answer = await fetch(here.url + path, { headers: routed ? { 'if-range': '"none"' } : {} })
  const { date: _, ...fields } = Object.fromEntries(answer.headers)
  return { status: answer.status, fields, body: await answer.text() }
}

describe('packs answered without the router', () => {
  before(async () => {
    await publish('plain', '1.0.0', 'plain-1.0.0.tgz')
    await publish('plain', '1.1.0+build.5', 'Ünïcode & "quotes".tgz')
    await publish('plain', '2.0.0-rc.1', 'folder/name.tgz')
    await here.call('PUT', '/packs/plain/channels/stable', {
      body: JSON.stringify({ version: '1.0.0' }),
      headers: { 'content-type': 'application/json' },
    })
    await here.call('PATCH', '/packs/plain/2.0.0-rc.1', {
      body: JSON.stringify({ state: 'deprecated', message: 'say "no"\nto\ttabs \\', replacedBy: 'plain@1.1.0' }),
      headers: { 'content-type': 'application/json' },
    })
  })

  for (const selector of [
    '1.0.0',
    '1.1.0+build.5',
    '1.1.0%2Bbuild.5',
    '2.0.0-rc.1',
    'latest',
    'stable',
    '^1.0',
    '1.x',
    '9.9.9',
    'none',
  ])
    for (const path of [`/packs/plain/${selector}`, `/packs/plain/${selector}/manifest`])
      it(`GET ${path} is what the routes answer`, async () => {
        const direct = await answerTo(path, { routed: false })
        assert.deepEqual(direct, await answerTo(path, { routed: true }))
        assert.equal(direct.status, /none|9\.9\.9/.test(selector) ? 404 : 200)
      })

  it('says what a person said of a version, and its channels', async () => {
    const packs = ['2.0.0-rc.1', '1.0.0', '1.1.0+build.5'].map(async (version) => {
      const { body } = await answerTo(`/packs/plain/${version}/manifest`, { routed: false })
      const { state, message, replacedBy, channels } = (JSON.parse(body) as { pack: Record<string, unknown> }).pack
      return { state, message, replacedBy, channels }
    })
    const unsaid = { message: undefined, replacedBy: undefined }
    assert.deepEqual(await Promise.all(packs), [
      { state: 'deprecated', message: 'say "no"\nto\ttabs \\', replacedBy: 'plain@1.1.0', channels: [] },
      { state: 'active', ...unsaid, channels: ['stable'] },
      { state: 'active', ...unsaid, channels: ['latest'] },
    ])
  })

  it('forgets a version with its deletion by another process', async () => {
    await publish('short', '1.0.0', 'short.tgz')
    const paths = ['/packs/short/1.0.0', '/packs/short/1.0.0/manifest']
    for (const path of paths) assert.equal((await answerTo(path, { routed: false })).status, 200)
    await there.call('DELETE', '/packs/short/1.0.0')
    for (const path of paths) assert.equal((await answerTo(path, { routed: false })).status, 404)
  })

  it('many lists of the same page at once are all answered', async () => {
    const paths = ['/packs', '/packs?sort=updated', '/packs?limit=1', '/packs', '/packs?q=plain']
    const answers = await Promise.all([...paths, ...paths].map((path) => answerTo(path, { routed: false })))
    for (const [i, { status, body }] of answers.entries()) {
      assert.equal(status, 200)
      assert.equal(body, (await answerTo(paths[i % paths.length] ?? '', { routed: false })).body)
    }
  })
})
