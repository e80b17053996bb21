import assert from 'node:assert/strict'
import { type IncomingMessage, request } from 'node:http'
import { after, before, describe, it } from 'node:test'
import { connect, type Sql, type Transaction } from '../db/client.ts'
import { lockPack } from '../db/packs.ts'
import { digestOf } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { PackId } from '../packs/pack.ts'
import { untilBlocked } from '../testing/collect.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { ask, publish } from '../testing/packs.ts'
import { imageType, sampleManifest, startRegistry, type TestRegistry } from '../testing/registry.ts'
import { waitFor } from '../testing/wait.ts'

// What clients see while somebody keeps a lock that more of them wait for than there are connections.

let databases: TestDatabases
let registry: TestRegistry
let other: Sql
let url: string
before(async () => {
  databases = await startDatabases()
  url = await databases.fresh()
  registry = await startRegistry(url, { WORKER: 'false' }, undefined, usual)
  other = connect(url, { max: 1 })
})
after(async () => {
  await other?.end()
  await registry?.stop()
  await databases?.stop()
})

/** The limits that a registry has, and not those of tests, whose clients are to get through. */
const usual = {}

/** Many more than connections. */
const many = 30

/** Reads one thing after the other for as long as the writes are under way; each has to be answered. */
async function readMeanwhile(paths: readonly string[], writes: Promise<Response>[]): Promise<Response[]> {
  let ended = false
  const all = Promise.all(writes).finally(() => {
    ended = true
  })
  while (!ended) {
    for (const path of paths) {
      const answer = await registry.call('GET', path)
      assert.equal(answer.status, 200, `${path}: ${await answer.text()}`)
    }
  }
  return all
}

async function expectRefused(answers: readonly Response[]): Promise<void> {
  for (const answer of answers) {
    assert.equal(answer.status, 503, await answer.text())
    assert.match(answer.headers.get('retry-after') ?? '', /^\d+$/)
  }
}

describe('while a lock is kept', () => {
  it('of a tag, pushes of it are told to come back, and everything can be read', async () => {
    const { digest } = await registry.pushManifest('kept/tag', 'v1')
    const body = JSON.stringify(sampleManifest({ annotations: { a: 'b' } }))
    const push = () =>
      registry.call('PUT', '/v2/kept/tag/manifests/v1', { body, headers: { 'content-type': imageType } })
    const blob = await registry.pushBlob('kept/tag', 'a blob')
    const paths = ['manifests/v1', `manifests/${digest}`, `blobs/${blob.digest}`, 'tags/list']
    await other.begin(async (tx) => {
      await tx`select from tags where name = 'v1' for update`
      const reading = ['/readyz', '/v2/_catalog', ...paths.map((path) => `/v2/kept/tag/${path}`)]
      await expectRefused(await readMeanwhile(reading, Array.from({ length: many }, push)))
    })
    assert.equal((await push()).status, 201)
  })

  it('of content, a large push of it that goes on for long is told to come back', async () => {
    const short = await startRegistry(url, { WORKER: 'false', GC_GRACE: '1s' }, undefined, usual)
    const bytes = Buffer.alloc(128 * 1024, 'large')
    const { digest } = await short.pushBlob('kept/content', bytes)
    const target = new URL(`${short.url}/v2/kept/again/blobs/uploads/?digest=${digest}`)
    const headers = { 'content-type': 'application/octet-stream', 'content-length': bytes.length }
    try {
      await other.begin(async (tx) => {
        const push = request(target, { method: 'POST', headers })
        const answered = new Promise<IncomingMessage>((resolve, reject) =>
          push.on('response', resolve).on('error', reject),
        )
        const [before] = await tx<{ at: string }[]>`select review_at::text as at from blobs where digest = ${digest}`
        push.write(bytes.subarray(0, 1))
        // It is compared with what is there, which the registry has put off the review of.
        const late = async () =>
          (await tx`select from blobs where digest = ${digest} and review_at > ${before?.at ?? ''}::timestamptz`).length
        await waitFor('the review to be put off', late, { everyMs: 5 })
        await tx`select from blobs where digest = ${digest} for update`
        const dripping = setInterval(() => push.write(bytes.subarray(0, 1)), 20)
        const answer = await answered.finally(() => clearInterval(dripping))
        assert.equal(answer.statusCode, 503)
        assert.match(answer.headers['retry-after'] ?? '', /^\d+$/)
        answer.resume()
        push.destroy()
      })
      assert.equal((await short.pushBlob('kept/again', bytes)).digest, digest)
    } finally {
      await short.stop()
    }
  })

  it('of content, a push that has no room does not wait with those that have', async () => {
    const calm = await startRegistry(url, { WORKER: 'false' })
    const { digest } = await calm.pushBlob('kept/held', 'held')
    const quota = await ask(calm, 'PUT', '/quotas/kept/full', { bytes: 1 })
    assert.equal(quota.status, 201, JSON.stringify(quota.body))
    const push = (repository: string, text: string) =>
      calm.call('POST', `/v2/${repository}/blobs/uploads/?digest=${digestOf(Buffer.from(text))}`, {
        body: text,
        headers: { 'content-type': 'application/octet-stream' },
      })
    const waiting: Promise<Response>[] = []
    let answered = 0
    await other.begin(async (tx) => {
      await tx`select from blobs where digest = ${digest} for update`
      // As many as travel at a time.
      for (const repository of ['kept/one', 'kept/two']) {
        waiting.push(push(repository, 'held').finally(() => answered++))
        await untilBlocked(calm, waiting.length)
      }
      const refused = await push('kept/full', 'no room')
      assert.equal(refused.status, 403)
      assert.match(JSON.stringify(await refused.json()), /kept\/full may hold 1 bytes/)
      assert.equal(answered, 0)
    })
    for (const { status } of await Promise.all(waiting)) assert.equal(status, 201)
    await calm.stop()
  })

  it('of a pack, publishes are told to come back, and everything can be read', async () => {
    const packId = 'kept' as PackId
    assert.equal((await publish(registry, { packId })).status, 201)
    const change = () =>
      registry.call('PATCH', '/packs/kept/1.0.0', {
        body: JSON.stringify({ state: 'deprecated', message: 'old' }),
        headers: { 'content-type': 'application/json' },
      })
    await other.begin(async (tx) => {
      await lockPack(tx as unknown as Transaction, packId, 'packs/kept' as RepositoryName)
      const reading = ['/packs', '/packs/kept', '/packs/kept/1.0.0', '/packs/kept/versions', '/packs?q=kept']
      await expectRefused(await readMeanwhile(reading, Array.from({ length: many }, change)))
    })
    assert.equal((await change()).status, 200)
    assert.equal((await ask(registry, 'GET', '/packs/kept/versions')).status, 200)
  })
})
