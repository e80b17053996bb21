import assert from 'node:assert/strict'
import { after, before, beforeEach, describe, it } from 'node:test'
import { blobKey, type ObjectKey } from '../blobs/keys.ts'
import { type BlobStore, NotDeleted } from '../blobs/store.ts'
import type { Deps } from '../deps.ts'
import { unavailable } from '../errors.ts'
import { digestOf } from '../oci/digest.ts'
import { endGrace, isReadable, storedKeys } from '../testing/collect.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { startRegistry, type TestRegistry } from '../testing/registry.ts'
import { tidyUp } from '../worker/tidy.ts'
import { collectContent } from './collect.ts'
import { emptyQueue, tidy } from './deletions.ts'

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

it('ends forgotten uploads with their chunks, and leaves the others alone', async () => {
  const start = async () => {
    const location = (await registry.call('POST', '/v2/tidy/blobs/uploads/')).headers.get('location') ?? ''
    const patch = await registry.call('PATCH', location, { body: 'a chunk' })
    return patch.headers.get('location') ?? ''
  }
  const [forgotten, current] = [await start(), await start()]
  assert.equal((await storedKeys(registry, 'uploads/')).length, 2)
  const { sql } = registry.deps.db
  await sql`update uploads set expires_at = now() where id = ${forgotten.split('/').at(-1) ?? ''}`
  assert.equal((await registry.call('GET', forgotten)).status, 404)
  const rounds = await Promise.all([tidy(registry.deps), tidy(registry.deps)])
  assert.equal(rounds[0].expired + rounds[1].expired, 1)
  assert.equal((await storedKeys(registry, 'uploads/')).length, 1)
  assert.equal((await registry.call('GET', current)).status, 204)
  assert.equal((await sql`select 1 from blob_deletions`).length, 0)
})

describe('the deletion queue', () => {
  /** The same registry over a store whose deletions are these. */
  function over(deletion: (keys: readonly ObjectKey[], store: BlobStore) => Promise<void>): Deps {
    const { blobs } = registry.deps
    const store: BlobStore = Object.create(blobs)
    return { ...registry.deps, blobs: Object.assign(store, { delete: (keys: ObjectKey[]) => deletion(keys, blobs) }) }
  }

  type Queued = { key: string; attempts: number; error: string | null }
  async function queued(): Promise<Queued[]> {
    const { sql } = registry.deps.db
    return [...(await sql<Queued[]>`select storage_key as key, attempts, error from blob_deletions order by 1`)]
  }

  /** Pushes and collects so many blobs: their keys are queued, their objects still there. */
  async function collected(...texts: string[]): Promise<string[]> {
    const before = new Set(await storedKeys(registry))
    for (const text of texts) await registry.pushBlob('queue', text)
    await endGrace(registry)
    assert.equal((await collectContent(registry.deps)).blobs, texts.length)
    const keys = (await storedKeys(registry)).filter((key) => !before.has(key))
    assert.deepEqual(
      (await queued()).map(({ key }) => key),
      keys,
    )
    return keys
  }

  beforeEach(async () => {
    await registry.deps.db.sql`update blob_deletions set retry_at = now()`
    await emptyQueue(registry.deps)
    assert.deepEqual(await queued(), [])
  })

  it('is emptied by another process where the one that collected has died', async () => {
    const keys = await collected('cut off')
    assert.equal(keys.length, 1)
    assert.deepEqual(await emptyQueue(registry.deps), { objects: 1, failed: 0 })
    assert.deepEqual(await queued(), [])
    assert.ok(!(await storedKeys(registry)).includes(keys[0] ?? ''))
  })

  it('is emptied again where a process died between an object and its row', async () => {
    const keys = await collected('half done')
    await registry.deps.blobs.delete(keys as ObjectKey[])
    assert.deepEqual(await emptyQueue(registry.deps), { objects: 1, failed: 0 })
    assert.deepEqual(await queued(), [])
  })

  it('stays whole where the store does not answer', async () => {
    await collected('one', 'two')
    const down = over(async () => {
      throw unavailable('blob store', new Error('503'))
    })
    await assert.rejects(emptyQueue(down), { key: 'UNAVAILABLE' })
    assert.deepEqual(
      (await queued()).map(({ attempts }) => attempts),
      [0, 0],
    )
    assert.deepEqual(await emptyQueue(registry.deps), { objects: 2, failed: 0 })
  })

  it('goes on past an object that cannot be deleted, and tries that again later', async () => {
    const [stuck = ''] = await collected('stuck', 'free', 'free too')
    let broken = true
    const store = over(async (keys, blobs) => {
      await blobs.delete(keys.filter((key) => !broken || key !== stuck))
      if (broken && keys.includes(stuck as ObjectKey))
        throw unavailable('blob store', new NotDeleted(new Map([[stuck as ObjectKey, 'AccessDenied']])))
    })
    assert.deepEqual(await emptyQueue(store), { objects: 2, failed: 1 })
    assert.deepEqual(await queued(), [{ key: stuck, attempts: 1, error: 'AccessDenied' }])
    assert.deepEqual(await emptyQueue(store), { objects: 0, failed: 0 }, 'not at once')
    broken = false
    await registry.deps.db.sql`update blob_deletions set retry_at = now()`
    assert.deepEqual(await emptyQueue(store), { objects: 1, failed: 0 })
    assert.deepEqual(await queued(), [])
  })

  it('never meets content that is pushed again while its old object goes', async () => {
    const [old] = await collected('again')
    let again: Promise<unknown> | undefined
    const slow = over(async (keys, blobs) => {
      again = registry.pushBlob('queue', 'again')
      await again
      await blobs.delete(keys)
    })
    await emptyQueue(slow)
    await again
    const { digest } = await registry.pushBlob('queue', 'again')
    const answer = await registry.call('GET', `/v2/queue/blobs/${digest}`)
    assert.equal(await answer.text(), 'again')
    const keys = await storedKeys(registry)
    assert.ok(!keys.includes(old ?? ''))
    assert.equal(
      keys.filter((key) => key.startsWith(blobKey(digestOf(Buffer.from('again'))).split('.')[0] ?? '')).length,
      1,
    )
    await registry.call('DELETE', `/v2/queue/blobs/${digest}`)
    await endGrace(registry)
    await collectContent(registry.deps)
  })

  it('goes through more than one batch, shared by any number of processes', async () => {
    const { sql } = registry.deps.db
    await sql`insert into blob_deletions (storage_key) select 'blobs/stub/' || n from generate_series(1, 9500) n`
    const emptied = await Promise.all([emptyQueue(registry.deps), emptyQueue(registry.deps)])
    assert.ok(emptied.every(({ failed }) => failed === 0))
    assert.ok(emptied.reduce((sum, { objects }) => sum + objects, 0) >= 9500)
    assert.deepEqual(await queued(), [])
    assert.equal(await isReadable(registry, 'queue', digestOf(Buffer.from('never there'))), false)
  })

  it('takes foreign objects, whatever their names', async () => {
    const { sql } = registry.deps.db
    const names = ['blobs/a name of words', 'blobs/two\nlines', 'blobs/"quoted" \\ \u{1f4e6}'] as ObjectKey[]
    for (const name of names) await registry.deps.blobs.put(name, Buffer.from('x'))
    await sql`insert into blob_deletions (storage_key) select unnest(${names}::text[])`
    await sql`insert into blob_deletions (storage_key) select 'blobs/stub of ' || n from generate_series(1, 2500) n`
    assert.deepEqual(await emptyQueue(registry.deps), { objects: 2503, failed: 0 })
    assert.deepEqual(await queued(), [])
    const left = await storedKeys(registry)
    assert.ok(!left.some((key) => names.includes(key as ObjectKey)), left.join())
  })

  it('is left where it is by a worker that is told to stop', async () => {
    const keys = await collected('left for the next worker')
    const signal = AbortSignal.abort(new Error('told to stop'))
    await assert.rejects(tidyUp(registry.deps, {}, { signal }), /told to stop/)
    assert.deepEqual(
      (await queued()).map(({ key }) => key),
      keys,
    )
    const { deleted } = await tidyUp(registry.deps, {}, { signal: new AbortController().signal })
    assert.equal(deleted, 1)
    assert.equal((await queued()).length, 0)
  })
})
