import assert from 'node:assert/strict'
import { createHash, randomBytes, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { PassThrough, Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { type TestContext, test } from 'node:test'
import { digestOf } from '../oci/digest.ts'
import { blobKey, chunkKey, type ObjectKey } from './keys.ts'
import type { BlobStore } from './store.ts'

/** A fresh, empty place for objects. */
export type Place = {
  store: BlobStore
  /** A second store over the same place, as another process would open it. */
  again(): Promise<BlobStore>
  /** Everything physically there: objects, temp files, multipart uploads. */
  traces(): Promise<string[]>
  remove(): Promise<void>
}

const KiB = 1024
const MiB = 1024 * KiB

/**
 * What `store.ts` promises, as tests: every store runs the same ones. `skip`: the reason why they cannot run here.
 * `bounded`: the store keeps what it is given somewhere other than in this process's memory.
 */
export function testBlobStore(
  name: string,
  makePlace: () => Promise<Place>,
  { skip, bounded = true }: { skip?: string | undefined; bounded?: boolean } = {},
): void {
  function promise(what: string, body: (place: Place, t: TestContext) => Promise<void>) {
    test(`${name}: ${what}`, { skip: skip ?? false }, async (t) => {
      const place = await makePlace()
      try {
        await body(place, t)
      } finally {
        await place.store.close()
        await place.remove()
      }
    })
  }

  testPuts(promise)
  testStreams(promise)
  testFailures(promise)
  testReads(promise)
  testLinks(promise)
  testDeletesAndLists(promise)
  if (bounded) promise('memory stays bounded, whatever the size', boundedMemory)
}

type Declare = (what: string, body: (place: Place, t: TestContext) => Promise<void>) => void

function testPuts(promise: Declare) {
  for (const size of [0, 1, 64 * KiB, 64 * KiB + 1, 3 * MiB]) {
    promise(`put and read back ${size} bytes`, async ({ store, traces }) => {
      const bytes = randomBytes(size)
      const key = keyOf(bytes)
      await store.put(key, bytes)
      assert.deepEqual(await store.read(key), bytes)
      assert.equal(await store.size(key), size)
      assert.equal((await traces()).length, 1)
    })
  }

  promise('many puts at once, in one folder and in many', async ({ store, traces }) => {
    const upload = randomUUID()
    const objects = Array.from({ length: 96 }, (_, index) => {
      const bytes = randomBytes(100 + index)
      return { bytes, key: index % 3 === 0 ? chunkKey(upload) : keyOf(bytes) }
    })
    await Promise.all(objects.map(({ key, bytes }) => store.put(key, bytes)))
    for (const { key, bytes } of objects) assert.deepEqual(await store.read(key), bytes)
    assert.equal((await traces()).length, objects.length)
  })

  promise('what one process wrote, another reads and deletes', async ({ store, again }) => {
    const other = await again()
    const key = await putRandom(store, 1000)
    assert.deepEqual(await other.read(key), await store.read(key))
    await other.delete([key])
    assert.equal(await store.size(key), undefined)
    await other.close()
  })

  promise('answers a ping, and says what it is', async ({ store }) => {
    await store.ping()
    assert.notEqual(store.description, '')
  })
}

function testStreams(promise: Declare) {
  for (const size of [0, 1, 64 * KiB, 64 * KiB + 1, 256 * KiB + 1, 5 * MiB, 5 * MiB + 1, 21 * MiB + 7]) {
    promise(`stream and read back ${size} bytes`, async ({ store, traces }) => {
      const bytes = randomBytes(size)
      const key = keyOf(bytes)
      const hash = createHash('sha256')
      let sealed = 0
      const stored = await store.putStream(key, pieces(bytes, 60_000), {
        onBytes: (piece) => void hash.update(piece),
        seal: () => {
          sealed++
          assert.equal(hash.copy().digest('hex'), digestOf(bytes).slice(7), 'sealed after the last byte')
        },
      })
      assert.equal(stored, size)
      assert.equal(sealed, 1)
      assert.equal(await store.size(key), size)
      assert.ok((await whole(store, key)).equals(bytes))
      assert.equal((await traces()).length, 1)
    })
  }

  promise('a body in single bytes, and in pieces larger than any block', async ({ store }) => {
    const small = randomBytes(150_000)
    await store.putStream(keyOf(small), pieces(small, 1), {})
    assert.ok((await whole(store, keyOf(small))).equals(small))
    const large = randomBytes(24 * MiB)
    await store.putStream(keyOf(large), pieces(large, 12 * MiB), {})
    assert.ok((await whole(store, keyOf(large))).equals(large))
  })

  promise('several streams at once', async ({ store, traces }) => {
    const bodies = Array.from({ length: 6 }, () => randomBytes(11 * MiB + 3))
    await Promise.all(bodies.map((bytes) => store.putStream(keyOf(bytes), pieces(bytes, 64 * KiB), {})))
    for (const bytes of bodies) assert.ok((await whole(store, keyOf(bytes))).equals(bytes))
    assert.equal((await traces()).length, bodies.length)
  })

  promise('nothing is visible while bytes still arrive', async ({ store }) => {
    const source = new PassThrough()
    const key = keyOf(Buffer.from('slow'))
    const putting = store.putStream(key, source, {})
    for (let sent = 0; sent < 7; sent++) {
      if (!source.write(randomBytes(MiB))) await once(source, 'drain')
    }
    assert.equal(await store.read(key), undefined)
    assert.equal(await store.size(key), undefined)
    assert.deepEqual(await keysUnder(store, 'blobs/'), [])
    source.end()
    assert.equal(await putting, 7 * MiB)
    assert.equal(await store.size(key), 7 * MiB)
  })
}

function testFailures(promise: Declare) {
  const reason = new Error('not the digest that was promised')
  for (const size of [0, 1000, 300 * KiB, 17 * MiB]) {
    promise(`seal refuses ${size} bytes: nothing is left`, async ({ store, traces }) => {
      const key = keyOf(Buffer.from('refused'))
      const seal = () => {
        throw reason
      }
      await assert.rejects(store.putStream(key, pieces(randomBytes(size), 64 * KiB), { seal }), reason)
      assert.deepEqual(await traces(), [])
    })
  }

  for (const size of [0, 1000, 300 * KiB, 17 * MiB]) {
    promise(`the client goes away after ${size} bytes: nothing is left`, async ({ store, traces }) => {
      const key = keyOf(Buffer.from('cut off'))
      const source = cutOff(size, reason)
      const seal = () => assert.fail('sealed what was cut off')
      await assert.rejects(store.putStream(key, source, { seal }), reason)
      assert.deepEqual(await traces(), [])
    })
  }

  promise('a source that closes without an end, or was closed before, stores nothing', async ({ store, traces }) => {
    const closing = new PassThrough()
    const putting = store.putStream(keyOf(Buffer.from('1')), closing, {})
    closing.write('some')
    closing.destroy()
    await assert.rejects(putting, { code: 'ERR_STREAM_PREMATURE_CLOSE' })
    await assert.rejects(store.putStream(keyOf(Buffer.from('2')), closing, {}))
    assert.deepEqual(await traces(), [])
  })

  promise('onBytes throws: nothing is left, and the source is not destroyed', async ({ store, traces }) => {
    const source = pieces(randomBytes(2 * MiB), 64 * KiB)
    const onBytes = () => {
      throw reason
    }
    await assert.rejects(store.putStream(keyOf(Buffer.from('3')), source, { onBytes }), reason)
    assert.equal(source.destroyed, false)
    source.destroy(new Error('later'))
    assert.deepEqual(await traces(), [])
  })
}

function testReads(promise: Declare) {
  promise('ranges', async ({ store }) => {
    const bytes = randomBytes(3 * MiB)
    const key = keyOf(bytes)
    await store.put(key, bytes)
    for (const [first, last] of [
      [0, 0],
      [0, bytes.length - 1],
      [1_000_000, 2_000_000],
      [bytes.length - 1, bytes.length - 1],
      [bytes.length - 10, bytes.length + 10],
      [bytes.length, bytes.length + 10],
    ] as const) {
      const part = await store.open(key, { first, last })
      assert.ok(part)
      assert.ok((await buffer(part)).equals(bytes.subarray(first, last + 1)), `${first} to ${last}`)
    }
  })

  promise('a reader that leaves early frees what it held', async ({ store, traces }) => {
    const key = await putRandom(store, 8 * MiB)
    for (let round = 0; round < 150; round++) {
      const body = await store.open(key)
      assert.ok(body)
      if (round % 2 === 0) await once(body, 'readable')
      const closed = once(body, 'close')
      body.destroy()
      await closed
    }
    assert.equal((await traces()).length, 1)
    assert.equal((await whole(store, key)).length, 8 * MiB)
  })

  promise('absence is undefined', async ({ store }) => {
    const key = keyOf(Buffer.from('nobody wrote this'))
    assert.equal(await store.read(key), undefined)
    assert.equal(await store.open(key), undefined)
    assert.equal(await store.open(key, { first: 0, last: 1 }), undefined)
    assert.equal(await store.size(key), undefined)
  })

  promise('a file path or an address leads to the object, where the store has one', async ({ store }) => {
    const key = await putRandom(store, 100_000)
    const bytes = await store.read(key)
    if (store.filePath) assert.deepEqual(await readFile(store.filePath(key)), bytes)
    if (store.presign) {
      const answer = await fetch(await store.presign(key, { expiresInSeconds: 60 }))
      assert.equal(answer.status, 200)
      assert.deepEqual(Buffer.from(await answer.arrayBuffer()), bytes)
    }
  })
}

function testLinks(promise: Declare) {
  promise('a linked object outlives the one it came from', async ({ store, traces }) => {
    const [from, bytes] = [chunkKey(randomUUID()), randomBytes(200_000)]
    const to = keyOf(bytes)
    await store.put(from, bytes)
    assert.equal(await store.link(from, to), true)
    assert.deepEqual(await store.read(from), bytes)
    await store.delete([from])
    assert.deepEqual(await store.read(to), bytes)
    assert.equal(await store.size(from), undefined)
    assert.equal((await traces()).length, 1)
  })

  promise('linking what is not there, or not there any more, is false and makes nothing', async ({ store, traces }) => {
    const [from, to] = [chunkKey(randomUUID()), keyOf(Buffer.from('x'))]
    assert.equal(await store.link(from, to), false)
    await store.put(from, Buffer.from('x'))
    await store.delete([from])
    assert.equal(await store.link(from, to), false)
    assert.equal(await store.size(to), undefined)
    assert.deepEqual(await traces(), [])
  })
}

function testDeletesAndLists(promise: Declare) {
  promise('more objects than a page or a batch holds', async ({ store, traces }) => {
    const keys = Array.from({ length: 1_010 }, (_, index) => keyOf(Buffer.from(`${index}`)))
    const rest = keys.values()
    const writer = async () => {
      for (const key of rest) await store.put(key, Buffer.from(key))
    }
    await Promise.all(Array.from({ length: 16 }, writer))
    assert.deepEqual((await keysUnder(store, 'blobs/')).sort(), [...keys].sort())
    await store.delete([...keys, keyOf(Buffer.from('never written'))])
    await store.delete(keys)
    await store.delete([])
    assert.deepEqual(await keysUnder(store, ''), [])
    assert.deepEqual(await traces(), [])
  })

  promise('has nothing unfinished but what is under way, and that only once it is old', async ({ store }) => {
    await store.put(keyOf(Buffer.from('whole')), Buffer.from('whole'))
    const source = new PassThrough()
    const putting = store.putStream(keyOf(Buffer.from('under way')), source, {})
    source.write(randomBytes(6 * MiB))
    for await (const { name } of store.unfinished(new Date(Date.now() - 3_600_000))) assert.fail(name)
    source.end()
    await putting
    for await (const { name } of store.unfinished(new Date(Date.now() + 3_600_000))) assert.fail(name)
    assert.equal((await keysUnder(store, '')).length, 2)
  })

  promise('lists what is under a prefix, with size and time', async ({ store }) => {
    const upload = randomUUID()
    const chunks = [chunkKey(upload), chunkKey(upload)]
    for (const key of [...chunks, chunkKey(randomUUID()), keyOf(Buffer.from('a'))])
      await store.put(key, Buffer.from('abc'))
    assert.deepEqual((await keysUnder(store, `uploads/${upload}/`)).sort(), chunks.sort())
    assert.equal((await keysUnder(store, 'uploads/')).length, 3)
    assert.equal((await keysUnder(store, '')).length, 4)
    assert.deepEqual(await keysUnder(store, 'uploads/none/'), [])
    for await (const { size, modifiedAt } of store.list('')) {
      assert.equal(size, 3)
      assert.ok(Math.abs(Date.now() - modifiedAt.getTime()) < 3_600_000)
    }
  })

  promise('chunks come and go in one upload at the same time', async ({ store, traces }) => {
    const upload = randomUUID()
    const comeAndGo = async () => {
      for (let round = 0; round < 25; round++) {
        const key = chunkKey(upload)
        await store.put(key, Buffer.from(key))
        assert.equal(String(await store.read(key)), key)
        await store.delete([key])
      }
    }
    await Promise.all(Array.from({ length: 8 }, comeAndGo))
    assert.deepEqual(await traces(), [])
  })
}

async function boundedMemory({ store }: Place): Promise<void> {
  const size = 256 * MiB
  const before = process.memoryUsage().arrayBuffers
  let most = 0
  const key = keyOf(Buffer.from('large'))
  const source = Readable.from(
    (function* () {
      for (let made = 0; made < size; made += 64 * KiB) yield Buffer.alloc(64 * KiB, made % 251)
    })(),
  )
  const onBytes = () => {
    most = Math.max(most, process.memoryUsage().arrayBuffers - before)
  }
  await store.putStream(key, source, { onBytes })
  assert.equal(await store.size(key), size)
  assert.ok(most < 128 * MiB, `held ${Math.round(most / MiB)} MiB of a body of 256`)
}

function keyOf(bytes: Buffer): ObjectKey {
  const known = keys.get(bytes) ?? blobKey(digestOf(bytes))
  keys.set(bytes, known)
  return known
}

/** A key has a random part; a test means the same one each time it names the same bytes. */
const keys = new WeakMap<Buffer, ObjectKey>()

async function putRandom(store: BlobStore, size: number): Promise<ObjectKey> {
  const bytes = randomBytes(size)
  const key = keyOf(bytes)
  await store.put(key, bytes)
  return key
}

function pieces(bytes: Buffer, size: number): Readable {
  return Readable.from(
    (function* () {
      for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
    })(),
  )
}

/** A body that breaks off. */
function cutOff(size: number, reason: Error): Readable {
  return Readable.from(
    (function* () {
      for (let at = 0; at < size; at += 64 * KiB) yield randomBytes(Math.min(64 * KiB, size - at))
      throw reason
    })(),
  )
}

async function whole(store: BlobStore, key: ObjectKey): Promise<Buffer> {
  const body = await store.open(key)
  assert.ok(body)
  return buffer(body)
}

async function keysUnder(store: BlobStore, prefix: string): Promise<ObjectKey[]> {
  const found: ObjectKey[] = []
  for await (const { key } of store.list(prefix)) found.push(key)
  return found
}
