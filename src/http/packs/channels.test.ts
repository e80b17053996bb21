import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { sealAudit } from '../../registry/audit.ts'
import { startDatabases, type TestDatabases } from '../../testing/database.ts'
import { ask, codeIn, publish } from '../../testing/packs.ts'
import { imageType, startRegistry, type TestRegistry } from '../../testing/registry.ts'
import { waitFor } from '../../testing/wait.ts'

type Json = Record<string, unknown>

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

async function published(packId: string, ...versions: string[]): Promise<void> {
  for (const version of versions)
    assert.equal((await publish(registry, { packId, version }, `${packId} ${version}`)).status, 201)
}

const set = (packId: string, channel: string, version: string, query = '') =>
  ask(registry, 'PUT', `/packs/${packId}/channels/${channel}${query}`, { version })

/** Pushes the manifest of a version again, by another tag, as an OCI client does. */
async function push(packId: string, version: string, tag: string, query = ''): Promise<{ status: number; body: Json }> {
  const place = `/v2/packs/${packId}/manifests`
  const body = await (await registry.call('GET', `${place}/${version}`)).text()
  const answer = await registry.call('PUT', `${place}/${tag}${query}`, { body, headers: { 'content-type': imageType } })
  const text = await answer.text()
  return { status: answer.status, body: text ? (JSON.parse(text) as Json) : {} }
}

const named = async (packId: string, channel: string) =>
  ((await ask(registry, 'GET', `/packs/${packId}/${channel}/manifest`)).body.pack as Json | undefined)?.version

describe('a channel', () => {
  it('goes forward by either door, and stays where it is as often as asked', async () => {
    await published('forward', '1.0.0', '1.1.0', '2.0.0-rc.1', '2.0.0')
    for (const version of ['1.0.0', '1.0.0', '1.1.0', '2.0.0-rc.1'])
      assert.equal((await set('forward', 'stable', version)).status, 200)
    assert.equal((await push('forward', '2.0.0', 'stable')).status, 201)
    assert.equal((await push('forward', '2.0.0', 'stable')).status, 201)
    assert.equal(await named('forward', 'stable'), '2.0.0')
  })

  it('does not go back by REST, to a pre-release neither', async () => {
    await published('rest', '1.0.0', '2.0.0-rc.1', '2.0.0')
    await set('rest', 'stable', '2.0.0')
    for (const version of ['1.0.0', '2.0.0-rc.1']) {
      const { status, body } = await set('rest', 'stable', version)
      assert.deepEqual([status, codeIn(body)], [409, 'CHANNEL_BACKWARDS'])
      assert.deepEqual(body.about, { channel: 'stable', from: '2.0.0', to: version })
      assert.match(String(body.detail), /allowOlder=true&reason=/)
    }
    assert.equal(await named('rest', 'stable'), '2.0.0')
  })

  it('does not go back by a push of its tag, which says how to ask for it', async () => {
    await published('tag', '1.0.0', '2.0.0')
    await set('tag', 'stable', '2.0.0')
    const { status, body } = await push('tag', '1.0.0', 'stable')
    const [error] = body.errors as Json[]
    assert.deepEqual([status, error?.code], [409, 'DENIED'])
    assert.match(JSON.stringify(error), /PUT \/packs\/tag\/channels\/stable\?allowOlder=true&reason=/)
    assert.equal(await named('tag', 'stable'), '2.0.0')
  })

  it('that would go back takes the version that was pushed with it along', async () => {
    await published('whole', '1.0.0', '2.0.0')
    await set('whole', 'stable', '2.0.0')
    assert.equal((await push('whole', '1.0.0', '1.0.0', '?tag=edge&tag=stable')).status, 409)
    assert.equal(await named('whole', 'edge'), undefined)
  })

  it('goes back where that is meant, and the audit keeps why', async () => {
    await published('meant', '1.0.0', '2.0.0')
    await set('meant', 'stable', '2.0.0')
    for (const query of ['?allowOlder=true', '?allowOlder=true&reason=', '?allowOlder=true&reason=%20'])
      assert.equal((await set('meant', 'stable', '1.0.0', query)).status, 400)
    assert.equal((await set('meant', 'stable', '1.0.0', '?allowOlder=true&reason=2.0.0%20denies%20all')).status, 200)
    assert.equal(await named('meant', 'stable'), '1.0.0')
    // Without a login, an answer does not wait for its event.
    const events = await waitFor('the event with the reason', async () => {
      const all = (await ask(registry, 'GET', '/audit?repository=packs/meant')).body.events as Json[]
      return all.some((event) => event.reason === '2.0.0 denies all') && all
    })
    assert.equal(events.filter((event) => event.reason !== undefined).length, 1)
    // It is sealed with the event; what is sealed of others is what it was before there were reasons.
    await sealAudit(registry.deps)
    assert.equal((await ask(registry, 'GET', '/audit/verify')).body.intact, true)
    const lengths = await registry.deps.db.sql<{ length: number; reasoned: boolean }[]>`
      select distinct json_array_length(audit_text(e)::json) as length, e.reason is not null as reasoned
      from audit_events e order by 1`
    assert.deepEqual(
      [...lengths],
      [
        { length: 14, reasoned: false },
        { length: 15, reasoned: true },
      ],
    )
  })

  it('begins anew where it was deleted, or where nothing is left of what it named', async () => {
    await published('anew', '1.0.0', '2.0.0', '3.0.0')
    await set('anew', 'stable', '3.0.0')
    assert.equal((await registry.call('DELETE', '/v2/packs/anew/manifests/stable')).status, 202)
    assert.equal((await set('anew', 'stable', '2.0.0')).status, 200)
    assert.equal((await ask(registry, 'DELETE', '/packs/anew/2.0.0')).status, 200)
    assert.equal((await set('anew', 'stable', '1.0.0')).status, 200)
  })

  it('ends at the newest of those that many set at once, by both doors', async () => {
    const versions = Array.from({ length: 12 }, (_, i) => `1.${i}.0`)
    await published('race', ...versions)
    const answers = await Promise.all(
      versions.map((version, i) => (i % 2 ? set('race', 'stable', version) : push('race', version, 'stable'))),
    )
    assert.equal(await named('race', 'stable'), '1.11.0')
    assert.ok(answers.every(({ status }) => [200, 201, 409].includes(status)))
  })
})
