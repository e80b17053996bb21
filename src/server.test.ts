import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, renameSync, rmSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import http from 'node:http'
import https from 'node:https'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import type { TLSSocket } from 'node:tls'
import { readConfig } from './config.ts'
import { connect as connectDatabase } from './db/client.ts'
import { closeDeps, type Deps, openDeps } from './deps.ts'
import { openLog } from './log.ts'
import { digestOf } from './oci/digest.ts'
import { type RunningServer, startServer } from './server.ts'
import { startDatabases, type TestDatabases } from './testing/database.ts'
import { sayRaw } from './testing/raw.ts'
import { startRegistry, type TestRegistry } from './testing/registry.ts'
import { waitFor } from './testing/wait.ts'

let databases: TestDatabases
before(async () => {
  databases = await startDatabases()
})
after(() => databases?.stop())

describe('operations', () => {
  it('says that it lives and is ready, and counts what it does', async () => {
    const registry = await startRegistry(await databases.fresh())
    assert.equal((await registry.call('GET', '/healthz')).status, 200)
    assert.equal((await registry.call('HEAD', '/healthz')).status, 200)
    const ready = await registry.call('GET', '/readyz')
    assert.deepEqual(await ready.json(), { status: 'ok', parts: { database: 'ok', blobStore: 'ok', server: 'ok' } })
    await registry.pushManifest('counted', 'v1')
    await registry.call('GET', '/v2/counted/manifests/v1')
    await registry.call('GET', '/v2/counted/manifests/none')
    const upload = await registry.call('POST', '/v2/counted/blobs/uploads/')
    await registry.call('PATCH', upload.headers.get('location') ?? '', { body: 'a chunk' })
    const figures = async () => await (await registry.call('GET', '/metrics')).text()
    await waitFor('the requests to be counted', async () => /method="GET",status="404"/.test(await figures()))
    const text = await figures()
    for (const figure of [
      /packs_http_request_duration_seconds_count\{route="\/v2\/:name\{\.\+\}\/manifests\/:reference",method="PUT",status="201"\} 1/,
      /packs_http_request_duration_seconds_count\{route="\/v2\/:name\{\.\+\}\/manifests\/:reference",method="GET",status="200"\} 1/,
      /packs_http_received_bytes_total [1-9]/,
      /packs_http_sent_bytes_total [1-9]/,
      /packs_uploads_open 1/,
      /packs_database_duration_seconds_count [1-9]/,
      /packs_database_connections\{state="max"\} 12/,
      /packs_blob_store_duration_seconds_count\{operation="put",outcome="ok"\} [1-9]/,
      /process_resident_memory_bytes [1-9]/,
    ])
      assert.match(text, figure)
    await registry.stop()
  })
  it('counts every one of many, by what was answered and how long it took', async () => {
    const registry = await startRegistry(await databases.fresh())
    await registry.pushManifest('many', 'v1')
    const place = '/v2/many/manifests/v1'
    const ask = async (method: string) => assert.equal((await registry.call(method, place)).status, 200)
    for (let i = 0; i < 30; i++) await Promise.all(Array.from({ length: 10 }, () => ask('GET')))
    await ask('HEAD')
    const line = (name: string, method: string, le = '') =>
      `packs_http_request_duration_seconds_${name}{${le}route="/v2/:name{.+}/manifests/:reference",method="${method}",status="200"} ${method === 'GET' ? 300 : 1}\n`
    // A request is counted when its answer has ended: a moment after the client has it.
    for (const method of ['GET', 'HEAD'])
      await waitFor(`every ${method} to be counted`, async () => {
        const text = await (await registry.call('GET', '/metrics')).text()
        return text.includes(line('count', method)) && text.includes(line('bucket', method, 'le="+Inf",'))
      })
    await registry.stop()
  })
  it('keeps no secret and no query in the log', async () => {
    const lines: string[] = []
    const log = openLog('debug', { write: (line) => lines.push(line) })
    const registry = await startRegistry(await databases.fresh(), {}, log)
    const headers = { authorization: 'Bearer hunter2', 'x-request-id': 'from-the-proxy' }
    await registry.call('GET', '/v2/quiet/blobs/sha256:zz?X-Amz-Signature=hunter2', { headers })
    log.error({
      error: new Error('GET https://s3/b?X-Amz-Signature=hunter2', { cause: 'postgres://u:hunter2@h/d' }),
      password: 'hunter2',
    })
    await registry.stop()
    const text = lines.join('')
    assert.match(text, /"id":"from-the-proxy","path":"\/v2\/quiet\/blobs\/sha256:zz"/)
    assert.ok(!text.includes('hunter2'), text)
  })
})

it('a request of which no URL can be made is told so in words, and there is a line of it for who looks', async () => {
  const lines: string[] = []
  const log = openLog('debug', { write: (line) => lines.push(line) })
  const registry = await startRegistry(await databases.fresh(), {}, log)
  for (const head of [
    'GET /packs HTTP/1.1\r\nHost: a b"c',
    'GET /packs HTTP/1.1\r\nHost:',
    'GET /packs HTTP/1.1\r\nHost: localhost:99999999',
    'OPTIONS * HTTP/1.1\r\nHost: localhost',
    'GET ftp://localhost/packs HTTP/1.1\r\nHost: localhost',
    'GET /packs HTTP/1.1\r\nHost: localhost\r\nhost: other',
    'GET /v2/ HTTP/1.1\r\nHost: localhost\r\nHost: localhost',
  ]) {
    lines.length = 0
    const said = await sayRaw(registry, `${head}\r\nConnection: close\r\n\r\n`)
    assert.match(said, /^HTTP\/1\.1 400 /, head)
    assert.match(said, /content-type: application\/problem\+json/i, head)
    assert.match(said, /x-content-type-options: nosniff/i)
    assert.match(said, /"urn:packs-registry:REQUEST_INVALID".*the target of a request is a path/)
    assert.match(lines.join(''), /a request could not be understood/)
  }
  await registry.stop()
})

describe('stopping', () => {
  it('finishes what is under way, takes nothing new, and says so', async () => {
    const registry = await startRegistry(await databases.fresh())
    const port = Number(new URL(registry.url).port)
    const bytes = Buffer.alloc(200_000, 'slow')
    const upload = (await registry.call('POST', '/v2/slow/blobs/uploads/')).headers.get('location')
    const path = `${upload}?digest=${digestOf(bytes)}`
    const options = { port, method: 'PUT', path, headers: { 'content-length': bytes.length, connection: 'keep-alive' } }
    const request = http.request({ ...options, agent: false })
    const answered = new Promise<http.IncomingMessage>((resolve, reject) => {
      request.on('response', (answer) => resolve(answer.resume())).on('error', reject)
    })
    request.write(bytes.subarray(0, 100_000))
    const figures = async () => await (await registry.call('GET', '/metrics')).text()
    const isUnderWay = async () => /packs_http_requests_in_flight 2/.test(await figures())
    await waitFor('the upload to be under way', isUnderWay, { everyMs: 20 })
    const stopped = registry.stop()
    await waitFor(
      'new connections to be refused',
      () =>
        new Promise<boolean>((resolve) => {
          const probe = connect({ port, host: '127.0.0.1' })
          probe.on('error', () => resolve(true))
          probe.on('connect', () => probe.destroy(undefined).once('close', () => resolve(false)))
        }),
      { everyMs: 20 },
    )
    request.end(bytes.subarray(100_000))
    const { statusCode, headers } = await answered
    assert.equal(statusCode, 201)
    assert.equal(headers.connection, 'close', 'so that the client does not send the next request to where nobody is')
    await stopped
  })
  it('closes what does not end in time', async () => {
    const deps = await openDeps(
      readConfig({ PORT: '0', DATA_DIR: mkdtempSync(join(tmpdir(), 'packs-')) }),
      await databases.fresh(),
      openLog('silent'),
    )
    const server = await startServer(deps)
    const request = http.request(`${server.url}/v2/x/blobs/uploads/?digest=${digestOf(Buffer.from('x'))}`, {
      method: 'POST',
      headers: { 'content-length': 10 },
    })
    const cut = new Promise((resolve) => request.on('error', resolve))
    request.write('x')
    await waitFor('the request to be under way', async () => /in_flight 1/.test(await deps.metrics.register.metrics()))
    await server.stop({ drainMs: 50 })
    assert.match(String(await cut), /hang up|ECONNRESET/)
    await deps.db.close()
  })
  it('writes down everything that happened before it ends', async () => {
    const url = await databases.fresh()
    const registry = await startRegistry(url)
    for (let push = 0; push < 5; push++) await registry.pushBlob('stopped/here', String(push))
    await registry.stop()
    const sql = connectDatabase(url)
    const rows = await sql`select digest from audit_events where repository = 'stopped/here' and outcome = 'done'`
    await sql.end()
    assert.deepEqual(
      rows.map(({ digest }) => digest).toSorted(),
      Array.from({ length: 5 }, (_, push) => digestOf(Buffer.from(String(push)))).toSorted(),
    )
  })
  it('says in words that the port is taken', async () => {
    const registry = await startRegistry(await databases.fresh())
    const port = new URL(registry.url).port
    await assert.rejects(startRegistry(await databases.fresh(), { PORT: port }), /in use.*PORT=/)
    await registry.stop()
  })
})

describe('slow clients', () => {
  let deps: Deps
  /** One that does not wait long for a head, and one that does not for the next byte. */
  let [forHeads, forBytes] = [undefined, undefined] as unknown as [RunningServer, RunningServer]
  let folder: string
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'packs-slow-'))
    deps = await openDeps(readConfig({ PORT: '0', DATA_DIR: folder }), await databases.fresh(), openLog('silent'))
    forHeads = await startServer(deps, { patience: { headersMs: 400 } })
    forBytes = await startServer(deps, { patience: { idleMs: 400 } })
  })
  after(async () => {
    await forHeads?.stop({ drainMs: 100 })
    await forBytes?.stop({ drainMs: 100 })
    await closeDeps(deps)
    await rm(folder, { recursive: true, force: true })
  })
  /** Says this, and then a letter now and then where `drip`; resolves when the server closes the connection. */
  const closed = ({ url }: RunningServer, text: string, drip = '') =>
    new Promise<string>((resolve) => {
      const { hostname, port } = new URL(url)
      const socket = connect(Number(port), hostname, () => socket.write(text))
      const dripping = setInterval(() => drip && socket.writable && socket.write(drip), 50)
      let said = ''
      socket.on('data', (piece) => {
        said += piece
      })
      socket.on('error', () => undefined)
      socket.on('close', () => {
        clearInterval(dripping)
        resolve(said)
      })
    })

  it('are closed who send a head letter by letter', async () => {
    assert.match(await closed(forHeads, 'GET /v2/ HTTP/1.1\r\nHost: localhost\r\nX-A: ', 'a'), /^HTTP\/1\.1 408 /)
  })
  it('are closed who stop in the middle of a head, or of a body', async () => {
    await closed(forBytes, 'GET /v2/ HTTP/1.1\r\nHos')
    const head = `POST /v2/a/blobs/uploads/?digest=sha256:${'a'.repeat(64)} HTTP/1.1\r\nHost: localhost\r\n`
    assert.doesNotMatch(await closed(forBytes, `${head}Content-Length: 100000\r\n\r\nabc`), /^HTTP\/1\.1 2/)
  })
})

describe('a client that keeps from being idle, and no more', () => {
  let registry: TestRegistry
  const pace = { bytesPerSecond: 1024, bodyMs: 1000, answerMs: 1000 }
  let server: RunningServer
  before(async () => {
    registry = await startRegistry(await databases.fresh())
    server = await startServer(registry.deps, { patience: pace })
  })
  after(async () => {
    await server?.stop({ drainMs: 100 })
    await registry?.stop()
  })
  const open = () => {
    const { hostname, port } = new URL(server.url)
    return connect(Number(port), hostname)
  }
  const upload = (length: number) =>
    `POST /v2/slow/blobs/uploads/?digest=sha256:${'a'.repeat(64)} HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${length}\r\n\r\n`

  /** All that is said to a body that comes with so many bytes every 50 ms. */
  const answerTo = (length: number, piece: number) =>
    new Promise<string>((resolve) => {
      const socket = open()
      socket.write(upload(length))
      let left = length
      const timer = setInterval(() => {
        const now = Math.min(left, piece)
        left -= now
        if (socket.writable && now > 0) socket.write(Buffer.alloc(now))
      }, 50)
      let said = ''
      socket.on('error', () => undefined)
      socket.on('data', (bytes) => {
        said += bytes
        if (said.includes('\r\n\r\n')) socket.end()
      })
      socket.on('close', () => {
        clearInterval(timer)
        resolve(said)
      })
    })

  it('sends its body in vain: it is told so', async () => {
    const said = await answerTo(10_000_000, 1)
    assert.match(said, /^HTTP\/1\.1 408 /)
    assert.match(said, /less than 1024 bytes a second for 1 seconds/)
  })
  it('is another than one with a slow link, whose body is taken to its end', async () => {
    // Some 40 KB/s, for several windows.
    assert.match(await answerTo(120_000, 2000), /^HTTP\/1\.1 400 .*DIGEST_INVALID/s)
  })
  it('reads its answer in vain', async () => {
    const { digest } = await registry.pushBlob('slow', randomBytes(32 * 1024 * 1024))
    const socket = open()
    socket.write(`GET /v2/slow/blobs/${digest} HTTP/1.1\r\nHost: localhost\r\n\r\n`)
    socket.on('error', () => undefined)
    socket.pause()
    const closed = new Promise((resolve) => socket.on('close', resolve))
    // What the system itself buffers is taken at once; then one byte now and then.
    const timer = setInterval(() => void socket.read(1), 50)
    const isOver = async () => /packs_http_requests_in_flight 0\n/.test(await registry.deps.metrics.register.metrics())
    await waitFor('the answer to be under way', () => socket.bytesRead > 0)
    await waitFor('the answer to be given up', isOver)
    clearInterval(timer)
    socket.resume()
    await closed
    assert.ok(socket.bytesRead < 32 * 1024 * 1024, `${socket.bytesRead} bytes were read`)
  })
})

describe('TLS', () => {
  const folder = mkdtempSync(join(tmpdir(), 'packs-tls-'))
  const [certFile, keyFile] = [join(folder, 'cert.pem'), join(folder, 'key.pem')]
  const make = (name: string, cert = certFile, key = keyFile) => {
    const options = ['-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '1', '-subj', `/CN=${name}`]
    execFileSync('openssl', ['req', ...options, '-keyout', `${key}.new`, '-out', `${cert}.new`], { stdio: 'ignore' })
    renameSync(`${key}.new`, key)
    renameSync(`${cert}.new`, cert)
  }
  after(() => rmSync(folder, { recursive: true }))

  it('serves the certificate from the files, and the new one when they change', async () => {
    make('first')
    const registry = await startRegistry(await databases.fresh(), { TLS_CERT_FILE: certFile, TLS_KEY_FILE: keyFile })
    const nameOnTheWire = () =>
      new Promise<string>((resolve, reject) => {
        https
          .get(`${registry.url}/v2/`, { rejectUnauthorized: false, agent: false }, (answer) => {
            answer.resume()
            assert.equal(answer.statusCode, 200)
            assert.match(answer.headers['strict-transport-security'] ?? '', /^max-age=\d{8}/)
            resolve(String((answer.socket as TLSSocket).getPeerCertificate().subject.CN))
          })
          .on('error', reject)
      })
    assert.match(registry.url, /^https:/)
    assert.equal(await nameOnTheWire(), 'first')
    make('second')
    await waitFor('the new certificate', async () => (await nameOnTheWire()) === 'second')
    await registry.stop()
  })

  it('takes a large blob and gives back what was sent', async () => {
    make('large')
    const registry = await startRegistry(await databases.fresh(), { TLS_CERT_FILE: certFile, TLS_KEY_FILE: keyFile })
    const bytes = randomBytes(9 * 1024 * 1024 + 1)
    const digest = digestOf(bytes)
    const ask = async (method: string, path: string, body: Buffer | undefined, status: number) => {
      const request = https.request(registry.url + path, { method, rejectUnauthorized: false, agent: false })
      request.end(body)
      const [answer] = (await once(request, 'response')) as [http.IncomingMessage]
      assert.equal(answer.statusCode, status)
      return Buffer.concat((await answer.toArray()) as Buffer[])
    }
    await ask('POST', `/v2/tls/large/blobs/uploads/?digest=${digest}`, bytes, 201)
    assert.ok((await ask('GET', `/v2/tls/large/blobs/${digest}`, undefined, 200)).equals(bytes))
    await registry.stop()
  })

  it('says in words which files cannot be used', async () => {
    const missing = { TLS_CERT_FILE: '/nowhere/cert.pem', TLS_KEY_FILE: keyFile }
    await assert.rejects(startRegistry(await databases.fresh(), missing), /\/nowhere\/cert\.pem.*cannot be used/)
  })
})
