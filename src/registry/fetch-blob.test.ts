import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { after, before, describe, it } from 'node:test'
import { Failure } from '../errors.ts'
import { digestOf } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import { openRemote, type Remote } from '../remote/remote.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { startRegistry, type TestRegistry } from '../testing/registry.ts'
import { waitFor } from '../testing/wait.ts'
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
  const fetch = { repository, place: repository, digest, size: content.length }
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
  await waitFor('800,000 bytes to be stored', async () => (await reached()) === 800_000)
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
  const fetch = { repository, place: repository, digest: digestOf(right), size: right.length }
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

describe('a body that has not the length that its descriptor says', () => {
  const right = randomBytes(700_000)
  const digest = digestOf(right)
  let sent = 0
  let ended: Promise<unknown> = Promise.resolve()
  const withoutEnd: http.RequestListener = (_, response) => {
    ended = new Promise((resolve) => response.on('close', resolve))
    sent = 0
    const more = () => {
      if (response.destroyed) return
      sent += 65_536
      response.write(randomBytes(65_536), more)
    }
    more()
  }
  const claims = (length: string, body: Buffer): http.RequestListener => {
    return (_, response) => void response.writeHead(200, { 'content-length': length }).end(body)
  }
  const cases: { what: string; answer: http.RequestListener; size: number | undefined; words: RegExp }[] = [
    { what: 'without an end', answer: withoutEnd, size: 700_000, words: /sends more bytes for sha256:.*has 700000/ },
    {
      what: 'longer, as it says itself',
      answer: claims('700001', Buffer.alloc(700_001)),
      size: 700_000,
      words: /sends 700001 bytes/,
    },
    { what: 'shorter, as it says itself', answer: claims('9', Buffer.alloc(9)), size: 700_000, words: /sends 9 bytes/ },
    {
      what: 'shorter, without a word',
      answer: (_, response) => {
        response.write(right.subarray(0, 600_000))
        response.end()
      },
      size: 700_000,
      words: /sends 600000 bytes for sha256:.*has 700000/,
    },
    {
      what: 'such as nothing has',
      answer: claims('99999999999999999', Buffer.alloc(9)),
      size: 700_000,
      words: /Content-Length 99999999999999999, which/,
    },
    { what: 'such as nobody knows', answer: withoutEnd, size: undefined, words: /does not say how many bytes/ },
  ]
  for (const { what, answer, size, words } of cases)
    it(`is refused: one ${what}`, async () => {
      const liar = http.createServer(answer)
      await new Promise<void>((resolve) => liar.listen(0, '127.0.0.1', resolve))
      const url = `http://127.0.0.1:${(liar.address() as AddressInfo).port}`
      const asking = openRemote({ url, allowPrivate: true, attempts: 1 })
      try {
        const fetching = fetchBlob(registry.deps, asking, { repository, place: repository, digest, size })
        await assert.rejects(fetching, (error) => {
          assert.ok(error instanceof Failure, String(error))
          assert.deepEqual(
            [error.key, words.test(String(error.detail))],
            ['REMOTE_INVALID', true],
            String(error.detail),
          )
          return true
        })
        await ended
        assert.ok(sent < 100_000_000, `${sent} bytes were sent`)
        assert.equal((await registry.call('HEAD', `/v2/${repository}/blobs/${digest}`)).status, 404)
        const left: unknown[] = []
        for await (const { name } of registry.deps.blobs.unfinished(new Date(Date.now() + 60_000))) left.push(name)
        for await (const { key } of registry.deps.blobs.list(`blobs/sha256/${digest.slice(7, 9)}/`)) left.push(key)
        assert.deepEqual(left, [])
      } finally {
        asking.close()
        liar.closeAllConnections()
        liar.close()
      }
    })
})
