import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, describe, it } from 'node:test'
import { blobKey, chunkKey, type ObjectKey, storedKey } from '../blobs/keys.ts'
import { openMemoryStore } from '../blobs/memory.ts'
import type { BlobStore } from '../blobs/store.ts'
import { countFindings, listFindings } from '../db/findings.ts'
import { type Digest, digestOf } from '../oci/digest.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { codeOf, sampleManifest, startRegistry, type TestRegistry } from '../testing/registry.ts'
import { noS3, startS3, type TestS3 } from '../testing/s3.ts'
import { tidy } from './deletions.ts'
import { type ScrubOptions, scrub } from './scrub.ts'

let databases: TestDatabases
let s3: TestS3 | undefined
before(async () => {
  databases = await startDatabases()
  s3 = await startS3()
  if (s3) Object.assign(process.env, { AWS_ACCESS_KEY_ID: s3.accessKey, AWS_SECRET_ACCESS_KEY: s3.secretKey })
})
after(async () => {
  await s3?.stop()
  await databases?.stop()
})

const repository = 'lib/scrubbed'
/** Larger than what is kept in memory, so that it is served from the store. */
const large = 200_000

type Where = 'memory' | 'folder' | 'S3'
let prefixes = 0

async function open(where: Where): Promise<TestRegistry> {
  const url = `s3://${s3?.bucket}/${prefixes++}?endpoint=${s3?.endpoint}&pathStyle=true`
  const registry = await startRegistry(await databases.fresh(), {
    BLOB_REDIRECT: 'false',
    ...(where === 'S3' ? { BLOB_STORE: url } : {}),
  })
  if (where === 'memory') Object.assign(registry.deps, { blobs: openMemoryStore() })
  return registry
}

async function push({ pushBlob, pushManifest }: TestRegistry, bytes = randomBytes(large)) {
  const layer = await pushBlob(repository, bytes)
  const manifest = await pushManifest(repository, 'v1', sampleManifest({ layers: [layer] }))
  return { bytes, digest: layer.digest as Digest, manifest: manifest.digest }
}

async function keyOf({ deps }: TestRegistry, digest: Digest): Promise<ObjectKey> {
  const [row] = await deps.db.sql<{ key: string }[]>`select storage_key as key from blobs where digest = ${digest}`
  return storedKey(row?.key ?? assert.fail(`no row of ${digest}`))
}

/** Other bytes under the same key, as a broken disk has them. */
async function spoil({ blobs }: { blobs: BlobStore }, key: ObjectKey, bytes: Buffer): Promise<void> {
  await blobs.delete([key])
  await blobs.put(key, bytes)
}

const pass = ({ deps }: TestRegistry, options: Partial<ScrubOptions> = {}) =>
  scrub(deps, { mode: 'full', rate: 0, orphanAgeSeconds: -60, ...options })

async function found({ deps }: TestRegistry, all = false) {
  const rows = await listFindings(deps.db.sql, { all, limit: 100 })
  return rows.map(({ kind, digest, key, repaired }) => ({ kind, digest, key, repaired }))
}

async function read(registry: TestRegistry, digest: Digest): Promise<Buffer | string | undefined> {
  const answer = await registry.call('GET', `/v2/${repository}/blobs/${digest}`)
  return answer.status === 200 ? Buffer.from(await answer.arrayBuffer()) : codeOf(answer)
}

async function objects({ deps }: TestRegistry, prefix = ''): Promise<string[]> {
  const keys: string[] = []
  for await (const { key } of deps.blobs.list(prefix)) keys.push(key)
  return keys.sort()
}

/** What is done to a blob, and what a pass makes of it. `healed`: what another generation does about it. */
const damages: {
  name: string
  kind: string
  quick: boolean
  aside: boolean
  harm(bytes: Buffer): Buffer | undefined
}[] = [
  {
    name: 'a flipped bit',
    kind: 'wrong-bytes',
    quick: false,
    aside: true,
    harm(bytes) {
      const other = Buffer.from(bytes)
      other[1234] = (other[1234] ?? 0) ^ 1
      return other
    },
  },
  {
    name: 'a truncated object',
    kind: 'wrong-bytes',
    quick: true,
    aside: true,
    harm: (bytes) => bytes.subarray(0, 100_000),
  },
  { name: 'a deleted object', kind: 'object-missing', quick: true, aside: false, harm: () => undefined },
]

for (const where of ['memory', 'folder', 'S3'] as const)
  describe(`scrub of a store in ${where}`, () => {
    const skip = () => where === 'S3' && !s3
    let registry: TestRegistry
    before(async () => {
      if (!skip()) registry = await open(where)
    })
    after(async () => {
      await registry?.stop()
    })
    const promise = (what: string, body: () => Promise<void>) => it(what, async (t) => (skip() ? t.skip(noS3) : body()))

    promise('finds nothing where nothing is wrong, and says when it looked', async () => {
      const { digest } = await push(registry)
      const done = await pass(registry)
      assert.deepEqual([done?.blobs, done?.found, done?.open], [2, 0, {}])
      const [row] = await registry.deps.db.sql`
        select verified_at > now() - interval '1 minute' as fresh from blobs where digest = ${digest}`
      assert.equal(row?.fresh, true)
      assert.equal((await pass(registry, { mode: 'quick' }))?.found, 0)
    })

    for (const { name, kind, quick, aside, harm } of damages) {
      const break_ = async () => {
        const content = await push(registry)
        const key = await keyOf(registry, content.digest)
        const harmed = harm(content.bytes)
        if (harmed) await spoil(registry.deps, key, harmed)
        else await registry.deps.blobs.delete([key])
        return { ...content, key }
      }

      promise(`${name} is found, not served, and healed by who pushes it again`, async () => {
        const { digest, bytes, key, manifest } = await break_()
        const open = (await pass(registry, { mode: 'quick' }))?.open
        assert.deepEqual(open, quick ? { [kind]: 1 } : {})
        assert.deepEqual((await pass(registry))?.open, { [kind]: 1 })
        assert.deepEqual(await found(registry), [{ kind, digest, key, repaired: null }])
        const [finding] = await listFindings(registry.deps.db.sql, { all: false, limit: 1 })
        assert.deepEqual(finding?.repositories, [{ name: repository, manifests: [manifest] }])
        assert.equal(await read(registry, digest), 'BLOB_UNKNOWN')
        assert.equal((await registry.call('HEAD', `/v2/${repository}/blobs/${digest}`)).status, 404)
        const mount = `/v2/lib/other/blobs/uploads/?mount=${digest}&from=${repository}`
        assert.equal((await registry.call('POST', mount)).status, 202)

        await registry.pushBlob(repository, bytes)
        assert.deepEqual(await read(registry, digest), bytes)
        assert.deepEqual(await countFindings(registry.deps.db.sql), new Map())
        assert.notEqual(await keyOf(registry, digest), key)
        await tidy(registry.deps)
        assert.deepEqual((await objects(registry)).includes(key), false)
        assert.deepEqual((await pass(registry))?.open, {})
      })

      promise(`${name} is repaired from another generation${aside ? ', and put aside' : ''}`, async () => {
        const { digest, bytes, key } = await break_()
        const wrong = blobKey(digest)
        const other = blobKey(digest)
        await registry.deps.blobs.put(other, bytes)
        await registry.deps.blobs.put(wrong, Buffer.from('also wrong'))
        // It waits to be deleted: that is no reason not to use it.
        await registry.deps.db.sql`insert into blob_deletions (storage_key) values (${other})`
        const done = await pass(registry, { repair: true })
        assert.deepEqual(done?.open, {})
        assert.deepEqual(await read(registry, digest), bytes)
        await tidy(registry.deps)
        const [live, ...rest] = await objects(registry, `blobs/sha256/${digest.slice(7, 9)}/${digest.slice(7)}`)
        assert.equal(live, await keyOf(registry, digest))
        assert.deepEqual(rest, [])
        assert.equal(
          (await found(registry, true)).some(({ repaired }) => repaired === `re-linked from ${other}`),
          true,
        )
        const quarantined = await objects(registry, `quarantine/sha256/${digest.slice(7)}`)
        assert.equal(quarantined.length, aside ? 1 : 0)
        assert.equal((await objects(registry)).includes(key), false)
      })

      promise(`${name} that nothing can repair stays a finding over passes, until it is pushed`, async () => {
        const { digest, bytes, key } = await break_()
        assert.deepEqual((await pass(registry, { repair: true }))?.open, { [kind]: 1 })
        assert.deepEqual((await pass(registry, { repair: true }))?.open, { [kind]: 1 })
        assert.equal((await objects(registry)).includes(key), false)
        assert.equal((await objects(registry, `quarantine/sha256/${digest.slice(7)}`)).length, aside ? 1 : 0)
        await registry.pushBlob(repository, bytes)
        assert.deepEqual(await read(registry, digest), bytes)
        assert.deepEqual((await pass(registry, { repair: true }))?.open, {})
      })
    }

    promise('an object that comes back is found right again', async () => {
      const { digest, bytes } = await push(registry)
      const key = await keyOf(registry, digest)
      await registry.deps.blobs.delete([key])
      assert.deepEqual((await pass(registry, { mode: 'quick' }))?.open, { 'object-missing': 1 })
      await registry.deps.blobs.put(key, bytes)
      assert.deepEqual((await pass(registry, { mode: 'quick' }))?.open, {})
      assert.deepEqual(await read(registry, digest), bytes)
    })

    promise('a row with the wrong size, and one with an odd key, are set right', async () => {
      const [sized, keyed] = [await push(registry), await push(registry)]
      const { sql } = registry.deps.db
      await sql`update blobs set size = 7 where digest = ${sized.digest}`
      const [key, odd] = [await keyOf(registry, keyed.digest), storedKey('blobs/sha256/somewhere-else')]
      await registry.deps.blobs.link(key, odd)
      await sql`update blobs set storage_key = ${odd} where digest = ${keyed.digest}`
      assert.deepEqual((await pass(registry, { mode: 'quick' }))?.open, { 'wrong-size': 1, 'odd-key': 1 })
      assert.equal(await read(registry, sized.digest), 'BLOB_UNKNOWN')
      assert.deepEqual(await read(registry, keyed.digest), keyed.bytes)
      assert.deepEqual((await pass(registry, { repair: true }))?.open, {})
      assert.deepEqual(await read(registry, sized.digest), sized.bytes)
      assert.deepEqual(await read(registry, keyed.digest), keyed.bytes)
      await tidy(registry.deps)
      assert.equal((await objects(registry)).includes(odd), false)
    })

    promise('orphans are told, dropped when they are old, and what is none of ours stays', async () => {
      const { deps } = registry
      const location = (await registry.call('POST', `/v2/${repository}/blobs/uploads/`)).headers.get('location') ?? ''
      const patched = await registry.call('PATCH', location, { body: 'a chunk that is waited for' })
      const bytes = Buffer.from('nobody names this')
      const [orphan, chunk] = [blobKey(digestOf(bytes)), chunkKey('00000000-0000-4000-8000-000000000000')]
      const odd = storedKey('notes/readme.txt')
      for (const key of [orphan, chunk, odd]) await deps.blobs.put(key, bytes)
      const before = await objects(registry)
      assert.deepEqual((await pass(registry, { repair: true, orphanAgeSeconds: 3600 }))?.open, {}, 'they are young')
      assert.deepEqual((await pass(registry))?.open, { 'odd-object': 1, 'orphan-chunk': 1, 'orphan-object': 1 })
      assert.deepEqual((await pass(registry, { repair: true }))?.open, { 'odd-object': 1 })
      await tidy(deps)
      assert.deepEqual(
        await objects(registry),
        before.filter((key) => key !== orphan && key !== chunk),
      )
      const put = await registry.call(
        'PUT',
        `${patched.headers.get('location')}?digest=${digestOf(Buffer.from('a chunk that is waited for'))}`,
      )
      assert.equal(put.status, 201)
      await deps.blobs.delete([odd])
      assert.deepEqual((await pass(registry))?.open, {})
    })

    promise('a GET that meets lost bytes says so, and once', async () => {
      const { digest } = await push(registry)
      await registry.deps.blobs.delete([await keyOf(registry, digest)])
      const logged: unknown[] = []
      registry.deps.log.error = (facts: unknown) => void logged.push(facts)
      const path = `/v2/${repository}/blobs/${digest}`
      const answers = await Promise.all([1, 2, 3].map(() => registry.call('GET', path)))
      for (const answer of answers) {
        const { errors } = (await answer.json()) as { errors: { code: string; detail: { advice?: string } }[] }
        assert.deepEqual([answer.status, errors[0]?.code], [404, 'BLOB_UNKNOWN'])
      }
      assert.equal(logged.length, 1)
      assert.deepEqual(await countFindings(registry.deps.db.sql), new Map([['object-missing', 1]]))
      const events = await registry.deps.db.sql`
        select data from event_outbox where type = 'scrub.finding' and subject = ${digest}
        union all select data from events where type = 'scrub.finding' and subject = ${digest}`
      assert.equal(events.length, 1)
    })
  })
