import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { holds, readInventory } from '../bundles/inventory.ts'
import { type Survey, survey } from '../bundles/survey.ts'
import { factsOf } from '../bundles/told.ts'
import { verify } from '../bundles/verify.ts'
import { openLog } from '../log.ts'
import { type Digest, digestOf } from '../oci/digest.ts'
import { createKey, rotateKey, trustedKeys } from '../registry/keys.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { imageType, indexType, sampleManifest, startRegistry, type TestRegistry } from '../testing/registry.ts'
import { noS3, startS3 } from '../testing/s3.ts'

// Bundle files as they leave: what is in them is judged by the reader that imports use.

// biome-ignore lint/suspicious/noExplicitAny: answers of many shapes, looked at field by field
type Json = Record<string, any>

let databases: TestDatabases
let here: TestRegistry
let there: TestRegistry
const work = mkdtempSync(join(tmpdir(), 'packs-export-'))

before(async () => {
  databases = await startDatabases()
  const url = await databases.fresh()
  here = await startRegistry(url, {}, openLog('error'))
  // Another process over the same facts.
  there = await startRegistry(url, { BLOB_STORE: here.deps.config.blobStore })
  await publish({ packId: 'base' }, 'the content of base 1.0.0')
  await publish({ packId: 'base', version: '1.1.0-rc.1+build.7' }, 'the content of a base to come')
  net = await publish({ packId: 'net', version: '2.0.0', dependencies: ['base@^1'] }, large)
  await publish({ packId: 'whole', dependencies: ['net@^2'] })
  await publish({ packId: 'broken', dependencies: ['base@^1'] }, 'the content of broken')
  await publish({ packId: 'base', version: '3.0.0' }, 'the content of base 3.0.0')
  await publish({ packId: 'picky', dependencies: ['base@^3'] }, 'the content of picky')
  await here.call('PUT', '/packs/net/channels/stable', { body: JSON.stringify({ version: '2.0.0' }) })
})
after(async () => {
  await there?.stop()
  await here?.stop()
  await databases?.stop()
  rmSync(work, { recursive: true, force: true })
})

const large = randomBytes(3_000_000)

async function publish(document: Json, content?: string | Uint8Array<ArrayBuffer>, at = here): Promise<Json> {
  const form = new FormData()
  const type = content === undefined ? 'bundle' : 'policy'
  form.append('manifest', new Blob([JSON.stringify({ type, version: '1.0.0', ...document })]), 'pack.json')
  if (content !== undefined) form.append('content', new Blob([content]), 'content.tgz')
  const answer = await fetch(`${at.url}/packs`, { method: 'POST', body: form })
  const body = (await answer.json()) as Json
  assert.equal(answer.status, 201, JSON.stringify(body))
  return body
}

/** Signs nothing, but hangs on a manifest as a signature does. */
async function attach(packId: string, subject: { digest: string; size: number }, type: string, at = here) {
  const layer = await at.pushBlob(`packs/${packId}`, `${type} of ${subject.digest}`)
  const over = { artifactType: type, layers: [layer], subject: { mediaType: imageType, ...subject } }
  return at.pushManifest(`packs/${packId}`, 'digest', sampleManifest(over))
}

async function ask(path: string, body: Json, { at = here, headers = {} as Record<string, string> } = {}) {
  const answer = await at.call('POST', path, { body: JSON.stringify(body), headers })
  return { status: answer.status, headers: answer.headers, bytes: Buffer.from(await answer.arrayBuffer()) }
}

async function plan(body: Json, at = here): Promise<Json> {
  const { status, bytes } = await ask('/bundles/plan', body, { at })
  assert.equal(status, 200, bytes.toString())
  return JSON.parse(bytes.toString())
}

async function bundle(body: Json, at = here): Promise<Buffer> {
  const { status, headers, bytes } = await ask('/bundles', body, { at })
  assert.equal(status, 200, bytes.toString())
  assert.equal(headers.get('content-length'), String(bytes.length))
  return bytes
}

/** Reads a file as a receiver does, and judges all of it. */
async function judged(bytes: Buffer, at = here): Promise<Survey> {
  const file = join(work, `${createHash('sha256').update(bytes).digest('hex').slice(0, 16)}.tar`)
  writeFileSync(file, bytes)
  const read = await survey(file)
  const keys = await trustedKeys(at.deps)
  const { unnamed } = verify(read, { keys, policy: undefined, now: new Date() })
  assert.deepEqual(unnamed, [])
  return read
}

const sha256 = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex')
const names = (read: Survey) => factsOf(read).packs.map(({ packId, version }) => `${packId} ${version}`)
const inventory = async (at = here) => (await (await at.call('GET', '/inventory')).json()) as Json

let net: Json

describe('POST /bundles', () => {
  it('answers the closure of the roots as a file that its receiver takes as complete', async () => {
    const read = await judged(await bundle({ roots: ['whole@^1'] }))
    assert.deepEqual(names(read), ['base 1.0.0', 'net 2.0.0', 'whole 1.0.0'])
    assert.deepEqual(
      factsOf(read).channels.map(({ packId, channel }) => `${packId} ${channel}`),
      ['net stable'],
    )
    assert.deepEqual(
      read.lock?.lock.roots.map(({ packId }) => packId),
      ['whole'],
    )
    assert.equal(read.layout.envelope, undefined)
  })

  it('gives the same bytes again, and on every replica, and any part of them', async () => {
    const request = { roots: ['net@^2'] }
    const whole = await ask('/bundles', request)
    const { bytes } = await ask('/bundles', request, { at: there })
    assert.ok(bytes.equals(whole.bytes))
    const etag = whole.headers.get('etag') ?? ''
    assert.match(etag, /^"[0-9a-f]{64}"$/)
    const parts: Buffer[] = []
    for (const [first, last] of [
      [0, 700],
      [701, 1_500_000],
      [1_500_001, bytes.length - 1],
    ]) {
      const headers = { range: `bytes=${first}-${last}`, 'if-range': etag }
      const part = await ask('/bundles', request, { headers, at: parts.length % 2 ? here : there })
      assert.deepEqual(
        [part.status, part.headers.get('content-range')],
        [206, `bytes ${first}-${last}/${bytes.length}`],
      )
      parts.push(part.bytes)
    }
    assert.ok(Buffer.concat(parts).equals(bytes))
    const changed = await ask('/bundles', request, { headers: { range: 'bytes=5-', 'if-range': '"another"' } })
    assert.deepEqual([changed.status, changed.bytes.length], [200, bytes.length])
    const beyond = await ask('/bundles', request, { headers: { range: `bytes=${bytes.length}-` } })
    assert.equal(beyond.status, 416)
  })

  it('holds everything of a site, all versions', async () => {
    const read = await judged(await bundle({ all: true }))
    assert.deepEqual(names(read), [
      ...['base 1.0.0', 'base 1.1.0-rc.1+build.7', 'base 3.0.0', 'broken 1.0.0', 'net 2.0.0', 'picky 1.0.0'],
      'whole 1.0.0',
    ])
    assert.deepEqual(read.lock?.lock, { lockVersion: 1, roots: [], packs: [] })
    const contents = (await judged(await bundle({ roots: ['whole@^1'] }))).lock?.lock.packs ?? []
    const sizes = new Map(factsOf(read).packs.map(({ manifestDigest, size }) => [manifestDigest, size]))
    assert.ok(contents.some(({ digest, manifestDigest }) => digest === manifestDigest))
    for (const { manifestDigest, size } of contents) assert.equal(sizes.get(manifestDigest), size)
  })

  it('takes along what hangs on a pack, and on that, unless told not to', async () => {
    const { digest, manifestDigest } = await publish({ packId: 'signed' }, 'the content of signed')
    const manifest = await here.call('GET', `/v2/packs/signed/manifests/${manifestDigest}`)
    const size = (await manifest.arrayBuffer()).byteLength
    const sbom = await attach('signed', { digest: manifestDigest, size }, 'application/vnd.cyclonedx+json')
    const signature = await attach('signed', sbom, 'application/vnd.cncf.notary.signature')
    const cosign = await here.pushManifest('packs/signed', `${manifestDigest.replace(':', '-')}.sig`)
    const { mediaType } = sbom
    const fallback = { schemaVersion: 2, mediaType: indexType, manifests: [{ ...sbom, mediaType }] }
    await here.pushManifest('packs/signed', manifestDigest.replace(':', '-'), fallback)
    const read = await judged(await bundle({ roots: ['signed'] }))
    assert.deepEqual(
      factsOf(read)
        .referrers.map(({ digest, subject }) => [digest, subject])
        .sort(),
      [
        [sbom.digest, manifestDigest],
        [signature.digest, sbom.digest],
      ].sort(),
    )
    const attached = read.contents.entries.filter(({ kind }) => kind === 'attachment')
    assert.equal(attached.length, 2)
    assert.ok(attached.some(({ descriptor }) => descriptor.digest === cosign.digest))
    assert.ok(read.blobs.has(digest))
    const bare = await judged(await bundle({ roots: ['signed'], referrers: false }))
    assert.deepEqual(
      [...bare.blobs.keys()].filter((blob) => [sbom, signature].some((one) => one.digest === blob)),
      [],
    )
    assert.deepEqual(factsOf(bare).referrers, [])
  })

  it('leaves channels out when told to', async () => {
    assert.deepEqual(factsOf(await judged(await bundle({ roots: ['net'], channels: false }))).channels, [])
  })

  it('is resolved for a runner, by a channel and by a lock', async () => {
    const lock = JSON.parse((await ask('/resolve', { roots: ['base@1.0.0'] })).bytes.toString())
    assert.deepEqual(names(await judged(await bundle({ roots: ['base'], lock }))), ['base 1.0.0'])
    assert.deepEqual(names(await judged(await bundle({ roots: ['base'] }))), ['base 3.0.0'])
    await here.call('PUT', '/packs/base/channels/old', { body: JSON.stringify({ version: '1.0.0' }) })
    assert.deepEqual(names(await judged(await bundle({ roots: ['base'], channel: 'old' }))), ['base 1.0.0'])
  })

  const refused: [name: string, body: unknown, status: number, words: RegExp][] = [
    ['nothing', {}, 400, /either \\"roots\\" or \\"all\\"/],
    ['both', { roots: ['net'], all: true }, 400, /either/],
    ['a runner for everything', { all: true, runner: '1.0.0' }, 400, /resolves nothing/],
    ['no roots', { roots: [] }, 400, /must name a pack/],
    ['another field', { roots: ['net'], rots: true }, 400, /not a field of this request/],
    ['a pack that is not there', { roots: ['nobody'] }, 404, /there is no pack nobody/],
    ['what cannot be', { roots: ['net', 'picky'] }, 409, /picky/],
    ['no inventory', { roots: ['net'], inventory: { payload: '' } }, 422, /INVENTORY_INVALID/],
    ['text', 'text', 400, /must be a JSON object/],
  ]
  for (const [name, body, status, words] of refused)
    it(`refuses ${name}`, async () => {
      const answer = await ask('/bundles', body as Json)
      assert.match(answer.bytes.toString(), words)
      assert.equal(answer.status, status)
    })

  it('breaks off, rather than to send something else, where content is lost', async () => {
    await publish({ packId: 'lost' }, new Uint8Array(randomBytes(2_000_000)))
    const request = { roots: ['lost'] }
    const [blob] = await here.deps.db.sql<{ key: string }[]>`
      select storage_key as key from blobs where size = 2000000`
    await here.deps.blobs.delete([blob?.key as never])
    await assert.rejects(bundle(request))
    await here.call('DELETE', '/packs/lost/1.0.0')
  })
})

describe('POST /bundles/plan', () => {
  it('says what would go in, and is right', async () => {
    const told = await plan({ roots: ['whole'] })
    const bytes = await bundle({ roots: ['whole'] })
    const read = await judged(bytes)
    assert.deepEqual(
      { size: told.size, sha256: told.sha256, index: told.index, blobs: told.blobs, bytes: told.bytes },
      {
        ...{ size: bytes.length, sha256: sha256(bytes), index: digestOf(read.layout.index) },
        ...{ blobs: read.layout.blobs, bytes: read.layout.size },
      },
    )
    assert.deepEqual(
      told.packs.map((pack: Json) => [pack.packId, pack.version, pack.manifestDigest]),
      factsOf(read).packs.map(({ packId, version, manifestDigest }) => [packId, version, manifestDigest]),
    )
    assert.deepEqual(told.channels.at(-1), { packId: 'net', channel: 'stable', manifestDigest: net.manifestDigest })
    assert.deepEqual([told.problems, told.leftOut, told.signedBy], [[], { blobs: 0, bytes: 0 }, []])
  })

  it('tells every problem at once, and makes no file', async () => {
    await publish({ packId: 'holed' }, 'the content of holed')
    const gap = `sha256:${'0'.repeat(64)}`
    const annotations = {
      'vnd.stellaops.pack.config': JSON.stringify({ packId: 'sparse', version: '1.0.0', type: 'bundle' }),
    }
    const manifests = [{ mediaType: imageType, digest: gap, size: 5 }]
    const artifactType = 'application/vnd.stellaops.pack.bundle.v1'
    const index = { schemaVersion: 2, mediaType: indexType, artifactType, manifests, annotations }
    await here.pushManifest('packs/sparse', '1.0.0', index)
    const told = await plan({ roots: ['nobody', 'nothing', 'sparse', 'holed@^1'] })
    assert.deepEqual(
      told.problems.map(({ code }: Json) => code),
      ['PACK_UNKNOWN', 'BUNDLE_INCOMPLETE'],
    )
    assert.deepEqual(told.problems[0].about.packIds, ['nobody', 'nothing'])
    assert.deepEqual(told.problems[1].about.missing, [gap])
    assert.equal(told.id, undefined)
    const many = await plan({ roots: ['nobody', 'holed@^7', 'net@^9', 'base'] })
    assert.deepEqual(
      many.problems.map(({ code }: Json) => code),
      ['PACK_UNKNOWN', 'UNRESOLVABLE', 'UNRESOLVABLE'],
    )
    const answer = await ask('/bundles', { roots: ['nobody', 'holed@^7', 'net@^9', 'base'] })
    assert.equal(answer.status, 404)
    assert.equal(JSON.parse(answer.bytes.toString()).about.problems.length, 3)
    await here.call('DELETE', '/packs/sparse/1.0.0')
  })

  it('keeps the file: the very same one, whatever is published since, in parts and on any replica', async () => {
    const request = { roots: ['holed@*'] }
    const told = await plan(request)
    const bytes = await bundle(request)
    await publish({ packId: 'holed', version: '1.1.0' }, 'the content of another holed')
    assert.notEqual((await plan(request)).id, told.id)
    const head = await there.call('HEAD', `/bundles/${told.id}`)
    assert.deepEqual([head.status, head.headers.get('content-length')], [200, String(bytes.length)])
    const whole = await there.call('GET', `/bundles/${told.id}`)
    assert.equal(whole.headers.get('etag'), `"${told.id}"`)
    assert.ok(Buffer.from(await whole.arrayBuffer()).equals(bytes))
    const part = await here.call('GET', `/bundles/${told.id}`, { headers: { range: 'bytes=1000-' } })
    assert.equal(part.status, 206)
    assert.ok(Buffer.from(await part.arrayBuffer()).equals(bytes.subarray(1000)))
    const same = await here.call('GET', `/bundles/${told.id}`, { headers: { 'if-none-match': `"${told.id}"` } })
    assert.equal(same.status, 304)
  })

  it('says that a file is gone with its content, and that it never was', async () => {
    const { manifestDigest } = await publish({ packId: 'fleeting' }, 'the content of fleeting')
    const { id } = await plan({ roots: ['fleeting'] })
    await here.call('DELETE', `/v2/packs/fleeting/manifests/${manifestDigest}`)
    const gone = await here.call('GET', `/bundles/${id}`)
    assert.equal(gone.status, 410)
    assert.match(await gone.text(), /fleeting has deleted.*plan it again/)
    const never = await here.call('GET', `/bundles/${'0'.repeat(64)}`)
    assert.equal(never.status, 404)
    assert.match(await never.text(), /BUNDLE_UNKNOWN/)
  })
})

describe('a signed bundle', () => {
  before(async () => {
    await createKey(here.deps, 'release')
    await createKey(here.deps, 'second')
  })

  it('is signed with every key that signs, and the same every time', async () => {
    const request = { roots: ['whole'] }
    const bytes = await bundle(request)
    const read = await judged(bytes)
    const { signature } = verify(read, { keys: await trustedKeys(here.deps), policy: 'always', now: new Date() })
    assert.equal(signature.kind === 'verified' && signature.by.length, 2)
    assert.ok(bytes.equals(await bundle(request, there)))
    const told = await plan(request)
    assert.deepEqual([told.sha256, told.signedBy.length], [sha256(bytes), 2])
    await rotateKey(here.deps, 'second')
    assert.notEqual((await plan(request)).id, told.id)
    const kept = await here.call('GET', `/bundles/${told.id}`)
    assert.ok(Buffer.from(await kept.arrayBuffer()).equals(bytes))
  })
})

describe('GET /inventory', () => {
  it('lists every blob and version of packs, signed, the same on every replica', async () => {
    const answer = await here.call('GET', '/inventory')
    const bytes = Buffer.from(await answer.arrayBuffer())
    const other = Buffer.from(await (await there.call('GET', '/inventory')).arrayBuffer())
    assert.ok(bytes.equals(other))
    const keys = await trustedKeys(here.deps)
    const read = readInventory(JSON.parse(bytes.toString()), keys)
    assert.equal(read.signedBy.length, 2)
    const all = await judged(await bundle({ all: true, referrers: false }))
    for (const { needs } of [...all.manifests.values()].filter((manifest) => 'needs' in manifest))
      for (const { digest } of needs) if (digest !== factsOf(all).lock) assert.ok(holds(read.inventory, digest), digest)
    assert.ok(!holds(read.inventory, digestOf(Buffer.from('never seen'))))
    assert.deepEqual(
      read.inventory.packs.flatMap(({ packId, versions }) => versions.map(({ version }) => `${packId} ${version}`)),
      names(all),
    )
    assert.deepEqual(
      read.inventory.packs.flatMap(({ versions }) => versions.map(({ manifestDigest }) => manifestDigest)),
      factsOf(all).packs.map(({ manifestDigest }) => manifestDigest),
    )
    const etag = answer.headers.get('etag') ?? ''
    const again = await there.call('GET', '/inventory', { headers: { 'if-none-match': etag } })
    assert.equal(again.status, 304)
  })

  it('lets a bundle leave out what the receiver has: only what is new is in it', async () => {
    const before = await inventory()
    const known = readInventory(before, []).inventory
    const { digest } = await publish({ packId: 'net', version: '2.1.0', dependencies: ['base@^1'] }, 'new net')
    const request = { roots: ['net@^2'], inventory: before }
    const told = await plan(request)
    const read = await judged(await bundle(request))
    assert.deepEqual(names(read), ['base 1.0.0', 'net 2.1.0'])
    const contents = [...read.blobs.keys()].filter((blob) => !read.manifests.has(blob))
    const added = await here.call('GET', '/v2/packs/net/manifests/2.1.0')
    const { config } = (await added.json()) as Json
    assert.deepEqual(new Set(contents), new Set([digest, config.digest, factsOf(read).lock, ...documentsOf(read)]))
    // The content of base, its config, and nothing of the new version.
    assert.deepEqual([told.leftOut.blobs, read.leftOut.length], [2, 2])
    assert.ok(read.leftOut.every((left) => holds(known, left.digest)))
    assert.equal(read.contents.base, told.inventory.digest)
    assert.equal(told.inventory.signature, 'trusted')
  })

  it('is the whole bundle where the receiver has nothing of it', async () => {
    const empty = await startRegistry(await databases.fresh())
    try {
      const request = { roots: ['net@^2'] }
      const theirs = await inventory(empty)
      assert.deepEqual(theirs.signatures, [])
      assert.ok((await bundle({ ...request, inventory: theirs })).equals(await bundle(request)))
      const told = await plan({ ...request, inventory: theirs })
      assert.equal(told.inventory.signature, 'none')
    } finally {
      await empty.stop()
    }
  })

  it('is refused where a trusted key is named that did not sign it', async () => {
    const document = await inventory()
    const content = Buffer.from(document.payload, 'base64')
    content[content.length - 1] = (content.at(-1) ?? 0) ^ 1
    const answer = await ask('/bundles/plan', {
      roots: ['net'],
      inventory: { ...document, payload: content.toString('base64') },
    })
    assert.equal(answer.status, 422)
    assert.match(answer.bytes.toString(), /did not sign this/)
  })
})

/** The list of what is left out, and the empty config of its manifest. */
function documentsOf(read: Survey): Digest[] {
  const entry = read.contents.entries.find(({ kind }) => kind === 'missing')
  const manifest = entry && read.manifests.get(entry.descriptor.digest)
  return manifest && 'needs' in manifest ? manifest.needs.map(({ digest }) => digest) : []
}

describe('a bundle from S3', () => {
  it('has the same bytes as from a folder, and any part of them', async (t) => {
    const s3 = await startS3()
    if (!s3) return t.skip(noS3)
    process.env.AWS_ACCESS_KEY_ID = s3.accessKey
    process.env.AWS_SECRET_ACCESS_KEY = s3.secretKey
    const store = `s3://${s3.bucket}/exports?endpoint=${s3.endpoint}&region=us-east-1&pathStyle=true`
    const site = await startRegistry(await databases.fresh(), { BLOB_STORE: store })
    try {
      await publish({ packId: 'net', version: '2.0.0' }, large, site)
      const bytes = await bundle({ all: true }, site)
      assert.deepEqual(names(await judged(bytes, site)), ['net 2.0.0'])
      const { id, sha256: told } = await plan({ all: true }, site)
      assert.equal(told, sha256(bytes))
      const part = await site.call('GET', `/bundles/${id}`, { headers: { range: 'bytes=1000000-2000000' } })
      assert.ok(Buffer.from(await part.arrayBuffer()).equals(bytes.subarray(1_000_000, 2_000_001)))
    } finally {
      await site.stop()
      await s3.stop()
    }
  })
})
