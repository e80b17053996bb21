import assert from 'node:assert/strict'
import { PassThrough, Readable } from 'node:stream'
import { after, before, describe, it } from 'node:test'
import { linkArrivals, mountBlob, postponeReview } from '../db/blobs.ts'
import { connect, type Sql, type Transaction } from '../db/client.ts'
import { collectBlobs, collectLinks, reviewClock } from '../db/collect.ts'
import { insertManifest } from '../db/manifests.ts'
import { type Digest, digestOf } from '../oci/digest.ts'
import { parseManifest } from '../oci/manifest.ts'
import type { RepositoryName } from '../oci/name.ts'
import { sampleBundle } from '../testing/bundle.ts'
import { endGrace, isReadable, storedKeys, untilBlocked, untilBlockedOrDone } from '../testing/collect.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import {
  codeOf,
  type Descriptor,
  imageType,
  sampleManifest,
  startRegistry,
  type TestRegistry,
} from '../testing/registry.ts'
import { waitFor } from '../testing/wait.ts'
import { storeContent } from './blobs.ts'
import { collectContent } from './collect.ts'

// Every race of the table in collect.ts, in both orders: one side holds its locks in a transaction that is open, and
// then the other comes.

let databases: TestDatabases
let registry: TestRegistry
/** A connection beside the registry's, for the side that holds its locks. */
let other: Sql
before(async () => {
  databases = await startDatabases()
  const url = await databases.fresh()
  registry = await startRegistry(url)
  other = connect(url, { max: 2 })
})
after(async () => {
  await other?.end()
  await registry?.stop()
  await databases?.stop()
})

const grace = 24 * 60 * 60
const nothing = { links: 0, blobs: 0, bytes: 0, kept: 0 }
let count = 0

/** Content of its own in a repository of its own, whose grace is over. Whatever else is due is collected before. */
async function dueContent(): Promise<{ repository: RepositoryName; blob: Descriptor; digest: Digest; text: string }> {
  await endGrace(registry)
  await collectContent(registry.deps)
  count++
  const text = `content ${count}`
  const repository = `race/r${count}` as RepositoryName
  const blob = await registry.pushBlob(repository, text)
  await endGrace(registry)
  return { repository, blob, digest: blob.digest as Digest, text }
}

/** Runs `first` in a transaction, and `then` while it is open; commits when a statement waits for it, or `then` is done. */
async function inOrder<T>(first: (tx: Transaction) => Promise<unknown>, then: () => Promise<T>): Promise<T> {
  let started: Promise<T> | undefined
  await other.begin(async (tx) => {
    await first(tx as unknown as Transaction)
    started = then()
    await untilBlockedOrDone(registry, started)
  })
  return (await started) as T
}

const everything = async (tx: Sql | Transaction) => ({ until: await reviewClock(tx), after: undefined, limit: 1000 })

async function collectEveryLink(tx: Transaction) {
  const { kept, gone } = await collectLinks(tx, await everything(tx), grace)
  return { kept, gone }
}
async function collectBoth(tx: Transaction) {
  assert.equal((await collectEveryLink(tx)).gone, 1)
  assert.equal((await collectBlobs(tx, await everything(tx), grace)).gone, 1)
}

function manifestOf(layer: Descriptor): Buffer {
  return Buffer.from(JSON.stringify(sampleManifest({ config: { ...layer, mediaType: 'application/json' } })))
}

function putManifest(repository: string, layer: Descriptor): Promise<Response> {
  const body = manifestOf(layer)
  return registry.call('PUT', `/v2/${repository}/manifests/v1`, { body, headers: { 'content-type': imageType } })
}

describe('a manifest', () => {
  it('that is being pushed keeps its blobs', async () => {
    const { repository, blob, digest } = await dueContent()
    const bytes = manifestOf(blob)
    const manifest = parseManifest(bytes, imageType)
    const pass = await inOrder(
      (tx) => insertManifest(tx, repository, digestOf(bytes), manifest, bytes, []),
      () => collectContent(registry.deps),
    )
    // The blob alone is judged: it is linked.
    assert.deepEqual(pass, { ...nothing, kept: 1 })
    assert.deepEqual(await collectContent(registry.deps), { ...nothing, kept: 1 })
    assert.equal(await isReadable(registry, repository, digest), true)
  })

  it('that comes when a blob has gone is refused, and taken once that is pushed again', async () => {
    const { repository, blob, text } = await dueContent()
    const answer = await inOrder(collectEveryLink, () => putManifest(repository, blob))
    assert.equal(answer.status, 400)
    assert.equal(await codeOf(answer), 'MANIFEST_BLOB_UNKNOWN')
    await registry.pushBlob(repository, text)
    assert.equal((await putManifest(repository, blob)).status, 201)
  })

  it('that was pushed after a pass has begun is seen by it', async () => {
    const { repository, blob, digest } = await dueContent()
    const judged = await other.begin('isolation level read committed', async (tx) => {
      const mine = tx as unknown as Transaction
      const due = await everything(mine)
      assert.equal((await putManifest(repository, blob)).status, 201)
      const { kept, gone } = await collectLinks(mine, due, grace)
      return { kept, gone }
    })
    assert.deepEqual(judged, { kept: 1, gone: 0 })
    assert.equal(await isReadable(registry, repository, digest), true)
  })
})

describe('content that is held', () => {
  it('and is being linked stays', async () => {
    const { digest, text } = await dueContent()
    const arrival = { repository: 'race/linking' as RepositoryName, digest, size: text.length }
    await other`insert into repositories (name) values ('race/linking') on conflict do nothing`
    const pass = await inOrder(
      (tx) => linkArrivals(tx as unknown as Sql, [arrival], grace),
      () => collectContent(registry.deps),
    )
    // Its blob is locked, so even the old link is left for the next pass.
    assert.deepEqual(pass, nothing)
    assert.deepEqual(await collectContent(registry.deps), { ...nothing, links: 1 })
    assert.equal(await isReadable(registry, 'race/linking', digest), true)
  })

  it('and is being deleted is stored anew under another key', async () => {
    const { repository, digest, text } = await dueContent()
    const [before] = await storedKeys(registry)
    await inOrder(collectBoth, () => registry.pushBlob(repository, text))
    const after = await other<{ key: string }[]>`select storage_key as key from blobs where digest = ${digest}`
    assert.notEqual(after[0]?.key, before)
    assert.equal(await isReadable(registry, repository, digest), true)
    const pass = await collectContent(registry.deps)
    assert.deepEqual(pass, nothing)
  })

  it('stays while a large body is compared with it', async () => {
    const large = Buffer.alloc(256 * 1024, 'large')
    const repository = 'race/large' as RepositoryName
    const { digest } = await registry.pushBlob(repository, large)
    await endGrace(registry)
    const stream = new PassThrough()
    const storing = storeContent(registry.deps, {
      repository: 'race/again' as RepositoryName,
      digest: digest as Digest,
      body: { stream, length: large.length },
    })
    stream.write(large.subarray(0, 1000))
    await waitFor('the review to be put off', async () => {
      return (await other`select from blobs where digest = ${digest} and review_at > now()`).length
    })
    assert.ok((await collectContent(registry.deps)).links >= 1)
    assert.equal(await isReadable(registry, repository, digest), false, 'nobody has it')
    stream.end(large.subarray(1000))
    await storing
    assert.equal(await isReadable(registry, 'race/again', digest), true)
    await registry.call('DELETE', `/v2/race/again/blobs/${digest}`)
  })

  it('that goes while a large body stands still for longer than the grace is asked for again', async () => {
    const large = Buffer.alloc(128 * 1024, 'still')
    const repository = 'race/still' as RepositoryName
    const digest = (await registry.pushBlob(repository, large)).digest as Digest
    async function* pieces() {
      yield large.subarray(0, 1000)
      await endGrace(registry)
      await collectContent(registry.deps)
      yield large.subarray(1000)
    }
    const again = (stream: Readable) =>
      storeContent(registry.deps, { repository, digest, body: { stream, length: large.length } })
    await assert.rejects(again(Readable.from(pieces(), { objectMode: false })), { key: 'UNAVAILABLE' })
    await again(Readable.from([large], { objectMode: false }))
    assert.equal(await isReadable(registry, repository, digest), true)
  })
})

describe('a mount', () => {
  it('that is under way keeps its source', async () => {
    const { repository, digest } = await dueContent()
    const to = 'race/mounting' as RepositoryName
    const pass = await inOrder(
      (tx) => mountBlob(tx as unknown as Sql, { from: repository, to, digest }, grace),
      () => collectContent(registry.deps),
    )
    assert.deepEqual(pass, nothing)
    assert.equal((await collectContent(registry.deps)).links, 1)
    assert.equal(await isReadable(registry, to, digest), true)
  })

  it('that comes when its source has gone becomes an upload', async () => {
    const { repository, digest } = await dueContent()
    const answer = await inOrder(collectEveryLink, () =>
      registry.call('POST', `/v2/race/mounted/blobs/uploads/?mount=${digest}&from=${repository}`),
    )
    assert.equal(answer.status, 202)
    assert.equal(await isReadable(registry, 'race/mounted', digest), false)
  })
})

describe('a HEAD', () => {
  it('puts the review off before it answers', async () => {
    const { repository, digest } = await dueContent()
    const pass = await inOrder(
      (tx) => postponeReview(tx as unknown as Sql, { repository, digest }, grace),
      () => collectContent(registry.deps),
    )
    assert.equal(pass.links, 0)
    assert.deepEqual({ ...(await collectContent(registry.deps)), kept: 0 }, nothing)
    assert.equal((await registry.call('HEAD', `/v2/${repository}/blobs/${digest}`)).status, 200)
  })

  it('that comes too late does not say that the blob is there', async () => {
    const { repository, digest } = await dueContent()
    const answer = await inOrder(collectEveryLink, () => registry.call('HEAD', `/v2/${repository}/blobs/${digest}`))
    assert.equal(answer.status, 404)
  })

  it('that comes while a manifest takes the blob says that it is there', async () => {
    const { repository, blob, digest } = await dueContent()
    const keep = async (tx: Transaction) => {
      assert.equal((await putManifest(repository, blob)).status, 201)
      assert.deepEqual(await collectEveryLink(tx), { kept: 1, gone: 0 })
    }
    const answer = await inOrder(keep, () => registry.call('HEAD', `/v2/${repository}/blobs/${digest}`))
    assert.equal(answer.status, 200)
    const [link] = await other`select review_at from repository_blobs where digest = ${digest}`
    assert.equal(link?.review_at, null)
  })
})

describe('a DELETE of a blob', () => {
  it('that comes too late finds nothing', async () => {
    const { repository, digest } = await dueContent()
    const answer = await inOrder(collectBoth, () => registry.call('DELETE', `/v2/${repository}/blobs/${digest}`))
    assert.equal(answer.status, 404)
  })

  it('and a push of the same wait for each other in one order', async () => {
    const { repository, digest, text } = await dueContent()
    const rounds = Array.from({ length: 20 }, async () => {
      const [deleted] = await Promise.all([
        registry.call('DELETE', `/v2/${repository}/blobs/${digest}`),
        registry.pushBlob(repository, text),
        registry.pushBlob(`${repository}/other`, text),
        collectContent(registry.deps),
      ])
      assert.ok(deleted.status === 202 || deleted.status === 404, String(deleted.status))
    })
    await Promise.all(rounds)
    await registry.pushBlob(repository, text)
    assert.equal(await isReadable(registry, repository, digest), true)
  })
})

describe('two collectors', () => {
  it('do not judge the same blob and its link at once', async () => {
    const { digest } = await dueContent()
    const pass = await inOrder(collectEveryLink, () => collectContent(registry.deps))
    assert.deepEqual(pass, nothing, 'the other one has all of it')
    assert.equal((await collectContent(registry.deps)).blobs, 1)
    assert.equal((await other`select from blobs where digest = ${digest}`).length, 0)
  })
})

describe('an import', () => {
  /** Sends a bundle of one pack while the collector has the link of its content locked; `then` goes on with that. */
  async function importWhileLocked(packId: string, then: (tx: Transaction, digest: string) => Promise<unknown>) {
    const content = `the content of ${packId}`
    const { digest } = await registry.pushBlob(`packs/${packId}`, content)
    await endGrace(registry)
    const packs = [{ packId, version: '1.0.0', content }]
    const { bytes } = sampleBundle({ packs, channels: [], referrer: false })
    let sent: Promise<Response> | undefined
    await other.begin(async (tx) => {
      await tx`select from repository_blobs where digest = ${digest} for update`
      sent = registry.call('POST', '/bundles/import', { body: bytes })
      await untilBlocked(registry)
      await then(tx as unknown as Transaction, digest)
    })
    const answer = (await sent) as Response
    return { digest, status: answer.status, text: await answer.text() }
  }

  it('that meets a link which goes makes it anew, and is not sent again', async () => {
    const { digest, status, text } = await importWhileLocked('going', async (tx, blob) => {
      await collectEveryLink(tx)
      assert.equal((await tx`select from repository_blobs where digest = ${blob}`).length, 0)
    })
    assert.equal(status, 201, text)
    await endGrace(registry)
    await collectContent(registry.deps)
    assert.equal(await isReadable(registry, 'packs/going', digest), true)
  })

  it('whose content goes is to be sent again', async () => {
    const { status, text } = await importWhileLocked('gone', async (tx, digest) => {
      await tx`delete from import_blobs where digest = ${digest}`
      await tx`delete from repository_blobs where digest = ${digest}`
      await tx`delete from blobs where digest = ${digest}`
    })
    assert.equal(status, 503, text)
    const [row] = await other`select resume_at from imports where state = 'receiving'`
    assert.equal(row?.resume_at, 0)
  })
})
