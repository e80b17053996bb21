import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import http, { type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { after, afterEach, before, it } from 'node:test'
import { startDatabases, type TestDatabases } from '../../testing/database.ts'
import {
  codeOf,
  emptyConfig,
  imageType,
  sampleManifest,
  startRegistry,
  type TestRegistry,
} from '../../testing/registry.ts'
import { waitFor } from '../../testing/wait.ts'

let databases: TestDatabases
let registry: TestRegistry
/** Another process over the same facts. */
let beside: TestRegistry
before(async () => {
  databases = await startDatabases()
  const url = await databases.fresh()
  registry = await startRegistry(url)
  beside = await startRegistry(url, { BLOB_STORE: registry.deps.config.blobStore })
})
after(async () => {
  await beside?.stop()
  await registry?.stop()
  await databases?.stop()
})

const ends: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const end of ends.splice(0)) await end()
})

const sha256 = (bytes: string | Buffer) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`

/** A registry that holds this content and answers as told. */
type Fake = {
  url: string
  manifests: Map<string, string>
  blobs: Map<string, Buffer>
  asked: string[]
  /** Answers instead, where it answers at all. */
  instead: ((request: IncomingMessage, response: ServerResponse) => boolean) | undefined
}

async function startFake(): Promise<Fake> {
  const fake: Fake = { url: '', manifests: new Map(), blobs: new Map(), asked: [], instead: undefined }
  const server = http.createServer((request, response) => {
    fake.asked.push(`${request.method} ${request.url}`)
    if (fake.instead?.(request, response)) return
    const [, kind, reference = ''] = /\/(manifests|blobs)\/([^/]+)$/.exec(request.url ?? '') ?? []
    const manifest = fake.manifests.get(reference)
    const body = kind === 'blobs' ? fake.blobs.get(reference) : manifest && Buffer.from(manifest)
    if (!body) return void response.writeHead(404).end('{"errors":[{"code":"MANIFEST_UNKNOWN","message":"unknown"}]}')
    response.writeHead(200, {
      'content-type': kind === 'blobs' ? 'application/octet-stream' : imageType,
      'docker-content-digest': sha256(body),
      'content-length': body.length,
    })
    response.end(request.method === 'HEAD' ? undefined : body)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  fake.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  ends.push(async () => {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  })
  return fake
}

let count = 0

/** A new namespace that is filled from a new fake. */
async function namespace(over: object = {}): Promise<{ fake: Fake; prefix: string }> {
  const fake = await startFake()
  const prefix = `mirror/fake${count++}`
  const body = JSON.stringify({ url: fake.url, allowPrivate: true, tagTtlSeconds: 3600, ...over })
  const put = await registry.call('PUT', `/upstreams/${prefix}`, { body })
  assert.equal(put.status, 200, await put.text())
  return { fake, prefix }
}

/** Puts an image of one layer into a fake under a tag; answers its digest and its layer's. */
function image(fake: Fake, tag: string, layer = randomBytes(100_000)): { digest: string; layer: string } {
  const layers = [{ mediaType: 'application/octet-stream', digest: sha256(layer), size: layer.length }]
  const text = JSON.stringify(sampleManifest({ layers }))
  for (const reference of [tag, sha256(text)]) fake.manifests.set(reference, text)
  fake.blobs.set(sha256(layer), layer).set(emptyConfig.digest, Buffer.from('{}'))
  return { digest: sha256(text), layer: sha256(layer) }
}

/** Makes what is known of every tag due to be asked again. */
const expire = () =>
  registry.deps.db.sql`update tags set recheck_at = now() - interval '1 second' where recheck_at is not null`

async function get(path: string, from = registry): Promise<[number, string | undefined, Buffer]> {
  const answer = await from.call('GET', path)
  return [
    answer.status,
    answer.headers.get('docker-content-digest') ?? undefined,
    Buffer.from(await answer.arrayBuffer()),
  ]
}

it('fetches what is missed once, however many processes are asked for it', async () => {
  const { fake, prefix } = await namespace()
  const { digest, layer } = image(fake, '1.0')
  const both = [registry, beside, registry, beside]
  const held: (() => void)[] = []
  fake.instead = (request, response) => {
    const [, kind = '', reference = ''] = /\/(manifests|blobs)\/([^/]+)$/.exec(request.url ?? '') ?? []
    const manifest = fake.manifests.get(reference)
    const bytes = kind === 'blobs' ? fake.blobs.get(reference) : manifest && Buffer.from(manifest)
    if (!bytes || request.method !== 'GET') return false
    held.push(() => {
      const type = kind === 'blobs' ? 'application/octet-stream' : imageType
      response.writeHead(200, { 'content-type': type, 'content-length': bytes.length }).end(bytes)
    })
    return true
  }
  for (const path of [`manifests/1.0`, `blobs/${layer}`]) {
    const answers = both.map((from) => get(`/v2/${prefix}/some/app/${path}`, from))
    // The upstream answers only when the other process waits: it looks again and again whether the thing is here.
    const looks = [registry, beside].map(({ deps }) => {
      const count = { statements: 0 }
      deps.db.onAnswer = () => void count.statements++
      return count
    })
    const isWaiting = () => held.length > 0 && looks.some(({ statements }) => statements > 30)
    await waitFor('one to ask the upstream, and the other to wait', isWaiting)
    for (const answer of held.splice(0)) answer()
    for (const [status, told] of await Promise.all(answers))
      assert.deepEqual([status, told], [200, path.startsWith('m') ? digest : layer])
  }
  assert.deepEqual(
    fake.asked.filter((line) => line.startsWith('GET')),
    [`GET /v2/some/app/manifests/1.0`, `GET /v2/some/app/blobs/${layer}`],
  )
  assert.equal((await registry.deps.db.sql`select 1 from upstream_fetches where thing like ${`${prefix}%`}`).length, 0)
})

it('fetches what a process left that died, when its time is over', async () => {
  const { fake, prefix } = await namespace()
  const { layer } = image(fake, '1.0')
  const thing = `${prefix}/some/app blob ${layer}`
  const leave = (seconds: number) => registry.deps.db.sql`
    insert into upstream_fetches (thing, holder, leased_until)
    values (${thing}, gen_random_uuid(), now() + make_interval(secs => ${seconds}))`
  await get(`/v2/${prefix}/some/app/manifests/1.0`)
  await leave(1)
  const [status] = await get(`/v2/${prefix}/some/app/blobs/${layer}`)
  assert.equal(status, 200)
  assert.equal(fake.asked.filter((line) => line === `GET /v2/some/app/blobs/${layer}`).length, 1)
})

it('fetches what is missed once, however many ask, and then never again', async () => {
  const { fake, prefix } = await namespace()
  const { digest, layer } = image(fake, '1.0')
  const path = `/v2/${prefix}/library/app`
  const answers = await Promise.all(Array.from({ length: 20 }, () => get(`${path}/manifests/1.0`)))
  for (const [status, said, bytes] of answers) assert.deepEqual([status, said, sha256(bytes)], [200, digest, digest])
  const blobs = await Promise.all(Array.from({ length: 20 }, () => get(`${path}/blobs/${layer}`)))
  for (const [status, , bytes] of blobs) assert.deepEqual([status, sha256(bytes)], [200, layer])
  assert.deepEqual(fake.asked, ['GET /v2/library/app/manifests/1.0', `GET /v2/library/app/blobs/${layer}`])

  await get(`${path}/manifests/${digest}`)
  assert.equal((await registry.call('HEAD', `${path}/blobs/${layer}`)).status, 200)
  assert.equal((await get(`${path}/manifests/1.0`, beside))[0], 200)
  assert.equal(fake.asked.length, 2)
  // The blob is held by the manifest that waited for it, so the collector leaves it.
  const remove = await registry.call('DELETE', `${path}/blobs/${layer}`)
  assert.deepEqual([remove.status, await codeOf(remove)], [409, 'DENIED'])
})

it('answers what its upstream does not have, and what is no repository of one, as not found', async () => {
  const { fake, prefix } = await namespace()
  const nothing = await registry.call('GET', `/v2/${prefix}/library/app/manifests/none`)
  assert.deepEqual([nothing.status, await codeOf(nothing)], [404, 'MANIFEST_UNKNOWN'])
  const blob = await registry.call('GET', `/v2/${prefix}/library/app/blobs/${sha256('none')}`)
  assert.deepEqual([blob.status, await codeOf(blob)], [404, 'BLOB_UNKNOWN'])
  assert.equal(fake.asked.length, 2)
  for (const name of [prefix, `${prefix}x/app`, 'elsewhere'])
    assert.equal((await registry.call('GET', `/v2/${name}/manifests/1.0`)).status, 404)
  assert.equal(fake.asked.length, 2)
})

it('asks for a tag again when its time is over, and moves it, keeps it, or lets it go', async () => {
  const { fake, prefix } = await namespace()
  const path = `/v2/${prefix}/app/manifests`
  const first = image(fake, 'latest')
  assert.equal((await get(`${path}/latest`))[1], first.digest)
  const second = image(fake, 'latest')
  assert.equal((await get(`${path}/latest`))[1], first.digest)
  await expire()
  assert.equal((await get(`${path}/latest`))[1], second.digest)
  await expire()
  fake.asked.length = 0
  assert.equal((await get(`${path}/latest`))[1], second.digest)
  assert.deepEqual(fake.asked, ['HEAD /v2/app/manifests/latest'])
  await expire()
  fake.manifests.delete('latest')
  assert.equal((await get(`${path}/latest`))[0], 404)
  // Whoever has the digest still gets it.
  assert.equal((await get(`${path}/${first.digest}`))[0], 200)
})

it('serves what it knows while the upstream fails', async () => {
  const { fake, prefix } = await namespace()
  const { digest } = image(fake, '1.0')
  const path = `/v2/${prefix}/app/manifests`
  await get(`${path}/1.0`)
  await expire()
  fake.instead = (_, response) => Boolean(response.writeHead(503).end())
  assert.equal((await get(`${path}/1.0`))[1], digest)
  const asked = fake.asked.length
  assert.equal((await get(`${path}/1.0`))[1], digest)
  assert.equal(fake.asked.length, asked)
  const [status] = await get(`${path}/2.0`)
  assert.equal(status, 502)
})

it('believes no digest that it has not counted: nothing that is wrong is ever visible', async () => {
  const { fake, prefix } = await namespace()
  const { digest, layer } = image(fake, '1.0')
  const path = `/v2/${prefix}/app`
  fake.blobs.set(layer, randomBytes(100_000))
  for (let i = 0; i < 2; i++) assert.equal((await get(`${path}/blobs/${layer}`))[0], 502)
  fake.manifests.set(digest, JSON.stringify(sampleManifest({ annotations: { evil: 'yes' } })))
  for (let i = 0; i < 2; i++) assert.equal((await get(`${path}/manifests/${digest}`))[0], 502)
  // Right by its digest header, wrong by its bytes.
  fake.instead = ({ method }, response) => {
    response.writeHead(200, { 'content-type': imageType, 'docker-content-digest': digest })
    return Boolean(response.end(method === 'HEAD' ? undefined : JSON.stringify(sampleManifest())))
  }
  assert.equal((await get(`${path}/manifests/1.0`))[0], 502)
  const [row] = await registry.deps.db.sql`select count(*)::int as n from manifests where digest = ${digest}`
  assert.equal(row?.n, 0)
})

it('takes a blob up again where the connection broke', async () => {
  const { fake, prefix } = await namespace()
  const bytes = randomBytes(500_000)
  const ranges: (string | undefined)[] = []
  fake.instead = ({ headers }, response) => {
    ranges.push(headers.range)
    const from = Number(/^bytes=(\d+)-$/.exec(headers.range ?? '')?.[1] ?? 0)
    response.writeHead(from > 0 ? 206 : 200, {
      'content-length': bytes.length - from,
      ...(from > 0 ? { 'content-range': `bytes ${from}-${bytes.length - 1}/${bytes.length}` } : {}),
    })
    if (ranges.length === 1) response.write(bytes.subarray(0, 200_000), () => setTimeout(() => response.destroy(), 20))
    else response.end(bytes.subarray(from))
    return true
  }
  const [status, , body] = await get(`/v2/${prefix}/app/blobs/${sha256(bytes)}`)
  assert.deepEqual([status, sha256(body)], [200, sha256(bytes)])
  assert.equal(ranges.length, 2)
  assert.match(ranges[1] ?? '', /^bytes=\d+-$/)
})

it('refuses pushes there with words, and upstreams for packs', async () => {
  const { prefix } = await namespace()
  const upload = await registry.call('POST', `/v2/${prefix}/app/blobs/uploads/`)
  assert.equal(upload.status, 403)
  assert.match(await upload.text(), new RegExp(`filled from the upstream of ${prefix}`))
  const put = await registry.call('PUT', `/v2/${prefix}/app/manifests/1.0`, {
    body: JSON.stringify(sampleManifest()),
    headers: { 'content-type': imageType },
  })
  assert.deepEqual([put.status, await codeOf(put)], [403, 'DENIED'])
  for (const body of [
    { url: 'http://127.0.0.1/x' },
    { url: 'ftp://a' },
    { url: 'http://u:p@a' },
    { url: 'http://a', x: 1 },
  ]) {
    const answer = await registry.call('PUT', '/upstreams/mirror/bad', { body: JSON.stringify(body) })
    assert.equal(answer.status, 400, JSON.stringify(body))
  }
  const packs = await registry.call('PUT', '/upstreams/packs', { body: '{"url":"http://a"}' })
  assert.equal(packs.status, 400)
})

it('shows no credentials, and keeps what was fetched when an upstream is removed', async () => {
  const { fake, prefix } = await namespace({ credentials: { username: 'u', password: 'hidden-word' } })
  const { digest } = image(fake, '1.0')
  await get(`/v2/${prefix}/app/manifests/1.0`)
  for (const path of ['/upstreams', `/upstreams/${prefix}`]) {
    const text = await (await registry.call('GET', path)).text()
    assert.match(text, /"credentials":true/)
    assert.doesNotMatch(text, /hidden-word/)
  }
  await expire()
  assert.deepEqual(await (await registry.call('DELETE', `/upstreams/${prefix}`)).json(), { deleted: true })
  assert.equal((await registry.call('GET', `/upstreams/${prefix}`)).status, 404)
  assert.equal((await get(`/v2/${prefix}/app/manifests/1.0`))[1], digest)
  assert.deepEqual(await (await registry.call('DELETE', `/upstreams/${prefix}`)).json(), { deleted: false })
})

it('does not go to a private address unless that is allowed', async () => {
  const { fake, prefix } = await namespace({ allowPrivate: false })
  const answer = await registry.call('GET', `/v2/${prefix}/app/manifests/1.0`)
  assert.equal(answer.status, 403)
  assert.match(await answer.text(), /private address.*allowPrivate/)
  assert.deepEqual(fake.asked, [])
})

it('answers 502 where its upstream has something that is no manifest: it is no fault of who asks', async () => {
  const { fake, prefix } = await namespace()
  fake.instead = (_, response) => Boolean(response.writeHead(200, { 'content-type': 'text/html' }).end('<html>'))
  for (const reference of ['1.0', sha256('<html>')]) {
    const answer = await registry.call('GET', `/v2/${prefix}/app/manifests/${reference}`)
    assert.equal(answer.status, 502)
    assert.match(await answer.text(), /REMOTE_INVALID.*something that is no manifest: the body is not JSON/)
  }
})

it('goes on asking for the tags of an upstream when the one around it is removed', async () => {
  const { fake, prefix } = await namespace()
  const body = JSON.stringify({ url: fake.url, allowPrivate: true, tagTtlSeconds: 3600 })
  for (const place of [`${prefix}/inner`, `${prefix}/inner/most`])
    assert.equal((await registry.call('PUT', `/upstreams/${place}`, { body })).status, 200)
  const paths = ['outer', 'inner/app', 'inner/most/app'].map((name) => `/v2/${prefix}/${name}/manifests/1.0`)
  const first = image(fake, '1.0')
  for (const path of paths) assert.equal((await get(path))[1], first.digest)
  await registry.call('DELETE', `/upstreams/${prefix}`)
  const second = image(fake, '1.0')
  await expire()
  assert.deepEqual(await Promise.all(paths.map(async (path) => (await get(path))[1])), [
    ...[first.digest, second.digest, second.digest],
  ])
})
