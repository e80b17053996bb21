import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { runRetention } from '../registry/retention-run.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { ask } from '../testing/packs.ts'
import {
  type Descriptor,
  imageType,
  indexType,
  sampleManifest,
  startRegistry,
  type TestRegistry,
} from '../testing/registry.ts'

// Repositories that are no packs: tags, and manifests without one.

type Json = Record<string, unknown>
type Removal = { name: string; outcome: string; outcomeReason?: string }

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

/** Pushes an image that is like no other. */
async function image(repository: string, reference: string, note = reference, over: object = {}): Promise<Descriptor> {
  const layer = await registry.pushBlob(repository, `${repository} ${note}`)
  return registry.pushManifest(
    repository,
    reference,
    sampleManifest({ layers: [layer], annotations: { note }, ...over }),
  )
}

/** Everything in a repository happened so many days before it did. */
async function age(repository: string, days: number): Promise<void> {
  const { sql } = registry.deps.db
  const of = sql`(select id from repositories where name = ${repository})`
  await sql`update manifests set pushed_at = pushed_at - make_interval(days => ${days}) where repository_id = ${of}`
  await sql`update tags set updated_at = updated_at - make_interval(days => ${days}) where repository_id = ${of}`
  await sql`update tag_history set moved_at = moved_at - make_interval(days => ${days}) where repository_id = ${of}`
}

async function decided(repository: string, policy: Json): Promise<string[]> {
  const { status, body } = await ask(registry, 'POST', '/retention/plan', {
    policy: { repositories: [repository], ...policy },
  })
  assert.equal(status, 200, JSON.stringify(body))
  return (body.decisions as { name: string; action: string; reason: string }[]).map(
    ({ name, action, reason }) => `${name} ${action === 'keep' ? 'kept' : 'removed'}: ${reason}`,
  )
}

async function request(name: string, repository: string, policy: Json): Promise<string> {
  await ask(registry, 'PUT', `/retention/policies/${name}`, { policy: { repositories: [repository], ...policy } })
  const { body } = await ask(registry, 'POST', '/retention/run', { name })
  return (body.run as { id: string }).id
}

const work = (signal = new AbortController().signal, progress: (value: object) => void = () => undefined) =>
  runRetention(registry.deps, {}, { signal, progress })

/** Has it planned, and stops the worker before it removes anything. */
async function planned(...asked: Parameters<typeof request>): Promise<string> {
  const id = await request(...asked)
  const cut = new AbortController()
  await assert.rejects(
    work(cut.signal, () => cut.abort(new Error('cut'))),
    /cut/,
  )
  return id
}

async function cameOf(id: string): Promise<string[]> {
  await work()
  const { run, removals } = (await ask(registry, 'GET', `/retention/runs/${id}`)).body as {
    run: Json
    removals: Removal[]
  }
  assert.equal(run.state, 'completed')
  return removals.map(({ name, outcome, outcomeReason }) =>
    [`${name} ${outcome}`, outcomeReason].filter(Boolean).join(': '),
  )
}

async function tagsOf(repository: string): Promise<string[]> {
  return ((await (await registry.call('GET', `/v2/${repository}/tags/list`)).json()) as { tags: string[] }).tags
}

const isThere = async (repository: string, { digest }: Descriptor) =>
  (await registry.call('HEAD', `/v2/${repository}/manifests/${digest}`)).status === 200

describe('tags', () => {
  it('go by when they were pushed; what they named stays', async () => {
    const images = [await image('ci/app', 'build-1'), await image('ci/app', 'v1')]
    await age('ci/app', 20)
    images.push(await image('ci/app', 'build-2'), await image('ci/app', 'build-3'))
    // Pushed again is new again.
    await registry.call('PUT', '/v2/ci/app/manifests/build-1', {
      body: await (await registry.call('GET', '/v2/ci/app/manifests/build-1')).text(),
      headers: { 'content-type': imageType },
    })
    const policy = { tags: { keepNewest: 2, keepMatching: ['v*'] } }
    assert.deepEqual(await decided('ci/app', policy), [
      'build-1 kept: among the newest 2',
      'build-3 kept: among the newest 2',
      'build-2 removed: not among the newest 2 and its name is like none of v*',
      'v1 kept: its name is like v*',
    ])
    assert.deepEqual(await cameOf(await request('ci', 'ci/app', policy)), ['build-2 removed'])
    assert.deepEqual(await tagsOf('ci/app'), ['build-1', 'build-3', 'v1'])
    for (const one of images) assert.ok(await isThere('ci/app', one))
  })

  it('of referrers never go', async () => {
    const subject = await image('ci/signed', 'v1')
    const fallback = subject.digest.replace(':', '-')
    for (const tag of [fallback, `${fallback}.sig`]) await image('ci/signed', tag)
    await age('ci/signed', 20)
    const told = await decided('ci/signed', { tags: { keepNewerThan: '1d', keepMatching: ['v*'] } })
    assert.deepEqual(told.sort(), [
      `${fallback} kept: it belongs to ${subject.digest}`,
      `${fallback}.sig kept: it belongs to ${subject.digest}`,
      'v1 kept: its name is like v*',
    ])
  })

  it('that are pushed between plan and removal are looked at again', async () => {
    for (const tag of ['a', 'b', 'c']) await image('ci/raced', tag)
    await age('ci/raced', 20)
    const id = await planned('raced', 'ci/raced', { tags: { keepNewerThan: '1d' } })
    await image('ci/raced', 'a', 'another')
    await registry.call('DELETE', '/v2/ci/raced/manifests/b')
    assert.deepEqual((await cameOf(id)).sort(), [
      'a kept: newer than 1d',
      'b gone: it was not there any more, or had become something else',
      'c removed',
    ])
    assert.deepEqual(await tagsOf('ci/raced'), ['a'])
  })

  it('of packs are none of its matter', async () => {
    assert.deepEqual(await decided('packs/**', { tags: { keepNewest: 1 }, untagged: { keepNewerThan: '1h' } }), [])
  })
})

describe('manifests without a tag', () => {
  const policy = { untagged: { keepNewerThan: '7d' } }

  it('go, but for members of an index, and what refers to something', async () => {
    const repository = 'ci/multi'
    const member = await image(repository, 'digest', 'member')
    const index = { schemaVersion: 2, mediaType: indexType, manifests: [member] }
    const tagged = await registry.pushManifest(repository, 'v1', index)
    const signature = await image(repository, 'digest', 'signature', { artifactType: 'a/b', subject: tagged })
    const loose = await image(repository, 'digest', 'loose')
    const itsSignature = await image(repository, 'digest', 'signature of loose', {
      artifactType: 'a/b',
      subject: loose,
    })
    await age(repository, 8)
    const fresh = await image(repository, 'digest', 'fresh')
    assert.deepEqual(
      new Set(await decided(repository, policy)),
      new Set([
        `${member.digest} kept: the index ${tagged.digest} lists it`,
        `${signature.digest} kept: it stays as long as ${tagged.digest}, which it refers to`,
        `${loose.digest} removed: older than 7d`,
        `${itsSignature.digest} kept: it stays as long as ${loose.digest}, which it refers to`,
        `${fresh.digest} kept: newer than 7d`,
      ]),
    )
    assert.deepEqual(await cameOf(await request('multi', repository, policy)), [`${loose.digest} removed`])
    for (const [one, there] of [
      [member, true],
      [tagged, true],
      [signature, true],
      [fresh, true],
      [loose, false],
      [itsSignature, false],
    ] as const)
      assert.equal(await isThere(repository, one), there)
  })

  it('are without one since the last tag left them', async () => {
    const repository = 'ci/moved'
    const first = await image(repository, 'edge', 'first')
    const second = await image(repository, 'beta', 'second')
    await age(repository, 30)
    await image(repository, 'edge', 'third')
    await registry.call('DELETE', `/v2/${repository}/manifests/beta`)
    assert.deepEqual(
      new Set(await decided(repository, policy)),
      new Set([first, second].map(({ digest }) => `${digest} kept: newer than 7d`)),
    )
    await age(repository, 8)
    assert.deepEqual(
      new Set(await decided(repository, policy)),
      new Set([first, second].map(({ digest }) => `${digest} removed: older than 7d`)),
    )
  })

  it('that are tagged, listed or pushed again between plan and removal stay', async () => {
    const repository = 'ci/between'
    const [tagged, listed, again, loose] = [
      await image(repository, 'digest', '1'),
      await image(repository, 'digest', '2'),
      await image(repository, 'digest', '3'),
      await image(repository, 'digest', '4'),
    ]
    await age(repository, 8)
    const id = await planned('between', repository, policy)
    await image(repository, 'now', '1')
    await registry.pushManifest(repository, 'list', { schemaVersion: 2, mediaType: indexType, manifests: [listed] })
    await image(repository, 'digest', '3')
    const told = new Map((await cameOf(id)).map((words) => [words.split(' ')[0] ?? '', words.slice(72)]))
    const list = (await registry.call('HEAD', `/v2/${repository}/manifests/list`)).headers.get('docker-content-digest')
    assert.deepEqual(Object.fromEntries(told), {
      [tagged.digest]: 'gone: it was not there any more, or had become something else',
      [listed.digest]: `kept: the index ${list} lists it`,
      [again.digest]: 'kept: newer than 7d',
      [loose.digest]: 'removed',
    })
  })

  it('that somebody tags in the same moment are tagged, or were never there', async () => {
    const repository = 'ci/tossed'
    const notes = Array.from({ length: 20 }, (_, i) => String(i))
    for (const note of notes) await image(repository, 'digest', note)
    await age(repository, 8)
    await request('tossed', repository, policy)
    const pushes = notes.map(async (note) => {
      const body = JSON.stringify(
        sampleManifest({
          layers: [await registry.pushBlob(repository, `${repository} ${note}`)],
          annotations: { note },
        }),
      )
      const path = `/v2/${repository}/manifests/tag-${note}`
      return (await registry.call('PUT', path, { body, headers: { 'content-type': imageType } })).status
    })
    const [statuses] = await Promise.all([Promise.all(pushes), work()])
    assert.deepEqual(new Set(statuses), new Set([201]))
    for (const note of notes)
      assert.equal((await registry.call('GET', `/v2/${repository}/manifests/tag-${note}`)).status, 200)
  })

  it('go page by page where there are many', async () => {
    const { sql } = registry.deps.db
    await image('ci/many', 'kept')
    // Straight into the table: 2,500 pushes take a while.
    await sql`
      insert into manifests (repository_id, digest, media_type, size, payload, pushed_at)
      select r.id, 'sha256:' || encode(sha256(i::text::bytea), 'hex'), ${imageType}, 2, '{}', now() - interval '30 days'
      from repositories r, generate_series(1, 2500) i where r.name = 'ci/many'`
    const id = await request('many', 'ci/many', policy)
    await work()
    const { run } = (await ask(registry, 'GET', `/retention/runs/${id}`)).body as { run: Json }
    assert.deepEqual([run.planned, run.removed, run.state], [2500, 2500, 'completed'])
    let seen = 0
    let next: unknown = ''
    do {
      const { body } = await ask(registry, 'GET', `/retention/runs/${id}?limit=900${next && `&after=${next}`}`)
      seen += (body.removals as Removal[]).length
      next = body.next ?? ''
    } while (next)
    assert.equal(seen, 2500)
    assert.deepEqual(await tagsOf('ci/many'), ['kept'])
  })
})
