// What happens when a part the registry stands on is down, hangs, comes back or is full: 503 with Retry-After while it
// lasts, /readyz names the part, nothing is half-stored, and afterwards all goes on without a restart.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdirSync, rmSync, statfsSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { type Postgres15, startPostgres15 } from '../scripts/services/postgres15.ts'
import { waitFor } from '../src/testing/wait.ts'
import {
  type Answer,
  call,
  imageManifest,
  manifestOf,
  pushArtifact,
  registryClient,
  sha256,
  withQuery,
} from './registry-client.ts'
import { startObjectStore } from './s3.ts'
import { type Server, startServer, temporaryFolder } from './server.ts'

const MiB = 1024 * 1024
const octets = { 'content-type': 'application/octet-stream' }

function expectUnavailable(answer: Answer, what: string): void {
  assert.equal(answer.status, 503, `${what}: ${answer.status} ${answer.body.subarray(0, 300)}`)
  assert.match(answer.headers['retry-after'] ?? '', /^\d+$/, `${what}: Retry-After`)
}

const isReady = async (server: Server) => (await call('GET', `${server.url}/readyz`)).status === 200

/** /readyz says 503 and which part is down; /healthz, which is about this process only, stays well. */
async function expectNotReady(server: Server, part: 'database' | 'blobStore'): Promise<void> {
  const { parts } = await waitFor('/readyz to answer 503', async () => {
    const answer = await call('GET', `${server.url}/readyz`)
    return answer.status === 503 && JSON.parse(answer.body.toString())
  })
  const down = Object.keys(parts).filter((name) => parts[name] !== 'ok')
  assert.deepEqual(down, [part])
  assert.equal((await call('GET', `${server.url}/healthz`)).status, 200)
}

/** Requests that cannot be answered without the database, one of each kind. */
function databaseRequests(server: Server, digest: string): (readonly [string, () => Promise<Answer>])[] {
  const v2 = `${server.url}/v2/outage/pack`
  const manifest = manifestOf(Buffer.from('{}'), [])
  return [
    ['GET manifest', () => call('GET', `${v2}/manifests/1`)],
    ['GET manifest by digest', () => call('GET', `${v2}/manifests/${digest}`)],
    ['HEAD manifest', () => call('HEAD', `${v2}/manifests/1`)],
    ['GET blob', () => call('GET', `${v2}/blobs/${sha256('x')}`)],
    ['tags', () => call('GET', `${v2}/tags/list`)],
    ['catalog', () => call('GET', `${server.url}/v2/_catalog`)],
    ['referrers', () => call('GET', `${v2}/referrers/${digest}`)],
    [
      // To open it, the database is asked for the upstreams at most, and that only now and then. Its content does need it.
      'POST upload and PUT',
      async () => {
        const opened = await call('POST', `${v2}/blobs/uploads/`)
        if (opened.status !== 202) return opened
        return call('PUT', withQuery(`${server.url}${opened.headers.location}`, { digest: sha256('y') }), {
          headers: octets,
          body: 'y',
        })
      },
    ],
    [
      'POST blob',
      () => call('POST', withQuery(`${v2}/blobs/uploads/`, { digest: sha256('x') }), { headers: octets, body: 'x' }),
    ],
    [
      'PUT manifest',
      () => call('PUT', `${v2}/manifests/2`, { headers: { 'content-type': imageManifest }, body: manifest }),
    ],
    ['DELETE manifest', () => call('DELETE', `${v2}/manifests/doomed`)],
  ]
}

describe('PostgreSQL 15 outside', () => {
  let postgres: Postgres15
  let server: Server
  before(async () => {
    postgres = (await startPostgres15()) ?? assert.fail('Debian 12 has PostgreSQL 15: scripts/services/clients.sh')
    server = await startServer({ env: { DATABASE_URL: postgres.url, PROCESSES: '2' } })
  })
  after(async () => {
    try {
      postgres?.thaw()
      await server?.stop()
    } finally {
      await postgres?.stop()
    }
  })

  for (const { what, begin, end } of [
    { what: 'restarted', begin: () => postgres.down(), end: () => postgres.up() },
    { what: 'hanging', begin: async () => postgres.freeze(), end: async () => postgres.thaw() },
  ]) {
    it(`${what}: 503 meanwhile, then everything goes on`, async () => {
      const client = registryClient(server.url)
      const digest = await pushArtifact(client, 'outage/pack', '1')
      await pushArtifact(client, 'outage/pack', 'doomed')
      const session = await client.patch(await client.startUpload('outage/pack'), Buffer.from('begun '))
      await begin()
      try {
        const requests = databaseRequests(server, digest)
        const answers = await Promise.all(requests.map(async ([name, send]) => [name, await send()] as const))
        for (const [name, answer] of answers) expectUnavailable(answer, name)
        await expectNotReady(server, 'database')
      } finally {
        await end()
      }
      await waitFor('the server to be ready again', () => isReady(server))
      assert.equal(await client.verifyManifest('outage/pack', '1'), digest)
      // A deletion that was answered 503 may have been on its way to the database: it is carried out, or not.
      const tags = await client.tags('outage/pack')
      assert.ok(tags.includes('1') && tags.every((tag) => ['1', 'doomed'].includes(tag)), tags.join(' '))
      await client.finish(await client.patch(session, Buffer.from('ended')), sha256('begun ended'))
      await pushArtifact(client, 'outage/pack', 'after')
      await call('DELETE', `${server.url}/v2/outage/pack/manifests/after`)
    })
  }

  it('more requests at once than there are connections: each is answered, or told to come back', async () => {
    const client = registryClient(server.url)
    const digest = await pushArtifact(client, 'outage/crowd', '1')
    const send = () => call('GET', `${server.url}/v2/outage/crowd/manifests/1`)
    for (const answer of await Promise.all(Array.from({ length: 500 }, send))) {
      if (answer.status !== 200) expectUnavailable(answer, 'GET manifest')
      else assert.equal(sha256(answer.body), digest)
    }
  })

  it('ten replicas started at once on one fresh database all get ready and see each other', async () => {
    const fresh = (await startPostgres15()) ?? assert.fail('no PostgreSQL')
    const blobs = temporaryFolder()
    const env = { DATABASE_URL: fresh.url, BLOB_STORE: `file:${blobs}` }
    const starting = await Promise.allSettled(Array.from({ length: 10 }, () => startServer({ env })))
    const replicas = starting.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []))
    try {
      for (const one of starting) if (one.status === 'rejected') throw one.reason
      for (const [index, replica] of replicas.entries()) {
        const digest = await pushArtifact(registryClient(replica.url), 'replicas/pack', `by-${index}`)
        const next = replicas[(index + 1) % replicas.length] ?? replica
        assert.equal(await registryClient(next.url).verifyManifest('replicas/pack', `by-${index}`), digest)
      }
    } finally {
      await Promise.allSettled(replicas.map((replica) => replica.stop()))
      await fresh.stop()
      rmSync(blobs, { recursive: true })
    }
  })
})

describe('S3', () => {
  let s3: Awaited<ReturnType<typeof startObjectStore>>
  let server: Server
  before(async () => {
    s3 = await startObjectStore()
    server = await startServer({ env: { ...s3.env('outage'), BLOB_REDIRECT: 'false' } })
  })
  after(async () => {
    try {
      await server?.stop()
    } finally {
      await s3?.stop()
    }
  })

  it('hanging: 503 meanwhile, nothing half-stored, then everything goes on', async () => {
    const client = registryClient(server.url)
    const digest = await pushArtifact(client, 'outage/s3', '1', { sizes: [MiB] })
    const layer = await client.pushBlob('outage/s3', randomBytes(2 * MiB))
    const session = await client.patch(await client.startUpload('outage/s3'), Buffer.from('begun '))
    const [small, large] = [randomBytes(1000), randomBytes(12 * MiB)]
    const v2 = `${server.url}/v2/outage/s3/blobs`
    const push = (bytes: Buffer) =>
      call('POST', withQuery(`${v2}/uploads/`, { digest: sha256(bytes) }), { headers: octets, body: bytes })
    await s3.freeze()
    try {
      const [get, pushSmall, pushLarge, patch] = await Promise.all([
        call('GET', `${v2}/${layer}`),
        push(small),
        push(large),
        call('PATCH', session, { headers: octets, body: 'lost' }),
      ])
      expectUnavailable(get, 'GET blob')
      expectUnavailable(pushSmall, 'POST small blob')
      expectUnavailable(pushLarge, 'POST large blob')
      expectUnavailable(patch, 'PATCH')
      await expectNotReady(server, 'blobStore')
      assert.equal(await client.status('HEAD', `outage/s3/manifests/1`), 200, 'manifests need no blob store')
    } finally {
      await s3.thaw()
    }
    await waitFor('the server to be ready again', () => isReady(server))
    for (const bytes of [small, large])
      assert.equal(await client.status('HEAD', `outage/s3/blobs/${sha256(bytes)}`), 404)
    await waitFor('half-done multipart uploads to be aborted', async () => (await s3.halfDone()).length === 0)
    assert.equal(await client.verifyManifest('outage/s3', '1'), digest)
    assert.equal(await client.uploadOffset(session), 'begun '.length)
    await client.finish(await client.patch(session, Buffer.from('ended')), sha256('begun ended'))
    for (const bytes of [small, large]) await client.verifyBlob('outage/s3', await client.pushBlob('outage/s3', bytes))
  })

  it('restarted: goes on without a restart of the server', async () => {
    const client = registryClient(server.url)
    const digest = await pushArtifact(client, 'outage/s3-restart', '1')
    await s3.restart()
    await waitFor('the server to be ready again', () => isReady(server))
    assert.equal(await client.verifyManifest('outage/s3-restart', '1'), digest)
    await pushArtifact(client, 'outage/s3-restart', '2', { sizes: [9 * MiB] })
  })
})

describe('a full disk', { skip: process.getuid?.() !== 0 && 'needs root, to mount a small file system' }, () => {
  let folder: string
  let server: Server
  before(async () => {
    folder = temporaryFolder()
    mkdirSync(join(folder, 'blobs'))
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', join(folder, 'blobs')])
    server = await startServer({ dataDir: join(folder, 'data'), env: { BLOB_STORE: `file:${join(folder, 'blobs')}` } })
  })
  after(async () => {
    try {
      await server?.stop()
    } finally {
      execFileSync('umount', [join(folder, 'blobs')])
      rmSync(folder, { recursive: true })
    }
  })

  it('503, nothing half-stored, and what fits is still taken', async () => {
    const client = registryClient(server.url)
    const digest = await pushArtifact(client, 'outage/disk', '1', { sizes: [MiB] })
    const v2 = `${server.url}/v2/outage/disk/blobs`
    const used = () => {
      const { blocks, bfree, bsize } = statfsSync(join(folder, 'blobs'))
      return (blocks - bfree) * bsize
    }
    const before = used()
    const large = randomBytes(12 * MiB)
    const query = { digest: sha256(large) }

    expectUnavailable(await call('POST', withQuery(`${v2}/uploads/`, query), { headers: octets, body: large }), 'POST')
    const put = await client.startUpload('outage/disk')
    expectUnavailable(await call('PUT', withQuery(put, query), { headers: octets, body: large }), 'PUT')
    const session = await client.patch(await client.startUpload('outage/disk'), large.subarray(0, MiB))
    expectUnavailable(await call('PATCH', session, { headers: octets, body: large.subarray(MiB) }), 'PATCH')

    assert.equal(await client.status('HEAD', `outage/disk/blobs/${query.digest}`), 404)
    assert.equal(await client.uploadOffset(session), MiB, 'the session stands where it was acknowledged')
    assert.equal((await call('DELETE', session)).status, 204)
    // Directories that were made for content stay; they are a page each.
    await waitFor('the space to be free again', () => used() <= before + 64 * 1024)
    assert.equal(await client.verifyManifest('outage/disk', '1'), digest)
    await client.verifyManifest('outage/disk', await pushArtifact(client, 'outage/disk', '2', { sizes: [2 * MiB] }))
  })
})
