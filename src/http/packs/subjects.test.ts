import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import bcrypt from 'bcryptjs'
import { connect, type Sql, type Transaction } from '../../db/client.ts'
import { lockPack } from '../../db/packs.ts'
import { setTag } from '../../db/tags.ts'
import { type Digest, digestOf } from '../../oci/digest.ts'
import type { RepositoryName } from '../../oci/name.ts'
import type { Tag } from '../../oci/reference.ts'
import type { PackId } from '../../packs/pack.ts'
import { rebuildPacks } from '../../registry/rebuild.ts'
import { untilBlockedOrDone } from '../../testing/collect.ts'
import { startDatabases, type TestDatabases } from '../../testing/database.ts'
import { ask, publish } from '../../testing/packs.ts'
import { emptyConfig, imageType, sampleManifest, startRegistry, type TestRegistry } from '../../testing/registry.ts'

// Anybody can write a subject into a manifest: it does not take one past the rules of versions and channels.

let databases: TestDatabases
let folder: string
/** Everybody may do everything. */
let open: TestRegistry
/** The same registry by another door, where alice may push and not overwrite. */
let held: TestRegistry
/** A connection beside them. */
let other: Sql

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'packs-subjects-'))
  await writeFile(join(folder, 'users'), `alice:${bcrypt.hashSync('alice', 4)}`)
  const rules = [{ repositories: ['packs/*'], actions: ['pull', 'push'], claims: { sub: 'alice' } }]
  await writeFile(join(folder, 'policy.json'), JSON.stringify({ rules }))
  databases = await startDatabases()
  const url = await databases.fresh()
  open = await startRegistry(url)
  held = await startRegistry(url, {
    ...{ AUTH: 'htpasswd', HTPASSWD_FILE: join(folder, 'users'), POLICY_FILE: join(folder, 'policy.json') },
    BLOB_STORE: open.deps.config.blobStore,
  })
  other = connect(url, { max: 1 })
})
after(async () => {
  await other?.end()
  await held?.stop()
  await open?.stop()
  await databases?.stop()
  await rm(folder, { recursive: true, force: true })
})

type Json = Record<string, unknown>
type Manifest = Json & { layers: unknown[] }
type Answer = { status: number; text: string; digest: Digest }

/** By whom a manifest is pushed. */
const hands = [
  { name: 'who may overwrite', mayOverwrite: true },
  { name: 'who may only push', mayOverwrite: false },
]

async function put(packId: string, place: string, manifest: object, mayOverwrite = true): Promise<Answer> {
  const headers = {
    'content-type': imageType,
    ...(mayOverwrite ? {} : { authorization: `Basic ${Buffer.from('alice:alice').toString('base64')}` }),
  }
  const body = JSON.stringify(manifest)
  const answer = await (mayOverwrite ? open : held).call('PUT', `/v2/packs/${packId}/manifests/${place}`, {
    body,
    headers,
  })
  return { status: answer.status, text: await answer.text(), digest: digestOf(Buffer.from(body)) }
}

async function publishAll(packId: string, ...versions: string[]): Promise<Map<string, Digest>> {
  const digests = new Map<string, Digest>()
  for (const version of versions) {
    const { status, body } = await publish(open, { packId, version }, `${packId} ${version}`)
    assert.equal(status, 201)
    digests.set(version, String(body.manifestDigest) as Digest)
  }
  await open.pushBlob(`packs/${packId}`, '{}')
  return digests
}

async function manifestAt(packId: string, reference: string): Promise<{ digest: string | null; manifest: Manifest }> {
  const answer = await open.call('GET', `/v2/packs/${packId}/manifests/${reference}`)
  return { digest: answer.headers.get('docker-content-digest'), manifest: (await answer.json()) as Manifest }
}

const named = async (packId: string, tag: string) => (await manifestAt(packId, tag)).digest
const subject = { mediaType: imageType, digest: `sha256:${'a'.repeat(64)}`, size: 10 }
/** What attaches itself to something and is no pack. */
const signature = (i = 0) => sampleManifest({ artifactType: 'a/signature', subject, annotations: { i: `${i}` } })

async function setStable(packId: string, version: string): Promise<void> {
  assert.equal((await ask(open, 'PUT', `/packs/${packId}/channels/stable`, { version })).status, 200)
}

describe('a manifest with a subject', () => {
  for (const { name, mayOverwrite } of hands)
    describe(`pushed by somebody ${name}`, () => {
      const part = mayOverwrite ? 'all' : 'some'

      it('moves no tag of a version', async () => {
        const packId = `moved-${part}`
        const digests = await publishAll(packId, '1.0.0')
        const { manifest } = await manifestAt(packId, '1.0.0')
        const own = { mediaType: imageType, digest: digests.get('1.0.0'), size: JSON.stringify(manifest).length }
        for (const other of [subject, own])
          for (const place of ['1.0.0', 'sha256-of?tag=1.0.0']) {
            const disguised = { ...manifest, subject: other }
            const digest = digestOf(Buffer.from(JSON.stringify(disguised)))
            const answer = await put(packId, place.replace('sha256-of', digest), disguised, mayOverwrite)
            assert.equal(answer.status, 400, answer.text)
            assert.match(answer.text, /a pack refers to no other manifest/)
          }
        const layers = [...manifest.layers, await open.pushBlob(`packs/${packId}`, 'more')]
        for (const wrong of [{ ...manifest, layers, subject }, signature()])
          assert.equal((await put(packId, '1.0.0', wrong, mayOverwrite)).status, 400)
        assert.equal(await named(packId, '1.0.0'), digests.get('1.0.0'))
      })

      it('moves no channel', async () => {
        const packId = `channel-${part}`
        const digests = await publishAll(packId, '1.0.0', '2.0.0')
        await setStable(packId, '2.0.0')
        const { manifest } = await manifestAt(packId, '1.0.0')
        for (const wrong of [{ ...manifest, subject }, signature()]) {
          const digest = digestOf(Buffer.from(JSON.stringify(wrong)))
          for (const place of ['stable', `${digest}?tag=stable`, 'any?tag=stable']) {
            const answer = await put(packId, place, wrong, mayOverwrite)
            assert.equal(answer.status, mayOverwrite ? 409 : 403, answer.text)
            assert.match(answer.text, mayOverwrite ? /stable is a channel of/ : /takes the right to overwrite/)
          }
        }
        const bytes = await (await open.call('GET', `/v2/packs/${packId}/manifests/1.0.0`)).json()
        assert.equal((await put(packId, 'stable', bytes as object, mayOverwrite)).status, mayOverwrite ? 409 : 403)
        assert.equal(await named(packId, 'stable'), digests.get('2.0.0'))
      })

      it('takes no number that is free, be it a pack or not', async () => {
        const packId = `free-${part}`
        await publishAll(packId, '1.0.0')
        const { manifest } = await manifestAt(packId, '1.0.0')
        const { config: _, annotations: __, ...plain } = manifest
        const refused = await put(packId, '3.0.0', signature(), mayOverwrite)
        assert.equal(refused.status, 400, refused.text)
        const real = { ...plain, config: emptyConfig }
        const made = await put(packId, '3.0.0', real, mayOverwrite)
        assert.equal(made.status, 201, made.text)
        const attached = await put(packId, '4.0.0', { ...real, subject }, mayOverwrite)
        assert.equal(attached.status, 400, attached.text)
        assert.equal((await open.call('GET', `/v2/packs/${packId}/manifests/4.0.0`)).status, 404)
        const { digest } = made
        for (const name of ['3.0.0', 'latest']) assert.equal(await named(packId, name), digest)
        const { body } = await ask(open, 'GET', `/packs/${packId}/3.0.0/manifest`)
        assert.equal((body.pack as Json).manifestDigest, digest)
      })

      it('takes no number that is spent', async () => {
        const packId = `spent-${part}`
        await publishAll(packId, '1.0.0', '2.0.0')
        const { manifest } = await manifestAt(packId, '2.0.0')
        assert.equal((await ask(open, 'DELETE', `/packs/${packId}/2.0.0`)).status, 200)
        const disguised = await put(packId, '2.0.0', { ...manifest, subject }, mayOverwrite)
        assert.equal(disguised.status, 400, disguised.text)
        assert.match(disguised.text, /a pack refers to no other manifest/)
        // Its blobs are there until they are collected.
        assert.match((await put(packId, '2.0.0', manifest, mayOverwrite)).text, /was deleted/)
        assert.equal((await put(packId, '2.0.0', signature(), mayOverwrite)).status, 400)
        assert.equal((await open.call('GET', `/v2/packs/${packId}/manifests/2.0.0`)).status, 404)
      })
    })

  it('may have a name that is no version and no channel', async () => {
    const digests = await publishAll('named', '1.0.0')
    const [first, second] = [await put('named', 'sbom', signature(1)), await put('named', 'sbom', signature(2))]
    assert.deepEqual([first.status, second.status], [201, 201])
    assert.equal(await named('named', 'sbom'), second.digest)
    assert.equal((await put('named', 'sbom', signature(2), false)).status, 403)
    const attached = `${digests.get('1.0.0')?.replace(':', '-')}.sig`
    assert.equal((await put('named', attached, signature(3), false)).status, 201)
    const told = await other`
      select 1 from (select subject from event_outbox union all select subject from events) e where subject like 'named@sbom'`
    assert.equal(told.length, 0)
    // A name that somebody makes a channel is one from then on.
    assert.equal((await put('named', 'stable', signature(1))).status, 201)
    await setStable('named', '1.0.0')
    assert.equal((await put('named', 'stable', signature(1))).status, 409)
    assert.equal((await put('nothing-published', 'sbom', sampleManifest())).status, 400)
  })

  it('does not make a pack of a repository that has no version', async () => {
    await open.pushBlob('packs/alone', '{}')
    assert.equal((await put('alone', 'sbom', signature())).status, 201)
    assert.equal((await ask(open, 'GET', '/packs/alone')).status, 404)
    assert.ok(!JSON.stringify((await ask(open, 'GET', '/packs?q=alone')).body).includes('"alone"'))
  })

  it('is one of many that want a number at once, and one gets it', async () => {
    await publishAll('race', '1.0.0')
    const { manifest } = await manifestAt('race', '1.0.0')
    const { config: _, annotations: __, ...plain } = manifest
    const answers = await Promise.all(
      Array.from({ length: 12 }, (_, i) => {
        const attached = i % 3 === 0 ? {} : { subject }
        const document = { ...plain, config: emptyConfig, annotations: { i: `${i}` }, ...attached }
        return put('race', '2.0.0', document, i % 2 === 0)
      }),
    )
    const statuses = answers.map(({ status }) => status)
    // Those with a subject are refused whoever is first.
    assert.deepEqual(
      statuses.filter((_, i) => i % 3 !== 0),
      Array(8).fill(400),
    )
    assert.deepEqual(statuses.filter((_, i) => i % 3 === 0).sort(), [201, 409, 409, 409])
    const winner = answers.find(({ status }) => status === 201)
    assert.equal(await named('race', '2.0.0'), winner?.digest)
    assert.equal(await named('race', 'latest'), winner?.digest)
  })

  it('waits for whoever makes its name a channel in the same moment, and is refused then', async () => {
    const digests = await publishAll('waits', '1.0.0')
    const repository = 'packs/waits' as RepositoryName
    let pushed: Promise<Answer> | undefined
    await other.begin(async (beside) => {
      const tx = beside as unknown as Transaction
      await lockPack(tx, 'waits' as PackId, repository)
      await setTag(tx, repository, 'stable' as Tag, digests.get('1.0.0') as Digest)
      pushed = put('waits', 'stable', signature())
      await untilBlockedOrDone(open, pushed)
    })
    assert.equal((await pushed)?.status, 409)
    assert.equal(await named('waits', 'stable'), digests.get('1.0.0'))
  })
})

describe('a tag of a version that names something else, from a time before the rule', () => {
  async function moved(packId: string, tag = '1.0.0') {
    const digests = await publishAll(packId, '1.0.0')
    const { digest } = await put(packId, 'sbom', signature())
    await setTag(other as unknown as Transaction, `packs/${packId}` as RepositoryName, tag as Tag, digest)
    return { digest, published: digests.get('1.0.0') }
  }

  it('goes with the version', async () => {
    await moved('goes')
    assert.equal((await ask(open, 'DELETE', '/packs/goes/1.0.0')).body.deleted, true)
    assert.equal((await open.call('GET', '/v2/packs/goes/manifests/1.0.0')).status, 404)
  })

  it('is no place for the version of whoever may not overwrite it: nothing is half published', async () => {
    const { digest } = await moved('half', '3.0.0')
    const { manifest } = await manifestAt('half', '1.0.0')
    const { config: _, annotations: __, ...plain } = manifest
    const refused = await put('half', '3.0.0', { ...plain, config: emptyConfig }, false)
    assert.equal(refused.status, 403, refused.text)
    assert.match(refused.text, /is there already/)
    assert.equal((await ask(open, 'GET', '/packs/half/3.0.0/manifest')).status, 404)
    assert.equal(await named('half', '3.0.0'), digest)
    const made = await put('half', '3.0.0', { ...plain, config: emptyConfig })
    assert.deepEqual([made.status, await named('half', '3.0.0')], [201, made.digest])
  })

  it('is set right by whoever publishes the same again and may overwrite; others are told that it is not', async () => {
    const { published } = await moved('again')
    const { manifest } = await manifestAt('again', String(published))
    assert.equal((await put('again', '1.0.0', manifest, false)).status, 403)
    assert.equal((await put('again', '1.0.0', manifest)).status, 201)
    assert.equal(await named('again', '1.0.0'), published)
  })

  it('is set right by a rebuild', async () => {
    const { published } = await moved('rebuilt')
    const changes = async (dryRun: boolean) => {
      const all = []
      for await (const { change, leftOut } of rebuildPacks(open.deps, { dryRun }))
        all.push(
          ...(change?.packId === 'rebuilt' ? [change] : []),
          ...leftOut.filter(({ repository }) => repository === 'packs/rebuilt'),
        )
      return all
    }
    const change = {
      ...{ packId: 'rebuilt', added: [], changed: [], removed: [], retagged: ['1.0.0'], shown: [] },
    }
    assert.deepEqual(await changes(true), [change])
    assert.notEqual(await named('rebuilt', '1.0.0'), published)
    assert.deepEqual(await changes(false), [change])
    assert.equal(await named('rebuilt', '1.0.0'), published)
    assert.deepEqual(await changes(false), [])
  })
})
