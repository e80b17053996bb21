import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { createHash, randomBytes, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { after, before, beforeEach, it } from 'node:test'
import { blobKey, chunkKey, parseKey, storedKey } from '../blobs/keys.ts'
import type { BlobStore } from '../blobs/store.ts'
import { listFindings } from '../db/findings.ts'
import { queueOrphan, takeRun } from '../db/scrub.ts'
import { type Digest, digestOf } from '../oci/digest.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { sampleManifest, startRegistry, type TestRegistry } from '../testing/registry.ts'
import { waitFor } from '../testing/wait.ts'
import { scrubStore } from '../worker/scrub.ts'
import { tidy } from './deletions.ts'
import { rebuildFromStore } from './rebuild-store.ts'
import { type ScrubOptions, scrub } from './scrub.ts'

// Passes over time: cut off and taken up, several at once, beside pushes and the collector. And the rows made again.

const main = new URL('../main.ts', import.meta.url).pathname

let databases: TestDatabases
let registry: TestRegistry
let url: string
const children: ChildProcess[] = []
before(async () => {
  databases = await startDatabases()
})
beforeEach(async () => {
  await registry?.stop()
  url = await databases.fresh()
  registry = await startRegistry(url)
})
after(async () => {
  for (const child of children) child.kill('SIGKILL')
  await registry?.stop()
  await databases?.stop()
})

const pass = (options: Partial<ScrubOptions> = {}) =>
  scrub(registry.deps, { mode: 'full', rate: 0, orphanAgeSeconds: -60, ...options })

async function pushMany(count: number, size = 300_000): Promise<Digest[]> {
  const digests: Digest[] = []
  for (let i = 0; i < count; i++) digests.push((await registry.pushBlob('many', randomBytes(size))).digest as Digest)
  return digests.sort()
}

async function keyOf(digest: Digest) {
  const [row] = await registry.deps.db.sql<{ key: string }[]>`
    select storage_key as key from blobs where digest = ${digest}`
  return storedKey(row?.key ?? assert.fail('no row'))
}

/** Counts what is read, and lets a test stop in the middle. */
function watched(store: BlobStore, onOpen: (key: string) => void): BlobStore {
  const watching: BlobStore = Object.create(store)
  Object.assign(watching, {
    filePath: undefined,
    open(key: Parameters<BlobStore['open']>[0]) {
      onOpen(key)
      return store.open(key)
    },
  })
  return watching
}

it('a pass that is stopped goes on where it was, and reads nothing twice but its last page', async () => {
  // Pages end at 256 MiB: with rows that say so, each blob is a page.
  const digests = await pushMany(6)
  await registry.deps.db.sql`update blobs set size = 200 * 1024 * 1024 + size`
  const { blobs } = registry.deps
  const read: string[] = []
  const stop = new AbortController()
  registry.deps.blobs = watched(blobs, (key) => {
    read.push(key)
    if (read.length === 4) stop.abort()
  })
  await assert.rejects(pass({ signal: stop.signal }), { name: 'AbortError' })
  const [half] = await registry.deps.db.sql<{ blobs: number; position: string }[]>`
    select blobs::int, position from scrub_runs where finished_at is null`
  assert.deepEqual(half, { blobs: 3, position: digests[2] })

  const done = await pass()
  assert.deepEqual([done?.blobs, done?.found], [6, 6])
  assert.equal(read.length, 7)
  registry.deps.blobs = blobs
})

it('one process at a time works at a pass; who dies loses it, and learns so', async () => {
  await pushMany(2)
  const { sql } = registry.deps.db
  const other = await takeRun(sql, 'full', randomUUID())
  assert.equal(other?.position, '')
  assert.equal(await pass(), undefined)
  const context = { signal: new AbortController().signal, progress: () => undefined }
  assert.deepEqual(await scrubStore(registry.deps, {}, context), { skipped: 'another process scrubs already' })
  assert.equal((await pass({ mode: 'quick' }))?.blobs, 2, 'a pass of the other mode is another one')
  await sql`update scrub_runs set leased_until = now() - interval '1 second' where finished_at is null`
  assert.equal((await pass())?.blobs, 2)

  const { blobs } = registry.deps
  registry.deps.blobs = watched(blobs, () => undefined)
  let taken = false
  Object.assign(registry.deps.blobs, {
    async open(key: Parameters<BlobStore['open']>[0]) {
      if (!taken) await sql`update scrub_runs set holder = ${randomUUID()} where finished_at is null`
      taken = true
      return blobs.open(key)
    },
  })
  await assert.rejects(pass(), /another process has taken this pass up/)
  registry.deps.blobs = blobs
})

it('several at once repair the same damage once', async () => {
  const bytes = randomBytes(200_000)
  const digest = (await registry.pushBlob('many', bytes)).digest as Digest
  const key = await keyOf(digest)
  await registry.deps.blobs.link(key, blobKey(digest))
  await registry.deps.blobs.delete([key])
  const done = await Promise.all([
    pass({ repair: true }),
    pass({ repair: true, mode: 'quick' }),
    pass({ repair: true }),
  ])
  assert.equal(done.filter((one) => one !== undefined).length, 2)
  await tidy(registry.deps)
  assert.deepEqual((await pass({ repair: true }))?.open, {})
  await tidy(registry.deps)
  const answer = await registry.call('GET', `/v2/many/blobs/${digest}`)
  assert.ok(Buffer.from(await answer.arrayBuffer()).equals(bytes))
  const left: string[] = []
  for await (const object of registry.deps.blobs.list('')) left.push(object.key)
  assert.deepEqual(left, [await keyOf(digest)])
})

it('pushes, deletions and the collector beside passes never make a finding', async () => {
  const { sql } = registry.deps.db
  let going = true
  const churn = async (name: string) => {
    for (let round = 0; going; round++) {
      const { digest } = await registry.pushBlob(name, `${name} ${round % 7}`)
      await registry.call('DELETE', `/v2/${name}/blobs/${digest}`)
      await sql`
        with gone as (delete from blobs b where digest = ${digest}
          and not exists (select from repository_blobs l where l.digest = b.digest) returning storage_key)
        insert into blob_deletions (storage_key) select storage_key from gone on conflict do nothing`.catch((error) => {
        // Another one has just linked it: that is what the foreign key is for.
        assert.equal(error.code, '23503')
      })
      await tidy(registry.deps)
    }
  }
  const churning = ['a', 'b', 'a'].map(churn)
  // What is young is no orphan: a push may be between its object and its row.
  for (let round = 0; round < 15; round++) {
    const done = await pass({ repair: true, orphanAgeSeconds: 3600, mode: round % 2 ? 'quick' : 'full' })
    assert.equal(done?.found, 0)
  }
  going = false
  await Promise.all(churning)
  assert.deepEqual(await listFindings(sql, { all: true, limit: 10 }), [])
})

it('packs scrub goes on after kill -9, in another process', async () => {
  await pushMany(5)
  const { sql } = registry.deps.db
  await sql`update blobs set size = 200 * 1024 * 1024 + size`
  const { PATH, HOME } = process.env
  const env = { PATH, HOME, DATABASE_URL: url, BLOB_STORE: registry.deps.config.blobStore }
  const start = (...flags: string[]) => {
    const child = spawn(process.execPath, ['--import', 'tsx', main, 'scrub', '--json', ...flags], {
      env,
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    children.push(child)
    return child
  }
  const reached = async () => (await sql`select 1 from scrub_runs where blobs >= 2 and finished_at is null`).length > 0
  const first = start('--rate', '300KB')
  await waitFor('the pass to be in the middle', reached)
  first.kill('SIGKILL')
  await once(first, 'exit')
  const [before] = await sql<{ blobs: number }[]>`select blobs::int from scrub_runs where finished_at is null`
  await sql`update scrub_runs set leased_until = now() - interval '1 second' where finished_at is null`
  const second = start('--rate', '0')
  let out = ''
  second.stdout?.on('data', (text) => {
    out += text
  })
  const [code] = await once(second, 'close')
  assert.equal(code, 2, out)
  const done = JSON.parse(out) as { blobs: number; bytes: number; open: Record<string, number> }
  assert.ok((before?.blobs ?? 0) >= 2)
  assert.deepEqual([done.blobs, done.open], [5, { 'wrong-size': 5 }])
  assert.ok(done.bytes <= 6 * 300_000, `${done.bytes} bytes were read for 5 blobs of 300,000`)
  assert.equal((await sql`select 1 from scrub_runs`).length, 1)
})

it('a manifest whose bytes are wrong is found, copied from another repository, or healed by a push', async () => {
  const { sql } = registry.deps.db
  const manifest = sampleManifest({ annotations: { of: 'this test' } })
  const { digest } = await registry.pushManifest('one', 'v1', manifest)
  await registry.pushManifest('two', 'v1', manifest)
  const harm = (name: string) => sql`
    update manifests m set payload = set_byte(payload, 3, 65) from repositories r
    where r.name = ${name} and r.id = m.repository_id`
  await harm('one')
  assert.deepEqual((await pass())?.open, { 'wrong-manifest': 1 })
  const [finding] = await listFindings(sql, { all: false, limit: 1 })
  assert.deepEqual(finding?.repositories, [{ name: 'one', manifests: [digest] }])
  assert.deepEqual((await pass({ repair: true }))?.open, {})
  await Promise.all([harm('one'), harm('two')])
  assert.deepEqual((await pass({ repair: true }))?.open, { 'wrong-manifest': 2 })
  await registry.pushManifest('one', 'v1', manifest)
  await registry.pushManifest('two', 'v1', manifest)
  assert.deepEqual((await pass())?.open, {})
  const [row] = await sql<{ payload: Buffer }[]>`
    select payload from manifests m join repositories r on r.id = m.repository_id where r.name = 'one'`
  assert.equal(digestOf(row?.payload ?? Buffer.alloc(0)), digest)
})

it('orphans by the thousand are left alone unless that is meant', async () => {
  const keys = Array.from({ length: 120 }, (_, i) => blobKey(digestOf(Buffer.from(`${i}`))))
  for (const key of keys) await registry.deps.blobs.put(key, Buffer.from('x'))
  const spared = await pass({ repair: true })
  assert.deepEqual([spared?.spared, spared?.open], [120, { 'orphan-object': 120 }])
  const dropped = await pass({ repair: true, dropMany: true })
  assert.deepEqual([dropped?.spared, dropped?.open], [0, {}])
  assert.equal((await registry.deps.db.sql`select 1 from blob_deletions`).length, 120)
})

it('an orphan is dropped without a look at all upload sessions, and no chunk that its session names', async () => {
  const { sql } = registry.deps.db
  const started = await registry.call('POST', '/v2/one/blobs/uploads/')
  const patch = { body: 'a chunk that is waited for' }
  await registry.call('PATCH', new URL(started.headers.get('location') ?? '', registry.url).pathname, patch)
  const [named] = await sql<{ id: string; key: string }[]>`select id::text, chunks -> 0 ->> 'key' as key from uploads`
  await sql`
    insert into uploads (id, repository, expires_at)
    select gen_random_uuid(), 'many', now() + interval '1 hour' from generate_series(1, 5000)`
  await sql`analyze uploads`
  const digest = digestOf(Buffer.from('orphan'))
  assert.ok(named)
  const { id } = named
  assert.deepEqual(parseKey(named.key), { kind: 'chunk', uploadId: id })
  const orphans = [
    { key: storedKey(named.key), digest: undefined, uploadId: id, dropped: false },
    { key: chunkKey(id), digest: undefined, uploadId: id, dropped: true },
    { key: blobKey(digest), digest, uploadId: undefined, dropped: true },
  ]
  await sql.begin(async (tx) => {
    // Rows that were read without an index, on this connection.
    const scanned = () => tx`select seq_tup_read from pg_stat_xact_user_tables where relname = 'uploads'`
    const before = await scanned()
    for (const { dropped, ...orphan } of orphans) assert.equal(await queueOrphan(tx, orphan), dropped, orphan.key)
    assert.deepEqual(await scanned(), before)
  })
})

it('the rows of blobs are made again from the store alone', async () => {
  const bytes = [randomBytes(100), randomBytes(100_000)]
  const digests: Digest[] = []
  for (const one of bytes) digests.push((await registry.pushBlob('lost', one)).digest as Digest)
  const [first = '' as Digest, second = '' as Digest] = digests
  const long = digestOf(Buffer.from('by the other algorithm'), 'sha512')
  const { blobs } = registry.deps
  await blobs.put(blobKey(long), Buffer.from('by the other algorithm'))
  // The newest generation is wrong: the one before it wins.
  const wrong = blobKey(first)
  await blobs.put(wrong, Buffer.from('wrong'))
  const alien = storedKey('blobs/sha256/ab/notes.txt')
  await blobs.put(alien, Buffer.from('not ours'))

  const fresh = await startRegistry(await databases.fresh(), { BLOB_STORE: registry.deps.config.blobStore })
  try {
    const options = { trust: false, keepSeconds: 30 * 24 * 60 * 60 }
    const done = await rebuildFromStore(fresh.deps, { ...options, link: 'recovered' as never })
    assert.deepEqual([done.objects, done.added, done.wrong.toSorted()], [4, 3, [alien, wrong].toSorted()])
    for (const [i, digest] of [first, second].entries()) {
      const answer = await fresh.call('GET', `/v2/recovered/blobs/${digest}`)
      assert.ok(Buffer.from(await answer.arrayBuffer()).equals(bytes[i] ?? Buffer.alloc(0)))
      const mount = await fresh.call('POST', `/v2/again/blobs/uploads/?mount=${digest}&from=recovered`)
      assert.equal(mount.status, 201)
    }
    const [kept] = await fresh.deps.db.sql<{ days: number }[]>`
      select extract(day from min(review_at) - now())::int as days from blobs where digest <> all(${digests})`
    assert.equal(kept?.days, 29)
    const again = await rebuildFromStore(fresh.deps, options)
    assert.deepEqual([again.objects, again.added], [1, 0])
    // A push of what is held stores nothing.
    await fresh.pushBlob('again', bytes[1] ?? '')
    let objects = 0
    for await (const object of fresh.deps.blobs.list('blobs/')) objects += object.key.includes(second.slice(7)) ? 1 : 0
    assert.equal(objects, 1)
  } finally {
    await fresh.stop()
  }
})

it('damaged content is given an object that the store has, and by their names alone where that is trusted', async () => {
  const bytes = randomBytes(100_000)
  const digest = (await registry.pushBlob('lost', bytes)).digest as Digest
  const key = await keyOf(digest)
  await registry.deps.blobs.link(key, blobKey(digest))
  await registry.deps.blobs.delete([key])
  assert.deepEqual((await pass({ mode: 'quick', orphanAgeSeconds: 3600 }))?.open, { 'object-missing': 1 })
  const done = await rebuildFromStore(registry.deps, { trust: true, keepSeconds: 60 })
  assert.deepEqual([done.added, done.healed], [0, 1])
  const answer = await registry.call('GET', `/v2/lost/blobs/${digest}`)
  assert.equal(
    createHash('sha256')
      .update(Buffer.from(await answer.arrayBuffer()))
      .digest('hex'),
    digest.slice(7),
  )
  assert.deepEqual((await pass())?.open, {})
})
