import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { openLog } from '../../log.ts'
import { digestOf } from '../../oci/digest.ts'
import { type Lock, parseLock } from '../../packs/lock.ts'
import type { PackId } from '../../packs/pack.ts'
import type { Range } from '../../packs/version.ts'
import { resolveLock } from '../../registry/resolve.ts'
import { startDatabases, type TestDatabases } from '../../testing/database.ts'
import { publish as publishPack } from '../../testing/packs.ts'
import { imageType, sampleManifest, startRegistry, type TestRegistry } from '../../testing/registry.ts'

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
  const manifest = { packId, version, dependencies, metadata }
  const { status, body } = await publishPack(here, manifest, `content of ${name}`, '?allowMissing=true')
  assert.equal(status, 201, JSON.stringify(body))
  return String(body.manifestDigest)
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
      title: 'content.tgz',
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

  it('takes a yanked version that is in the lock, and no other', async () => {
    await publish('yank@1.0.0')
    await publish('yank@1.1.0')
    const lock = JSON.parse(await (await post({ roots: ['yank@^1'] })).text()) as Lock
    await here.call('PATCH', '/packs/yank/1.1.0', { body: '{"state":"yanked"}' })
    assert.equal(await chosen({ roots: ['yank@^1'] }), 'yank 1.0.0')
    assert.equal(await chosen({ roots: ['yank@^1'], lock }), 'yank 1.1.0')
    const { status, detail } = await refused({ roots: ['yank@1.1.0'] })
    assert.equal(status, 409)
    assert.equal(detail, 'the request asks for yank 1.1.0; yank 1.1.0 is yanked')
  })

  it('keeps to what the runner runs, and prefers what a channel names', async () => {
    await publish('run@1.0.0', [], { maxRunnerVersion: '1.4.0' })
    await publish('run@2.0.0', [], { minRunnerVersion: '1.5.0-rc.1' })
    await publish('run@2.1.0', [], { minRunnerVersion: '1.5.0-rc.1' })
    await publish('run@3.0.0', [], { minRunnerVersion: '2.0.0' })
    await here.call('PUT', '/packs/run/channels/stable', { body: '{"version":"2.0.0"}' })
    assert.equal(await chosen({ roots: ['run'] }), 'run 3.0.0')
    assert.equal(await chosen({ roots: ['run'], runner: '1.5.0' }), 'run 2.1.0')
    assert.equal(await chosen({ roots: ['run'], runner: '1.4.0' }), 'run 1.0.0')
    assert.equal(await chosen({ roots: ['run'], channel: 'stable' }), 'run 2.0.0')
    assert.equal(await chosen({ roots: ['run@^3'], channel: 'stable' }), 'run 3.0.0')
    const { detail } = await refused({ roots: ['run@^2'], runner: '1.4.0' })
    assert.equal(detail, 'the request asks for run ^2; run 2.0.0 to 2.1.0 do not run on runner 1.4.0')
  })

  it('looks at what is published now', async () => {
    await publish('now@1.0.0')
    await publish('now@1.1.0')
    assert.equal(await chosen({ roots: ['now'] }), 'now 1.1.0')
    await here.call('DELETE', '/packs/now/1.1.0')
    assert.equal(await chosen({ roots: ['now'] }), 'now 1.0.0')
    await here.call('DELETE', '/packs/now/1.0.0')
    assert.equal((await refused({ roots: ['now'] })).status, 404)
  })

  it('explains a conflict down to the roots, in words and as facts', async () => {
    await publish('shared@1.0.0')
    await publish('shared@2.0.0')
    await publish('left@1.2.0', ['shared@^2.0.0'])
    await publish('right@3.0.0', ['shared@^1.0.0'])
    const problem = await refused({ roots: ['right@*', 'left@^1.0.0', 'base@*'] })
    assert.deepEqual([problem.status, problem.type], [409, 'urn:packs-registry:UNRESOLVABLE'])
    assert.equal(
      problem.detail,
      'the request asks for left ^1.0.0; the request asks for right *; left 1.2.0 needs shared ^2.0.0; right 3.0.0 needs shared ^1.0.0',
    )
    assert.deepEqual(problem.about, {
      conflict: [
        { packId: 'left', range: '^1.0.0' },
        { packId: 'right', range: '*' },
        { packId: 'shared', requiredBy: { packId: 'left', version: '1.2.0' }, range: '^2.0.0' },
        { packId: 'shared', requiredBy: { packId: 'right', version: '3.0.0' }, range: '^1.0.0' },
      ],
    })
  })

  it('resolves packs that need each other', async () => {
    await publish('ring-a@1.0.0', ['ring-b@^1'])
    // A circle cannot be published; while a part of it is yanked there is none.
    await here.call('PATCH', '/packs/ring-a/1.0.0', { body: '{"state":"yanked"}' })
    await publish('ring-b@1.0.0', ['ring-a@^1'])
    await here.call('PATCH', '/packs/ring-a/1.0.0', { body: '{"state":"active"}' })
    assert.equal(await chosen({ roots: ['ring-a'] }), 'ring-a 1.0.0, ring-b 1.0.0')
  })

  it('takes a pack that may not be read for one that is not there', async () => {
    await publish('secret@1.0.0')
    await publish('open@1.0.0', [{ packId: 'secret', version: '*', optional: true }])
    await publish('open@2.0.0', ['secret@*'])
    const roots = (id: string, version = '*') => [{ packId: id as PackId, version: version as Range }]
    const mayPull = (packId: PackId) => packId !== 'secret'
    const lock = await resolveLock(here.deps, undefined, { roots: roots('open') }, mayPull)
    assert.deepEqual(
      lock.packs.map(({ packId, version }) => `${packId} ${version}`),
      ['open 1.0.0'],
    )
    const rejected = (id: string, version: string, detail: string) =>
      assert.rejects(resolveLock(here.deps, undefined, { roots: roots(id, version) }, mayPull), { detail })
    await rejected('secret', '*', 'there is no pack secret')
    await rejected('open', '^2', 'the request asks for open ^2; open 2.0.0 needs secret *, and there is no such pack')
  })

  const bad: { name: string; body: unknown; status: number; says: RegExp }[] = [
    { name: 'an unknown pack', body: { roots: ['nowhere', 'base'] }, status: 404, says: /no pack nowhere/ },
    { name: 'no roots', body: { roots: [] }, status: 400, says: /roots must name a pack/ },
    { name: 'a pack twice', body: { roots: ['base@1', 'base@2'] }, status: 400, says: /name base twice/ },
    {
      name: 'a range that is none',
      body: { roots: ['base@one'] },
      status: 400,
      says: /roots.0.version must be a range/,
    },
    { name: 'a field of its own', body: { roots: ['base'], when: 1 }, status: 400, says: /when is not a field/ },
    {
      name: 'a runner that is no version',
      body: { roots: ['base'], runner: '1' },
      status: 400,
      says: /runner must be/,
    },
    { name: 'a lock that is none', body: { roots: ['base'], lock: {} }, status: 400, says: /lock.packs is missing/ },
    { name: 'what is no object', body: 'base', status: 400, says: /must be a JSON object/ },
  ]
  for (const { name, body, status, says } of bad)
    it(`refuses ${name}`, async () => {
      const problem = await refused(body)
      assert.equal(problem.status, status)
      assert.match(problem.detail, says)
    })

  it('refuses a body of more than a mebibyte', async () => {
    const body = JSON.stringify({ roots: ['base'], padding: 'x'.repeat(1024 * 1024) })
    assert.equal((await here.call('POST', '/resolve', { body })).status, 413)
  })
})

describe('GET /packs/{id}/{version}/dependencies', () => {
  const tree = async (path: string) => {
    const answer = await here.call('GET', path)
    return [answer.status, (await answer.json()) as Json] as const
  }

  it('answers what is resolved, each pack told once', async () => {
    await publish('leaf@1.0.0')
    await publish('leaf@1.1.0')
    await publish('twig@1.0.0', ['leaf@^1', { packId: 'absent', version: '^1', optional: true }])
    await publish('tree@1.0.0', ['leaf@^1', 'twig@*'])
    await here.call('PUT', '/packs/leaf/channels/stable', { body: '{"version":"1.0.0"}' })
    await here.call('PATCH', '/packs/tree/1.0.0', { body: '{"state":"yanked"}' })
    const [status, found] = await tree('/packs/tree/1.0.0/dependencies?channel=stable')
    const pack = async (name: string) => {
      const [, answer] = await tree(`/packs/${name}/manifest`)
      const { version, digest, size, manifestDigest } = answer.pack as Json
      return { version, digest, size, manifestDigest }
    }
    const leaf = { packId: 'leaf', range: '^1', resolved: await pack('leaf/1.0.0') }
    assert.deepEqual(
      [status, found],
      [
        200,
        {
          packId: 'tree',
          version: '1.0.0',
          dependencies: [
            { ...leaf, dependencies: [] },
            {
              packId: 'twig',
              range: '*',
              resolved: await pack('twig/1.0.0'),
              dependencies: [
                { ...leaf, seen: true, dependencies: [] },
                { packId: 'absent', range: '^1', optional: true, dependencies: [] },
              ],
            },
          ],
        },
      ],
    )
  })

  it('says why it cannot be resolved, and what is wrong with the question', async () => {
    await publish('torn@1.0.0', ['gone@^1'])
    const [status, problem] = await tree('/packs/torn/1.0.0/dependencies')
    assert.deepEqual([status, problem.type], [409, 'urn:packs-registry:UNRESOLVABLE'])
    assert.match(String(problem.detail), /torn 1\.0\.0 needs gone \^1, and there is no such pack/)
    assert.equal((await tree('/packs/torn/2.0.0/dependencies'))[0], 404)
    assert.equal((await tree('/packs/torn/1.0.0/dependencies?runner=x'))[0], 400)
    assert.equal((await tree('/packs/torn/1.0.0/dependencies?depth=1'))[0], 400)
  })
})

describe('GET /packs/{id}/{version}/referrers', () => {
  it('answers what refers to the version, page by page', async () => {
    const digest = await publish('signed@1.0.0')
    const get = async (query = '') => {
      const answer = await here.call('GET', `/packs/signed/latest/referrers${query}`)
      return (await answer.json()) as { referrers: Json[]; next?: string }
    }
    assert.deepEqual(await get(), { referrers: [] })
    const subject = { mediaType: imageType, digest, size: 1 }
    const push = (artifactType: string, annotations?: Json) =>
      here.pushManifest(
        'packs/signed',
        'digest',
        sampleManifest({ artifactType, subject, ...(annotations && { annotations }) }),
      )
    const made = [await push('a/sbom', { by: 'me' }), await push('a/signature')].sort((a, b) =>
      a.digest < b.digest ? -1 : 1,
    )
    const whole = await get()
    assert.deepEqual(
      whole.referrers.map((entry) => ({ mediaType: entry.mediaType, digest: entry.digest, size: entry.size })),
      made,
    )
    assert.deepEqual(whole.referrers.map((entry) => entry.annotations).filter(Boolean), [{ by: 'me' }])
    const first = await get('?limit=1')
    const second = await get(`?limit=1&after=${first.next}`)
    assert.deepEqual([...first.referrers, ...second.referrers], whole.referrers)
    assert.equal(second.next, undefined)
    const one = await get('?artifactType=a%2Fsbom')
    assert.deepEqual(
      one.referrers.map((entry) => entry.artifactType),
      ['a/sbom'],
    )
    assert.equal((await here.call('GET', '/packs/signed/1.0.0/referrers?after=x')).status, 400)
    assert.equal((await here.call('GET', '/packs/signed/9.0.0/referrers')).status, 404)
  })
})
