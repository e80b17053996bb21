import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer } from 'node:net'
import { after, before, describe, it } from 'node:test'
import { exportKey } from '../blobs/keys.ts'
import { openClient } from '../client/client.ts'
import { ask as question, type Sql } from '../db/client.ts'
import { beginExport, claimPart, type ExportPart, keepPart, storedParts } from '../db/export-files.ts'
import { listJobs } from '../db/jobs.ts'
import { tidy } from '../registry/deletions.ts'
import { writeExport } from '../registry/export-files.ts'
import { createKey } from '../registry/keys.ts'
import { sampleBundle } from '../testing/bundle.ts'
import { untilBlocked } from '../testing/collect.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { ask, codeIn, publish } from '../testing/packs.ts'
import { startRegistry, type TestRegistry } from '../testing/registry.ts'
import { noS3, startS3, type TestS3 } from '../testing/s3.ts'
import { waitFor } from '../testing/wait.ts'
import { startWorker } from '../worker/worker.ts'

let databases: TestDatabases
before(async () => {
  databases = await startDatabases()
})
after(() => databases?.stop())

type Told = {
  id: string
  state: string
  size: number
  written: number
  sha256?: string
  error?: string
  packs: number
  signedBy: string[]
}
const watch = { signal: new AbortController().signal, progress: () => undefined }
const sha256 = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex')

async function withRegistry(test: (registry: TestRegistry) => Promise<void>): Promise<void> {
  const registry = await startRegistry(await databases.fresh())
  try {
    await test(registry)
  } finally {
    await registry.stop()
  }
}

async function fill(registry: TestRegistry): Promise<void> {
  await createKey(registry.deps, 'site')
  for (const [packId, size] of [
    ['alpha', 700_000],
    ['beta', 900_000],
  ] as const) {
    const { status, body } = await publish(registry, { packId }, Buffer.alloc(size, packId))
    assert.equal(status, 201, JSON.stringify(body))
  }
}

async function request(registry: TestRegistry, body: object = { all: true }): Promise<Told> {
  const answer = await ask(registry, 'POST', '/bundles/exports', body)
  assert.equal(answer.status, 202, JSON.stringify(answer.body))
  return answer.body.export as Told
}

const shown = async (registry: TestRegistry, id: string) =>
  (await ask(registry, 'GET', `/bundles/exports/${id}`)).body.export as Told

async function exportKeys({ deps }: TestRegistry): Promise<string[]> {
  const keys: string[] = []
  for await (const { key } of deps.blobs.list('exports/')) keys.push(key)
  return keys
}

async function fileOf(registry: TestRegistry, id: string, headers: Record<string, string> = {}) {
  const answer = await registry.call('GET', `/bundles/exports/${id}/file`, { headers })
  return { status: answer.status, bytes: Buffer.from(await answer.arrayBuffer()), headers: answer.headers }
}

describe('an export', () => {
  it('is made by a worker: the same bytes as the bundle that is sent, signed, in ranges too', () =>
    withRegistry(async (registry) => {
      await fill(registry)
      const direct = await registry.call('POST', '/bundles', { body: '{"all":true}' })
      const bundle = Buffer.from(await direct.arrayBuffer())
      const asked = await request(registry)
      assert.deepEqual([asked.state, asked.size, asked.packs], ['waiting', bundle.length, 2])
      const worker = startWorker(registry.deps, { pollMs: 50 })
      try {
        await waitFor('the export to be ready', async () => (await shown(registry, asked.id)).state === 'ready')
      } finally {
        await worker.stop()
      }
      const told = await shown(registry, asked.id)
      assert.deepEqual([told.written, told.sha256, told.signedBy.length], [bundle.length, sha256(bundle), 1])
      const whole = await fileOf(registry, asked.id)
      assert.deepEqual(whole.bytes, bundle)
      assert.equal(whole.headers.get('etag'), direct.headers.get('etag'))
      const part = await fileOf(registry, asked.id, { range: 'bytes=1000-800000' })
      assert.deepEqual([part.status, part.bytes], [206, bundle.subarray(1000, 800_001)])
      assert.equal((await fileOf(registry, asked.id, { range: `bytes=${bundle.length}-` })).status, 416)
      const head = await registry.call('HEAD', `/bundles/exports/${asked.id}/file`)
      assert.equal(Number(head.headers.get('content-length')), bundle.length)
      const list = await ask(registry, 'GET', '/bundles/exports')
      assert.deepEqual(list.body.exports, [told])
    }))

  it('goes on behind the parts that a worker left which died, and makes none of them again', () =>
    withRegistry(async (registry) => {
      await fill(registry)
      const { id, size } = await request(registry)
      const dying = new AbortController()
      let left = 0
      const progress = (value: object) => {
        left = (value as { written: number }).written
        if (left >= 400_000) dying.abort(new Error('killed'))
      }
      await assert.rejects(
        writeExport(registry.deps, id, { signal: dying.signal, progress }, { partBytes: 200_000 }),
        /killed/,
      )
      assert.deepEqual([(await shown(registry, id)).state, (await shown(registry, id)).written], ['running', left])
      assert.equal(codeIn((await ask(registry, 'GET', `/bundles/exports/${id}/file`)).body), 'EXPORT_NOT_READY')
      const parts = () =>
        registry.deps.db.sql`select number, storage_key from export_parts where stored order by number`
      const before = await parts()
      const made = await writeExport(registry.deps, id, watch, { partBytes: 300_000 })
      assert.deepEqual([...(await parts())].slice(0, before.length), [...before])
      const { bytes } = await fileOf(registry, id)
      assert.deepEqual([bytes.length, sha256(bytes), made?.sha256], [size, made?.sha256, sha256(bytes)])
      const across = await fileOf(registry, id, { range: 'bytes=199990-700010' })
      assert.deepEqual(across.bytes, bytes.subarray(199_990, 700_011))
      await tidy(registry.deps)
      const rows = await registry.deps.db.sql<{ key: string }[]>`select storage_key as key from export_parts`
      assert.deepEqual((await exportKeys(registry)).sort(), rows.map(({ key }) => key).sort())
    }))

  it('is made once by two workers that have it at the same time', () =>
    withRegistry(async (registry) => {
      await fill(registry)
      const { id } = await request(registry)
      const both = [1, 2].map(() => writeExport(registry.deps, id, watch, { partBytes: 100_000 }))
      await Promise.all(both)
      // Each of them may have left a part to the other, and stopped.
      await writeExport(registry.deps, id, watch, { partBytes: 100_000 })
      const { bytes } = await fileOf(registry, id)
      assert.equal(sha256(bytes), (await shown(registry, id)).sha256)
      await tidy(registry.deps)
      const rows = await registry.deps.db.sql`select 1 from export_parts`
      assert.equal((await exportKeys(registry)).length, rows.length)
    }))

  it('loses no part that becomes whole while another worker takes it for an unfinished one', () =>
    withRegistry(async (registry) => {
      await fill(registry)
      const { id } = await request(registry)
      const { db } = registry.deps
      assert.ok(await beginExport(db.sql, id))
      const [mine, theirs] = [1, 2].map(() => ({ number: 0, size: 100, key: exportKey(id) })) as [
        ExportPart,
        ExportPart,
      ]
      assert.ok(await claimPart(db.sql, id, mine))
      const keeping = db.sql.begin(async (tx) => {
        assert.ok(await keepPart(tx as unknown as Sql, id, mine))
        const claiming = claimPart(db.relaxed, id, theirs)
        await untilBlocked(registry)
        return { claiming }
      })
      assert.equal(await (await keeping).claiming, false)
      assert.deepEqual([...(await db.sql`select storage_key from blob_deletions`)], [])
      const parts = await storedParts(db.sql, id)
      assert.deepEqual(
        parts.map(({ key }) => key),
        [mine.key],
      )
    }))

  it('is the same one for the same request in the same state, and another one afterwards', () =>
    withRegistry(async (registry) => {
      await fill(registry)
      const first = await request(registry)
      assert.equal((await request(registry)).id, first.id)
      const jobs = await question(registry.deps.db, (sql) => listJobs(sql, { name: 'export', limit: 10 }))
      assert.equal(jobs.length, 1)
      await publish(registry, { packId: 'gamma' }, 'gamma')
      assert.notEqual((await request(registry)).id, first.id)
      const page = await ask(registry, 'GET', '/bundles/exports?limit=1')
      const rest = await ask(registry, 'GET', `/bundles/exports?limit=1&after=${page.body.next}`)
      const ids = [page, rest].flatMap(({ body }) => (body.exports as Told[]).map(({ id }) => id))
      assert.deepEqual([ids.length, ids[1]], [2, first.id])
    }))

  it('goes when it is told to, or when its time is over, with all that was stored of it', () =>
    withRegistry(async (registry) => {
      await fill(registry)
      const { id } = await request(registry)
      await writeExport(registry.deps, id, watch, { partBytes: 500_000 })
      assert.ok((await exportKeys(registry)).length > 1)
      assert.deepEqual((await ask(registry, 'DELETE', `/bundles/exports/${id}`)).body, { deleted: true })
      assert.deepEqual((await ask(registry, 'DELETE', `/bundles/exports/${id}`)).body, { deleted: false })
      assert.equal(codeIn((await ask(registry, 'GET', `/bundles/exports/${id}`)).body), 'EXPORT_UNKNOWN')
      await tidy(registry.deps)
      assert.deepEqual(await exportKeys(registry), [])
      assert.equal(await writeExport(registry.deps, id, watch), undefined)

      const again = await request(registry)
      assert.deepEqual([again.id, again.state], [id, 'waiting'])
      await writeExport(registry.deps, id, watch)
      await registry.deps.db.sql`update exports set expires_at = now()`
      await tidy(registry.deps)
      assert.equal((await ask(registry, 'GET', `/bundles/exports/${id}/file`)).status, 404)
      assert.deepEqual(await exportKeys(registry), [])
    }))

  it('that is removed while it is written leaves nothing behind', () =>
    withRegistry(async (registry) => {
      await fill(registry)
      const { id } = await request(registry)
      const removing: Promise<unknown>[] = []
      const progress = () => void removing.push(ask(registry, 'DELETE', `/bundles/exports/${id}`))
      const made = await writeExport(registry.deps, id, { ...watch, progress }, { partBytes: 1000 })
      await Promise.all(removing)
      assert.equal(made, undefined)
      await tidy(registry.deps)
      assert.deepEqual(await exportKeys(registry), [])
    }))

  it('fails in words where content of it was deleted, and can be asked for anew', () =>
    withRegistry(async (registry) => {
      await fill(registry)
      const { id } = await request(registry)
      await ask(registry, 'DELETE', '/packs/alpha/1.0.0')
      await assert.rejects(writeExport(registry.deps, id, watch), { key: 'BUNDLE_GONE' })
      const told = await shown(registry, id)
      assert.equal(told.state, 'failed')
      assert.match(told.error ?? '', /alpha has deleted/)
      assert.notEqual((await request(registry)).id, id)
    }))

  it('fails in the same way where content of it is deleted while it is made', () =>
    withRegistry(async (registry) => {
      await fill(registry)
      const { id } = await request(registry)
      // Planned already, and not read yet.
      const { blobs } = registry.deps
      const { putStream } = blobs
      blobs.putStream = async (...given) => {
        await ask(registry, 'DELETE', '/packs/beta/1.0.0')
        return putStream(...given)
      }
      await assert.rejects(writeExport(registry.deps, id, watch), { key: 'BUNDLE_GONE' })
      const told = await shown(registry, id)
      assert.deepEqual([told.state, told.written], ['failed', 0])
      assert.match(told.error ?? '', /was deleted while it was made; ask for it again/)
    }))

  it('is refused at once where it cannot be made', () =>
    withRegistry(async (registry) => {
      await fill(registry)
      const answer = await ask(registry, 'POST', '/bundles/exports', { roots: ['alpha@^9'] })
      assert.deepEqual([answer.status, codeIn(answer.body)], [409, 'UNRESOLVABLE'])
      assert.deepEqual((await ask(registry, 'GET', '/bundles/exports')).body, { exports: [] })
      for (const id of ['nonsense', '0'.repeat(64)])
        assert.equal(codeIn((await ask(registry, 'GET', `/bundles/exports/${id}`)).body), 'EXPORT_UNKNOWN')
    }))
})

/** A line to a registry of which the first connection breaks after so many bytes. */
async function startLine(target: string, most: number): Promise<{ url: string; stop(): void }> {
  const { hostname, port } = new URL(target)
  let left = most
  const server = createServer((socket) => {
    const passed = connect(Number(port), hostname)
    socket.on('data', (piece: Buffer) => {
      left -= piece.length
      if (left < 0) {
        left = Number.POSITIVE_INFINITY
        socket.destroy()
      }
    })
    socket.pipe(passed).pipe(socket)
    for (const [one, other] of [
      [socket, passed],
      [passed, socket],
    ] as const)
      one.on('error', () => undefined).on('close', () => other.destroy())
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, stop: () => void server.close() }
}

describe('imports and exports in S3', () => {
  let s3: TestS3 | undefined
  before(async () => {
    s3 = await startS3()
  })
  after(() => s3?.stop())

  it('a bundle comes in, leaves, and is made in the background: to be had from the store itself', async (t) => {
    if (!s3) return t.skip(noS3)
    process.env.AWS_ACCESS_KEY_ID = s3.accessKey
    process.env.AWS_SECRET_ACCESS_KEY = s3.secretKey
    const BLOB_STORE = `s3://${s3.bucket}/air?endpoint=${s3.endpoint}&region=us-east-1&pathStyle=true`
    const registry = await startRegistry(await databases.fresh(), { BLOB_STORE })
    try {
      const large = Buffer.alloc(9_000_000, 'large ')
      const packs = [
        { packId: 'large', version: '1.0.0', content: large },
        ...Array.from({ length: 30 }, (_, i) => ({ packId: `small-${i}`, version: '1.0.0', content: `content ${i}` })),
      ]
      const { bytes } = sampleBundle({ packs, channels: [] })
      const imported = await registry.call('POST', '/bundles/import', { body: bytes })
      assert.equal(imported.status, 201, await imported.text())
      const direct = await registry.call('POST', '/bundles', { body: '{"all":true}' })
      const bundle = Buffer.from(await direct.arrayBuffer())
      const { id } = await request(registry)

      await writeExport(registry.deps, id, watch, { partBytes: 6_000_000 })
      const parts = await fileOf(registry, id, { range: 'bytes=5999990-6000010' })
      assert.deepEqual([parts.status, parts.bytes], [206, bundle.subarray(5_999_990, 6_000_011)])
      assert.deepEqual((await fileOf(registry, id)).bytes, bundle)

      await ask(registry, 'DELETE', `/bundles/exports/${id}`)
      await request(registry)
      await writeExport(registry.deps, id, watch)
      const answer = await registry.call('GET', `/bundles/exports/${id}/file`)
      assert.deepEqual([answer.status, answer.headers.get('cache-control')], [307, 'no-store'])
      const location = answer.headers.get('location') ?? ''
      assert.ok(location.startsWith(s3.endpoint), location)
      const whole = await fetch(location)
      assert.deepEqual(Buffer.from(await whole.arrayBuffer()), bundle)
      const client = openClient({ url: registry.url })
      const read: Buffer[] = []
      for await (const piece of client.exports.read({ id, size: bundle.length }, { from: 1_000_000 })) read.push(piece)
      assert.deepEqual(Buffer.concat(read), bundle.subarray(1_000_000))
      await tidy(registry.deps)
      assert.equal((await exportKeys(registry)).length, 1)
    } finally {
      await registry.stop()
    }
  })

  it('an import that is cut off goes on where it was, and nothing of it is left over', async (t) => {
    if (!s3) return t.skip(noS3)
    const BLOB_STORE = `s3://${s3.bucket}/cut?endpoint=${s3.endpoint}&region=us-east-1&pathStyle=true`
    const registry = await startRegistry(await databases.fresh(), { BLOB_STORE })
    try {
      const packs = [0, 1, 2].map((i) => ({
        ...{ packId: `pack-${i}`, version: '1.0.0' },
        content: Buffer.alloc(5_000_000, `content ${i} `),
      }))
      const { bytes } = sampleBundle({ packs, channels: [] })
      const line = await startLine(registry.url, 11_000_000)
      const client = openClient({ url: line.url, baseDelayMs: 10 })
      const starts: number[] = []
      const report = await client.imports.run({
        size: bytes.length,
        async *open(from: number) {
          starts.push(from)
          for (let at = from; at < bytes.length; at += 500_000) yield bytes.subarray(at, at + 500_000)
        },
      })
      line.stop()
      assert.ok(starts.length > 1 && (starts[1] ?? 0) > 4_000_000, `sent from ${starts}`)
      assert.deepEqual([report.changed, report.packs.length], [true, 3])
      await registry.deps.db.sql`update imports set expires_at = now(), leased_until = now()`
      await tidy(registry.deps)
      const keys: string[] = []
      for await (const { key } of registry.deps.blobs.list('')) keys.push(key)
      const [row] = await registry.deps.db.sql<{ count: number }[]>`select count(*)::int as count from blobs`
      assert.equal(keys.length, row?.count)
    } finally {
      await registry.stop()
    }
  })
})

it('a bundle of more than its readers take is refused in words', () =>
  withRegistry(async (registry) => {
    await publish(registry, { packId: 'many' }, 'many')
    await registry.deps.db.sql`
      insert into pack_versions (repository_id, release, version, precedence, prerelease, type, document, manifest_digest,
        content_digest, content_size, content_type)
      select repository_id, '2.' || n || '.0', '2.' || n || '.0', '2' || lpad(n::text, 9, '0'), false, type, document,
        manifest_digest, content_digest, content_size, content_type
      from pack_versions, generate_series(1, 300000) n`
    const plan = await ask(registry, 'POST', '/bundles/plan', { all: true })
    const [problem] = plan.body.problems as { code: string; detail: string }[]
    assert.deepEqual([plan.status, problem?.code], [200, 'CONTENT_TOO_LARGE'])
    assert.match(problem?.detail ?? '', /at most 299990 files.*make several bundles/)
    const refused = await ask(registry, 'POST', '/bundles/exports', { all: true })
    assert.deepEqual([refused.status, codeIn(refused.body)], [413, 'CONTENT_TOO_LARGE'])
  }))
