import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { after, before, it } from 'node:test'
import { Failure } from '../errors.ts'
import { digestOf } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import { openRemote, type Remote } from '../remote/remote.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { startRegistry, type TestRegistry } from '../testing/registry.ts'
import { fetchBlob } from './fetch-blob.ts'

let databases: TestDatabases
let registry: TestRegistry
let server: http.Server
let remote: Remote
/** What the other registry has for every blob, what it was asked for, and after how many bytes it falls silent. */
let content = Buffer.alloc(0)
let ranges: (string | undefined)[] = []
let silentAfter = Number.POSITIVE_INFINITY

before(async () => {
  databases = await startDatabases()
  registry = await startRegistry(await databases.fresh())
  server = http.createServer(({ headers }, response) => {
    ranges.push(headers.range)
    const from = Number(/^bytes=(\d+)-$/.exec(headers.range ?? '')?.[1] ?? 0)
    const length = content.length - from
    if (from > 0) response.writeHead(206, { 'content-range': `bytes ${from}-${content.length - 1}/${content.length}` })
    else response.writeHead(200, { 'content-length': length })
    if (silentAfter >= length) response.end(content.subarray(from))
    else response.write(content.subarray(from, from + silentAfter))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  remote = openRemote({ url, allowPrivate: true, baseDelayMs: 1 })
})
after(async () => {
  remote?.close()
  server?.closeAllConnections()
  server?.close()
  await registry?.stop()
  await databases?.stop()
})

const repository = 'some/app' as RepositoryName
const sizes = { largeBytes: 1_000_000, partBytes: 400_000 }

it('takes a large blob part by part, and goes on with it in another process', async () => {
  content = randomBytes(2_000_000)
  ranges = []
  silentAfter = 1_000_000
  const digest = digestOf(content)
  const fetch = { repository, place: repository, digest }
  const dying = new AbortController()
  let session = ''
  const first = fetchBlob(registry.deps, remote, fetch, {
    ...{ ...sizes, signal: dying.signal },
    onSession: async (text) => {
      session = text
    },
  })
  first.catch(() => undefined)
  const reached = async () => {
    const [row] = await registry.deps.db.sql<{ at: number }[]>`select max("offset")::int as at from uploads`
    return row?.at
  }
  while ((await reached()) !== 800_000) await new Promise((resolve) => setTimeout(resolve, 10))
  dying.abort(new Error('the process ends'))
  await assert.rejects(first)
  assert.equal((await registry.call('HEAD', `/v2/${repository}/blobs/${digest}`)).status, 404)

  silentAfter = Number.POSITIVE_INFINITY
  assert.equal(await fetchBlob(registry.deps, remote, fetch, { ...sizes, session }), content.length)
  assert.deepEqual(ranges, [undefined, 'bytes=800000-'])
  const answer = await registry.call('GET', `/v2/${repository}/blobs/${digest}`)
  assert.equal(digestOf(Buffer.from(await answer.arrayBuffer())), digest)
})

it('keeps nothing of a large blob that is not what its digest says, and begins anew', async () => {
  const right = randomBytes(1_500_000)
  const fetch = { repository, place: repository, digest: digestOf(right) }
  content = randomBytes(1_500_000)
  let session = ''
  const onSession = async (text: string) => {
    session = text
  }
  await assert.rejects(
    fetchBlob(registry.deps, remote, fetch, { ...sizes, onSession }),
    (error) => error instanceof Failure && error.key === 'REMOTE_INVALID',
  )
  content = right
  ranges = []
  assert.equal(await fetchBlob(registry.deps, remote, fetch, { ...sizes, session, onSession }), right.length)
  assert.deepEqual(ranges, [undefined])
})
