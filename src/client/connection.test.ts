import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import http, { type RequestListener } from 'node:http'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { type Connection, send } from './connection.ts'
import { PacksError } from './failure.ts'

describe('redirects of content', () => {
  let pair: { cert: Buffer; key: Buffer }
  let folder: string
  const servers: (http.Server | https.Server)[] = []
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'packs-redirects-'))
    const [cert, key] = [join(folder, 'cert.pem'), join(folder, 'key.pem')]
    const options = ['-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '1']
    const name = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost']
    execFileSync('openssl', ['req', ...options, ...name, '-keyout', key, '-out', cert], { stdio: 'ignore' })
    pair = { cert: await readFile(cert), key: await readFile(key) }
  })
  after(async () => {
    for (const server of servers) server.close()
    await rm(folder, { recursive: true, force: true })
  })

  /** A server on a free port; answers its address. */
  async function serve(scheme: 'http' | 'https', listener: RequestListener): Promise<string> {
    const server = scheme === 'http' ? http.createServer(listener) : https.createServer(pair, listener)
    servers.push(server)
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    return `${scheme}://localhost:${(server.address() as AddressInfo).port}`
  }
  const connectionTo = (base: string): Connection => ({
    ...{ base, authorization: 'Bearer secret', userAgent: 'test', idleTimeoutMs: 10_000, attempts: 1, baseDelayMs: 1 },
    agents: { http: new http.Agent(), https: new https.Agent({ ca: pair.cert }) },
  })
  /** What a store saw of a download that a registry sent there. */
  async function followed(from: 'http' | 'https', to: 'http' | 'https') {
    const asked: (string | undefined)[] = []
    const store = await serve(to, (request, response) => {
      asked.push(request.headers.authorization)
      response.end('content')
    })
    const registry = await serve(from, (_request, response) => {
      response.writeHead(307, { location: `${store}/object?signature=1` }).end()
    })
    const connection = connectionTo(registry)
    try {
      const answer = await send(connection, { path: '/v2/x/blobs/y', anywhere: true })
      const text = (await answer.toArray()).join('')
      return { text, asked }
    } catch (error) {
      return { error, asked }
    } finally {
      connection.agents.http.destroy()
      connection.agents.https.destroy()
    }
  }

  it('are followed where they are as safe as the registry, without its credentials', async () => {
    for (const [from, to] of [
      ['https', 'https'],
      ['http', 'https'],
      ['http', 'http'],
    ] as const)
      assert.deepEqual(await followed(from, to), { text: 'content', asked: [undefined] }, `${from} to ${to}`)
  })
  it('are not followed from https to http', async () => {
    const { error, asked } = await followed('https', 'http')
    assert.ok(error instanceof PacksError && error.code === 'REDIRECTED', String(error))
    assert.match(error.message, /without encryption.*BLOB_REDIRECT=false/)
    assert.deepEqual(asked, [])
  })
})
