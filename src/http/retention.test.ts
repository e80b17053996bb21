import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { rebuildPacks } from '../registry/rebuild.ts'
import { runRetention } from '../registry/retention-run.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { ask, codeIn, publish } from '../testing/packs.ts'
import { startRegistry, type TestRegistry } from '../testing/registry.ts'

type Json = Record<string, unknown>
type Decision = { repository: string; kind: string; name: string; action: string; reason: string; rule?: string }
type Plan = { decisions: Decision[]; kept: number; removed: number; freedBytes: number; next?: string }
type Removal = { name: string; reason: string; outcome?: string; outcomeReason?: string }

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

async function published(packId: string, versions: readonly string[], over: Json = {}): Promise<void> {
  for (const version of versions) {
    const { status, body } = await publish(registry, { packId, version, ...over }, `${packId} ${version}`)
    assert.equal(status, 201, JSON.stringify(body))
  }
}

async function versionsOf(packId: string): Promise<string[]> {
  const { body } = await ask(registry, 'GET', `/packs/${packId}/versions`)
  return (body.versions as { version: string }[]).map(({ version }) => version)
}

async function setPolicy(name: string, policy: Json, enabled = false): Promise<void> {
  const { status, body } = await ask(registry, 'PUT', `/retention/policies/${name}`, { policy, enabled })
  assert.equal(status, 200, JSON.stringify(body))
}

/** A policy of one pack that keeps its newest. */
async function keepNewest(packId: string, count: number): Promise<void> {
  await setPolicy(packId, { repositories: [`packs/${packId}`], versions: { keepNewest: count } })
}

async function plan(body: Json, query = ''): Promise<Plan> {
  const answer = await ask(registry, 'POST', `/retention/plan${query}`, body)
  assert.equal(answer.status, 200, JSON.stringify(answer.body))
  return answer.body as Plan
}

const inWords = ({ decisions }: Plan) =>
  decisions.map(({ name, action, reason }) => `${name} ${action === 'keep' ? 'kept' : 'removed'}: ${reason}`)

async function request(name?: string): Promise<string> {
  const { status, body } = await ask(registry, 'POST', '/retention/run', name === undefined ? {} : { name })
  assert.equal(status, 202, JSON.stringify(body))
  return (body.run as { id: string }).id
}

const work = (signal = new AbortController().signal, progress: (value: object) => void = () => undefined) =>
  runRetention(registry.deps, {}, { signal, progress })

async function report(id: string): Promise<{ run: Json; removals: Removal[] }> {
  return (await ask(registry, 'GET', `/retention/runs/${id}`)).body as { run: Json; removals: Removal[] }
}

/** Has a policy of one repository planned, and stops the worker before it removes anything. */
async function planned(name: string): Promise<string> {
  const id = await request(name)
  const cut = new AbortController()
  await assert.rejects(
    work(cut.signal, () => cut.abort(new Error('cut'))),
    /cut/,
  )
  assert.equal((await report(id)).run.state, 'removing')
  return id
}

/** Goes on with it, and tells what came of each decision. */
async function carriedOut(id: string): Promise<string[]> {
  await work()
  const { run, removals } = await report(id)
  assert.equal(run.state, 'completed')
  return removals.map(
    ({ name, outcome, outcomeReason }) => `${name} ${[outcome, outcomeReason].filter(Boolean).join(': ')}`,
  )
}

describe('policies', () => {
  it('without one that is enabled, nothing is planned and nothing runs', async () => {
    await published('quiet', ['1.0.0', '1.1.0'])
    assert.deepEqual(await plan({}), { decisions: [], kept: 0, removed: 0, freedBytes: 0 })
    const watch = { signal: new AbortController().signal, progress: () => undefined }
    assert.equal(await runRetention(registry.deps, { scheduled: true }, watch), undefined)
    assert.deepEqual((await ask(registry, 'GET', '/retention/runs')).body, { runs: [] })
  })

  it('are set, listed, shown and removed', async () => {
    const policy = { repositories: ['packs/gone-*'], prereleases: { keepUnreleased: true } }
    await setPolicy('gone', policy)
    const { body } = await ask(registry, 'GET', '/retention/policies/gone')
    const { updatedAt, ...shown } = body.policy as Json
    assert.deepEqual(shown, { name: 'gone', enabled: false, policy, updatedBy: 'anonymous' })
    const { policies } = (await ask(registry, 'GET', '/retention/policies')).body as { policies: Json[] }
    assert.ok(policies.some(({ name }) => name === 'gone') && updatedAt)
    assert.deepEqual((await ask(registry, 'DELETE', '/retention/policies/gone')).body, { deleted: true })
    assert.deepEqual((await ask(registry, 'DELETE', '/retention/policies/gone')).body, { deleted: false })
    for (const [method, path, sent] of [
      ['GET', '/retention/policies/gone', undefined],
      ['POST', '/retention/run', { name: 'gone' }],
      ['POST', '/retention/plan', { name: 'gone' }],
    ] as const) {
      const answer = await ask(registry, method, path, sent)
      assert.deepEqual([answer.status, codeIn(answer.body)], [404, 'POLICY_UNKNOWN'])
    }
  })

  const wrong: [name: string, policy: Json, says: RegExp][] = [
    ['no repositories', { versions: { keepNewest: 1 } }, /repositories/],
    ['repositories that are none', { repositories: ['Packs'], versions: { keepNewest: 1 } }, /glob/],
    ['an empty list', { repositories: [], versions: { keepNewest: 1 } }, /at least one/],
    ['nothing that it is about', { repositories: ['**'] }, /versions, prereleases, tags, untagged/],
    ['a section that keeps nothing', { repositories: ['**'], versions: {} }, /must keep something: keepNewest/],
    ['a number below one', { repositories: ['**'], versions: { keepNewest: 0 } }, /at least 1/],
    ['an age without a unit', { repositories: ['**'], versions: { keepNewerThan: '90' } }, /90d/],
    ['a rule of another section', { repositories: ['**'], untagged: { keepNewest: 3 } }, /keepNewest/],
    ['names of versions', { repositories: ['**'], versions: { keepMatching: ['1.*'] } }, /keepMatching/],
    ['tags that cannot be', { repositories: ['**'], tags: { keepMatching: ['a/b'] } }, /must be a tag/],
    ['a misspelt section', { repositories: ['**'], version: { keepNewest: 1 } }, /version/],
  ]
  for (const [name, policy, says] of wrong)
    it(`with ${name} are refused`, async () => {
      const { status, body } = await ask(registry, 'PUT', '/retention/policies/wrong', { policy })
      assert.deepEqual([status, codeIn(body)], [400, 'REQUEST_INVALID'])
      assert.match(String(body.detail), says)
    })

  it('are called by names that can be', async () => {
    const policy = { repositories: ['**'], versions: { keepNewest: 1 } }
    assert.equal((await ask(registry, 'PUT', '/retention/policies/No%20name', { policy })).status, 400)
    assert.equal((await ask(registry, 'POST', '/retention/plan', { policy, name: 'a b' })).status, 400)
  })
})

describe('a plan', () => {
  it('says of each version whether it stays, and why; and removes nothing', async () => {
    await published('told', ['1.0.0', '1.1.0', '1.2.0', '1.3.0', '1.4.0', '2.0.0', '3.0.0-rc.1'])
    await published('told-user', ['1.0.0'], { dependencies: ['told@~1.2.0'] })
    await published('told-suite', ['1.0.0'], { type: 'policy', dependencies: ['told@~1.3.0'] })
    await ask(registry, 'PUT', '/packs/told/channels/stable', { version: '1.1.0' })
    await ask(registry, 'PUT', '/retention/holds/told/1.0.0', { reason: 'case 7' })
    await setPolicy('told', { repositories: ['packs/told'], versions: { keepNewest: 1 } })
    const told = await plan({ name: 'told' })
    assert.deepEqual(inWords(told), [
      '2.0.0 kept: it is the latest',
      '1.4.0 removed: not among the newest 1',
      '1.3.0 kept: told-suite 1.0.0 depends on it (~1.3.0)',
      '1.2.0 kept: told-user 1.0.0 depends on it (~1.2.0)',
      '1.1.0 kept: channel stable points at it',
      '1.0.0 kept: held by anonymous: case 7',
    ])
    assert.deepEqual([told.kept, told.removed], [5, 1])
    // Its content, and the config that no other version has.
    assert.ok(told.freedBytes > 'told 1.4.0'.length)
    assert.equal((await versionsOf('told')).length, 7)
  })

  it('of a policy that is not stored is of it alone, and the enabled ones still keep', async () => {
    await published('tried', ['1.0.0', '1.1.0', '1.2.0'])
    const policy = { repositories: ['packs/tried'], versions: { keepNewest: 1 } }
    assert.equal((await plan({ policy })).removed, 2)
    await setPolicy('tried', { repositories: ['packs/tried'], versions: { keepNewest: 2 } }, true)
    assert.deepEqual(inWords(await plan({ policy })).slice(1), [
      '1.1.0 kept: among the newest 2 (policy tried)',
      '1.0.0 removed: not among the newest 1',
    ])
    // In the place of the one of its name.
    assert.equal((await plan({ policy, name: 'tried' })).removed, 2)
    await ask(registry, 'DELETE', '/retention/policies/tried')
  })

  it('comes in pages that say together what one says', async () => {
    for (const packId of ['paged-a', 'paged-b', 'paged-c']) await published(packId, ['1.0.0', '1.1.0', '1.2.0'])
    await registry.pushManifest('paged/image', 'one')
    const policy = {
      repositories: ['packs/paged-*', 'paged/**'],
      ...{ versions: { keepNewest: 1 }, tags: { keepNewerThan: '1h' }, untagged: { keepNewerThan: '1h' } },
    }
    const whole = await plan({ policy })
    assert.equal(whole.decisions.length, 10)
    for (const limit of [1, 2, 3, 4, 9]) {
      const pages: Plan[] = []
      let next = ''
      do {
        pages.push(await plan({ policy }, `?limit=${limit}${next && `&after=${next}`}`))
        next = pages.at(-1)?.next ?? ''
      } while (next)
      assert.deepEqual(
        pages.flatMap(({ decisions }) => decisions),
        whole.decisions,
      )
      assert.equal(
        pages.reduce((sum, { freedBytes }) => sum + freedBytes, 0),
        whole.freedBytes,
      )
    }
    const other = await ask(registry, 'POST', '/retention/plan?after=abc.def', { policy })
    assert.equal(other.status, 400)
  })
})

describe('a run', () => {
  it('removes what the plan said, with signatures, and says who did it and why', async () => {
    await published('done', ['1.0.0', '1.1.0', '1.2.0'])
    const { body } = await ask(registry, 'GET', '/packs/done/1.0.0/manifest')
    const { manifestDigest } = body.pack as { manifestDigest: string }
    const subject = { mediaType: 'application/vnd.oci.image.manifest.v1+json', digest: manifestDigest, size: 1 }
    const signature = { schemaVersion: 2, artifactType: 'a/b', subject, layers: [] }
    const config = await registry.pushBlob('packs/done', '{}')
    const signed = await registry.pushManifest('packs/done', 'digest', { ...signature, config })
    await keepNewest('done', 1)
    const { freedBytes } = await plan({ name: 'done' })
    const id = await request('done')
    assert.deepEqual(await carriedOut(id), ['1.1.0 removed', '1.0.0 removed'])
    const { run } = await report(id)
    const { removed, spared, gone, policy, askedBy, kept } = run
    assert.deepEqual(
      { removed, spared, gone, policy, askedBy, kept, freedBytes: run.freedBytes },
      { removed: 2, spared: 0, gone: 0, policy: 'done', askedBy: 'anonymous', kept: { latest: 1 }, freedBytes },
    )
    assert.deepEqual(await versionsOf('done'), ['1.2.0'])
    assert.equal((await registry.call('GET', `/v2/packs/done/manifests/${signed.digest}`)).status, 404)
    // The number is spent.
    assert.equal(codeIn((await publish(registry, { packId: 'done' }, 'again')).body), 'VERSION_SPENT')
    const { events } = (await ask(registry, 'GET', '/audit?who=done')).body as { events: Json[] }
    assert.deepEqual(
      events.map(({ kind, action, path, reason, requestId }) => ({ kind, action, path, reason, requestId })),
      ['1.0.0', '1.1.0'].map((version) => ({
        ...{ kind: 'policy', action: 'retention version', path: `/packs/done/${version}` },
        ...{ reason: 'not among the newest 1', requestId: id },
      })),
    )
    const told = await registry.deps.db.sql<{ type: string }[]>`
      select type, subject from (select type, subject from event_outbox union all select type, subject from events) e
      where subject in ('done@1.0.0', 'done@1.1.0', ${id}) and type in ('pack.deleted', 'retention.applied')`
    assert.equal(told.length, 3)
  })

  it('of the schedule applies what is enabled, and nothing else', async () => {
    await published('nightly', ['1.0.0', '1.1.0'])
    await published('daily', ['1.0.0', '1.1.0'])
    await keepNewest('daily', 1)
    const policy = { repositories: ['packs/nightly'], versions: { keepNewest: 1 } }
    await setPolicy('nightly', policy, true)
    const watch = { signal: new AbortController().signal, progress: () => undefined }
    const result = (await runRetention(registry.deps, { scheduled: true }, watch)) as Json
    assert.equal(result.removed, 1)
    assert.deepEqual([await versionsOf('nightly'), await versionsOf('daily')], [['1.1.0'], ['1.1.0', '1.0.0']])
    assert.equal((await report(String(result.run))).run.askedBy, 'the schedule')
    await ask(registry, 'DELETE', '/retention/policies/nightly')
  })

  it('that is asked for twice before it begins is one', async () => {
    await published('twice', ['1.0.0', '1.1.0'])
    await keepNewest('twice', 1)
    const id = await request('twice')
    assert.equal(await request('twice'), id)
    assert.deepEqual(await carriedOut(id), ['1.0.0 removed'])
    assert.notEqual(await request('twice'), id)
    await work()
  })

  it('that is not there is unknown', async () => {
    for (const id of ['nothing', '0199f0a2-5c1e-7a40-8a3b-2f6d1c9e4b59'])
      assert.equal(codeIn((await ask(registry, 'GET', `/retention/runs/${id}`)).body), 'RUN_UNKNOWN')
  })

  it('that is cut is gone on with, and does nothing twice', async () => {
    const versions = Array.from({ length: 12 }, (_, i) => `1.${i}.0`)
    await published('cut', versions)
    await keepNewest('cut', 2)
    const id = await request('cut')
    for (let cuts = 0; cuts < 4; cuts++) {
      const cut = new AbortController()
      const stop = (value: object) => {
        if ('removing' in value) cut.abort(new Error('cut'))
      }
      await assert.rejects(work(cut.signal, stop), /cut/)
    }
    assert.equal((await versionsOf('cut')).length, 8)
    const told = await carriedOut(id)
    assert.deepEqual(new Set(told.map((words) => words.split(' ')[1])), new Set(['removed']))
    assert.deepEqual(await versionsOf('cut'), ['1.11.0', '1.10.0'])
    assert.equal(((await ask(registry, 'GET', '/audit?who=cut')).body.events as Json[]).length, 10)
  })

  it('by two workers at once removes everything once', async () => {
    await published(
      'both',
      Array.from({ length: 14 }, (_, i) => `1.${i}.0`),
    )
    await keepNewest('both', 1)
    const id = await request('both')
    await Promise.all([work(), work(), work()])
    const { run } = await report(id)
    const { state, planned: decided, removed, gone } = run
    assert.deepEqual({ state, decided, removed, gone }, { state: 'completed', decided: 13, removed: 13, gone: 0 })
    assert.equal(((await ask(registry, 'GET', '/audit?who=both')).body.events as Json[]).length, 13)
  })
})

describe('what happens between plan and removal', () => {
  const rows: { name: string; happens: (packId: string) => Promise<unknown>; comes: string }[] = [
    {
      name: 'a version of another pack comes to depend on it',
      happens: (packId) => published(`${packId}-user`, ['1.0.0'], { dependencies: [`${packId}@~1.0.0`] }),
      comes: '1.0.0 kept: needed-user 1.0.0 depends on it (~1.0.0)',
    },
    {
      name: 'a channel is pointed at it',
      happens: (packId) => ask(registry, 'PUT', `/packs/${packId}/channels/lts`, { version: '1.0.0' }),
      comes: '1.0.0 kept: channel lts points at it',
    },
    {
      name: 'it is held',
      happens: (packId) => ask(registry, 'PUT', `/retention/holds/${packId}/1.0.0`, { reason: 'wait' }),
      comes: '1.0.0 kept: held by anonymous: wait',
    },
    {
      name: 'those above it are deleted',
      happens: (packId) => ask(registry, 'DELETE', `/packs/${packId}/1.2.0`),
      comes: '1.0.0 kept: among the newest 2',
    },
    {
      name: 'the policy comes to keep more',
      happens: (packId) => keepNewest(packId, 3),
      comes: '1.0.0 kept: among the newest 3',
    },
    {
      name: 'another policy is enabled that keeps it',
      happens: () => setPolicy('other', { repositories: ['packs/*'], versions: { keepNewerThan: '1d' } }, true),
      comes: '1.0.0 kept: newer than 1d (policy other)',
    },
    {
      name: 'somebody else deletes it',
      happens: (packId) => ask(registry, 'DELETE', `/packs/${packId}/1.0.0`),
      comes: '1.0.0 gone: it was not there any more, or had become something else',
    },
    {
      name: 'something that is nothing to it',
      happens: (packId) => published(packId, ['2.0.0']),
      comes: '1.0.0 removed',
    },
  ]
  const packIds = ['needed', 'channelled', 'held', 'above', 'widened', 'covered', 'deleted', 'same']
  for (const [i, { name, happens, comes }] of rows.entries())
    it(`is seen: ${name}`, async () => {
      const packId = packIds[i] ?? ''
      await published(packId, ['1.0.0', '1.1.0', '1.2.0'])
      await keepNewest(packId, 2)
      const id = await planned(packId)
      await happens(packId)
      assert.deepEqual(await carriedOut(id), [comes])
      await ask(registry, 'DELETE', '/retention/policies/other')
    })

  it('is seen: the policy is removed', async () => {
    await published('unruled', ['1.0.0', '1.1.0'])
    await keepNewest('unruled', 1)
    const id = await planned('unruled')
    await ask(registry, 'DELETE', '/retention/policies/unruled')
    await work()
    const { run, removals } = await report(id)
    assert.deepEqual([run.state, removals[0]?.outcome], ['failed', undefined])
    assert.match(String(run.error), /the policy unruled was removed/)
    assert.equal((await versionsOf('unruled')).length, 2)
  })

  it('whatever is published meanwhile has what it needs', async () => {
    const versions = Array.from({ length: 20 }, (_, i) => `1.${i}.0`)
    await published('raced', versions)
    await keepNewest('raced', 1)
    const id = await request('raced')
    const dependents = versions.map((version, i) =>
      publish(registry, { packId: `raced-user-${i}`, dependencies: [`raced@~${version}`] }, `user ${i}`),
    )
    const [answers] = await Promise.all([Promise.all(dependents), work()])
    for (const [i, { status, body }] of answers.entries()) {
      assert.ok(status === 201 || status === 422, JSON.stringify(body))
      const resolved = await ask(registry, 'POST', '/resolve', { roots: [`raced-user-${i}@1.0.0`] })
      assert.equal(resolved.status, status === 201 ? 200 : 404)
    }
    const { run } = await report(id)
    assert.equal(run.state, 'completed')
    const left = await versionsOf('raced')
    assert.equal(left.length, 20 - Number(run.removed))
  })

  it('a channel that is set meanwhile points at something that is there', async () => {
    const versions = Array.from({ length: 15 }, (_, i) => `1.${i}.0`)
    await published('tossed', versions)
    await keepNewest('tossed', 1)
    await request('tossed')
    const sets = versions.map((version, i) => ask(registry, 'PUT', `/packs/tossed/channels/c${i}`, { version }))
    const [answers] = await Promise.all([Promise.all(sets), work()])
    for (const [i, { status }] of answers.entries()) {
      const found = await ask(registry, 'GET', `/packs/tossed/c${i}/manifest`)
      assert.deepEqual([status, found.status], status === 200 ? [200, 200] : [404, 404])
    }
  })
})

describe('a bundle', () => {
  it('keeps its members while it lives, at any depth', async () => {
    await published('member', ['1.0.0', '1.1.0', '2.0.0'])
    const bundle = { packId: 'carrier', type: 'bundle', dependencies: ['member@~1.0.0'], version: '1.0.0' }
    const json = { body: JSON.stringify({ manifest: bundle }), headers: { 'content-type': 'application/json' } }
    assert.equal((await registry.call('POST', '/packs', json)).status, 201)
    // What it depends on is one thing, what it has as a member another.
    await registry.deps.db.sql`delete from pack_dependencies where depends_on = 'member'`
    await keepNewest('member', 1)
    assert.deepEqual(inWords(await plan({ name: 'member' })), [
      '2.0.0 kept: it is the latest',
      '1.1.0 removed: not among the newest 1',
      '1.0.0 kept: the bundle carrier 1.0.0 has it as a member',
    ])
    assert.equal((await ask(registry, 'DELETE', '/packs/carrier/1.0.0')).status, 200)
    assert.equal((await plan({ name: 'member' })).removed, 2)
  })
})

describe('a held version', () => {
  it('is deleted by nobody, by either door, until it is released', async () => {
    await published('kept', ['1.0.0', '1.1.0'])
    const hold = await ask(registry, 'PUT', '/retention/holds/kept/1.0.0', { reason: 'evidence in case 7' })
    assert.equal(hold.status, 200)
    const { body } = await ask(registry, 'GET', '/packs/kept/1.0.0/manifest')
    const { manifestDigest } = body.pack as { manifestDigest: string }
    for (const query of ['', '?force=true']) {
      const refused = await ask(registry, 'DELETE', `/packs/kept/1.0.0${query}`)
      assert.deepEqual([refused.status, codeIn(refused.body)], [409, 'VERSION_HELD'])
      assert.match(String(refused.body.detail), /held by anonymous since .*: evidence in case 7/)
    }
    for (const reference of ['1.0.0', manifestDigest]) {
      const answer = await registry.call('DELETE', `/v2/packs/kept/manifests/${reference}`)
      const { errors } = (await answer.json()) as { errors: Json[] }
      assert.deepEqual([answer.status, errors[0]?.code], [409, 'DENIED'])
      assert.match(String(errors[0]?.detail), /evidence in case 7/)
    }
    const { holds } = (await ask(registry, 'GET', '/retention/holds')).body as { holds: Json[] }
    assert.ok(holds.some(({ packId, version, heldBy }) => `${packId} ${version} ${heldBy}` === 'kept 1.0.0 anonymous'))
    assert.deepEqual((await ask(registry, 'DELETE', '/retention/holds/kept/1.0.0')).body, { released: true })
    assert.deepEqual((await ask(registry, 'DELETE', '/retention/holds/kept/1.0.0')).body, { released: false })
    assert.equal((await ask(registry, 'DELETE', '/packs/kept/1.0.0')).status, 200)
  })

  it('stays held when the rows of packs are made again', async () => {
    await published('rebuilt', ['1.0.0'])
    await ask(registry, 'PUT', '/retention/holds/rebuilt/1.0.0', { reason: 'still' })
    await registry.deps.db.sql`
      delete from pack_versions v using packs p where p.repository_id = v.repository_id and p.pack_id = 'rebuilt'`
    for await (const { leftOut } of rebuildPacks(registry.deps, { dryRun: false })) assert.deepEqual(leftOut, [])
    assert.deepEqual(await versionsOf('rebuilt'), ['1.0.0'])
    assert.equal(codeIn((await ask(registry, 'DELETE', '/packs/rebuilt/1.0.0?force=true')).body), 'VERSION_HELD')
  })

  it('has to be there, and a hold needs a reason', async () => {
    const wrong: [path: string, body: Json, status: number, code: string][] = [
      ['/retention/holds/kept/9.9.9', { reason: 'x' }, 404, 'VERSION_UNKNOWN'],
      ['/retention/holds/never-there/1.0.0', { reason: 'x' }, 404, 'VERSION_UNKNOWN'],
      ['/retention/holds/kept/stable', { reason: 'x' }, 404, 'VERSION_UNKNOWN'],
      ['/retention/holds/kept/1.1.0', { reason: ' ' }, 400, 'REQUEST_INVALID'],
      ['/retention/holds/kept/1.1.0', {}, 400, 'REQUEST_INVALID'],
    ]
    for (const [path, sent, status, code] of wrong) {
      const { status: told, body } = await ask(registry, 'PUT', path, sent)
      assert.deepEqual([told, codeIn(body)], [status, code], path)
    }
  })

  it('is either held or deleted, never both', async () => {
    const versions = Array.from({ length: 10 }, (_, i) => `1.${i}.0`)
    await published('either', [...versions, '2.0.0'])
    const answers = await Promise.all(
      versions.map((version) =>
        Promise.all([
          ask(registry, 'PUT', `/retention/holds/either/${version}`, { reason: 'race' }),
          ask(registry, 'DELETE', `/packs/either/${version}`),
        ]),
      ),
    )
    for (const [held, deleted] of answers) assert.equal(held.status === 200, deleted.status === 409)
    const left = await versionsOf('either')
    assert.equal(left.length, 1 + answers.filter(([held]) => held.status === 200).length)
  })
})
