// What a registry owes its clients when it, or they, die in the middle: everything acknowledged is there and verifies,
// nothing else is visible, nothing is left lying about.
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { connectionsTo, nodeProcesses, openDescriptors, processesOf } from '../scripts/services/processes.ts'
import { waitFor } from '../src/testing/wait.ts'
import {
  call,
  pushArtifact,
  type RegistryClient,
  readAndDrop,
  registryClient,
  sendAndDrop,
  sha256,
  type UploadForm,
  withQuery,
} from './registry-client.ts'
import { startObjectStore } from './s3.ts'
import { type Server, startServer, temporaryFolder } from './server.ts'

const MiB = 1024 * 1024
const forms: UploadForm[] = ['put', 'post', 'patch', 'chunks']

/** Everything that was tried on a registry, and what of it was acknowledged. */
class Ledger {
  readonly triedTags = new Set<string>()
  readonly triedBlobs = new Set<string>()
  readonly blobs = new Set<string>()
  /** Tag to manifest digest. */
  readonly manifests = new Map<string, string>()

  /** A client that writes down what it does. */
  watch(client: RegistryClient): RegistryClient {
    return {
      ...client,
      pushBlob: async (name, bytes, form) => {
        this.triedBlobs.add(sha256(bytes))
        const digest = await client.pushBlob(name, bytes, form)
        this.blobs.add(digest)
        return digest
      },
    }
  }

  /** Checks a registry against it. */
  async verify(client: RegistryClient, name: string): Promise<void> {
    const tags = await client.tags(name)
    const unknown = tags.filter((tag) => !this.triedTags.has(tag))
    assert.deepEqual(unknown, [], 'tags nobody pushed')
    const lost = [...this.manifests.keys()].filter((tag) => !tags.includes(tag))
    assert.deepEqual(lost, [], 'acknowledged tags that are gone')
    for (const tag of tags) {
      const digest = await client.verifyManifest(name, tag)
      const acknowledged = this.manifests.get(tag)
      if (acknowledged !== undefined) assert.equal(digest, acknowledged)
      assert.equal(await client.verifyManifest(name, digest), digest)
    }
    for (const digest of this.triedBlobs) {
      if (this.blobs.has(digest)) await client.verifyBlob(name, digest)
      else if ((await client.status('HEAD', `${name}/blobs/${digest}`)) !== 404) await client.verifyBlob(name, digest)
    }
  }
}

/** Several clients push, each in its own way, until the server is killed under them. */
async function pushUntilKilled(server: Server, name: string, ledger: Ledger, round: number): Promise<void> {
  const client = ledger.watch(registryClient(server.url))
  const goal = ledger.manifests.size + 30
  let killed: Promise<void> | undefined
  async function pushForever(writer: number) {
    for (let n = 0; killed === undefined; n++) {
      const tag = `r${round}-w${writer}-${n}`
      ledger.triedTags.add(tag)
      try {
        // Now and then one that is larger than a part of a multipart upload.
        const sizes = n % 8 === 7 ? [9 * MiB] : [16 * 1024, 100]
        const digest = await pushArtifact(client, name, tag, {
          sizes,
          form: forms[(writer + n) % forms.length] ?? 'put',
        })
        ledger.manifests.set(tag, digest)
      } catch (error) {
        if (killed === undefined) throw error
      }
      if (ledger.manifests.size >= goal) killed ??= server.kill()
    }
  }
  await Promise.all(Array.from({ length: 8 }, (_, writer) => pushForever(writer)))
  await killed
}

type Shape = { title: string; store: 'file' | 's3'; env: Record<string, string> }
const shapes: Shape[] = [
  { title: 'folder, one process', store: 'file', env: { PROCESSES: '1' } },
  { title: 'folder, two processes', store: 'file', env: { PROCESSES: '2' } },
  { title: 'S3, two processes', store: 's3', env: { PROCESSES: '2', BLOB_REDIRECT: 'false' } },
]

for (const { title, store, env } of shapes) {
  describe(`crashes and dropped connections: ${title}`, () => {
    let s3: Awaited<ReturnType<typeof startObjectStore>> | undefined
    let dataDir: string
    let server: Server
    let client: RegistryClient
    const start = async () => {
      server = await startServer({ dataDir, env: { ...env, ...s3?.env('crash') } })
      client = registryClient(server.url)
      leftByKilled = await underWay()
    }
    /** What the blob store holds of bodies under way: temporary files, or begun multipart uploads. */
    const underWay = async () => (s3 ? await s3.halfDone() : readdirSync(join(dataDir, 'blobs', 'tmp')))
    // What killed processes left is swept by age, a day later. Anything that comes after is looked for.
    let leftByKilled: string[] = []
    const expectNoLeftovers = () =>
      waitFor('nothing to be left under way', async () =>
        (await underWay()).every((name) => leftByKilled.includes(name)),
      )

    before(async () => {
      dataDir = temporaryFolder()
      if (store === 's3') s3 = await startObjectStore()
      await start()
    })
    after(async () => {
      try {
        await server?.stop()
      } finally {
        await s3?.stop()
        rmSync(dataDir, { recursive: true, force: true })
      }
    })

    it('kill -9 of everything during pushes, three times: what was acknowledged is there, nothing else', async () => {
      const ledger = new Ledger()
      for (let round = 1; round <= 3; round++) {
        await pushUntilKilled(server, 'crash/pushed', ledger, round)
        await start()
        await ledger.verify(client, 'crash/pushed')
      }
      assert.deepEqual(await client.repositories(), ['crash/pushed'])
    })

    if (env.PROCESSES === '2') {
      it('kill -9 of one worker: it is replaced, and what was acknowledged is there', async () => {
        const tag = await pushArtifact(client, 'crash/worker', '1')
        const workers = () => nodeProcesses(server.processes()).filter((pid) => pid !== server.pid)
        const old = await waitFor('two workers', () => workers().length >= 2 && workers())
        for (const pid of old) {
          process.kill(pid, 'SIGKILL')
          await waitFor('a new worker', () => !workers().includes(pid) && workers().length >= old.length)
          await waitFor('an answer', async () => (await call('GET', `${server.url}/readyz`)).status === 200)
          assert.equal(await client.verifyManifest('crash/worker', '1'), tag)
        }
      })
    }

    const content = randomBytes(24 * MiB)
    const first = content.subarray(0, MiB)
    const part = content.subarray(MiB, 16 * MiB)
    for (const [how, length] of [
      ['with a length', { 'content-length': String(content.length - MiB) }],
      ['chunked', { 'transfer-encoding': 'chunked' }],
    ] as const) {
      it(`a client that vanishes in a PATCH ${how} can resume where it was acknowledged`, async () => {
        let location = await client.patch(await client.startUpload('crash/patch'), first)
        await sendAndDrop('PATCH', location, part, length)
        await expectNoLeftovers()
        assert.equal(await client.uploadOffset(location), first.length)
        assert.equal(await client.status('HEAD', `crash/patch/blobs/${sha256(content)}`), 404)

        location = await client.patch(location, content.subarray(first.length), first.length)
        await client.finish(location, sha256(content))
        assert.ok((await client.verifyBlob('crash/patch', sha256(content))).equals(content))
        const deleted = await call('DELETE', `${server.url}/v2/crash/patch/blobs/${sha256(content)}`)
        assert.equal(deleted.status, 202)
      })
    }

    it('a client that vanishes in a PUT leaves nothing, and can PUT again', async () => {
      const bytes = randomBytes(24 * MiB)
      const location = await client.startUpload('crash/put')
      const url = withQuery(location, { digest: sha256(bytes) })
      await sendAndDrop('PUT', url, bytes.subarray(0, 16 * MiB), { 'content-length': String(bytes.length) })
      await expectNoLeftovers()
      assert.equal(await client.status('HEAD', `crash/put/blobs/${sha256(bytes)}`), 404)
      assert.equal(await client.uploadOffset(location), 0)
      await client.finish(location, sha256(bytes), bytes)
      await client.verifyBlob('crash/put', sha256(bytes))
    })

    it('a client that vanishes in a POST with the whole blob leaves nothing', async () => {
      const bytes = randomBytes(24 * MiB)
      const url = withQuery(`${server.url}/v2/crash/post/blobs/uploads/`, { digest: sha256(bytes) })
      await sendAndDrop('POST', url, bytes.subarray(0, 16 * MiB), { 'content-length': String(bytes.length) })
      await expectNoLeftovers()
      assert.equal(await client.status('HEAD', `crash/post/blobs/${sha256(bytes)}`), 404)
      assert.deepEqual((await client.repositories()).includes('crash/post'), false)
    })

    it('a client that vanishes in a manifest PUT leaves no tag', async () => {
      const url = `${server.url}/v2/crash/manifest/manifests/1`
      await sendAndDrop('PUT', url, Buffer.from('{"schemaVersion":2,'), { 'content-length': '1000' })
      await waitFor('the connection to end', () => connectionsTo(Number(new URL(server.url).port)) === 0)
      assert.deepEqual(await client.tags('crash/manifest'), [])
    })

    it('vanishing clients leak no connection, no file, no socket', async () => {
      const big = randomBytes(32 * MiB)
      const digest = await client.pushBlob('crash/leaks', big)
      const port = Number(new URL(server.url).port)
      async function vanish() {
        const upload = withQuery(await client.startUpload('crash/leaks'), { digest: sha256('other') })
        await Promise.all([
          ...Array.from({ length: 10 }, () => readAndDrop(`${server.url}/v2/crash/leaks/blobs/${digest}`)),
          ...Array.from({ length: 10 }, async () =>
            sendAndDrop('PUT', upload, big.subarray(0, 12 * MiB), { 'content-length': String(big.length) }),
          ),
          sendAndDrop('PATCH', upload, big.subarray(0, 12 * MiB), { 'transfer-encoding': 'chunked' }),
        ])
        await waitFor('connections to end', () => connectionsTo(port) === 0)
        await expectNoLeftovers()
      }
      const files = () => openDescriptors(nodeProcesses(server.processes()))
      await vanish() // also opens what stays open: the database pool, connections to S3
      const usual = files()
      for (let round = 0; round < 4; round++) await vanish()
      await waitFor('files to be closed', () => files().filter(isFile).length <= usual.filter(isFile).length)
      // Pools may still have grown by a few; a leak would be dozens.
      await waitFor('sockets to be closed', () => files().length <= usual.length + 10)
      await client.verifyBlob('crash/leaks', digest)
    })

    it('after all this everything stops cleanly and starts again', async () => {
      const digest = await pushArtifact(client, 'crash/last', '1')
      await server.stop()
      assert.deepEqual(processesOf(undefined, dataDir), [])
      await start()
      assert.equal(await client.verifyManifest('crash/last', '1'), digest)
    })
  })
}

const isFile = (target: string) => target.startsWith('/') && !target.startsWith('/dev/')
