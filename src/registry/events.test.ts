import assert from 'node:assert/strict'
import { after, before, it } from 'node:test'
import { connect } from '../db/client.ts'
import { eventBounds, recordEvents } from '../db/events.ts'
import { sampleBundle } from '../testing/bundle.ts'
import { untilBlocked } from '../testing/collect.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { ask, publish } from '../testing/packs.ts'
import { startRegistry, type TestRegistry } from '../testing/registry.ts'
import { startAt } from './events.ts'

let databases: TestDatabases
let registry: TestRegistry
let url: string
before(async () => {
  databases = await startDatabases()
  url = await databases.fresh()
  registry = await startRegistry(url, { WORKER: 'false' })
})
after(async () => {
  await registry.stop()
  await databases.stop()
})

type Told = { type: string; subject: string; data: Record<string, unknown> }

/** What has been told of a pack, in its order, in words. */
async function toldOf(packId: string): Promise<string[]> {
  const { body } = await ask(registry, 'GET', `/events?pack=${packId}`)
  return (body.events as Told[]).map(({ type, subject, data }) => {
    const { state, from, to } = data
    const name = type.replace(/^org\.stellaops\.registry\.(.*)\.v1$/, '$1')
    return [name, subject, state, name === 'channel.moved' ? `${from ?? '-'}→${to ?? '-'}` : from]
      .filter(Boolean)
      .join(' ')
  })
}

it('tells of a life of a pack, by either door, in its order', async () => {
  const manifest = { packId: 'told', version: '1.0.0' }
  assert.equal((await publish(registry, manifest)).status, 201)
  assert.equal((await publish(registry, manifest)).status, 200)
  assert.equal((await ask(registry, 'PUT', '/packs/told/channels/stable', { version: '1.0.0' })).status, 200)
  assert.equal((await ask(registry, 'PUT', '/packs/told/channels/stable', { version: '1.0.0' })).status, 200)
  const { body } = await ask(registry, 'GET', '/packs/told/1.0.0/manifest')
  const { manifestDigest } = body.pack as { manifestDigest: string }
  const { payload } = (
    await registry.deps.db.sql<{ payload: Buffer }[]>`select payload from manifests where digest = ${manifestDigest}`
  )[0] as { payload: Buffer }
  const headers = { 'content-type': 'application/vnd.oci.image.manifest.v1+json' }
  for (const tag of ['1.0.0', 'edge', 'edge'])
    assert.equal(
      (await registry.call('PUT', `/v2/packs/told/manifests/${tag}`, { headers, body: payload })).status,
      201,
    )
  assert.equal((await publish(registry, { packId: 'told', version: '1.1.0' })).status, 201)
  const yanked = { state: 'yanked', message: 'broken' }
  for (let again = 0; again < 2; again++)
    assert.equal((await ask(registry, 'PATCH', '/packs/told/1.1.0', yanked)).status, 200)
  assert.equal((await registry.call('DELETE', '/v2/packs/told/manifests/edge')).status, 202)
  assert.equal((await registry.call('DELETE', '/packs/told/1.0.0')).status, 200)
  assert.deepEqual(await toldOf('told'), [
    'pack.published told@1.0.0',
    'channel.moved told@latest -→1.0.0',
    'channel.moved told@stable -→1.0.0',
    'channel.moved told@edge -→1.0.0',
    'pack.published told@1.1.0',
    'channel.moved told@latest 1.0.0→1.1.0',
    'pack.state-changed told@1.1.0 yanked active',
    'channel.moved told@latest 1.1.0→1.0.0',
    'channel.moved told@edge 1.0.0→-',
    'pack.deleted told@1.0.0',
    'channel.moved told@stable 1.0.0→-',
    'channel.moved told@latest 1.0.0→-',
  ])
})

it('tells of an import, and of all that it publishes', async () => {
  const { bytes } = sampleBundle()
  const headers = { 'content-type': 'application/x-tar' }
  const answer = await registry.call('POST', '/bundles/import', { headers, body: bytes })
  assert.equal(answer.status, 201, await answer.text())
  assert.deepEqual(await toldOf('alpha'), [
    'pack.published alpha@1.0.0',
    'channel.moved alpha@stable -→1.0.0',
    'channel.moved alpha@latest -→1.0.0',
  ])
  assert.deepEqual(await toldOf('beta'), [
    'pack.published beta@2.1.0+build.7',
    'channel.moved beta@latest -→2.1.0+build.7',
  ])
})

it('lets any number of readers wait for a relay on one connection', async () => {
  const { deps } = registry
  const other = connect(url, { max: 1 })
  try {
    let asked: Promise<number>[] = []
    await other.begin(async (tx) => {
      await tx`select pg_advisory_xact_lock(${7_225_748_111}::bigint)`
      await recordEvents(deps.db.sql, [{ type: 'scrub.finding', data: {} }])
      asked = Array.from({ length: 30 }, () => startAt(deps, 'latest'))
      await untilBlocked(registry)
      // The relay of the process, which whoever waits has joined.
      assert.equal(deps.db.use.active, 1)
      assert.equal(deps.db.use.waiting, 0)
    })
    const places = new Set(await Promise.all(asked))
    assert.deepEqual(places, new Set([(await eventBounds(deps.db.sql)).last]))
  } finally {
    await other.end()
  }
})

it('tells nothing of what did not happen', async () => {
  await assert.rejects(
    registry.deps.db.sql.begin(async (tx) => {
      await recordEvents(tx, [{ type: 'job.failed', subject: 'tidy', data: { job: 'tidy' } }])
      throw new Error('taken back')
    }),
    /taken back/,
  )
  const { body } = await ask(registry, 'GET', '/events?type=job.*')
  assert.deepEqual(body.events, [])
})
