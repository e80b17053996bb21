import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import bcrypt from 'bcryptjs'
import { connect } from '../db/client.ts'
import { forgetEvents, recordEvents, relayEvents } from '../db/events.ts'
import type { PackId } from '../packs/pack.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { openEvents } from '../testing/events.ts'
import { ask, codeIn, publish } from '../testing/packs.ts'
import { startRegistry, type TestRegistry } from '../testing/registry.ts'
import { waitFor } from '../testing/wait.ts'

let databases: TestDatabases
before(async () => {
  databases = await startDatabases()
})
after(() => databases?.stop())

type Page = { events: { id: string; subject: string; sequence: string; data: Record<string, string> }[]; next: string }

async function pageOf(registry: TestRegistry, query = ''): Promise<Page> {
  const { status, body } = await ask(registry, 'GET', `/events${query}`)
  assert.equal(status, 200)
  return body as Page
}

async function allOf(registry: TestRegistry, query = ''): Promise<Page['events']> {
  const all: Page['events'] = []
  for (let after = '0'; ; ) {
    const { events, next } = await pageOf(registry, `?after=${after}&limit=7${query}`)
    all.push(...events)
    if (next === after) return all
    after = next
  }
}

const told = (packId: string, n: number) => ({
  type: 'pack.published' as const,
  packId: packId as PackId,
  subject: `${packId}@${n}`,
  data: { packId, n },
})

describe('events over two replicas', () => {
  let here: TestRegistry
  let there: TestRegistry
  let url: string
  before(async () => {
    url = await databases.fresh()
    here = await startRegistry(url)
    there = await startRegistry(url)
  })
  after(async () => {
    await here?.stop()
    await there?.stop()
  })

  it('one that commits late is missed by nobody who goes on from a position', async () => {
    const first = connect(url, { max: 1 })
    const second = connect(url, { max: 1 })
    try {
      let commit = () => {}
      const mayCommit = new Promise<void>((resolve) => {
        commit = resolve
      })
      let late: Promise<unknown> = Promise.resolve()
      await new Promise<void>((written) => {
        late = first.begin(async (tx) => {
          await recordEvents(tx, [told('late', 1)])
          written()
          await mayCommit
        })
      })
      await second.begin((tx) => recordEvents(tx, [told('early', 1)]))
      const before = await pageOf(here, '?pack=late,early')
      assert.deepEqual(
        before.events.map(({ subject }) => subject),
        ['early@1'],
      )
      commit()
      await late
      const rest = await pageOf(here, `?pack=late,early&after=${before.next}`)
      assert.deepEqual(
        rest.events.map(({ subject }) => subject),
        ['late@1'],
      )
    } finally {
      await Promise.all([first.end(), second.end()])
    }
  })

  it('a pack has one order, whoever changes it and whoever relays', async () => {
    for (const version of ['1.0.0', '1.0.1', '1.0.2', '1.0.3'])
      assert.equal((await publish(here, { packId: 'chain', version }, version)).status, 201)
    const relaying = new AbortController()
    const relays = [here, there].map(async ({ deps }) => {
      while (!relaying.signal.aborted) await relayEvents(deps.db.sql)
    })
    const moving = Promise.all(
      Array.from({ length: 40 }, async (_, i) => {
        const registry = i % 2 ? here : there
        const body = { version: `1.0.${i % 4}` }
        assert.equal(
          (await ask(registry, 'PUT', '/packs/chain/channels/stable?allowOlder=true&reason=test', body)).status,
          200,
        )
      }),
    )
    await moving.finally(() => relaying.abort())
    await Promise.all(relays)
    const moves = (await allOf(there, '&pack=chain&type=channel.*')).filter(({ data }) => data.channel === 'stable')
    assert.ok(moves.length > 4, `only ${moves.length} moves`)
    // Each move begins where the one before it ended.
    assert.deepEqual(
      moves.slice(1).map(({ data }) => data.from),
      moves.slice(0, -1).map(({ data }) => data.to),
    )
    const { body } = await ask(here, 'GET', '/packs/chain/stable/manifest')
    assert.equal(moves.at(-1)?.data.to, (body.pack as { version: string }).version)
  })

  it('a stream that is cut again and again has no gap and nothing twice', async () => {
    const { next } = await pageOf(here, '?after=latest')
    const total = 60
    const publishing = (async () => {
      for (let n = 0; n < total; n += 2)
        await Promise.all(
          [here, there].map((registry, i) =>
            registry.deps.db.sql.begin((tx) => recordEvents(tx, [told('cut', n + i)])),
          ),
        )
    })()
    const seen: string[] = []
    let lastId = next
    for (let turn = 0; seen.length < total; turn++) {
      const stream = await openEvents((turn % 2 ? here : there).url, '/events?pack=cut', { 'last-event-id': lastId })
      await stream.until(Math.min(5, total - seen.length))
      stream.cut()
      seen.push(...stream.events.map(({ data }) => String(data.id)))
      lastId = stream.lastId
    }
    await publishing
    assert.deepEqual(
      seen,
      (await allOf(here, '&pack=cut')).map(({ id }) => id),
    )
  })

  it('a client that takes nothing holds nobody back, and finds everything when it goes on', async () => {
    const slow = await openEvents(here.url, '/events?pack=many')
    slow.pause()
    const quick = await openEvents(here.url, '/events?pack=many')
    // More than connections hold, in few events: the slow one is dropped if the quick one takes too long.
    const [count, filler] = [600, 'x'.repeat(10_000)]
    for (let n = 0; n < count; n += 100)
      await recordEvents(
        there.deps.db.sql,
        Array.from({ length: 100 }, (_, i) => ({
          ...told('many', n + i),
          data: { packId: 'many', n: n + i, filler },
        })),
      )
    await relayEvents(there.deps.db.sql)
    await quick.until(count)
    assert.ok(slow.events.length < count)
    slow.resume()
    await slow.until(count)
    for (const { events } of [slow, quick])
      assert.deepEqual(
        events.map(({ data }) => (data.data as { n: number }).n),
        Array.from({ length: count }, (_, n) => n),
      )
    slow.cut()
    quick.cut()
  })

  it('goes on when the database cuts the connection that listens', async () => {
    const stream = await openEvents(here.url, '/events?pack=outage')
    const cut = await here.deps.db.sql`
      select pg_terminate_backend(pid) from pg_stat_activity
      where datname = current_database() and query ilike 'listen %'`
    assert.ok(cut.length > 0)
    await recordEvents(there.deps.db.sql, [told('outage', 1)])
    await stream.until(1)
    stream.cut()
  })

  it('is asked for by type and pack, and refuses what it does not know', async () => {
    await recordEvents(here.deps.db.sql, [
      told('filter-a', 1),
      told('filter-b', 1),
      { ...told('filter-a', 2), type: 'pack.deleted' },
    ])
    const subjects = async (query: string) => (await allOf(here, query)).map(({ subject }) => subject)
    assert.deepEqual(await subjects('&pack=filter-*&type=pack.published'), ['filter-a@1', 'filter-b@1'])
    assert.deepEqual(await subjects('&pack=filter-a&type=pack.*'), ['filter-a@1', 'filter-a@2'])
    for (const query of ['?type=nonsense', '?pack=A', '?after=x', '?after=-1', '?limit=0', '?more=1']) {
      const { status, body } = await ask(here, 'GET', `/events${query}`)
      assert.deepEqual([status, codeIn(body)], [400, 'QUERY_INVALID'], query)
    }
    const bad = await here.call('GET', '/events', { headers: { accept: 'text/event-stream', 'last-event-id': 'x' } })
    assert.equal(bad.status, 400)
  })

  it('says of a position from which it cannot go on that it is gone', async () => {
    const gone = async (after: string) => {
      const { status, body } = await ask(here, 'GET', `/events?after=${after}`)
      return [status, codeIn(body)]
    }
    assert.deepEqual(await gone('999999999'), [410, 'EVENTS_GONE'])
    const { next } = await pageOf(here, '?limit=3')
    await here.deps.db.sql`update events set at = now() - interval '31 days' where position <= ${next}`
    assert.equal(await forgetEvents(here.deps.db.sql, 30 * 86_400, 100), 3)
    assert.deepEqual(await gone('1'), [410, 'EVENTS_GONE'])
    assert.equal((await pageOf(here, `?after=${next}`)).events.length > 0, true)
    assert.equal((await pageOf(here)).events.length > 0, true)
  })

  it('a server that stops ends its streams whole, and at once', async () => {
    const third = await startRegistry(url)
    const stream = await openEvents(third.url)
    await third.stop()
    assert.equal(await stream.ended, 'whole')
  })
})

describe('who is told', () => {
  let registry: TestRegistry
  let folder: string
  const basic = (name: string) => `Basic ${Buffer.from(`${name}:${name}`).toString('base64')}`
  const users = { boss: { repositories: ['**'], actions: ['pull', 'push', 'delete'], admin: true } }
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'packs-events-'))
    await writeFile(join(folder, 'users'), `boss:${bcrypt.hashSync('boss', 4)}`)
    const rules = Object.entries(users).map(([sub, rule]) => ({ ...rule, claims: { sub } }))
    await writeFile(join(folder, 'policy.json'), JSON.stringify({ rules }))
    registry = await startRegistry(await databases.fresh(), {
      ...{ AUTH: 'htpasswd', HTPASSWD_FILE: join(folder, 'users'), POLICY_FILE: join(folder, 'policy.json') },
      ANONYMOUS_PULL: 'packs/open-*',
    })
  })
  after(async () => {
    await registry?.stop()
    await rm(folder, { recursive: true, force: true })
  })

  const tokenOf = async (name: string, pull: string[]) => {
    const answer = await registry.call('POST', '/tokens', {
      headers: { authorization: basic('boss'), 'content-type': 'application/json' },
      body: JSON.stringify({ name, pull }),
    })
    return ((await answer.json()) as { token: string }).token
  }

  it('what they may read, and administrators of what is of no pack', async () => {
    const token = await tokenOf('partly', ['packs/secret-a'])
    const sql = registry.deps.db.sql
    await recordEvents(sql, [
      told('secret-a', 1),
      told('secret-b', 1),
      told('open-c', 1),
      { type: 'import.completed', subject: 'some', data: { import: 'some' } },
    ])
    const wanted: Record<string, string[]> = {
      [basic('boss')]: ['secret-a@1', 'secret-b@1', 'open-c@1', 'some'],
      [`Bearer ${token}`]: ['secret-a@1', 'open-c@1'],
      '': ['open-c@1'],
    }
    for (const [authorization, subjects] of Object.entries(wanted)) {
      const headers: Record<string, string> = authorization ? { authorization } : {}
      const answer = await registry.call('GET', '/events', { headers })
      const page = (await answer.json()) as Page
      assert.deepEqual(
        page.events.map(({ subject }) => subject),
        subjects,
      )
      const stream = await openEvents(registry.url, '/events?after=0', headers)
      await stream.until(subjects.length)
      assert.deepEqual(
        stream.events.map(({ data }) => data.subject),
        subjects,
      )
      stream.cut()
    }
  })

  it("of one client are so many at the most, and no other's fewer", async (t) => {
    const warnings: string[] = []
    const warn = ({ name, message }: Error) => void (name === 'MaxListenersExceededWarning' && warnings.push(message))
    process.on('warning', warn)
    t.after(() => process.off('warning', warn))
    const streams = await Promise.all(Array.from({ length: 200 }, () => openEvents(registry.url)))
    await assert.rejects(openEvents(registry.url), /429/)
    assert.equal((await registry.call('GET', '/events')).status, 200, 'pages are no streams')
    const other = await openEvents(registry.url, '/events', { authorization: basic('boss') })
    other.cut()
    streams.pop()?.cut()
    // The server hears of it a moment later.
    const again = await waitFor('room for one more stream', () => openEvents(registry.url))
    for (const stream of [...streams, again]) stream.cut()
    assert.deepEqual(warnings, [], 'many streams are no leak')
  })

  it('a token that is revoked ends its streams', async () => {
    const token = await tokenOf('short', ['packs/*'])
    const stream = await openEvents(registry.url, '/events', { authorization: `Bearer ${token}` })
    await recordEvents(registry.deps.db.sql, [told('seen', 1)])
    await registry.deps.relay.ring()
    await stream.until(1)
    await registry.call('DELETE', '/tokens/short', { headers: { authorization: basic('boss') } })
    await stream.ended
    await assert.rejects(openEvents(registry.url, '/events', { authorization: `Bearer ${token}` }), /401/)
  })
})
