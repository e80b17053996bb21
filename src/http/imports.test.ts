import assert from 'node:assert/strict'
import { createPrivateKey } from 'node:crypto'
import { after, before, describe, it } from 'node:test'
import { gzipSync } from 'node:zlib'
import { generateKey, publicKeyOf, publicPem, type SigningKey } from '../bundles/keys.ts'
import { connect, type Transaction } from '../db/client.ts'
import { lockDependencies } from '../db/packs.ts'
import { type Digest, digestOf } from '../oci/digest.ts'
import { tidy } from '../registry/deletions.ts'
import { distrustKey, trustKey } from '../registry/keys.ts'
import { pathOf, type SampleOptions, sampleBundle, type TarEntry, tarOf } from '../testing/bundle.ts'
import { untilBlocked } from '../testing/collect.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { indexType, startRegistry, type TestRegistry } from '../testing/registry.ts'
import { waitFor } from '../testing/wait.ts'
import { startWorker } from '../worker/worker.ts'

let databases: TestDatabases
before(async () => {
  databases = await startDatabases()
})
after(() => databases.stop())

type Problem = { key: string; message: string; packId?: string; version?: string }
type Answer = {
  status: number
  id?: string
  changed?: boolean
  type?: string
  detail?: string
  about?: { import?: string; problems?: Problem[]; missing?: Digest[]; resumeAt?: number }
  packs?: { packId: string; version: string; outcome: string }[]
  channels?: { channel: string; outcome: string; from?: string; backwards?: boolean }[]
  blobs?: { count: number; stored: number; leftOut: number }
  signature?: { kind: string; by?: { name?: string }[] }
  force?: { reason: string }
  problems?: Problem[]
}

async function send(registry: TestRegistry, bytes: Buffer, query = '', headers = {}): Promise<Answer> {
  const answer = await registry.call('POST', `/bundles/import${query}`, { body: bytes, headers })
  return { status: answer.status, ...((await answer.json()) as object) }
}

async function withRegistry(test: (registry: TestRegistry) => Promise<void>, env = {}): Promise<void> {
  const registry = await startRegistry(await databases.fresh(), env)
  try {
    await test(registry)
  } finally {
    await registry.stop()
  }
}

async function visible({ call, deps }: TestRegistry): Promise<{ packs: number; repositories: number; blobs: number }> {
  const { packs } = (await (await call('GET', '/packs')).json()) as { packs: unknown[] }
  const { repositories } = (await (await call('GET', '/v2/_catalog')).json()) as { repositories: unknown[] }
  const [row] = await deps.db.sql<{ blobs: number }[]>`select count(*)::int as blobs from blobs`
  return { packs: packs.length, repositories: repositories.length, blobs: row?.blobs ?? 0 }
}

/** Lets the time pass that stored content is kept for, and tidies up. */
async function cleanUp({ deps }: TestRegistry): Promise<void> {
  await deps.db.sql`update imports set expires_at = now(), leased_until = now()`
  await tidy(deps)
}

async function objects({ deps }: TestRegistry): Promise<string[]> {
  const keys: string[] = []
  for await (const { key } of deps.blobs.list('')) keys.push(key)
  return keys
}

function signer(): { key: SigningKey; pem: string } {
  const { keyid, spki, pkcs8 } = generateKey()
  const privateKey = createPrivateKey({ key: pkcs8, type: 'pkcs8', format: 'der' })
  return { key: { keyid, privateKey }, pem: publicPem(publicKeyOf(spki)) }
}

/** A bundle with one of its files changed. */
function changed(
  pick: (entry: TarEntry) => boolean,
  change: (bytes: Buffer) => Buffer,
  options?: SampleOptions,
): Buffer {
  const { entries } = sampleBundle(options)
  return tarOf(entries.map((entry) => (pick(entry) ? { ...entry, bytes: change(entry.bytes as Buffer) } : entry)))
}

const flip = (bytes: Buffer) => {
  const copy = Buffer.from(bytes)
  copy[copy.length >> 1] = (copy[copy.length >> 1] ?? 0) ^ 1
  return copy
}
const sample = sampleBundle()
const isBlob = (digest: Digest | undefined) => (entry: TarEntry) => entry.name === pathOf(digest)
const secret = Buffer.from('root:x:0:0')

describe('importing a bundle', () => {
  it('publishes all of it: contents, tags, channels, referrers, by both doors', () =>
    withRegistry(async (registry) => {
      const answer = await send(registry, sample.bytes)
      assert.equal(answer.status, 201)
      assert.deepEqual(
        answer.packs?.map(({ packId, version, outcome }) => `${packId} ${version} ${outcome}`),
        ['alpha 1.0.0 new', 'beta 2.1.0+build.7 new'],
      )
      const content = await registry.call('GET', '/packs/alpha/stable')
      assert.equal(await content.text(), 'the content of alpha')
      const manifest = await registry.call('HEAD', '/v2/packs/beta/manifests/2.1.0_build.7')
      assert.equal(manifest.headers.get('docker-content-digest'), sample.digests.beta)
      const referrers = await registry.call('GET', `/v2/packs/alpha/referrers/${sample.digests.alpha}`)
      const { manifests } = (await referrers.json()) as { manifests: { digest: string }[] }
      assert.deepEqual(
        manifests.map(({ digest }) => digest),
        [sample.digests.referrer],
      )
      const latest = await registry.call('HEAD', '/v2/packs/alpha/manifests/latest')
      assert.equal(latest.headers.get('docker-content-digest'), sample.digests.alpha)
      const followed = await registry.call('GET', `/bundles/imports/${answer.id}`)
      const { import: told } = (await followed.json()) as { import: { state: string; report: { changed: boolean } } }
      assert.deepEqual([told.state, told.report.changed], ['published', true])
    }))

  it('changes nothing the second time, and says so', () =>
    withRegistry(async (registry) => {
      await send(registry, sample.bytes)
      const stored = await objects(registry)
      const again = await send(registry, sample.bytes)
      assert.deepEqual([again.status, again.changed, again.blobs?.stored], [200, false, 0])
      await cleanUp(registry)
      assert.deepEqual(await objects(registry), stored)
      assert.equal((await registry.call('GET', '/packs/alpha/1.0.0')).status, 200)
    }))

  it('stores nothing in a dry run, and tells what would become of it', () =>
    withRegistry(async (registry) => {
      const answer = await send(registry, sample.bytes, '?dryRun=true')
      assert.deepEqual([answer.status, answer.changed], [200, true])
      assert.deepEqual(await visible(registry), { packs: 0, repositories: 0, blobs: 0 })
      assert.deepEqual(await objects(registry), [])
      const list = await registry.call('GET', '/bundles/imports')
      assert.deepEqual(await list.json(), { imports: [] })
    }))

  it('tells in a dry run of the quotas that would refuse it, to the byte', () =>
    withRegistry(async (registry) => {
      const quota = (limits: object) => registry.call('PUT', '/quotas/packs/**', { body: JSON.stringify(limits) })
      const tried = async () => (await send(registry, sample.bytes, '?dryRun=true')).type ?? 'taken'
      const { db } = registry.deps
      await quota({ bytes: 1 })
      assert.equal(await tried(), 'urn:packs-registry:QUOTA_EXCEEDED')
      const { detail = '', status } = await send(registry, sample.bytes, '?dryRun=true')
      const told = Number(/would come to .*?(\d+)(?: bytes\)|\. | bytes)/.exec(detail)?.[1])
      assert.equal(status, (await send(registry, sample.bytes)).status, detail)
      await quota({ bytes: 1_000_000_000, versions: 1 })
      assert.equal(await tried(), 'urn:packs-registry:QUOTA_EXCEEDED')
      await quota({ bytes: 1_000_000_000, versions: 2 })
      assert.equal(await tried(), 'taken')
      assert.equal((await send(registry, sample.bytes)).status, 201)
      const [usage] = await db.sql<{ bytes: number; versions: number }[]>`select bytes, versions from quota_usage`
      assert.deepEqual(usage && [usage.versions, usage.bytes], [2, told], detail)
      // All of it is there: nothing is added, whatever the quota says by now.
      await quota({ bytes: 1 })
      assert.equal(await tried(), 'taken')
    }))

  it('takes it compressed', () =>
    withRegistry(async (registry) => {
      assert.equal((await send(registry, gzipSync(sample.bytes))).status, 201)
    }))

  it('takes content that looks like a manifest as content', () =>
    withRegistry(async (registry) => {
      const content = JSON.stringify({
        schemaVersion: 2,
        mediaType: 'application/vnd.oci.image.index.v1+json',
        manifests: [],
      })
      const { bytes } = sampleBundle({
        packs: [{ packId: 'odd', version: '1.0.0', content }],
        channels: [],
        referrer: false,
      })
      assert.equal((await send(registry, bytes)).status, 201)
      assert.equal(await (await registry.call('GET', '/packs/odd/1.0.0')).text(), content)
    }))

  it('takes large content as it comes', () =>
    withRegistry(async (registry) => {
      const content = Buffer.alloc(9 * 1024 * 1024, 'large ')
      const { bytes } = sampleBundle({ packs: [{ packId: 'large', version: '1.0.0', content }], channels: [] })
      assert.equal((await send(registry, bytes)).status, 201)
      const answer = await registry.call('GET', '/packs/large/1.0.0')
      assert.equal(digestOf(Buffer.from(await answer.arrayBuffer())), digestOf(content))
    }))
})

type Damage = { name: string; bytes: () => Buffer; status?: number; key?: string; says: RegExp }
const damages: Damage[] = [
  { name: 'in very many ways', bytes: () => withoutSignatures(200_000), says: /is not in it .*and 199997 more/ },
  {
    name: 'a channel that names the version of another pack',
    bytes: () => sampleBundle({ channels: [{ packId: 'alpha', channel: 'stable', of: 'beta' }] }).bytes,
    says: /the channel stable of alpha points at .* no version of it/,
  },
  { name: 'cut off', bytes: () => sample.bytes.subarray(0, 5000), says: /cut off/ },
  { name: 'cut off at its last entry', bytes: () => tarOf(sample.entries, { end: false }), says: /cut off/ },
  { name: 'a bit flipped in a header', bytes: () => flipAt(sample.bytes, 1024 + 3), says: /tar|header|damaged/ },
  { name: 'a bit flipped in the index', bytes: () => changed(({ name }) => name === 'index.json', flip), says: /./ },
  {
    name: 'a bit flipped in a manifest',
    bytes: () => changed(isBlob(sample.digests.alpha), flip),
    ...{ status: 400, key: 'DIGEST_INVALID', says: /blobs\/sha256/ },
  },
  {
    name: 'a bit flipped in content',
    bytes: () => changed(isBlob(sample.digests['beta content']), flip),
    ...{ status: 400, key: 'DIGEST_INVALID', says: /changed or damaged/ },
  },
  {
    name: 'a path that leads out',
    bytes: () => tarOf([...sample.entries, { name: '../../etc/passwd', bytes: secret }]),
    says: /leads out/,
  },
  {
    name: 'a link',
    bytes: () => tarOf([...sample.entries, { name: 'blobs/sha256/x', type: '2', link: '/etc/passwd' }]),
    says: /symbolic link/,
  },
  {
    name: 'an entry twice',
    bytes: () => tarOf([...sample.entries, sample.entries.at(-1) as TarEntry]),
    says: /twice/,
  },
  { name: 'a zip bomb', bytes: () => gzipSync(Buffer.alloc(80 * 1024 * 1024)), says: /compressed more than|no tar/ },
  {
    name: 'without content that a manifest names',
    bytes: () => tarOf(sample.entries.filter((entry) => !isBlob(sample.digests['beta content'])(entry))),
    says: /is not in it/,
  },
  {
    name: 'with a lock that names other digests',
    bytes: () => sampleBundle({ lie: (pack) => ({ ...pack, manifestDigest: digestOf(secret) }) }).bytes,
    says: /the lock says/,
  },
  { name: 'no bundle at all', bytes: () => Buffer.from('hello'), says: /./ },
]

function flipAt(bytes: Buffer, at: number): Buffer {
  const copy = Buffer.from(bytes)
  copy[at] = (copy[at] ?? 0) ^ 4
  return copy
}

/** Its index lists so many signatures that are not there. */
function withoutSignatures(count: number): Buffer {
  const add = (bytes: Buffer) => {
    const index = JSON.parse(String(bytes)) as { manifests: object[] }
    const annotations = { 'org.opencontainers.image.referrer.subject': sample.digests.alpha }
    for (let i = 0; i < count; i++) {
      const digest = `sha256:${String(i).padStart(64, '0')}`
      index.manifests.push({ mediaType: 'application/vnd.oci.image.manifest.v1+json', digest, size: 2, annotations })
    }
    return Buffer.from(JSON.stringify(index))
  }
  return changed(({ name }) => name === 'index.json', add)
}

describe('a bundle that is damaged', () => {
  let registry: TestRegistry
  before(async () => {
    registry = await startRegistry(await databases.fresh())
  })
  after(() => registry.stop())
  for (const { name, bytes, status = 422, key = 'BUNDLE_INVALID', says } of damages)
    it(`is refused: ${name}`, async () => {
      const answer = await send(registry, bytes())
      assert.equal(answer.type, `urn:packs-registry:${key}`, JSON.stringify(answer))
      assert.equal(answer.status, status)
      assert.match(answer.detail ?? '', says)
      assert.deepEqual(await visible(registry), { packs: 0, repositories: 0, blobs: 0 })
      const list = await registry.call('GET', '/bundles/imports?limit=1')
      const { imports } = (await list.json()) as { imports: { state: string; error: { key: string } }[] }
      assert.deepEqual([imports[0]?.state, imports[0]?.error.key], ['failed', key])
      await cleanUp(registry)
      assert.deepEqual(await objects(registry), [])
    })
})

describe('the signature of a bundle', () => {
  const [ours, theirs] = [signer(), signer()]
  const signed = sampleBundle({ keys: [ours.key] }).bytes
  const cases = [
    { name: 'is needed once a key is trusted', bytes: sample.bytes, key: 'SIGNATURE_MISSING' },
    { name: 'must be by a trusted key', bytes: sampleBundle({ keys: [theirs.key] }).bytes, key: 'SIGNATURE_INVALID' },
    {
      name: 'must be of this bundle',
      bytes: changed(({ name }) => name === 'bundle.dsse.json', flip, { keys: [ours.key] }),
      key: 'SIGNATURE_INVALID',
    },
  ]
  for (const { name, bytes, key } of cases)
    it(name, () =>
      withRegistry(async (registry) => {
        await trustKey(registry.deps, 'ours', ours.pem)
        const answer = await send(registry, bytes)
        assert.deepEqual([answer.status, answer.type], [422, `urn:packs-registry:${key}`])
        assert.deepEqual(await visible(registry), { packs: 0, repositories: 0, blobs: 0 })
        await cleanUp(registry)
        assert.deepEqual(await objects(registry), [])
      }),
    )

  it('is told of, by name', () =>
    withRegistry(async (registry) => {
      await trustKey(registry.deps, 'ours', ours.pem)
      const answer = await send(registry, signed)
      assert.deepEqual([answer.status, answer.signature?.by?.[0]?.name], [201, 'ours'])
    }))

  it('by a key that has expired is refused', () =>
    withRegistry(async (registry) => {
      await trustKey(registry.deps, 'ours', ours.pem)
      await registry.deps.db
        .sql`update signing_keys set created_at = now() - interval '2 days', expires_at = now() - interval '1 day'`
      const answer = await send(registry, signed)
      assert.deepEqual([answer.status, answer.type], [422, 'urn:packs-registry:SIGNATURE_INVALID'])
      assert.match(answer.detail ?? '', /expired/)
    }))

  it('by a key that is distrusted while the bundle is published is refused', () =>
    withRegistry(async (registry) => {
      const { keyid } = await trustKey(registry.deps, 'ours', ours.pem)
      let answer: Promise<Answer> | undefined
      await registry.deps.db.sql.begin(async (tx) => {
        await lockDependencies(tx as unknown as Transaction)
        answer = send(registry, signed)
        await untilBlocked(registry)
        await distrustKey(registry.deps, keyid)
      })
      const { status, type } = (await answer) as Answer
      assert.deepEqual([status, type], [422, 'urn:packs-registry:SIGNATURE_INVALID'])
      assert.deepEqual(await visible(registry), { packs: 0, repositories: 0, blobs: 0 })
    }))

  it('is needed as before when the only trusted key is distrusted', () =>
    withRegistry(async (registry) => {
      const { keyid } = await trustKey(registry.deps, 'ours', ours.pem)
      await distrustKey(registry.deps, keyid)
      const unsigned = await send(registry, sample.bytes)
      assert.deepEqual([unsigned.status, unsigned.type], [422, 'urn:packs-registry:SIGNATURE_MISSING'])
      const answer = await send(registry, signed)
      assert.deepEqual([answer.status, answer.type], [422, 'urn:packs-registry:SIGNATURE_INVALID'])
      assert.match(answer.detail ?? '', /that key was distrusted here on \d{4}-/)
      assert.deepEqual(await visible(registry), { packs: 0, repositories: 0, blobs: 0 })
    }))

  it('is not looked at where the setting says never', () =>
    withRegistry(
      async (registry) => {
        await trustKey(registry.deps, 'ours', ours.pem)
        assert.equal((await send(registry, sample.bytes)).status, 201)
      },
      { BUNDLE_VERIFY: 'never' },
    ))
})

describe('a bundle against what is published', () => {
  const of = (version: string, content: string, channels = [{ packId: 'net', channel: 'stable' }]) =>
    sampleBundle({ packs: [{ packId: 'net', version, content }], channels, referrer: false })

  it('never changes a version', () =>
    withRegistry(async (registry) => {
      await send(registry, of('1.0.0', 'one').bytes)
      const answer = await send(registry, of('1.0.0', 'another').bytes)
      assert.deepEqual([answer.status, answer.type], [409, 'urn:packs-registry:VERSION_EXISTS'])
      assert.equal(await (await registry.call('GET', '/packs/net/1.0.0')).text(), 'one')
    }))

  it('never uses the number of a deleted version', () =>
    withRegistry(async (registry) => {
      await send(registry, of('1.0.0', 'one').bytes)
      await registry.call('DELETE', '/packs/net/1.0.0')
      const answer = await send(registry, of('1.0.0', 'one').bytes)
      assert.deepEqual([answer.status, answer.type], [409, 'urn:packs-registry:VERSION_SPENT'])
    }))

  it('does not let a channel go back, unless it is told to with a reason', () =>
    withRegistry(async (registry) => {
      await send(registry, of('2.0.0', 'two').bytes)
      const older = of('1.0.0', 'one').bytes
      const refused = await send(registry, older)
      assert.deepEqual([refused.status, refused.type], [409, 'urn:packs-registry:IMPORT_BACKWARDS'])
      assert.equal((await registry.call('GET', '/packs/net/1.0.0')).status, 404)
      assert.equal((await send(registry, older, '?force=true')).status, 400)
      const forced = await send(registry, older, '?force=true&reason=2.0.0%20is%20broken')
      assert.deepEqual([forced.status, forced.force?.reason], [201, '2.0.0 is broken'])
      assert.equal(await (await registry.call('GET', '/packs/net/stable')).text(), 'one')
      assert.equal(await (await registry.call('GET', '/packs/net/latest')).text(), 'two')
    }))

  it('takes a back-port that moves no channel', () =>
    withRegistry(async (registry) => {
      await send(registry, of('2.0.0', 'two').bytes)
      assert.equal((await send(registry, of('1.5.0', 'one and a half', []).bytes)).status, 201)
      assert.equal(await (await registry.call('GET', '/packs/net/latest')).text(), 'two')
    }))

  it('tells everything that is in the way at once', () =>
    withRegistry(async (registry) => {
      await send(registry, of('2.0.0', 'two').bytes)
      const { bytes } = sampleBundle({
        packs: [{ packId: 'net', version: '1.0.0', content: 'one' }],
        channels: [{ packId: 'net', channel: 'stable' }],
        lie: (pack) => ({ ...pack, digest: digestOf(secret) }),
      })
      const answer = await send(registry, bytes)
      const keys = answer.about?.problems?.map(({ key }) => key)
      assert.deepEqual(new Set(keys), new Set(['BUNDLE_INVALID', 'IMPORT_BACKWARDS']))
      const followed = await registry.call('GET', `/bundles/imports/${answer.about?.import}`)
      const { import: told } = (await followed.json()) as { import: { state: string; report: Answer } }
      assert.deepEqual([told.state, told.report.problems?.length], ['failed', keys?.length])
    }))

  it('completes an incremental bundle from what is here, and refuses it where that is not', () =>
    withRegistry(async (registry) => {
      const whole = of('1.0.0', 'one')
      const content = digestOf(Buffer.from('one'))
      const packs = [
        { packId: 'net', version: '1.0.0', content: 'one' },
        { packId: 'net', version: '1.1.0', content: 'more' },
      ]
      const leaveOut = (digest: Digest) => digest === content || digest === whole.digests.net
      const { bytes } = sampleBundle({ packs: packs.slice(0, 1), channels: [], referrer: false, leaveOut })
      const refused = await send(registry, bytes)
      assert.deepEqual([refused.status, refused.type], [409, 'urn:packs-registry:IMPORT_BASE_MISSING'])
      assert.ok(refused.about?.missing?.includes(content))
      await send(registry, whole.bytes)
      const answer = await send(registry, bytes)
      assert.deepEqual([answer.status, answer.blobs?.leftOut], [200, 2])
    }))
})

describe('a manifest that names as its config what is here and not in the file', () => {
  it('gets nothing of it', () =>
    withRegistry(async (registry) => {
      const hidden = await registry.pushBlob('private/settings', 'PASSWORD=hunter2')
      const mediaType = 'application/vnd.oci.image.manifest.v1+json'
      const config = { ...hidden, mediaType: 'application/vnd.stellaops.pack.config.v1+json' }
      const artifactType = 'application/vnd.stellaops.pack.policy.v1'
      const layers = [{ mediaType: 'application/octet-stream', digest: digestOf(secret), size: secret.length }]
      const manifest = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, artifactType, config, layers }))
      const described = { mediaType, digest: digestOf(manifest), size: manifest.length }
      const annotations = { 'org.opencontainers.image.ref.name': '1.0.0' }
      const index = { schemaVersion: 2, manifests: [{ ...described, annotations }] }
      const bytes = tarOf([
        { name: 'oci-layout', bytes: Buffer.from('{"imageLayoutVersion":"1.0.0"}') },
        { name: 'index.json', bytes: Buffer.from(JSON.stringify(index)) },
        { name: `blobs/${described.digest.replace(':', '/')}`, bytes: manifest },
        { name: `blobs/${digestOf(secret).replace(':', '/')}`, bytes: secret },
      ])
      const tell = async () => {
        const answer = await registry.call('POST', '/bundles/import?repository=packs/net', { body: bytes })
        const text = await answer.text()
        assert.equal(answer.status, 422, text)
        assert.ok(text.includes(`its config ${hidden.digest} is not here`), text)
        assert.doesNotMatch(text, /PASSWORD|hunter2|not JSON/)
      }
      await tell()
      // The same when the registry has just had it in its hands.
      assert.equal((await registry.call('GET', `/v2/private/settings/blobs/${hidden.digest}`)).status, 200)
      await tell()
    }))
})

describe('an import that is cut off', () => {
  const contents = Array.from({ length: 40 }, (_, i) => Buffer.alloc(60_000, `content ${i} `))
  const packs = contents.map((content, i) => ({ packId: `pack-${i}`, version: '1.0.0', content }))
  const { key, pem } = signer()
  const { bytes } = sampleBundle({ packs, channels: [], referrer: false, keys: [key] })
  const id = '0b1c2d3e-4f50-4a6b-8c7d-9e0f1a2b3c4d'

  /** Sends the first part of a body and goes away. */
  async function cut({ url, deps }: TestRegistry, length: number): Promise<number> {
    const { request } = await import('node:http')
    const sending = request(`${url}/bundles/import?resume=${id}`, {
      method: 'POST',
      headers: { 'content-length': bytes.length },
    })
    sending.on('error', () => undefined)
    await new Promise((resolve) => sending.write(bytes.subarray(0, length), resolve))
    await waitFor('the first part to be received', async () => {
      const [row] = await deps.db.sql<{ received: number }[]>`select received from imports where id = ${id}`
      return (row?.received ?? 0) > length - 100_000
    })
    sending.destroy()
    const { resumeAt } = await waitFor('the import to be cut off', async () => {
      const { import: told } = (await (await fetch(`${url}/bundles/imports/${id}`)).json()) as {
        import: { alive: boolean; resumeAt?: number }
      }
      return !told.alive && told
    })
    return resumeAt ?? -1
  }

  it('goes on where it was', () =>
    withRegistry(async (registry) => {
      await trustKey(registry.deps, 'ours', pem)
      const resumeAt = await cut(registry, bytes.length - 100_000)
      assert.ok(resumeAt > 100_000 && resumeAt < bytes.length, String(resumeAt))
      assert.deepEqual(await visible(registry), { packs: 0, repositories: 0, blobs: 0 })
      const ahead = await send(registry, bytes.subarray(resumeAt), `?resume=${id}`, {
        'content-range': `${resumeAt + 512}-${bytes.length - 1}`,
      })
      assert.deepEqual([ahead.status, ahead.about?.resumeAt], [416, resumeAt])
      const rest = await send(registry, bytes.subarray(resumeAt), `?resume=${id}`, {
        'content-range': `${resumeAt}-${bytes.length - 1}`,
      })
      assert.deepEqual([rest.status, rest.id, rest.packs?.length], [201, id, 40], JSON.stringify(rest))
      assert.equal((await send(registry, bytes, `?resume=${id}`)).status, 201)
      await cleanUp(registry)
      assert.equal((await objects(registry)).length, (await visible(registry)).blobs)
      assert.equal(await (await registry.call('GET', '/packs/pack-7/1.0.0')).text(), String(contents[7]))
    }))

  it('is sent whole again, and nothing is stored twice', () =>
    withRegistry(async (registry) => {
      await trustKey(registry.deps, 'ours', pem)
      await cut(registry, bytes.length - 100_000)
      const again = await send(registry, bytes)
      assert.equal(again.status, 201)
      assert.ok((again.blobs?.stored ?? 0) < 60, JSON.stringify(again.blobs))
      await cleanUp(registry)
      const [row] = await registry.deps.db.sql<{ count: number }[]>`select count(*)::int as count from blobs`
      assert.equal((await objects(registry)).length, row?.count)
    }))
})

describe('an import that nobody waits for', () => {
  const id = '22222222-3333-4444-8555-666666666666'
  type Told = { import: { state: string; alive: boolean; report?: Answer; error?: { key: string } } }
  const told = async ({ call }: TestRegistry) =>
    ((await (await call('GET', `/bundles/imports/${id}`)).json()) as Told).import

  async function leave(registry: TestRegistry, bytes = sample.bytes, headers = {}): Promise<void> {
    const query = 'prefer' in headers ? '' : '&async=true'
    const answer = await registry.call('POST', `/bundles/import?resume=${id}${query}`, { body: bytes, headers })
    assert.deepEqual([answer.status, answer.headers.get('location')], [202, `/bundles/imports/${id}`])
    assert.equal(answer.headers.get('preference-applied'), 'respond-async')
    assert.equal(((await answer.json()) as Told).import.state, 'publishing')
  }

  async function work(registry: TestRegistry): Promise<void> {
    const worker = startWorker(registry.deps, { pollMs: 50 })
    await waitFor('the import to be published', async () => (await told(registry)).state !== 'publishing')
    await worker.stop()
  }

  for (const headers of [{}, { prefer: 'handling=lenient, respond-async' }])
    it(`is published by a worker, and written down: ${JSON.stringify(headers)}`, () =>
      withRegistry(async (registry) => {
        await leave(registry, sample.bytes, headers)
        assert.deepEqual(await visible(registry), { packs: 0, repositories: 0, blobs: 0 })
        assert.equal((await told(registry)).alive, true)
        // What it has stored is not taken from it by another import of the same, nor by whoever tidies up.
        await tidy(registry.deps)
        const before = await objects(registry)
        assert.ok(before.length > 0)
        await work(registry)
        const { state, report } = await told(registry)
        assert.deepEqual([state, report?.changed, report?.packs?.length], ['published', true, 2])
        assert.equal(await (await registry.call('GET', '/packs/alpha/stable')).text(), 'the content of alpha')
        const rows = await registry.deps.db.sql`select path, outcome from audit_events where action = 'job import'`
        assert.deepEqual([...rows], [{ path: `/bundles/imports/${id}`, outcome: 'done' }])
        await cleanUp(registry)
        assert.equal((await objects(registry)).length, (await visible(registry)).blobs)
      }))

  it('is refused at once where it cannot be published', () =>
    withRegistry(async (registry) => {
      const of = (content: string) =>
        sampleBundle({ packs: [{ packId: 'net', version: '1.0.0', content }], channels: [] })
      await send(registry, of('one').bytes)
      const answer = await send(registry, of('other').bytes, '?async=true')
      assert.deepEqual([answer.status, answer.type], [409, 'urn:packs-registry:VERSION_EXISTS'])
    }))

  it('is refused by the worker for what was published meanwhile', () =>
    withRegistry(async (registry) => {
      await leave(registry)
      const form = new FormData()
      form.set('manifest', JSON.stringify({ packId: 'alpha', version: '1.0.0', type: 'policy' }))
      form.set('content', new Blob(['published']), 'alpha.tgz')
      assert.equal((await fetch(`${registry.url}/packs`, { method: 'POST', body: form })).status, 201)
      await work(registry)
      const { state, error, report } = await told(registry)
      assert.deepEqual([state, error?.key], ['failed', 'VERSION_EXISTS'])
      assert.equal(report?.problems?.[0]?.packId, 'alpha')
      assert.equal((await registry.call('GET', '/packs/beta')).status, 404)
    }))

  it('needs no worker where its sender comes back, and none of it is sent again', () =>
    withRegistry(async (registry) => {
      await leave(registry)
      const length = sample.bytes.length
      const tail = { 'content-range': `${length - 1}-${length - 1}` }
      const answer = await send(registry, sample.bytes.subarray(-1), `?resume=${id}`, tail)
      assert.deepEqual([answer.status, answer.changed, answer.id], [201, true, id])
      const [jobs] = await registry.deps.db.sql<{ count: number }[]>`
        select count(*)::int as count from pgboss.job where name = 'import'`
      assert.equal(jobs?.count, 0)
    }))

  it('may have a lock that is too large to be kept in a row', () =>
    withRegistry(async (registry) => {
      const large = sampleBundle({ lie: (pack) => ({ ...pack, title: 'x'.repeat(3_000_000) }) })
      await leave(registry, large.bytes)
      await work(registry)
      const { state, error } = await told(registry)
      assert.deepEqual([state, error], ['published', undefined])
    }))

  it('is only what was sent last under its id', () =>
    withRegistry(async (registry) => {
      const { key, pem } = signer()
      const packs = [{ packId: 'gamma', version: '1.0.0', content: 'the content of gamma' }]
      const other = sampleBundle({ packs, channels: [], referrer: false, keys: [signer().key] })
      await trustKey(registry.deps, 'ours', pem)
      assert.equal((await send(registry, other.bytes, `?resume=${id}`)).type, 'urn:packs-registry:SIGNATURE_INVALID')
      await leave(registry, sampleBundle({ keys: [key] }).bytes)
      await work(registry)
      const { state, error } = await told(registry)
      assert.deepEqual([state, error], ['published', undefined])
      await cleanUp(registry)
      assert.equal((await objects(registry)).length, (await visible(registry)).blobs)
    }))

  it('has to be sent again where content of it went away', () =>
    withRegistry(async (registry) => {
      const { digest } = await registry.pushBlob('demo/other', 'the content of alpha')
      await leave(registry)
      await registry.deps.db.sql`delete from repository_blobs where digest = ${digest}`
      await registry.deps.db.sql`delete from blobs where digest = ${digest}`
      await work(registry)
      const { state, error } = await told(registry)
      assert.deepEqual([state, error?.key], ['receiving', 'UNAVAILABLE'])
      assert.equal((await send(registry, sample.bytes, `?resume=${id}`)).status, 201)
    }))

  it('is content that looks like a manifest too', () =>
    withRegistry(async (registry) => {
      const mediaType = 'application/vnd.oci.image.index.v1+json'
      const content = JSON.stringify({ schemaVersion: 2, mediaType, manifests: [] })
      const packs = [{ packId: 'odd', version: '1.0.0', content }]
      await leave(registry, sampleBundle({ packs, channels: [], referrer: false }).bytes)
      await work(registry)
      assert.equal(await (await registry.call('GET', '/packs/odd/1.0.0')).text(), content)
    }))
})

describe('what another registry exports', () => {
  async function publish({ url }: TestRegistry, document: object, content?: string): Promise<void> {
    const form = new FormData()
    form.set('manifest', JSON.stringify({ version: '1.0.0', type: 'policy', ...document }))
    if (content !== undefined) form.set('content', new Blob([content]), 'content.tgz')
    const answer = await fetch(`${url}/packs`, { method: 'POST', body: form })
    assert.equal(answer.status, 201, await answer.text())
  }

  it('is here as it was there: dependencies, bundles of packs, everything', () =>
    withRegistry(async (there) => {
      await publish(there, { packId: 'zeta' }, 'the content of zeta')
      await publish(there, { packId: 'alpha', dependencies: ['zeta@^1'] }, 'the content of alpha')
      await publish(there, { packId: 'all', type: 'bundle', dependencies: ['alpha@1'] })
      await there.call('PUT', '/packs/alpha/channels/edge', { body: '{"version":"1.0.0"}' })
      const file = await there.call('POST', '/bundles', { body: '{"roots":["all@1"]}' })
      const bytes = Buffer.from(await file.arrayBuffer())
      assert.equal(file.status, 200, bytes.toString().slice(0, 500))
      await withRegistry(async (here) => {
        const answer = await send(here, bytes)
        assert.equal(answer.status, 201, JSON.stringify(answer))
        for (const path of ['/packs/all/1.0.0', '/packs/zeta/latest', '/packs/alpha/edge']) {
          const [was, is] = [await there.call('GET', path), await here.call('GET', path)]
          assert.deepEqual(Buffer.from(await is.arrayBuffer()), Buffer.from(await was.arrayBuffer()), path)
        }
        const ask = { body: '{"roots":["all@1"]}' }
        const [was, is] = [await there.call('POST', '/resolve', ask), await here.call('POST', '/resolve', ask)]
        assert.equal(await is.text(), await was.text())
        const dependents = await here.call('GET', '/packs/zeta/1.0.0/dependents')
        assert.match(await dependents.text(), /alpha/)
      })
    }))

  it('has its signatures under the tags of cosign too, and so has the layout of another tool', () =>
    withRegistry(async (there) => {
      await publish(there, { packId: 'alpha' }, 'the content of alpha')
      const subject = (await there.call('HEAD', '/v2/packs/alpha/manifests/1.0.0')).headers.get('docker-content-digest')
      const tag = `${subject?.replace(':', '-')}.sig`
      const signature = await there.pushManifest('packs/alpha', tag)
      const list = `${subject?.replace(':', '-')}`
      const fallback = { schemaVersion: 2, mediaType: indexType, manifests: [] }
      await there.pushManifest('packs/alpha', list, fallback)
      const file = await there.call('POST', '/bundles', { body: '{"all":true}' })
      const bundle = Buffer.from(await file.arrayBuffer())
      const names = [
        [subject, 'packs/alpha:1.0.0'],
        [signature.digest, tag],
        [digestOf(Buffer.from(JSON.stringify(fallback))), list],
      ] as const
      const blobs = new Map<string, Buffer>()
      const manifests = await Promise.all(
        names.map(async ([digest, name]) => {
          const answer = await there.call('GET', `/v2/packs/alpha/manifests/${digest}`)
          const bytes = Buffer.from(await answer.arrayBuffer())
          blobs.set(String(digest), bytes)
          for (const blob of [JSON.parse(bytes.toString()).config, ...(JSON.parse(bytes.toString()).layers ?? [])])
            if (blob) {
              const content = await there.call('GET', `/v2/packs/alpha/blobs/${blob.digest}`)
              blobs.set(blob.digest, Buffer.from(await content.arrayBuffer()))
            }
          const annotations = { 'org.opencontainers.image.ref.name': name }
          return { mediaType: answer.headers.get('content-type'), digest, size: bytes.length, annotations }
        }),
      )
      const layout = tarOf([
        { name: 'oci-layout', bytes: Buffer.from('{"imageLayoutVersion":"1.0.0"}') },
        { name: 'index.json', bytes: Buffer.from(JSON.stringify({ schemaVersion: 2, manifests })) },
        ...[...blobs].map(([digest, bytes]) => ({ name: pathOf(digest as Digest), bytes })),
      ])
      for (const bytes of [bundle, layout])
        await withRegistry(async (here) => {
          const answer = await send(here, bytes)
          assert.equal(answer.status, 201, JSON.stringify(answer))
          const tagged = await here.call('HEAD', `/v2/packs/alpha/manifests/${tag}`)
          assert.equal(tagged.headers.get('docker-content-digest'), signature.digest)
          assert.equal((await send(here, bytes)).status, 200)
        })
    }))

  it('needs what neither it nor this registry has: refused', () =>
    withRegistry(async (there) => {
      await publish(there, { packId: 'zeta' }, 'the content of zeta')
      await publish(there, { packId: 'alpha', dependencies: ['zeta@^1'] }, 'the content of alpha')
      await withRegistry(async (here) => {
        const manifest = await there.call('GET', '/v2/packs/alpha/manifests/1.0.0')
        const bytes = Buffer.from(await manifest.arrayBuffer())
        const { config, layers } = JSON.parse(bytes.toString())
        const blobs = [config, ...layers].map(async ({ digest }) => {
          const blob = await there.call('GET', `/v2/packs/alpha/blobs/${digest}`)
          return { name: pathOf(digest), bytes: Buffer.from(await blob.arrayBuffer()) }
        })
        const mediaType = 'application/vnd.oci.image.manifest.v1+json'
        const index = { schemaVersion: 2, manifests: [{ mediaType, digest: digestOf(bytes), size: bytes.length }] }
        const entries = [
          { name: 'oci-layout', bytes: Buffer.from('{"imageLayoutVersion":"1.0.0"}') },
          { name: 'index.json', bytes: Buffer.from(JSON.stringify(index)) },
          { name: pathOf(digestOf(bytes)), bytes },
          ...(await Promise.all(blobs)),
        ]
        const refused = await send(here, tarOf(entries))
        assert.deepEqual([refused.status, refused.type], [422, 'urn:packs-registry:DEPENDENCY_INVALID'])
        await publish(here, { packId: 'zeta', version: '1.3.0' }, 'another zeta')
        assert.equal((await send(here, tarOf(entries))).status, 201)
      })
    }))

  it('is refused for a runner that is too old', () =>
    withRegistry(async (there) => {
      await publish(there, { packId: 'net', metadata: { minRunnerVersion: '2.0.0' } }, 'net')
      const file = await there.call('POST', '/bundles', { body: '{"all":true}' })
      const bytes = Buffer.from(await file.arrayBuffer())
      await withRegistry(async (here) => {
        const refused = await send(here, bytes, '?runner=1.9.0')
        assert.deepEqual([refused.status, refused.type], [409, 'urn:packs-registry:RUNNER_TOO_OLD'])
        assert.equal((await send(here, bytes, '?runner=2.0.0')).status, 201)
      })
    }))
})

describe('imports side by side', () => {
  it('that go on with one and the same: the later connection has it, the earlier is told so', () =>
    withRegistry(async ({ url, call, deps }) => {
      const { request } = await import('node:http')
      const id = '11111111-2222-4333-8444-555555555555'
      const path = `/bundles/import?resume=${id}`
      const first = request(url + path, { method: 'POST', headers: { 'content-length': sample.bytes.length } })
      const answered = new Promise<number>((resolve) =>
        first.on('response', (answer) => resolve(answer.statusCode ?? 0)),
      )
      first.on('error', () => undefined)
      first.write(sample.bytes.subarray(0, 4096))
      await waitFor('the import to be known', async () => (await deps.db.sql`select from imports`).length)
      const second = await call('POST', path, { body: sample.bytes })
      assert.equal(second.status, 201)
      assert.equal(await answered, 409)
    }))

  it('that somebody else began are not there for whoever knows their id', () =>
    withRegistry(async (registry) => {
      const id = '11111111-2222-4333-8444-666666666666'
      const { sql } = registry.deps.db
      for (const state of ['receiving', 'verifying', 'failed']) {
        await sql`delete from imports`
        await sql`
          insert into imports (id, principal, state, leased_until, expires_at, finished_at)
          values (${id}, 'somebody else', ${state}, now(), now() + interval '1 hour',
            case when ${state} = 'failed' then now() end)`
        const { status, type } = await send(registry, sample.bytes, `?resume=${id}`)
        assert.deepEqual([status, type], [404, 'urn:packs-registry:IMPORT_UNKNOWN'], state)
        const [row] = await sql`select principal, state, attempt from imports`
        assert.deepEqual({ ...row }, { principal: 'somebody else', state, attempt: 1 })
      }
    }))

  it('of the same bundle by two processes: both end well, and nothing is there twice', async () => {
    const url = await databases.fresh()
    const first = await startRegistry(url)
    const second = await startRegistry(url, { BLOB_STORE: first.deps.config.blobStore })
    try {
      const answers = await Promise.all([first, second, first, second].map((registry) => send(registry, sample.bytes)))
      assert.ok(
        answers.every(({ status }) => status === 200 || status === 201),
        JSON.stringify(answers),
      )
      await cleanUp(first)
      const [row] = await first.deps.db.sql<{ count: number }[]>`select count(*)::int as count from blobs`
      assert.equal((await objects(first)).length, row?.count)
      assert.equal(await (await second.call('GET', '/packs/alpha/1.0.0')).text(), 'the content of alpha')
    } finally {
      await second.stop()
      await first.stop()
    }
  })

  it('wait for each other, and for a lock that somebody keeps, on one connection', async () => {
    const url = await databases.fresh()
    const registry = await startRegistry(url, { WORKER: 'false' })
    const other = connect(url, { max: 2 })
    try {
      let answers: Promise<Answer>[] = []
      await other.begin(async (tx) => {
        await lockDependencies(tx as unknown as Transaction)
        answers = ['one', 'two', 'three', 'four'].map((packId) => {
          const packs = [{ packId, version: '1.0.0', content: packId }]
          return send(registry, sampleBundle({ packs, channels: [] }).bytes)
        })
        await waitFor('four imports to publish', async () => {
          return (await other`select from imports where state = 'publishing'`).length === 4
        })
        await untilBlocked(registry)
        assert.equal((await other`select from pg_locks where not granted`).length, 1)
        assert.equal((await registry.call('GET', '/packs')).status, 200)
      })
      for (const { status } of await Promise.all(answers)) assert.equal(status, 201)
    } finally {
      await other.end()
      await registry.stop()
    }
  })

  it('and a publish of one of its versions with other content: one of them wins, whole', () =>
    withRegistry(async (registry) => {
      const form = new FormData()
      form.set('manifest', JSON.stringify({ packId: 'alpha', version: '1.0.0', type: 'policy' }))
      form.set('content', new Blob(['published']), 'alpha.tgz')
      const [answer, published] = await Promise.all([
        send(registry, sample.bytes),
        fetch(`${registry.url}/packs`, { method: 'POST', body: form }),
      ])
      assert.deepEqual([answer.status, published.status].sort(), [201, 409])
      const content = await (await registry.call('GET', '/packs/alpha/1.0.0')).text()
      assert.equal(content, answer.status === 201 ? 'the content of alpha' : 'published')
      assert.equal((await registry.call('GET', '/packs/beta')).status, answer.status === 201 ? 200 : 404)
    }))
})
