import assert from 'node:assert/strict'
import { once } from 'node:events'
import http, { type IncomingMessage } from 'node:http'
import { after, before, describe, it } from 'node:test'
import { readConfig } from '../config.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { startRegistry, type TestRegistry } from '../testing/registry.ts'
import { isAskedByName } from './foreign-pages.ts'

let databases: TestDatabases
let registry: TestRegistry
before(async () => {
  databases = await startDatabases()
  registry = await startRegistry(await databases.fresh())
  await registry.pushManifest('a', '1')
})
after(async () => {
  await registry?.stop()
  await databases?.stop()
})

type Headers = Record<string, string>

/** As a browser asks: with fields that fetch would not let be set. */
async function ask(method: string, path: string, headers: Headers, body = ''): Promise<[status: number, text: string]> {
  const { hostname, port } = new URL(registry.url)
  const sent = { host: `${hostname}:${port}`, 'content-length': String(body.length), ...headers }
  const request = http.request({ hostname, port, method, path, headers: sent, setHost: false })
  request.end(body)
  const [answer] = (await once(request, 'response')) as [IncomingMessage]
  let text = ''
  for await (const piece of answer.setEncoding('utf8')) text += piece
  return [answer.statusCode ?? 0, text]
}

const plain = { 'content-type': 'text/plain' }
const port = () => new URL(registry.url).port
const reads = ['/v2/', '/v2/a/manifests/1', '/v2/a/tags/list', '/packs', '/keys', '/audit']

describe('where nobody has to log in', () => {
  it('no page of another origin writes', async () => {
    for (const origin of ['https://evil.example', 'null', `http://127.0.0.1:${Number(port()) + 1}`, 'nonsense']) {
      const [status, text] = await ask('POST', '/keys', { origin, ...plain }, '{"name":"stolen"}')
      assert.equal(status, 403, origin)
      assert.match(text, /may not ask this registry, where nobody has to log in/)
      assert.equal((await ask('POST', '/v2/a/blobs/uploads/', { origin }))[0], 403, origin)
    }
    assert.equal((await ask('GET', '/keys', {}))[1], '{"keys":[]}')
  })

  it('no page reads or writes whose name came to mean this machine', async () => {
    const host = `evil.example:${port()}`
    // Twice: by the second time it may be in memory, and be answered without the router.
    for (const path of reads)
      for (let i = 0; i < 2; i++) {
        const [status, text] = await ask('GET', path, { host })
        assert.equal(status, 403, path)
        assert.match(text, /for this machine only/)
      }
    const [status] = await ask('POST', '/keys', { host, origin: `http://${host}`, ...plain }, '{"name":"stolen"}')
    assert.equal(status, 403)
  })

  it('programs do both, by every name of this machine, and so may a page of ours', async () => {
    for (const name of ['127.0.0.1', 'localhost', 'packs.localhost', '[::1]', '127.1.2.3', 'LOCALHOST'])
      for (const path of reads) assert.equal((await ask('GET', path, { host: `${name}:${port()}` }))[0], 200, name)
    assert.equal((await ask('GET', '/packs', { origin: registry.url }))[0], 200)
    assert.equal((await ask('POST', '/v2/a/blobs/uploads/', { origin: registry.url }))[0], 202)
  })

  it('whoever watches over processes asks by any name', async () => {
    for (const path of ['/healthz', '/readyz']) assert.equal((await ask('GET', path, { host: 'pod-7' }))[0], 200)
  })
})

describe('the name that a registry is asked by', () => {
  const cases: [says: string, env: Headers, name: string | undefined, may: boolean][] = [
    ['is one of this machine where it listens for that only', {}, 'packs.example', false],
    ['is not one that only begins as one of this machine', {}, '127.0.0.1.evil.example', false],
    ['is not one that only ends as one of this machine', {}, 'evil-localhost', false],
    ['is not there in HTTP/1.0, which no browser speaks', {}, undefined, true],
    ['may be that of PUBLIC_URL', { PUBLIC_URL: 'https://packs.example' }, 'packs.example', true],
    ['may not be another than that of PUBLIC_URL', { PUBLIC_URL: 'https://packs.example' }, 'evil.example', false],
    ['is a matter of the proxy where there is one', { TRUSTED_PROXIES: '127.0.0.1' }, 'packs.example', true],
    ['is any where it listens for others', { HOST: '0.0.0.0', AUTH: 'none' }, 'packs.example', true],
    ['is any with a login', { AUTH: 'htpasswd', HTPASSWD_FILE: 'users' }, 'packs.example', true],
    ['is one of this machine on its address of version 6 too', { HOST: '::1' }, 'evil.example', false],
  ]
  for (const [says, env, name, may] of cases) it(says, () => assert.equal(isAskedByName(readConfig(env), name), may))
})
