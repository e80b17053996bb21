import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { chown, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, truncate, writeFile } from 'node:fs/promises'
import http, { type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, afterEach, before, beforeEach, describe, it } from 'node:test'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { indexType, startRegistry, type TestRegistry } from '../testing/registry.ts'
import { waitFor } from '../testing/wait.ts'
import { type Client, type ClientOptions, type Lock, type LockedPack, openClient, PacksError } from './client.ts'
import { cachePath } from './content.ts'
import { fileNameOf } from './file-name.ts'
import { checkLock } from './lock.ts'
import { retryAfterMs } from './retry.ts'

// Against a real registry, with a proxy in between for the faults that cannot be caused otherwise.

let databases: TestDatabases
let registry: TestRegistry
let proxy: Proxy
let folder: string
let client: Client

before(async () => {
  databases = await startDatabases()
  registry = await startRegistry(await databases.fresh())
  proxy = await startProxy(registry.url)
})
after(async () => {
  await proxy?.stop()
  await registry?.stop()
  await databases?.stop()
})
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'packs-client-'))
  proxy.asked.length = 0
  proxy.fault = undefined
  client = open()
})
afterEach(() => rm(folder, { recursive: true, force: true }))

const impatient = { attempts: 3, baseDelayMs: 5 }
const open = (options: Partial<ClientOptions> = {}) => openClient({ url: proxy.url, ...impatient, ...options })
const into = () => join(folder, 'into')
const cacheDir = () => join(folder, 'cache')
const digestOf = (bytes: Uint8Array) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`
/** Every file below, by path. */
async function filesIn(path: string): Promise<string[]> {
  const all = await readdir(path, { recursive: true, withFileTypes: true }).catch(() => [])
  return all.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name))
}

let count = 0
/** Publishes content of this size and answers how a lock has it. */
async function published(size: number, over: { title?: string; dependencies?: string[] } = {}) {
  const bytes = randomBytes(size)
  const packId = `sample-${count++}`
  const { dependencies = [], ...rest } = over
  const document = { packId, version: '1.0.0', type: 'policy' as const, dependencies }
  const { digest, manifestDigest } = await client.publish({ document, content: { bytes }, ...rest })
  proxy.asked.length = 0
  const { title } = over
  const locked: LockedPack = {
    ...{ packId, version: '1.0.0', type: 'policy', digest, size, mediaType: 'application/octet-stream' },
    ...(title === undefined ? {} : { title }),
    ...{ manifestDigest, manifestSize: 1, dependencies: [] },
  }
  return { bytes, locked }
}

function lockOf(...packs: LockedPack[]): Lock {
  return { lockVersion: 1, roots: packs.map(({ packId }) => ({ packId, version: '*' })), packs }
}

function rejects(promise: Promise<unknown>, code: string, message = /./) {
  return assert.rejects(promise, (error: unknown) => {
    assert.ok(error instanceof PacksError, `${error}`)
    assert.equal(error.code, code, error.message)
    assert.match(error.message, message)
    return true
  })
}

describe('the calls', () => {
  it('publish, find, describe, change and remove a pack', async () => {
    await client.ping()
    const bytes = randomBytes(1000)
    const document = {
      packId: 'calls',
      version: '1.0.0',
      type: 'task' as const,
      description: 'called',
    }
    const submission = { document, content: { bytes }, title: 'calls "1".tgz', created: '2026-01-31T12:00:00Z' }
    assert.equal((await client.publish({ ...submission, dryRun: true })).valid, true)
    await rejects(client.pack('calls'), 'PACK_UNKNOWN')
    const first = await client.publish(submission)
    assert.deepEqual([first.isNew, first.digest], [true, digestOf(bytes)])
    assert.equal((await client.publish(submission)).isNew, false)
    await rejects(client.publish({ ...submission, content: { bytes: randomBytes(9) } }), 'VERSION_EXISTS', /higher one/)
    const pack = await client.pack('calls', { version: '^1.0' })
    assert.deepEqual([pack.description, pack.size, pack.state], ['called', 1000, 'active'])

    const other = { packId: 'caller', version: '1.0.0', type: 'task' as const, dependencies: ['calls@^1'] }
    await client.publish({ document: other, content: { bytes } })
    assert.deepEqual(
      (await client.dependents('calls', '1.0.0')).map(({ packId }) => packId),
      ['caller'],
    )
    const found: string[] = []
    for await (const { packId } of client.search({ type: 'task', pageSize: 1 })) found.push(packId)
    assert.deepEqual(found, ['caller', 'calls'])

    const channel = await client.setChannel('calls', 'stable', '1.0.0')
    assert.equal(channel.manifestDigest, first.manifestDigest)
    const stale = { ifMatch: `sha256:${'0'.repeat(64)}` }
    // What is asked for is so already.
    assert.deepEqual(await client.setChannel('calls', 'stable', '1.0.0', stale), channel)
    await client.publish({ document: { ...document, version: '1.1.0' }, content: { bytes } })
    await rejects(client.setChannel('calls', 'stable', '1.1.0', stale), 'PRECONDITION_FAILED')
    const yanked = await client.setState('calls', '1.1.0', { state: 'yanked', message: 'it bites' })
    assert.deepEqual([yanked.state, yanked.message], ['yanked', 'it bites'])
    assert.deepEqual(
      (await client.versions('calls')).map(({ version, channels }) => [version, channels]),
      [
        ['1.1.0', []],
        ['1.0.0', ['latest', 'stable']],
      ],
    )
    await rejects(client.remove('calls', '1.0.0'), 'DEPENDENTS_EXIST', /caller 1\.0\.0/)
    assert.equal(await client.remove('calls', '1.0.0', { force: true }), true)
    assert.equal(await client.remove('calls', '1.0.0'), false)
  })

  it('say everything that is wrong with a document', async () => {
    const document = { packId: 'wrong', version: '1', type: 'policy' as const, dependencies: ['base@x y'] }
    const { valid, violations } = await client.publish({ document, content: { bytes: randomBytes(9) }, dryRun: true })
    assert.equal(valid, false)
    assert.deepEqual(
      violations.map(({ path }) => path),
      ['version', 'dependencies.0.version'],
    )
    await rejects(client.publish({ document, content: { bytes: randomBytes(9) } }), 'PACK_INVALID', /version must be/)
  })

  const unaskable = ['../x', '..', 'A', '', 'a/b']
  for (const packId of unaskable)
    it(`ask nothing about the pack ${JSON.stringify(packId)}`, async () => {
      await rejects(client.pack(packId), 'REQUEST_INVALID')
      await rejects(client.pack('calls', { version: '..' }), 'REQUEST_INVALID')
      assert.equal(proxy.asked.length, 0)
    })

  for (const url of ['packs.example.org', 'ftp://packs.example.org', 'https://me:secret@packs.example.org', ''])
    it(`refuse ${JSON.stringify(url)} as an address`, () => {
      assert.throws(() => openClient({ url }), { code: 'REQUEST_INVALID' })
    })

  it('say that an address is not that of a registry', async () => {
    const other = http.createServer((_, response) => response.end('<html>'))
    const url = await listen(other)
    await rejects(open({ url }).pack('a'), 'ANSWER_INVALID', /is the url right/)
    await rejects(open({ url }).resolve({ roots: ['a@1.0.0'] }), 'ANSWER_INVALID', /not JSON.*is the url right/)
    await rejects(open({ url }).bundles.inventory(), 'ANSWER_INVALID', /is the url right/)
    await close(other)
    await rejects(open({ url }).pack('a'), 'UNREACHABLE', /ECONNREFUSED.*tried 3 times/)
  })
})

describe('publishing a file', () => {
  it('streams it, and begins again where the connection is lost', async () => {
    const path = join(folder, 'content.tgz')
    const bytes = randomBytes(5 * 1024 * 1024)
    await writeFile(path, bytes)
    proxy.fault = ({ n, request }) => n === 1 && request.socket.destroy()
    const sent: number[] = []
    const document = { packId: 'filed', version: '1.0.0', type: 'analyzer' as const, digest: 'none', size: 1 }
    const { digest, isNew } = await client.publish(
      { document, content: { path } },
      { onProgress: ({ sentBytes }) => sent.push(sentBytes) },
    )
    assert.deepEqual([digest, isNew, sent.at(-1)], [digestOf(bytes), true, bytes.length])
    assert.equal(proxy.asked.filter(({ headers }) => headers['transfer-encoding']).length, 0)
  })

  it('takes an early refusal instead of sending everything', async () => {
    const path = join(folder, 'large.tgz')
    await writeFile(path, '')
    await truncate(path, 64 * 1024 * 1024)
    const early = http.createServer((_, response) => {
      response.writeHead(401, { 'content-type': 'application/problem+json' })
      response.end('{"type":"urn:packs-registry:UNAUTHORIZED","title":"authentication required"}')
    })
    const url = await listen(early)
    let sent = 0
    const document = { packId: 'early', version: '1.0.0', type: 'policy' as const }
    const options = { onProgress: ({ sentBytes }: { sentBytes: number }) => (sent = sentBytes) }
    await rejects(open({ url }).publish({ document, content: { path } }, options), 'UNAUTHORIZED', /authentication/)
    assert.ok(sent < 48 * 1024 * 1024, `${sent}`)
    await close(early)
  })

  it('says that there is no such file', async () => {
    const document = { packId: 'none', version: '1.0.0', type: 'policy' as const }
    for (const path of [join(folder, 'none'), folder])
      await rejects(client.publish({ document, content: { path } }), 'REQUEST_INVALID')
  })
})

describe('retries', () => {
  it('pass over 503, and over cut connections', async () => {
    proxy.fault = ({ n, request, response }) => {
      if (n === 1) return request.socket.destroy()
      if (n > 2) return false
      response.writeHead(503, { 'retry-after': '0' })
      return response.end('busy')
    }
    await client.ping()
    assert.equal(proxy.asked.length, 3)
  })

  const headers: [header: string | undefined, seconds: number][] = [
    [undefined, 0],
    ['7', 7],
    ['soon', 0],
    ['Wed, 21 Oct 2015 07:28:00 GMT', 0],
    ['-5', 0],
  ]
  for (const [header, seconds] of headers)
    it(`read Retry-After: ${header} as ${seconds} s`, () => assert.equal(retryAfterMs(header), seconds * 1000))

  it('say before each pause what failed, and how long it is', async () => {
    const waits: { code: string; delayMs: number }[] = []
    proxy.fault = ({ n, response }) => {
      if (n > 2) return false
      return response.writeHead(n === 1 ? 429 : 503, { 'retry-after': n === 1 ? '1' : '0' }).end()
    }
    await open({ onWait: ({ code }, delayMs) => waits.push({ code, delayMs }) }).ping()
    assert.deepEqual(
      waits.map(({ code }) => code),
      ['ANSWER_INVALID', 'ANSWER_INVALID'],
    )
    assert.deepEqual([waits[0]?.delayMs, Number(waits[1]?.delayMs) < 1000], [1000, true])
  })

  it('doubt a refusal that the call itself may have caused: its first answer was lost', async () => {
    const refusal = '{"type":"urn:packs-registry:TOKEN_EXISTS","title":"t","detail":"there is a token ci"}'
    const exists = ({ response }: Ask) =>
      response.writeHead(409, { 'content-type': 'application/problem+json' }).end(refusal)
    proxy.fault = (ask) => (ask.n === 1 ? ask.request.socket.destroy() : exists(ask))
    await rejects(client.tokens.create({ name: 'ci' }), 'TOKEN_EXISTS', /^there is a token ci\. An earlier try .* look/)
    proxy.asked.length = 0
    proxy.fault = (ask) => (ask.n === 1 ? ask.response.writeHead(429).end() : exists(ask))
    await rejects(client.tokens.create({ name: 'ci' }), 'TOKEN_EXISTS', /^there is a token ci$/)
  })

  it('end after so many, with the last reason', async () => {
    proxy.fault = ({ response }) => {
      response.writeHead(503, { 'content-type': 'application/problem+json' })
      return response.end('{"type":"urn:packs-registry:UNAVAILABLE","title":"t","detail":"no database"}')
    }
    await rejects(client.ping(), 'UNAVAILABLE', /^no database \(tried 3 times\)$/)
    assert.equal(proxy.asked.length, 3)
  })

  for (const status of [400, 401, 403, 404, 409, 501])
    it(`do not follow a ${status}`, async () => {
      proxy.fault = ({ response }) => response.writeHead(status).end()
      await assert.rejects(client.ping(), { status })
      assert.equal(proxy.asked.length, 1)
    })

  for (const [what, ways, asked] of [
    ['to itself', { one: 'one' }, 2],
    ['in a circle of several', { one: 'two', two: 'three', three: 'one' }, 4],
  ] as const)
    it(`do not go on with a list that leads ${what}`, async () => {
      proxy.fault = ({ request, response }) => {
        const after = new URL(request.url ?? '', 'http://host').searchParams.get('after') ?? ''
        const next = (ways as Record<string, string>)[after] ?? 'one'
        return response.end(JSON.stringify({ packs: [{ packId: `after-${after}` }], next }))
      }
      const found: string[] = []
      const all = async () => {
        for await (const { packId } of client.search({ q: 'net' })) found.push(packId)
      }
      await rejects(all(), 'ANSWER_INVALID', /same pages again and again/)
      assert.equal(found.length, asked)
      assert.ok(proxy.asked.every(({ path }) => path.startsWith('/packs?q=net')))
    })

  it('do not take for a list what is none', async () => {
    proxy.fault = ({ response }) => response.end('{"packs":{"length":1}}')
    await rejects(client.search().next(), 'ANSWER_INVALID', /is the url right/)
  })

  it('take no answer whose fields are of another kind', async () => {
    proxy.fault = ({ response }) => response.end('{"packs":7,"pack":"x","versions":"x","referrers":[null],"job":[]}')
    await rejects(client.search().next(), 'ANSWER_INVALID', /is the url right/)
    await rejects(client.pack('a'), 'ANSWER_INVALID', /is the url right/)
    await rejects(client.versions('a'), 'ANSWER_INVALID', /is the url right/)
    await rejects(client.referrers('a', '1.0.0'), 'ANSWER_INVALID', /is the url right/)
    await rejects(client.jobs.show('a'), 'ANSWER_INVALID', /is the url right/)
  })

  it('give up a connection that is silent', async () => {
    proxy.fault = () => true
    await rejects(open({ idleTimeoutMs: 1000 }).ping(), 'UNREACHABLE', /silent for 1000 ms/)
    assert.equal(proxy.asked.length, 3)
  })

  it('end when cancelled: before, while waiting for an answer, and in a pause', async () => {
    await rejects(client.ping({ signal: AbortSignal.abort() }), 'CANCELLED')
    // Without Retry-After, the third refusal would have come before the end.
    for (const fault of [() => true, ({ response }: Ask) => response.writeHead(503, { 'retry-after': '30' }).end()]) {
      const stop = new AbortController()
      proxy.fault = (ask) => {
        setTimeout(() => stop.abort(), 100)
        return fault(ask)
      }
      await rejects(client.ping({ signal: stop.signal }), 'CANCELLED')
    }
  })
})

describe('pull', () => {
  it('fetches every pack of a lock, verified, and asks nothing mutable', async () => {
    const packs = [await published(0), await published(10), await published(3_000_000, { title: 'rules.tar.gz' })]
    const lock = lockOf(...packs.map(({ locked }) => locked))
    const last: Record<string, unknown> = {}
    const pulled = await client.pull(lock, {
      into: into(),
      onProgress: ({ packId, receivedBytes, totalBytes, overall }) =>
        Object.assign(last, { [packId]: [receivedBytes, totalBytes], overall }),
    })
    for (const [i, { bytes, locked }] of packs.entries()) {
      const name = locked.title ?? `${locked.packId}-1.0.0.tgz`
      assert.equal(pulled[i]?.file, join(into(), locked.packId, name))
      assert.equal(pulled[i]?.cached, false)
      assert.ok(bytes.equals(await readFile(pulled[i]?.file ?? '')))
      assert.deepEqual(last[locked.packId], [locked.size, locked.size])
    }
    assert.deepEqual(last.overall, { receivedBytes: 3_000_010, totalBytes: 3_000_010 })
    assert.ok(proxy.asked.every(({ path }) => /^\/v2\/packs\/[^/]+\/blobs\/sha256:/.test(path)))
    assert.equal((await filesIn(into())).length, 3)
    // What is there and right is not fetched again; what was changed is.
    await writeFile(pulled[1]?.file ?? '', randomBytes(10))
    proxy.asked.length = 0
    const again = await client.pull(lock, { into: into() })
    assert.deepEqual(
      again.map(({ cached }) => cached),
      [true, false, true],
    )
    assert.equal(proxy.asked.length, 1)
  })

  it('goes on by Range where the connection was cut', async () => {
    const { bytes, locked } = await published(3_000_000)
    proxy.fault = ({ n, forward }) => n <= 3 && forward({ cutAfter: 700_000 })
    const { file } = await open({ attempts: 4 }).pullOne(locked, { into: into() })
    assert.ok(bytes.equals(await readFile(file)))
    assert.equal(proxy.asked.length, 4)
    assert.deepEqual(
      proxy.asked.map(({ headers }) => headers['if-range']).slice(1),
      Array(3).fill(`"${locked.digest}"`),
    )
    const starts = proxy.asked.map(({ headers }) => Number(/\d+/.exec(headers.range ?? '0')))
    // Nothing is asked for twice: each try begins where the one before ended.
    let end = 0
    proxy.asked.forEach(({ sent }, i) => {
      assert.ok(
        (starts[i] as number) <= end && (i === 0 || (starts[i] as number) > (starts[i - 1] as number)),
        `${starts}`,
      )
      end = (starts[i] as number) + sent
    })
    assert.equal(end, 3_000_000)
    assert.equal((await filesIn(into())).length, 1)
  })

  it('goes on as long as every try brings something', async () => {
    const { bytes, locked } = await published(9_000_000)
    proxy.fault = ({ forward }) => forward({ cutAfter: 1_500_000 })
    const { file } = await open({ attempts: 2 }).pullOne(locked, { into: into() })
    assert.ok(bytes.equals(await readFile(file)))
    assert.ok(proxy.asked.length > 5)
  })

  it('goes on where a download fell silent', async () => {
    const { bytes, locked } = await published(2_000_000)
    proxy.fault = ({ n, forward }) => n === 1 && forward({ stallAfter: 700_000 })
    const { file } = await open({ idleTimeoutMs: 2000 }).pullOne(locked, { into: into() })
    assert.ok(bytes.equals(await readFile(file)))
    assert.deepEqual(
      proxy.asked.map(({ headers }) => headers.range),
      [undefined, 'bytes=700000-'],
    )
  })

  it('begins again where the server takes no Range', async () => {
    const { bytes, locked } = await published(2_000_000)
    proxy.fault = ({ n, forward }) => forward(n === 1 ? { cutAfter: 700_000 } : { withoutRange: true })
    const { file } = await client.pullOne(locked, { into: into() })
    assert.ok(bytes.equals(await readFile(file)))
    assert.equal(proxy.asked[1]?.sent, 2_000_000)
  })

  it('leaves nothing of bytes that are not the digest’s', async () => {
    const { locked } = await published(2_000_000)
    proxy.fault = ({ forward }) => forward({ flipAt: 1_234_567 })
    for (const options of [{}, { cacheDir: cacheDir() }]) {
      await rejects(open(options).pullOne(locked, { into: into() }), 'DIGEST_MISMATCH', /nothing of it was kept/)
      assert.deepEqual(await filesIn(folder), [])
    }
    assert.equal(proxy.asked.length, 2)
  })

  it('leaves nothing of content of another size', async () => {
    const { locked } = await published(1000)
    for (const size of [999, 1001, 0]) {
      const wrong = { ...locked, size }
      const code = size === 0 ? 'DIGEST_MISMATCH' : 'SIZE_MISMATCH'
      await rejects(open({ cacheDir: cacheDir() }).pullOne(wrong, { into: into() }), code)
    }
    proxy.fault = ({ forward }) => forward({ withoutLength: true, extra: 5 })
    await rejects(open({ cacheDir: cacheDir() }).pullOne(locked, { into: into() }), 'SIZE_MISMATCH')
    assert.deepEqual(await filesIn(folder), [])
  })

  it('sends credentials to the registry alone', async () => {
    const { bytes, locked } = await published(1_000_000)
    const other = await startProxy(registry.url)
    proxy.fault = ({ request, response }) =>
      request.url?.includes('/blobs/') && response.writeHead(307, { location: other.url + request.url }).end()
    for (const credentials of [{ username: 'me', password: 'sécret' }, { token: 't' }]) {
      const { file } = await open({ credentials }).pullOne(locked, {
        into: join(into(), Object.keys(credentials)[0] ?? ''),
      })
      assert.ok(bytes.equals(await readFile(file)))
    }
    const basic = `Basic ${Buffer.from('me:sécret').toString('base64')}`
    assert.deepEqual(
      proxy.asked.map(({ headers }) => headers.authorization),
      [basic, 'Bearer t'],
    )
    assert.deepEqual(
      other.asked.map(({ headers }) => headers.authorization),
      [undefined, undefined],
    )
    // A download that was cut goes on there by a new address of the registry.
    other.asked.length = 0
    other.fault = ({ n, forward }) => n === 1 && forward({ cutAfter: 500_000 })
    await open({ credentials: { token: 't' } }).pullOne(locked, { into: join(into(), 'cut') })
    assert.equal(other.asked.length, 2)
    assert.match(other.asked[1]?.headers.range ?? '', /^bytes=[1-9]/)
    assert.equal(other.asked[1]?.headers['if-range'], undefined)
    await other.stop()
  })

  it('takes what no digest proves from the registry alone', async () => {
    const other = await startProxy(registry.url)
    proxy.fault = ({ request, response }) => response.writeHead(308, { location: other.url + request.url }).end()
    const own = open({ credentials: { token: 't' } })
    await rejects(own.pack('any'), 'REDIRECTED', /use its address as url/)
    await rejects(own.setState('any', '1.0.0', { state: 'yanked' }), 'REDIRECTED')
    assert.equal(other.asked.length, 0)
    proxy.fault = ({ request, response }) => response.writeHead(307, { location: request.url ?? '' }).end()
    await rejects(own.pack('any'), 'ANSWER_INVALID', /circles/)
    await other.stop()
  })

  it('saves a bundle that is an index by its index', async () => {
    const { locked } = await published(10)
    const manifest = (await registry.call('GET', `/v2/packs/${locked.packId}/manifests/1.0.0`)).headers
    const size = Number(manifest.get('content-length'))
    const member = { mediaType: manifest.get('content-type'), digest: locked.manifestDigest, size }
    const index = { schemaVersion: 2, mediaType: indexType, manifests: [member] }
    const { digest, size: indexSize } = await registry.pushManifest(`packs/${locked.packId}`, 'digest', index)
    const bundle = { ...locked, type: 'bundle' as const, digest, size: indexSize, mediaType: indexType, title: 'x.tgz' }
    const { file } = await open({ cacheDir: cacheDir() }).pullOne(bundle, { into: into() })
    assert.equal(file, join(into(), locked.packId, 'index.json'))
    assert.equal(digestOf(await readFile(file)), digest)
  })

  it('stops everything at the first failure, and keeps what is finished', async () => {
    const packs = [await published(1000), await published(1000), await published(3_000_000), await published(1000)]
    const [good, bad, hanging, later] = packs.map(({ locked }) => locked) as [
      LockedPack,
      LockedPack,
      LockedPack,
      LockedPack,
    ]
    proxy.fault = async ({ request, response, forward }) => {
      if (request.url?.includes(hanging.packId)) return forward({ stallAfter: 100_000 })
      if (!request.url?.includes(bad.packId)) return false
      await waitFor('the third to be asked for', () => proxy.asked.some(({ path }) => path.includes(hanging.packId)))
      return response.writeHead(404).end()
    }
    const lock = lockOf(good, bad, hanging, later)
    await assert.rejects(open({ concurrency: 2 }).pull(lock, { into: into() }), { status: 404 })
    assert.deepEqual(await filesIn(into()), [join(into(), good.packId, `${good.packId}-1.0.0.tgz`)])
    assert.ok(!proxy.asked.some(({ path }) => path.includes(later.packId)))
  })

  it('ends when cancelled, and goes on from there', async () => {
    const { bytes, locked } = await published(3_000_000)
    proxy.fault = ({ n, forward }) => n === 1 && forward({ stallAfter: 1_000_000 })
    const stop = new AbortController()
    const own = open({ cacheDir: cacheDir() })
    const onProgress = ({ receivedBytes }: { receivedBytes: number }) => receivedBytes > 900_000 && stop.abort()
    await rejects(own.pull(lockOf(locked), { into: into(), signal: stop.signal, onProgress }), 'CANCELLED')
    const [partial, ...more] = await filesIn(folder)
    assert.deepEqual([dirname(partial ?? ''), more], [join(cacheDir(), 'partial'), []])
    const kept = (await stat(partial ?? '')).size
    const [{ file } = { file: '' }] = await open({ cacheDir: cacheDir() }).pull(lockOf(locked), { into: into() })
    assert.ok(bytes.equals(await readFile(file)))
    assert.deepEqual([proxy.asked[1]?.headers.range, proxy.asked[1]?.sent], [`bytes=${kept}-`, 3_000_000 - kept])
    assert.equal((await filesIn(folder)).length, 2)
  })

  it('goes on after a process that was killed', async () => {
    const { bytes, locked } = await published(3_000_000)
    proxy.fault = ({ n, forward }) => n === 1 && forward({ stallAfter: 1_000_000 })
    const code = `import { openClient } from ${JSON.stringify(import.meta.resolve('./client.ts'))}
      await openClient(${JSON.stringify({ url: proxy.url, cacheDir: cacheDir() })})
        .pullOne(${JSON.stringify(locked)}, { into: ${JSON.stringify(into())} })`
    const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', code], { stdio: 'inherit' })
    await waitFor('1,000,000 bytes to be kept', async () => (await sizesIn(cacheDir()))[0] === 1_000_000)
    child.kill('SIGKILL')
    await new Promise((done) => child.once('exit', done))
    const { file } = await open({ cacheDir: cacheDir() }).pullOne(locked, { into: into() })
    assert.ok(bytes.equals(await readFile(file)))
    assert.deepEqual([proxy.asked[1]?.headers.range, proxy.asked[1]?.sent], ['bytes=1000000-', 2_000_000])
  })

  it('begins again where what was left of an interrupted download is damaged', async () => {
    const { bytes, locked } = await published(2_000_000)
    proxy.fault = ({ n, forward }) => n === 1 && forward({ cutAfter: 1_000_000 })
    const own = open({ cacheDir: cacheDir(), attempts: 1 })
    await rejects(own.pullOne(locked, { into: into() }), 'UNREACHABLE')
    const [partial = ''] = await filesIn(cacheDir())
    const { size } = await stat(partial)
    await writeFile(partial, Buffer.alloc(size))
    const { file } = await own.pullOne(locked, { into: into() })
    assert.ok(bytes.equals(await readFile(file)))
    assert.deepEqual(
      proxy.asked.slice(1).map(({ headers }) => headers.range),
      [`bytes=${size}-`, undefined],
    )
  })
})

async function sizesIn(path: string): Promise<number[]> {
  return Promise.all((await filesIn(path)).map(async (file) => (await stat(file)).size))
}

describe('the cache', () => {
  it('answers without a request, and heals itself', async () => {
    const { bytes, locked } = await published(100_000)
    const own = open({ cacheDir: cacheDir() })
    const first = await own.pullOne(locked, { into: into() })
    assert.equal(first.cached, false)
    assert.equal(proxy.asked.length, 1)
    const second = await own.pullOne(locked, { into: join(folder, 'second') })
    assert.deepEqual([second.cached, proxy.asked.length], [true, 1])
    // To edit what was pulled does not touch the cache; to damage the cache does not get out of it.
    await writeFile(second.file, 'edited')
    const cached = cachePath(cacheDir(), locked)
    assert.ok(bytes.equals(await readFile(cached)))
    for (const damage of [Buffer.alloc(100_000), Buffer.alloc(1)]) {
      await writeFile(cached, damage)
      proxy.asked.length = 0
      const { file } = await own.pullOne(locked, { into: join(folder, `after ${damage.length}`) })
      assert.ok(bytes.equals(await readFile(file)))
      assert.equal(proxy.asked.length, 1)
    }
  })

  it('is shared by pulls at once', async () => {
    const packs = await Promise.all(Array.from({ length: 6 }, () => published(400_000)))
    const lock = lockOf(...packs.map(({ locked }) => locked))
    const pulls = ['a', 'b', 'c'].map((name) => open({ cacheDir: cacheDir() }).pull(lock, { into: join(folder, name) }))
    for (const pulled of await Promise.all(pulls))
      for (const [i, { file }] of pulled.entries()) assert.ok(packs[i]?.bytes.equals(await readFile(file)))
    assert.equal(proxy.asked.length, 6)
    assert.equal((await filesIn(cacheDir())).length, 6)
  })

  it('is shared by processes at once', async () => {
    const { bytes, locked } = await published(2_000_000)
    const code = (name: string) => `import { openClient } from ${JSON.stringify(import.meta.resolve('./client.ts'))}
      await openClient(${JSON.stringify({ url: proxy.url, cacheDir: cacheDir() })})
        .pullOne(${JSON.stringify(locked)}, { into: ${JSON.stringify(folder)} + '/${name}' })`
    const ends = ['a', 'b', 'c'].map((name) => {
      const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', code(name)], {
        stdio: 'inherit',
      })
      return new Promise((done) => child.once('exit', done))
    })
    assert.deepEqual(await Promise.all(ends), [0, 0, 0])
    for (const name of ['a', 'b', 'c'])
      assert.ok(bytes.equals(await readFile(join(folder, name, locked.packId, `${locked.packId}-1.0.0.tgz`))))
    assert.deepEqual(await filesIn(cacheDir()), [cachePath(cacheDir(), locked)])
  })
})

describe('a lock', () => {
  const good: LockedPack = {
    ...{ packId: 'a', version: '1.0.0', type: 'policy', digest: digestOf(Buffer.from('a')), size: 1 },
    ...{ mediaType: 'a/b', manifestDigest: digestOf(Buffer.from('m')), manifestSize: 1, dependencies: [] },
  }
  const bad: { name: string; lock: unknown; says: RegExp }[] = [
    { name: 'nothing', lock: undefined, says: /lockVersion must be 1/ },
    { name: 'a list', lock: [], says: /lockVersion must be 1/ },
    { name: 'of the future', lock: { ...lockOf(good), lockVersion: 2 }, says: /newer client/ },
    { name: 'without packs', lock: { lockVersion: 1, roots: [] }, says: /packs must be a list/ },
    { name: 'leading out of the folder', lock: lockOf({ ...good, packId: '../a' }), says: /packs\.0\.packId must be/ },
    { name: 'with a digest that is none', lock: lockOf({ ...good, digest: 'sha256:zz' }), says: /packs\.0\.digest/ },
    { name: 'with half a byte', lock: lockOf({ ...good, size: 0.5 }), says: /packs\.0\.size/ },
    { name: 'with a pack twice', lock: lockOf(good, good), says: /packs\.1 is a again/ },
    {
      name: 'without its root',
      lock: { ...lockOf(good), roots: [{ packId: 'b', version: '*' }] },
      says: /roots\.0: packs has no "b"/,
    },
    {
      name: 'without a dependency',
      lock: lockOf({ ...good, dependencies: [{ packId: 'b', version: '^1', resolved: '1.0.0' }] }),
      says: /packs\.0\.dependencies\.0: packs has no "b" "1\.0\.0"/,
    },
  ]
  for (const { name, lock, says } of bad)
    it(`${name} is refused before anything is asked`, async () => {
      await rejects(client.pull(lock as Lock, { into: into() }), 'LOCK_INVALID', says)
      assert.equal(proxy.asked.length, 0)
      assert.deepEqual(await readdir(folder), [])
    })

  it('is what the registry sent, byte for byte', async () => {
    const bytes = Buffer.from(JSON.stringify(lockOf(good)))
    const sum = createHash('sha256').update(bytes).digest('base64')
    let sent = bytes
    proxy.fault = ({ response }) => response.writeHead(200, { 'repr-digest': `sha-256=:${sum}:` }).end(sent)
    const resolved = await client.resolve({ roots: ['a@*'] })
    assert.deepEqual([resolved.lock, Buffer.from(resolved.bytes)], [lockOf(good), bytes])
    sent = Buffer.from(bytes.toString().replace('"size":1', '"size":2'))
    await rejects(client.resolve({ roots: ['a@*'] }), 'DIGEST_MISMATCH')
  })

  it('may lack what is optional', () => {
    const lock = lockOf({ ...good, dependencies: [{ packId: 'b', version: '^1', optional: true }] })
    assert.equal(checkLock(lock), lock)
  })
})

describe('file names', () => {
  const names: [title: string | undefined, name: string][] = [
    [undefined, 'p-1.0.0.tgz'],
    ['rules.tar.gz', 'rules.tar.gz'],
    ['Regeln für Netze.tgz', 'Regeln für Netze.tgz'],
    ['../../etc/passwd', 'passwd'],
    ['..\\..\\boot.ini', 'boot.ini'],
    ['/etc/cron.d/', 'p-1.0.0.tgz'],
    ['..', 'p-1.0.0.tgz'],
    ['. .', 'p-1.0.0.tgz'],
    ['', 'p-1.0.0.tgz'],
    ['.bashrc', 'bashrc'],
    ['a\0b\nc', 'a_b_c'],
    ['c:evil?.tgz', 'c_evil_.tgz'],
    ['nul', '_nul'],
    ['nul .txt', '_nul .txt'],
    ['CONOUT$', '_CONOUT$'],
    ['rules\u202egpj.exe', 'rules_gpj.exe'],
    ['COM1.tar.gz', '_COM1.tar.gz'],
    ['name. . ', 'name'],
    ['\ud800x', '_x'],
    [`${'é'.repeat(300)}.tar.gz`, `${'é'.repeat(96)}.tar.gz`],
  ]
  for (const [title, name] of names)
    it(`${JSON.stringify(title)?.slice(0, 40)} becomes ${name.slice(0, 40)}`, () => {
      assert.equal(fileNameOf({ packId: 'p', version: '1.0.0', ...(title === undefined ? {} : { title }) }), name)
    })

  it('never lead out of the folder, nor through a link', async () => {
    const { bytes, locked } = await published(10, { title: 'x' })
    const victim = join(folder, 'victim')
    await writeFile(victim, 'untouched!')
    const { file } = await client.pullOne({ ...locked, title: '../../victim' }, { into: into() })
    assert.equal(file, join(into(), locked.packId, 'victim'))
    await rm(file)
    await symlink(victim, file)
    await client.pullOne({ ...locked, title: 'victim' }, { into: into() })
    assert.equal(await readFile(victim, 'utf8'), 'untouched!')
    assert.ok(bytes.equals(await readFile(file)))
  })

  it('receives nothing through a link that somebody put into a shared cache', async () => {
    const { locked, bytes } = await published(1000)
    const victim = join(folder, 'victim')
    await writeFile(victim, 'untouched!')
    await mkdir(join(cacheDir(), 'partial'), { recursive: true })
    await symlink(victim, join(cacheDir(), 'partial', `.${locked.digest.replace(':', '-')}.partial`))
    const { file } = await open({ cacheDir: cacheDir() }).pullOne(locked, { into: into() })
    assert.ok(bytes.equals(await readFile(file)))
    assert.equal(await readFile(victim, 'utf8'), 'untouched!')
  })
})

it('leaves alone what another user has begun in a shared cache', {
  skip: process.getuid?.() === 0 ? false : 'needs root, to give a file to another user',
}, async () => {
  const { locked, bytes } = await published(1000)
  await mkdir(join(cacheDir(), 'partial'), { recursive: true })
  const theirs = join(cacheDir(), 'partial', `.${locked.digest.replace(':', '-')}.partial`)
  await writeFile(theirs, bytes.subarray(0, 500))
  await chown(theirs, 65534, 65534)
  const { file } = await open({ cacheDir: cacheDir() }).pullOne(locked, { into: into() })
  assert.ok(bytes.equals(await readFile(file)))
  assert.ok(bytes.subarray(0, 500).equals(await readFile(theirs)))
})

type Forward = {
  /** Cuts the connection after so many bytes of the body. */
  cutAfter?: number
  /** Sends no more after so many bytes, and keeps the connection. */
  stallAfter?: number
  /** Turns a bit of that byte. */
  flipAt?: number
  withoutRange?: boolean
  withoutLength?: boolean
  /** Adds so many bytes. */
  extra?: number
}
type Ask = {
  /** The first is 1, since the test began. */
  n: number
  request: IncomingMessage
  response: ServerResponse
  /** Asks the registry, and answers with the fault. */
  forward(how: Forward): Promise<true>
}
type Proxy = {
  url: string
  /** What was asked, and how many bytes of a body were sent. */
  asked: { path: string; headers: IncomingHttpHeaders; sent: number }[]
  /** Anything but false and undefined: it has answered. */
  fault: ((ask: Ask) => unknown) | undefined
  stop(): Promise<void>
}

async function startProxy(target: string): Promise<Proxy> {
  const server = http.createServer((request, response) => {
    void (async () => {
      const asked = { path: request.url ?? '', headers: request.headers, sent: 0 }
      proxy.asked.push(asked)
      const onward = (how: Forward) => forward(target, request, response, asked, how)
      const answered = await proxy.fault?.({ n: proxy.asked.length, request, response, forward: onward })
      if (!answered && !request.destroyed) await onward({})
    })()
  })
  const proxy: Proxy = { url: await listen(server), asked: [], fault: undefined, stop: () => close(server) }
  return proxy
}

function forward(
  target: string,
  request: IncomingMessage,
  response: ServerResponse,
  asked: { sent: number },
  how: Forward,
): Promise<true> {
  const { cutAfter, stallAfter, flipAt, withoutRange, withoutLength, extra = 0 } = how
  return new Promise((done) => {
    const headers = { ...request.headers }
    if (withoutRange) delete headers.range
    const onward = http.request(target + request.url, { method: request.method ?? 'GET', headers })
    request.pipe(onward)
    onward.on('error', () => response.destroy())
    response.on('close', () => {
      onward.destroy()
      done(true)
    })
    onward.on('response', (answer) => {
      answer.on('error', () => response.destroy())
      const fields = { ...answer.headers }
      if (withoutLength) delete fields['content-length']
      response.writeHead(answer.statusCode ?? 0, fields)
      const end = cutAfter ?? stallAfter ?? Number.POSITIVE_INFINITY
      answer.on('data', (piece: Buffer) => {
        if (flipAt !== undefined && asked.sent <= flipAt && flipAt < asked.sent + piece.length)
          piece.writeUInt8(piece.readUInt8(flipAt - asked.sent) ^ 1, flipAt - asked.sent)
        const part = piece.subarray(0, Math.max(0, end - asked.sent))
        asked.sent += part.length
        const isLast = part.length < piece.length
        response.write(part, () => isLast && cutAfter !== undefined && response.destroy())
        if (isLast) answer.removeAllListeners('data').resume()
      })
      answer.on('end', () => {
        if (asked.sent < end) response.end(randomBytes(extra))
      })
    })
  })
}

async function listen(server: http.Server): Promise<string> {
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

async function close(server: http.Server): Promise<void> {
  server.closeAllConnections()
  await new Promise((done) => server.close(done))
}
