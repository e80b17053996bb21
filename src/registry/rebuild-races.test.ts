import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import { after, before, beforeEach, it } from 'node:test'
import { patternOf } from '../auth/glob.ts'
import { blobKey, type ObjectKey, storedKey } from '../blobs/keys.ts'
import type { BlobStore } from '../blobs/store.ts'
import { healBlobs, markDamaged } from '../db/damage.ts'
import { queueDeletions } from '../db/deletions.ts'
import { upsertQuota } from '../db/quotas.ts'
import { digestOf } from '../oci/digest.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { startRegistry, type TestRegistry } from '../testing/registry.ts'
import { discard, emptyQueue } from './deletions.ts'
import { rebuildFromStore } from './rebuild-store.ts'

// Rows that are made from the store beside pushes, and beside whoever deletes objects.

let databases: TestDatabases
let registry: TestRegistry
before(async () => {
  databases = await startDatabases()
})
beforeEach(async () => {
  await registry?.stop()
  registry = await startRegistry(await databases.fresh())
})
after(async () => {
  await registry?.stop()
  await databases?.stop()
})

const bytes = randomBytes(100_000)
const digest = digestOf(bytes)

/** Makes the rows; `change`: methods of the store that are other ones for it. */
function rebuild(change: Partial<BlobStore> = {}, { trust = false } = {}) {
  const blobs: BlobStore = Object.assign(Object.create(registry.deps.blobs), { filePath: undefined, ...change })
  return rebuildFromStore({ ...registry.deps, blobs }, { trust, keepSeconds: 3600, link: 'recovered' as never })
}

/** As soon as the object of a push is there, and before anything else is done, this is. */
function afterEachObject(act: () => Promise<unknown>): void {
  const { blobs } = registry.deps
  const { putStream } = blobs
  blobs.putStream = async (...given) => {
    const size = await putStream(...given)
    await act()
    return size
  }
}

async function queued(): Promise<number> {
  return (await registry.deps.db.sql`select from blob_deletions`).length
}

async function keyOf(): Promise<ObjectKey> {
  const [row] = await registry.deps.db.sql<{ key: string }[]>`
    select storage_key as key from blobs where digest = ${digest}`
  return storedKey(row?.key ?? assert.fail('no row'))
}

/** An object of the content that no row names. */
async function orphan(): Promise<ObjectKey> {
  const key = blobKey(digest)
  await registry.deps.blobs.put(key, bytes)
  return key
}

/** Content whose row points at an object that is known to be gone. */
async function damage(): Promise<void> {
  await registry.pushBlob('lost', bytes)
  const key = await keyOf()
  await registry.deps.blobs.delete([key])
  assert.ok(await markDamaged(registry.deps.db.sql, { digest, key }))
}

async function expectReadable(repository: string): Promise<void> {
  await emptyQueue(registry.deps)
  const answer = await registry.call('GET', `/v2/${repository}/blobs/${digest}`)
  assert.equal(answer.status, 200)
  assert.ok(Buffer.from(await answer.arrayBuffer()).equals(bytes))
}

it('an object that a quota refused is kept where a row was made of it meanwhile', async () => {
  const { deps } = registry
  // As a process that does not know yet that the quota was set.
  deps.quotas.at = Date.now()
  await upsertQuota(deps.db.sql, {
    ...{ glob: 'full/*', pattern: patternOf('full/*'), maxBytes: 10, maxVersions: undefined, setBy: 'a test' },
  })
  afterEachObject(() => rebuild())
  const path = `/v2/full/one/blobs/uploads/?digest=${digest}`
  assert.equal((await registry.call('POST', path, { body: bytes })).status, 403)
  await expectReadable('recovered')
})

it('so is that of an upload that was cancelled', async () => {
  const started = await registry.call('POST', '/v2/one/blobs/uploads/')
  const place = (answer: Response) => {
    const { pathname } = new URL(answer.headers.get('location') ?? '', registry.url)
    return pathname
  }
  const first = await registry.call('PATCH', place(started), { body: bytes.subarray(0, 10_000) })
  const second = await registry.call('PATCH', place(first), { body: bytes.subarray(10_000) })
  afterEachObject(async () => {
    assert.equal((await registry.call('DELETE', place(second))).status, 204)
    await rebuild()
  })
  assert.equal((await registry.call('PUT', `${place(second)}?digest=${digest}`)).status, 404)
  await expectReadable('recovered')
})

it('so is that of a push that would have healed what was healed by it meanwhile', async () => {
  await damage()
  const key = await orphan()
  assert.equal((await rebuild()).healed, 1)
  assert.equal(await keyOf(), key)
  await emptyQueue(registry.deps)
  await healBlobs(registry.deps.db.sql, [{ digest, size: bytes.length, key }])
  assert.equal(await queued(), 0)
  await expectReadable('lost')
})

it('damaged content is not given an object that waits to be deleted', async () => {
  await damage()
  const key = await orphan()
  const done = await rebuild({
    open: async (...given) => {
      await queueDeletions(registry.deps.db.sql, [key])
      return registry.deps.blobs.open(...given)
    },
  })
  assert.deepEqual([done.added, done.healed], [0, 0])
  assert.notEqual(await keyOf(), key)
})

for (const trust of [false, true])
  it(`no row is made of an object that is deleted after it was ${trust ? 'listed' : 'read'}`, async () => {
    const key = await orphan()
    const remove = async () => {
      await queueDeletions(registry.deps.db.sql, [key])
      await discard(registry.deps, [key])
    }
    const { blobs } = registry.deps
    const change: Partial<BlobStore> = trust
      ? {
          async *list(prefix) {
            for await (const object of blobs.list(prefix)) {
              await remove()
              yield object
            }
          },
        }
      : {
          async open() {
            await remove()
            return Readable.from([bytes], { objectMode: false })
          },
        }
    const done = await rebuild(change, { trust })
    assert.deepEqual([done.objects, done.added], [1, 0])
    // Whoever has it pushes it, and its bytes are stored.
    await registry.pushBlob('one', bytes)
    await expectReadable('one')
  })
