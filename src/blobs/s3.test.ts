import assert from 'node:assert/strict'
import { randomBytes, randomUUID } from 'node:crypto'
import { EventEmitter, once } from 'node:events'
import { createServer, request as httpRequest } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { after, test } from 'node:test'
import {
  CreateMultipartUploadCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  S3Client,
} from '@aws-sdk/client-s3'
import type { Failure } from '../errors.ts'
import { digestOf } from '../oci/digest.ts'
import { noS3, startS3, type TestS3 } from '../testing/s3.ts'
import { waitFor } from '../testing/wait.ts'
import { blobKey, chunkKey, storedKey } from './keys.ts'
import { openS3Store } from './s3.ts'
import type { S3Location } from './s3-connection.ts'
import { partBytes } from './s3-upload.ts'
import { NotDeleted } from './store.ts'
import { testBlobStore } from './suite.ts'

const MiB = 1024 * 1024
const unavailable = { key: 'UNAVAILABLE' }
/** How long a server may be silent: it may be a slow one, and short of this it has to answer. */
const idleTimeoutMs = 2_500
const s3 = await startS3()
const skip = s3 ? undefined : noS3
if (s3) {
  process.env.AWS_ACCESS_KEY_ID = s3.accessKey
  process.env.AWS_SECRET_ACCESS_KEY = s3.secretKey
}
after(() => s3?.stop())

const someKey = () => blobKey(digestOf(randomBytes(8)))
const random = (bytes: number) =>
  Readable.from(
    (function* () {
      for (let at = 0; at < bytes; at += MiB) yield randomBytes(Math.min(MiB, bytes - at))
    })(),
  )

/** A location in the test bucket that nobody else uses, and everything that is really there. */
function place({ endpoint, bucket }: TestS3): { location: S3Location; traces(): Promise<string[]> } {
  const prefix = `${randomUUID()}/`
  const client = new S3Client({ endpoint, region: 'us-east-1', forcePathStyle: true })
  after(() => client.destroy())
  return {
    location: { bucket, prefix, endpoint, pathStyle: true },
    async traces() {
      const where = { Bucket: bucket, Prefix: prefix }
      const traces: string[] = []
      for (let token: string | undefined, more = true; more; ) {
        const page = await client.send(new ListObjectsV2Command({ ...where, ContinuationToken: token }))
        traces.push(...(page.Contents ?? []).map(({ Key }) => `object ${Key}`))
        token = page.NextContinuationToken
        more = page.IsTruncated === true
      }
      const { Uploads = [] } = await client.send(new ListMultipartUploadsCommand(where))
      return [...traces, ...Uploads.map(({ Key }) => `multipart upload ${Key}`)]
    },
  }
}

testBlobStore(
  's3',
  async () => {
    const { location, traces } = place(s3 as TestS3)
    return { store: await openS3Store(location), again: () => openS3Store(location), traces, remove: async () => {} }
  },
  { skip },
)

function testS3(what: string, body: (server: TestS3) => Promise<void>) {
  test(`s3: ${what}`, { skip: skip ?? false }, () => body(s3 as TestS3))
}

testS3('a server that hangs is UNAVAILABLE, and leaves nothing behind when it goes on', async (server) => {
  const { location, traces } = place(server)
  const patient = await openS3Store(location)
  const store = await openS3Store({ ...location, idleTimeoutMs })
  const chunk = chunkKey(randomUUID())
  await patient.put(chunk, randomBytes(1000))
  const signals = new EventEmitter()
  const source = Readable.from(
    (async function* () {
      yield randomBytes(12 * MiB)
      const frozen = once(signals, 'frozen')
      signals.emit('begun')
      await frozen
      for (;;) yield randomBytes(MiB)
    })(),
  )
  const begun = once(signals, 'begun')
  const rejected = assert.rejects(store.putStream(someKey(), source, {}), unavailable)
  await begun
  await server.freeze()
  signals.emit('frozen')
  try {
    const calls = [
      store.put(someKey(), randomBytes(1000)),
      store.putStream(someKey(), random(12 * MiB), {}),
      store.link(chunk, someKey()),
      store.read(chunk),
      store.size(chunk),
      store.delete([someKey()]),
    ]
    await Promise.all([rejected, ...calls.map((call) => assert.rejects(call, unavailable))])
  } finally {
    await server.thaw()
  }
  assert.equal(source.destroyed, false)
  await waitFor('all but the chunk to be gone', async () => (await traces()).length === 1)
  assert.equal((await patient.read(chunk))?.length, 1000)
  await Promise.all([store.close(), patient.close()])
})

testS3('a body that stops arriving ends in an error', async (server) => {
  const { location } = place(server)
  const patient = await openS3Store(location)
  const store = await openS3Store({ ...location, idleTimeoutMs })
  const key = someKey()
  await patient.putStream(key, random(96 * MiB), {})
  const body = await store.open(key)
  assert.ok(body)
  await once(body, 'readable')
  await server.freeze()
  try {
    await assert.rejects(buffer(body), unavailable)
  } finally {
    await server.thaw()
  }
  await waitFor('the server to answer again', async () => (await patient.size(key)) === 96 * MiB)
  await Promise.all([store.close(), patient.close()])
})

testS3('a reader may take longer than the server may', async (server) => {
  const { location } = place(server)
  const writing = await openS3Store(location)
  const key = someKey()
  await writing.putStream(key, random(48 * MiB), {})
  await writing.close()
  const store = await openS3Store({ ...location, idleTimeoutMs })
  const body = await store.open(key)
  assert.ok(body)
  await once(body, 'readable')
  await new Promise((resolve) => setTimeout(resolve, idleTimeoutMs * 3.5))
  assert.equal((await buffer(body)).length, 48 * MiB)
  await store.close()
})

testS3('a server that dies mid-body is an error, and is used again when it is back', async (server) => {
  const store = await openS3Store(place(server).location)
  const key = someKey()
  await store.putStream(key, random(96 * MiB), {})
  const body = await store.open(key)
  assert.ok(body)
  await once(body, 'readable')
  await server.restart()
  await assert.rejects(buffer(body))
  await waitFor('the server to answer again', async () => (await store.size(key)) === 96 * MiB)
  await store.ping()
  await store.close()
})

testS3('large objects are copied in parts', async (server) => {
  const { location, traces } = place(server)
  const store = await openS3Store(location, { partBytes: 5 * MiB })
  const [from, bytes] = [chunkKey(randomUUID()), randomBytes(33 * MiB + 5)]
  const to = someKey()
  await store.put(from, bytes)
  assert.equal(await store.link(from, to), true)
  await store.delete([from])
  assert.ok((await store.read(to))?.equals(bytes))
  assert.equal((await traces()).length, 1)
  await store.close()
})

// Not in parts: Ceph 16 takes the source of a part as it is written, and not as S3 says. No key of ours needs escaping.
testS3('objects are copied whatever is in their keys', async (server) => {
  const store = await openS3Store(place(server).location)
  const [odd, copy, bytes] = [storedKey(`odd/${randomUUID()} +&?#%2F~é`), someKey(), randomBytes(MiB)]
  await store.put(odd, bytes)
  await store.link(odd, copy)
  assert.ok((await store.read(copy))?.equals(bytes))
  await store.close()
})

testS3('a server may be silent while it copies, longer than it may be otherwise', async (server) => {
  const quietMs = 2 * idleTimeoutMs
  let copies = 0
  // Copies as fast as it can, and says so later.
  const slow = createServer((request, response) => {
    const { method, headers, url } = request
    const isCopy = headers['x-amz-copy-source'] !== undefined
    const onward = httpRequest(server.endpoint + url, { method, headers }, (answer) => {
      const pass = () => answer.pipe(response.writeHead(answer.statusCode ?? 502, answer.headers))
      if (isCopy) copies++
      setTimeout(pass, isCopy ? quietMs : 0)
    })
    onward.on('error', () => response.destroy())
    request.pipe(onward)
  })
  slow.listen(0, '127.0.0.1')
  await once(slow, 'listening')
  const endpoint = `http://127.0.0.1:${(slow.address() as AddressInfo).port}`
  const location = { ...place(server).location, endpoint, idleTimeoutMs }
  const store = await openS3Store(location, { partBytes: 5 * MiB })
  const hasty = await openS3Store({ ...location, copyTimeoutMs: quietMs / 4 }, { partBytes: 5 * MiB })
  try {
    const [from, whole, part, never] = [someKey(), someKey(), someKey(), someKey()]
    await store.put(from, randomBytes(MiB))
    await store.link(from, whole)
    const large = randomBytes(12 * MiB)
    await store.put(part, large)
    const to = someKey()
    await store.link(part, to)
    assert.ok((await store.read(to))?.equals(large))
    assert.equal(copies, 4)
    await assert.rejects(hasty.link(part, never), unavailable)
  } finally {
    await Promise.all([store.close(), hasty.close()])
    slow.closeAllConnections()
    slow.close()
  }
})

testS3('more uploads at once than there is memory for take turns', async (server) => {
  const store = await openS3Store(place(server).location)
  const uploads = Array.from({ length: 100 }, () => ({ key: someKey(), source: new Readable({ read() {} }) }))
  const stored = uploads.map(({ key, source }) => store.putStream(key, source, {}))
  // Every one is begun before any ends, and needs a part to itself.
  const piece = randomBytes(MiB)
  for (const { source } of uploads) for (let sent = 0; sent < 4; sent++) source.push(piece)
  await new Promise((resolve) => setImmediate(resolve))
  for (const { source } of uploads) for (let sent = 0; sent < 3; sent++) source.push(piece)
  for (const { source } of uploads) source.push(null)
  assert.deepEqual(
    await Promise.all(stored),
    uploads.map(() => 7 * MiB),
  )
  await store.delete(uploads.map(({ key }) => key))
  await store.close()
})

testS3('says in words what is wrong with the bucket', async (server) => {
  const { location } = place(server)
  await assert.rejects(openS3Store({ ...location, bucket: 'no-such-bucket' }), (error: Error) => {
    assert.ok(error.message.includes(server.endpoint), error.message)
    assert.match(error.message, /bucket no-such-bucket .*no such bucket\. Create it/)
    return true
  })
  process.env.AWS_SECRET_ACCESS_KEY = 'wrong'
  try {
    await assert.rejects(openS3Store(location), /refused to these credentials/)
  } finally {
    process.env.AWS_SECRET_ACCESS_KEY = server.secretKey
  }
})

testS3(
  'multipart uploads that nobody will complete are found by their age, below the prefix, and removed',
  async (server) => {
    const { location, traces } = place(server)
    const other = place(server)
    const [store, beside] = [await openS3Store(location), await openS3Store(other.location)]
    const client = new S3Client({ endpoint: server.endpoint, region: 'us-east-1', forcePathStyle: true })
    for (const { prefix } of [location, location, other.location])
      await client.send(new CreateMultipartUploadCommand({ Bucket: server.bucket, Key: `${prefix}blobs/left` }))
    const found = async (before: Date) => {
      const all = []
      for await (const unfinished of store.unfinished(before)) all.push(unfinished)
      return all
    }
    assert.deepEqual(await found(new Date(Date.now() - 3_600_000)), [])
    const left = await found(new Date(Date.now() + 3_600_000))
    assert.deepEqual(
      left.map(({ kind, name }) => `${kind} ${name}`),
      ['multipart upload blobs/left', 'multipart upload blobs/left'],
    )
    for (const { remove } of [...left, ...left]) await remove()
    assert.deepEqual(await traces(), [])
    assert.equal((await other.traces()).length, 1)
    client.destroy()
    await Promise.all([store.close(), beside.close()])
  },
)

test('s3: objects that the server would not delete are named, and no others', async (t) => {
  const server = createServer(async (request, answer) => {
    const body = (await buffer(request)).toString()
    if (!request.url?.includes('delete')) return answer.end()
    const refused = [...body.matchAll(/<Key>([^<]*stuck)<\/Key>/g)]
    const errors = refused.map(([, key]) => `<Error><Key>${key}</Key><Code>SlowDown</Code></Error>`)
    return answer.setHeader('content-type', 'application/xml').end(`<DeleteResult>${errors.join('')}</DeleteResult>`)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => server.close())
  process.env.AWS_ACCESS_KEY_ID ??= 'some-key'
  process.env.AWS_SECRET_ACCESS_KEY ??= 'some-secret'
  const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const store = await openS3Store({ bucket: 'b', prefix: 'p/', endpoint, region: 'us-east-1', pathStyle: true })
  const stuck = [storedKey('blobs/stuck'), storedKey('uploads/stuck')]
  await assert.rejects(store.delete([storedKey('blobs/a'), ...stuck]), (error: Failure) => {
    assert.equal(error.key, 'UNAVAILABLE')
    assert.ok(error.cause instanceof NotDeleted)
    assert.deepEqual(
      [...error.cause.reasons],
      stuck.map((key) => [key, 'SlowDown']),
    )
    return true
  })
  await store.delete([storedKey('blobs/a')])
  await store.close()
})

test('s3: nobody listening, no credentials and a failing server are said in words', async (t) => {
  const server = createServer((_, answer) => answer.writeHead(500).end())
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => server.close())
  const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  process.env.AWS_ACCESS_KEY_ID ??= 'some-key'
  process.env.AWS_SECRET_ACCESS_KEY ??= 'some-secret'
  const location = { bucket: 'b', endpoint, pathStyle: true }
  await assert.rejects(openS3Store(location), /bucket b at http:.*HTTP 500/)
  await assert.rejects(
    openS3Store({ ...location, endpoint: 'http://127.0.0.1:1' }),
    /no answer .*ECONNREFUSED.*endpoint/,
  )
})

test('s3: parts are within what S3 takes, and enough for a terabyte', () => {
  const sizes = Array.from({ length: 10_000 }, (_, index) => partBytes(index + 1))
  assert.ok(Math.min(...sizes) >= 5 * MiB)
  assert.ok(Math.max(...sizes) <= 160 * MiB)
  assert.ok(sizes.reduce((sum, size) => sum + size) > 1e12)
})
