import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import http, { type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, describe, it } from 'node:test'
import { Failure, type FailureKey } from '../errors.ts'
import type { Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import { waitFor } from '../testing/wait.ts'
import { blobSize, openBlob } from './blobs.ts'
import { parseChallenges } from './challenge.ts'
import { isPrivate } from './egress.ts'
import { discard, exchange } from './exchange.ts'
import { listReferrers, listRepositories, listTags } from './listings.ts'
import { getManifest, putManifest } from './manifests.ts'
import { steady } from './pace.ts'
import { openRemote, originOf, type Remote, type RemoteOptions } from './remote.ts'
import { uploadBlob } from './uploads.ts'

const ends: (() => unknown)[] = []
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end()
})

type Handler = (request: IncomingMessage, response: ServerResponse) => void
type Fake = { url: string; host: string; asked: string[]; connections: number; authorizations: (string | undefined)[] }

/** A server that answers as the test wants, and notes what arrives. */
async function serve(handler: Handler): Promise<Fake> {
  const fake: Fake = { url: '', host: '', asked: [], connections: 0, authorizations: [] }
  const server = http.createServer((request, response) => {
    fake.asked.push(`${request.method} ${request.url}`)
    fake.authorizations.push(request.headers.authorization)
    handler(request, response)
  })
  server.on('connection', () => fake.connections++)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  fake.host = `127.0.0.1:${(server.address() as AddressInfo).port}`
  fake.url = `http://${fake.host}`
  ends.push(() => {
    server.closeAllConnections()
    return new Promise((resolve) => server.close(resolve))
  })
  return fake
}

function remoteTo(fake: Fake, over: Partial<RemoteOptions> = {}): Remote {
  const remote = openRemote({ url: fake.url, allowPrivate: true, baseDelayMs: 1, attempts: 3, ...over })
  ends.push(() => remote.close())
  return remote
}

const name = 'some/app' as RepositoryName
const sha256 = (bytes: string | Buffer) => `sha256:${createHash('sha256').update(bytes).digest('hex')}` as Digest
const credentials = { username: 'mirror', password: 'word' }
const basic = `Basic ${Buffer.from('mirror:word').toString('base64')}`

function fails(key: FailureKey, words: RegExp) {
  return (error: unknown) => {
    assert.ok(error instanceof Failure, String(error))
    assert.equal(error.key, key, String(error.detail))
    assert.match(String(error.detail), words)
    return true
  }
}

async function bytesOf(blob: Awaited<ReturnType<typeof openBlob>>): Promise<Buffer> {
  const pieces: Buffer[] = []
  for await (const piece of blob?.stream ?? assert.fail('no blob')) pieces.push(piece as Buffer)
  return Buffer.concat(pieces)
}

describe('addresses', () => {
  const cases: [string, boolean][] = [
    ...['127.0.0.1', '10.1.2.3', '172.31.0.1', '192.168.1.1', '169.254.169.254', '100.64.0.1', '0.0.0.0', '224.0.0.1'],
    ...['::1', '::', 'fd00::1', 'fe80::1', '::ffff:10.0.0.1', '64:ff9b::a00:1', '2002:a00:1::1'],
  ].map((address) => [address, true])
  cases.push(['8.8.8.8', false], ['172.32.0.1', false], ['2606:4700::1', false])
  for (const [address, expected] of cases)
    it(`${address} is ${expected ? 'private' : 'public'}`, () => assert.equal(isPrivate(address), expected))

  it('of a registry are an origin and nothing else', () => {
    assert.equal(originOf('https://registry.example/').origin, 'https://registry.example')
    for (const text of ['', 'registry.example', 'ftp://a', 'https://u:p@a', 'https://a/b', 'https://a/?x'])
      assert.throws(() => originOf(text), fails('REQUEST_INVALID', /the url of a registry/))
  })

  it('that are private are not asked unless that is allowed, be they written out or named', async () => {
    const fake = await serve((_, response) => void response.end())
    for (const url of [
      fake.url,
      fake.url.replace('127.0.0.1', 'localhost'),
      fake.url.replace('127.0.0.1', '2130706433'),
    ])
      await assert.rejects(
        blobSize(remoteTo(fake, { url, allowPrivate: false }), name, sha256('x')),
        fails('ADDRESS_REFUSED', /allowPrivate/),
      )
    assert.deepEqual(fake.asked, [])
  })
})

describe('redirects', () => {
  it('to a host that belongs to the registry are followed, without credentials', async () => {
    const store = await serve((_, response) => void response.end('content'))
    const fake = await serve((request, response) => {
      if (request.headers.authorization !== basic)
        return void response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end()
      response.writeHead(307, { location: `${store.url}/bucket/object` }).end()
    })
    const remote = remoteTo(fake, { credentials, hosts: [store.host] })
    assert.equal(String(await bytesOf(await openBlob(remote, name, sha256('content')))), 'content')
    assert.deepEqual(store.authorizations, [undefined])
    assert.deepEqual(fake.authorizations, [undefined, basic])
  })

  it('to a private address of somebody else are refused', async () => {
    const other = await serve((_, response) => void response.end('secret'))
    for (const target of [other.url, other.url.replace('127.0.0.1', 'localhost')]) {
      const fake = await serve((_, response) => void response.writeHead(302, { location: target }).end())
      await assert.rejects(openBlob(remoteTo(fake), name, sha256('x')), fails('ADDRESS_REFUSED', /may not lead to/))
    }
    assert.deepEqual(other.asked, [])
  })

  it('of what is written are not followed to another host, and none in circles', async () => {
    const other = await serve((_, response) => void response.end())
    const fake = await serve((_, response) => void response.writeHead(307, { location: other.url }).end())
    const manifest = { mediaType: 'a/b', bytes: Buffer.from('{}') }
    const remote = remoteTo(fake, { hosts: [other.host] })
    await assert.rejects(putManifest(remote, name, 'x', manifest), fails('REMOTE_DENIED', /sends what is written on/))
    assert.deepEqual(other.asked, [])
    const circle = await serve((_, response) => void response.writeHead(302, { location: '/again' }).end())
    await assert.rejects(openBlob(remoteTo(circle), name, sha256('x')), fails('REMOTE_INVALID', /circles/))
  })
})

describe('credentials', () => {
  /** A registry that wants tokens of this service, of which each is good for `uses` requests. */
  async function withTokens(realm: (self: Fake) => string, uses = 100): Promise<Fake> {
    let tokens = 0
    let left = 0
    const fake: Fake = await serve((request, response) => {
      if (request.url?.startsWith('/token')) {
        left = uses
        return void response.end(JSON.stringify({ token: `t${++tokens}`, expires_in: 300 }))
      }
      if (request.headers.authorization === `Bearer t${tokens}` && left-- > 0) return void response.end('{"tags":[]}')
      const challenge = `Bearer realm="${realm(fake)}",service="reg,istry",scope="repository:some/app:pull"`
      response.writeHead(401, { 'www-authenticate': challenge }).end()
    })
    return fake
  }

  it('are given for a token, which is used until it is good no more', async () => {
    const fake = await withTokens((self) => `${self.url}/token`, 2)
    const remote = remoteTo(fake, { credentials })
    for (let i = 0; i < 3; i++) await listTags(remote, name)
    const token = 'GET /token?service=reg%2Cistry&scope=repository%3Asome%2Fapp%3Apull'
    const tags = 'GET /v2/some/app/tags/list?n=1000'
    assert.deepEqual(fake.asked, [tags, token, tags, tags, tags, token, tags])
    assert.deepEqual(fake.authorizations, [undefined, basic, 'Bearer t1', 'Bearer t1', 'Bearer t1', basic, 'Bearer t2'])
  })

  it('are not given to a token service on another host, unless it is named', async () => {
    const service = await serve((_, response) => void response.end('{"token":"t0"}'))
    const fake = await withTokens(() => `${service.url}/token`)
    await assert.rejects(listTags(remoteTo(fake, { credentials }), name), fails('REMOTE_DENIED', /name it in hosts/))
    assert.deepEqual(service.asked, [])
    await assert.rejects(
      listTags(remoteTo(fake, { credentials, hosts: [service.host] }), name),
      fails('REMOTE_DENIED', /401/),
    )
    assert.deepEqual(service.authorizations, [basic])
  })

  it('do not make tokens pile up, for however many repositories there are', async () => {
    const fake = await serve(({ url = '', headers }, response) => {
      if (url.startsWith('/token')) return void response.end('{"token":"t","expires_in":3600}')
      if (headers.authorization) return void response.writeHead(404).end()
      response.writeHead(401, { 'www-authenticate': `Bearer realm="${fake.url}/token",service="s"` }).end()
    })
    const remote = remoteTo(fake)
    const before = { header: 'Bearer before', until: Number.POSITIVE_INFINITY }
    for (let i = 0; i < 500; i++) remote.tokens.set(`repository:before-${i}:pull`, before)
    for (let i = 0; i < 3; i++) await blobSize(remote, `some/app-${i}` as RepositoryName, sha256('x'))
    assert.equal(remote.tokens.size, 500)
    assert.equal(remote.tokens.has('repository:some/app-2:pull'), true)
  })

  it('that are no good are said to be', async () => {
    const fake = await serve((_, response) => void response.writeHead(401, { 'www-authenticate': 'Basic' }).end())
    await assert.rejects(listTags(remoteTo(fake, { credentials }), name), fails('REMOTE_DENIED', /wants credentials/))
    await assert.rejects(listTags(remoteTo(fake), name), fails('REMOTE_DENIED', /wants credentials/))
    assert.equal(fake.asked.length, 3)
  })

  it('are asked for in challenges as RFC 9110 writes them', () => {
    assert.deepEqual(
      parseChallenges('Basic realm="a \\"b\\"", Bearer realm="https://a/t" , service=x,scope="a:b:c d"'),
      [
        { scheme: 'basic', parameters: { realm: 'a "b"' } },
        { scheme: 'bearer', parameters: { realm: 'https://a/t', service: 'x', scope: 'a:b:c d' } },
      ],
    )
    assert.deepEqual(parseChallenges(undefined), [])
  })
})

describe('answers', () => {
  it('of a server that is busy are waited for as it says', async () => {
    let busy = 2
    const fake = await serve((_, response) => {
      if (busy-- > 0) return void response.writeHead(busy ? 429 : 503, { 'retry-after': '0' }).end()
      response.end('{"tags":["a"]}')
    })
    assert.deepEqual(await listTags(remoteTo(fake), name), ['a'])
    assert.equal(fake.asked.length, 3)
    const never = await serve((_, response) => void response.writeHead(429, { 'retry-after': '86400' }).end())
    await assert.rejects(listTags(remoteTo(never), name), fails('REMOTE_UNREACHABLE', /answers 429/))
    assert.equal(never.asked.length, 1)
  })

  it('that lie about a digest are not believed', async () => {
    const body = '{"schemaVersion":2}'
    const fake = await serve((_, response) => {
      response.writeHead(200, { 'content-type': 'a/b', 'docker-content-digest': sha256('other') }).end(body)
    })
    for (const reference of ['tag', sha256('other'), sha256('third')])
      await assert.rejects(getManifest(remoteTo(fake), name, reference), fails('REMOTE_INVALID', /whose digest is/))
    assert.equal((await getManifest(remoteTo(fake), name, sha256(body)))?.digest, sha256(body))
  })

  it('without an end are not read to the end', async () => {
    const fake = await serve((_, response) => {
      const more = () => void (response.destroyed || response.write(Buffer.alloc(65_536), more))
      more()
    })
    await assert.rejects(getManifest(remoteTo(fake), name, 'tag'), fails('REMOTE_INVALID', /more than 4194304 bytes/))
  })

  it('in pages are read page by page', async () => {
    const fake = await serve(({ url = '' }, response) => {
      if (!url.includes('last=b')) response.writeHead(200, { link: '</v2/some/app/tags/list?last=b&n=2>; rel="next"' })
      response.end(url.includes('last=b') ? '{"tags":["c"]}' : '{"tags":["a","b","no tag"]}')
    })
    assert.deepEqual(await listTags(remoteTo(fake), name), ['a', 'b', 'c'])
  })

  it('in pages are no list where a part of it is elsewhere, or not there', async () => {
    const other = await serve((_, response) => void response.end('{"tags":["evil"]}'))
    const leaving = await serve((_, response) => {
      response.writeHead(200, { link: `<${other.url}/v2/x>; rel="next"` }).end('{"tags":["a"]}')
    })
    const elsewhere = listTags(remoteTo(leaving, { hosts: [other.host] }), name)
    await assert.rejects(elsewhere, fails('REMOTE_INVALID', new RegExp(`a next page at ${other.url}`)))
    assert.deepEqual(other.asked, [])
    const broken = await serve(({ url = '' }, response) => {
      if (url.includes('last=a')) return void response.writeHead(404).end()
      response.writeHead(200, { link: '</v2/some/app/tags/list?last=a>; rel="next"' }).end('{"tags":["a"]}')
    })
    await assert.rejects(listTags(remoteTo(broken), name), fails('REMOTE_INVALID', /a next page that is not there/))
  })

  it('in pages that do not end are given up: a page that comes again, too many, or too much', async () => {
    const again = await serve(({ url = '' }, response) => {
      const next = url.includes('last=b') ? 'last=a' : 'last=b'
      response.writeHead(200, { link: `</v2/some/app/tags/list?${next}>; rel="next"` }).end('{"tags":["a"]}')
    })
    await assert.rejects(listTags(remoteTo(again), name), fails('REMOTE_INVALID', /a next page that was read before/))
    assert.equal(again.asked.length, 3)
    const filler = Buffer.alloc(12 * 1024 * 1024, ' ')
    const large = await serve((_, response) => {
      const link = `</v2/_catalog?last=${large.asked.length}>; rel="next"`
      response.writeHead(200, { link }).write('{"repositories":[')
      response.write(filler)
      response.end(']}')
    })
    await assert.rejects(
      listRepositories(remoteTo(large)),
      fails('REMOTE_INVALID', /more than 67108864 bytes together/),
    )
    assert.equal(large.asked.length, 6)
    const many = await serve((_, response) => {
      const link = `</v2/some/app/referrers/x?last=${many.asked.length}>; rel="next"`
      response.writeHead(200, { link }).end('{"manifests":[]}')
    })
    const referrers = listReferrers(remoteTo(many), name, sha256('s'))
    await assert.rejects(referrers, fails('REMOTE_INVALID', /more than 10000 pages/))
    assert.equal(many.asked.length, 10_000)
  })

  it('that are missing are so: no repository, no catalog, no referrers but by the fallback tag', async () => {
    const index = JSON.stringify({ manifests: [{ mediaType: 'a/b', digest: sha256('r'), size: 1 }, { broken: true }] })
    const fake = await serve(({ url = '' }, response) => {
      if (url.endsWith(`/manifests/${sha256('s').replace(':', '-')}`)) return void response.end(index)
      response.writeHead(404).end()
    })
    const remote = remoteTo(fake)
    assert.equal(await listTags(remote, name), undefined)
    await assert.rejects(listRepositories(remote), fails('REMOTE_REFUSED', /name the packs/))
    const { referrers, api } = await listReferrers(remote, name, sha256('s'))
    assert.deepEqual([referrers.map(({ digest }) => digest), api], [[sha256('r')], false])
  })
})

describe('bodies', () => {
  const slowest = { bytesPerSecond: 1_000_000_000, waitedMs: 20 }

  it('that come byte by byte are given up, once and in words', async () => {
    const fake = await serve((_, response) => {
      response.writeHead(200, { 'content-length': 1_000_000, 'content-type': 'a/b' })
      const drip = setInterval(() => response.write('x'), 5)
      response.on('close', () => clearInterval(drip))
    })
    const remote = remoteTo(fake, { slowest })
    const slow = fails('REMOTE_INVALID', /sends \/v2\/some\/app\/\S+ too slowly: less than 1000000000 bytes a second/)
    await assert.rejects(getManifest(remote, name, sha256('x')), slow)
    await assert.rejects(openBlob(remote, name, sha256('x')).then(bytesOf), slow)
    assert.equal(fake.asked.length, 2)
  })

  it('count as slow by the time they are waited for, and not by what their reader takes', async () => {
    const least = { bytesPerSecond: 1000, waitedMs: 1000 }
    const read = async ({ toCome, toRead, bytes }: { toCome: number; toRead: number; bytes: number }) => {
      let now = 0
      const pieces = async function* () {
        for (let i = 0; i < 20; i++) {
          now += toCome
          yield Buffer.alloc(bytes)
        }
      }
      let count = 0
      const tooSlow = () => new Error(`after ${count}`)
      for await (const _ of steady(pieces(), least, tooSlow, () => now)) {
        now += toRead
        count++
      }
      return count
    }
    assert.equal(await read({ toCome: 1, toRead: 100_000, bytes: 1 }), 20)
    assert.equal(await read({ toCome: 500, toRead: 0, bytes: 500 }), 20)
    await assert.rejects(read({ toCome: 500, toRead: 0, bytes: 499 }), /after 1$/)
    await assert.rejects(read({ toCome: 60_000, toRead: 1, bytes: 1 }), /after 0$/)
  })

  it('that only a length is told of leave the connection to the next request', async () => {
    const fake = await serve((_, response) => void response.writeHead(200, { 'content-length': 1_000_000 }).end())
    const remote = remoteTo(fake)
    for (let i = 0; i < 5; i++) assert.equal(await blobSize(remote, name, sha256('x')), 1_000_000)
    // The next is asked before the first connection is free again.
    assert.ok(fake.connections <= 2, `${fake.connections} connections`)
  })

  it('that never begin, be it that something comes all the time, are given up', async () => {
    const fake = await serve((_, response) => {
      const drip = setInterval(() => response.writeProcessing(), 5)
      response.on('close', () => clearInterval(drip))
    })
    const remote = remoteTo(fake, { headMs: 20 })
    const never = fails('REMOTE_INVALID', /does not begin to answer \/v2\/some\/app\/\S+ within 0.02 seconds/)
    await assert.rejects(getManifest(remote, name, sha256('x')), never)
    assert.equal(fake.asked.length, 1)
  })

  it('that nobody needs are cut where they do not end soon', async () => {
    const fake = await serve((_, response) => void response.writeHead(404, { 'content-length': 1000 }).write('x'))
    const answer = await exchange(remoteTo(fake), new URL(fake.url), { method: 'GET', headers: {} })
    discard(answer, 20)
    await new Promise((resolve) => answer.once('close', resolve))
    assert.equal(answer.complete, false)
  })
})

describe('uploads', () => {
  /** A registry that takes uploads; `cut` drops the connection after so many bytes of all PATCHes. */
  async function taker({ cut = Number.POSITIVE_INFINITY } = {}) {
    const got: Buffer[] = []
    let size = 0
    let left = cut
    const ranges: string[] = []
    let busy = 0
    const fake = await serve((request, response) => {
      busy++
      response.on('close', () => busy--)
      const where = { location: `/upload/${size}?state=a%2Bb` }
      if (request.method === 'POST') return void response.writeHead(202, { location: '/upload/0?state=a%2Bb' }).end()
      if (request.method === 'HEAD') return void response.writeHead(404).end()
      if (request.method === 'GET')
        return void response.writeHead(204, { ...where, range: `0-${Math.max(0, size - 1)}` }).end()
      if (request.method === 'PATCH') ranges.push(String(request.headers['content-range']))
      request.on('data', (piece: Buffer) => {
        const taken = piece.subarray(0, Math.min(piece.length, left))
        got.push(taken)
        size += taken.length
        left -= taken.length
        if (left > 0) return
        left = Number.POSITIVE_INFINITY
        request.destroy()
      })
      request.on('end', () => {
        const status = request.method === 'PATCH' ? 202 : 201
        response.writeHead(status, { location: `/upload/${size}?state=a%2Bb` }).end()
      })
    })
    const idle = () => waitFor('the requests to end', () => busy === 0)
    return { fake, ranges, bytes: () => Buffer.concat(got), taken: () => size, idle }
  }

  const content = randomBytes(40 * 1024 * 1024)
  const source = {
    digest: sha256(content),
    size: content.length,
    async *open({ first, last }: { first: number; last: number }) {
      for (let at = first; at <= last; at += 65_536) yield content.subarray(at, Math.min(at + 65_536, last + 1))
    },
  }

  it('that are large go in chunks, and on from where they were cut', async () => {
    const { fake, ranges, bytes } = await taker({ cut: 20_000_000 })
    const sessions: string[] = []
    const outcome = await uploadBlob(remoteTo(fake), name, source, {
      onSession: async (session) => void sessions.push(session),
    })
    assert.deepEqual([outcome, sha256(bytes())], ['sent', source.digest])
    assert.deepEqual(sessions, [`${fake.url}/upload/0?state=a%2Bb`])
    assert.deepEqual(ranges, ['0-16777215', '16777216-33554431', '20000000-36777215', '36777216-41943039'])
    assert.match(fake.asked.at(-1) ?? '', /^PUT \/upload\/41943040\?state=a%2Bb&digest=sha256%3A/)
  })

  it('that an earlier process began are taken up again', async () => {
    const { fake, ranges, bytes, taken, idle } = await taker()
    const ended = new AbortController()
    let session = ''
    const slow = {
      ...source,
      async *open(range: { first: number; last: number }) {
        for await (const piece of source.open(range)) {
          if (taken() > 18_000_000) ended.abort(new Error('this process ends'))
          yield piece
        }
      },
    }
    const onSession = async (text: string) => {
      session = text
    }
    const first = uploadBlob(remoteTo(fake), name, slow, { onSession, signal: ended.signal })
    await assert.rejects(first, /this process ends/)
    await idle()
    const reached = bytes().length
    await uploadBlob(remoteTo(fake), name, source, { session })
    assert.equal(sha256(bytes()), source.digest)
    assert.ok(ranges[2]?.startsWith(`${reached}-`), ranges.join(' '))
  })

  it('are given up where they are not taken', async () => {
    const fake = await serve((request, response) => {
      if (request.method === 'HEAD') return void response.writeHead(404).end()
      if (request.method === 'POST') return void response.writeHead(202, { location: '/upload' }).end()
      request.pause()
    })
    const slowest = { bytesPerSecond: 1_000_000_000, waitedMs: 200 }
    const ended = new AbortController()
    const giveUp = setTimeout(() => ended.abort(new Error('it goes on and on')), 20_000)
    const sent = uploadBlob(remoteTo(fake, { slowest }), name, source, { signal: ended.signal })
    await assert.rejects(sent, fails('REMOTE_INVALID', /takes what is sent to \/upload too slowly/))
    clearTimeout(giveUp)
  })

  it('are given up where what was taken is lost again and again', async () => {
    let patches = 0
    const fake = await serve((request, response) => {
      if (request.method === 'HEAD') return void response.writeHead(404).end()
      if (request.method === 'GET') return void response.writeHead(204, { location: '/upload', range: '0-0' }).end()
      request.resume().on('end', () => {
        const status = request.method === 'PATCH' && ++patches % 2 === 0 ? 503 : 202
        response.writeHead(status, { location: '/upload' }).end()
      })
    })
    const ended = new AbortController()
    const giveUp = setTimeout(() => ended.abort(new Error('it goes on and on')), 20_000)
    const sent = uploadBlob(remoteTo(fake), name, source, { signal: ended.signal })
    await assert.rejects(sent, fails('REMOTE_UNREACHABLE', /answers 503 to PATCH/))
    clearTimeout(giveUp)
  })

  it('that are small go whole; what is elsewhere there is mounted, and else the session is given back', async () => {
    const small = {
      digest: sha256('small'),
      size: 5,
      async *open() {
        yield Buffer.from('small')
      },
    }
    const { fake, bytes } = await taker()
    await uploadBlob(remoteTo(fake), name, small)
    assert.deepEqual([String(bytes()), fake.asked.length], ['small', 2])
    let status = 201
    const mounting = await serve((request, response) => {
      if (request.url?.includes('mount=')) response.writeHead(status, { location: '/upload/1' }).end()
      else if (request.method === 'POST') response.writeHead(202, { location: '/upload/2' }).end()
      else request.resume().on('end', () => response.writeHead(request.method === 'PUT' ? 201 : 204).end())
    })
    const from = 'other/app' as RepositoryName
    assert.equal(await uploadBlob(remoteTo(mounting), name, small, { from }), 'mounted')
    assert.deepEqual(mounting.asked, [
      `POST /v2/some/app/blobs/uploads/?mount=${encodeURIComponent(small.digest)}&from=other%2Fapp`,
    ])
    status = 202
    assert.equal(await uploadBlob(remoteTo(mounting), name, small, { from }), 'sent')
    assert.deepEqual(
      mounting.asked.slice(2).map((line) => line.split('?')[0]),
      ['DELETE /upload/1', 'POST /v2/some/app/blobs/uploads/', 'PUT /upload/2'],
    )
  })
})
