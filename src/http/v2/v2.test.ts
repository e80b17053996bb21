import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import type { BlobStore } from '../../blobs/store.ts'
import { digestOf } from '../../oci/digest.ts'
import { startDatabases, type TestDatabases } from '../../testing/database.ts'
import {
  codeOf,
  type Descriptor,
  emptyConfig,
  imageType,
  indexType,
  sampleManifest,
  startRegistry,
  type TestRegistry,
} from '../../testing/registry.ts'
import { waitFor } from '../../testing/wait.ts'

let databases: TestDatabases
let registry: TestRegistry
before(async () => {
  databases = await startDatabases()
  registry = await startRegistry(await databases.fresh())
})
after(async () => {
  await registry?.stop()
  await databases?.stop()
})

const unknown = digestOf(Buffer.from('never pushed'))
const octets = { 'content-type': 'application/octet-stream' }
const json = (document: unknown) => JSON.stringify(document)

async function newUpload(repository: string): Promise<string> {
  const answer = await registry.call('POST', `/v2/${repository}/blobs/uploads/`)
  assert.equal(answer.status, 202)
  return answer.headers.get('location') ?? ''
}

describe('refusals', () => {
  const cases: {
    name: string
    method?: string
    path: string
    body?: string
    headers?: Record<string, string>
    status: number
    code: string
  }[] = [
    { name: 'a bad name', path: '/v2/Bad/tags/list', status: 400, code: 'NAME_INVALID' },
    { name: 'a name with an empty part', path: '/v2/a//b/tags/list', status: 400, code: 'NAME_INVALID' },
    { name: 'a name that climbs', path: '/v2/a/%2e%2e/b/manifests/x', status: 404, code: 'MANIFEST_UNKNOWN' },
    { name: 'an encoded slash in a bad name', path: '/v2/a%2F%2Fb/tags/list', status: 400, code: 'NAME_INVALID' },
    { name: 'a digest that is not hex', path: '/v2/a/blobs/sha256:zz', status: 400, code: 'DIGEST_INVALID' },
    { name: 'a digest that climbs', path: '/v2/a/blobs/sha256:..%2f..%2fetc', status: 400, code: 'DIGEST_INVALID' },
    { name: 'an unknown blob', path: `/v2/a/blobs/${unknown}`, status: 404, code: 'BLOB_UNKNOWN' },
    { name: 'an unknown tag', path: '/v2/a/manifests/none', status: 404, code: 'MANIFEST_UNKNOWN' },
    { name: 'a tag that cannot be one', path: '/v2/a/manifests/.none', status: 404, code: 'MANIFEST_UNKNOWN' },
    { name: 'an unknown manifest', path: `/v2/a/manifests/${unknown}`, status: 404, code: 'MANIFEST_UNKNOWN' },
    { name: 'a malformed manifest digest', path: '/v2/a/manifests/sha256:x', status: 400, code: 'DIGEST_INVALID' },
    { name: 'an unknown repository', path: '/v2/never/seen/tags/list', status: 404, code: 'NAME_UNKNOWN' },
    { name: 'a page size that is no number', path: '/v2/a/tags/list?n=x', status: 400, code: 'QUERY_INVALID' },
    { name: 'a negative page size', path: '/v2/_catalog?n=-1', status: 400, code: 'QUERY_INVALID' },
    { name: 'referrers of no digest', path: '/v2/a/referrers/latest', status: 400, code: 'DIGEST_INVALID' },
    { name: 'an unknown path', path: '/v2/nothing-here', status: 404, code: 'NOT_FOUND' },
    { name: 'a wrong method', method: 'POST', path: '/v2/a/tags/list', status: 405, code: 'UNSUPPORTED' },
    { name: 'PATCH of a manifest', method: 'PATCH', path: '/v2/a/manifests/x', status: 405, code: 'UNSUPPORTED' },
    {
      name: 'an unknown session',
      method: 'PATCH',
      path: '/v2/a/blobs/uploads/00000000-0000-4000-8000-000000000000',
      body: 'x',
      status: 404,
      code: 'BLOB_UPLOAD_UNKNOWN',
    },
    {
      name: 'a session that is no id',
      method: 'PATCH',
      path: '/v2/a/blobs/uploads/x',
      body: 'x',
      status: 404,
      code: 'BLOB_UPLOAD_UNKNOWN',
    },
    {
      name: 'an unknown digest algorithm',
      method: 'POST',
      path: '/v2/a/blobs/uploads/?digest-algorithm=md5',
      status: 400,
      code: 'DIGEST_INVALID',
    },
    {
      name: 'a bad digest on POST',
      method: 'POST',
      path: '/v2/a/blobs/uploads/?digest=sha256:zz',
      status: 400,
      code: 'DIGEST_INVALID',
    },
    {
      name: 'content with another digest',
      method: 'POST',
      path: `/v2/a/blobs/uploads/?digest=${unknown}`,
      body: 'other',
      status: 400,
      code: 'DIGEST_INVALID',
    },
    {
      name: 'a manifest that is no JSON',
      method: 'PUT',
      path: '/v2/a/manifests/x',
      body: '{',
      headers: { 'content-type': imageType },
      status: 400,
      code: 'MANIFEST_INVALID',
    },
    {
      name: 'a manifest under a bad tag',
      method: 'PUT',
      path: '/v2/a/manifests/a+b',
      body: '{}',
      status: 400,
      code: 'TAG_INVALID',
    },
    {
      name: 'a manifest under another digest',
      method: 'PUT',
      path: `/v2/a/manifests/${unknown}`,
      body: '{}',
      status: 400,
      code: 'DIGEST_INVALID',
    },
    {
      name: 'a manifest without its blobs',
      method: 'PUT',
      path: '/v2/a/manifests/x',
      body: json({ layers: [{ mediaType: 'a/b', digest: unknown, size: 1 }] }),
      headers: { 'content-type': imageType },
      status: 400,
      code: 'MANIFEST_BLOB_UNKNOWN',
    },
    {
      name: 'too many tags at once',
      method: 'PUT',
      path: `/v2/a/manifests/${unknown}?${'tag=a&'.repeat(101)}`,
      body: '{}',
      status: 414,
      code: 'TOO_MANY_TAGS',
    },
    {
      name: 'deleting an unknown tag',
      method: 'DELETE',
      path: '/v2/a/manifests/none',
      status: 404,
      code: 'MANIFEST_UNKNOWN',
    },
    {
      name: 'deleting an unknown blob',
      method: 'DELETE',
      path: `/v2/a/blobs/${unknown}`,
      status: 404,
      code: 'BLOB_UNKNOWN',
    },
  ]
  for (const { name, method = 'GET', path, body, headers, status, code } of cases)
    it(`answers ${name} with ${status} ${code}`, async () => {
      const answer = await registry.call(method, path, { ...(body ? { body } : {}), ...(headers ? { headers } : {}) })
      assert.equal(answer.status, status)
      assert.equal(answer.headers.get('docker-distribution-api-version'), 'registry/2.0')
      assert.equal(await codeOf(answer), code)
    })
  it('names the allowed methods in a 405', async () => {
    const answer = await registry.call('POST', '/v2/a/manifests/x')
    assert.equal(answer.headers.get('allow'), 'HEAD, GET, PUT, DELETE')
  })
})

describe('names that look like paths of the API', () => {
  for (const name of ['blobs', 'tags/list', 'x/blobs/uploads', 'manifests/a', 'referrers', 'a/manifests/b/blobs'])
    it(`keeps ${name} apart`, async () => {
      const pushed = await registry.pushManifest(name, 'v1')
      const answer = await registry.call('GET', `/v2/${name}/manifests/v1`)
      assert.equal(answer.headers.get('docker-content-digest'), pushed.digest)
      const list = await registry.call('GET', `/v2/${name}/tags/list`)
      assert.deepEqual(await list.json(), { name, tags: ['v1'] })
    })
})

describe('blobs', () => {
  const bytes = Buffer.from('0123456789'.repeat(20_000))
  let blob: Descriptor
  before(async () => {
    blob = await registry.pushBlob('pull/blobs', bytes)
  })

  it('answers GET and HEAD with the same fields', async () => {
    const get = await registry.call('GET', `/v2/pull/blobs/blobs/${blob.digest}`)
    const head = await registry.call('HEAD', `/v2/pull/blobs/blobs/${blob.digest}`)
    assert.equal(head.status, 200)
    assert.deepEqual(Buffer.from(await get.arrayBuffer()), bytes)
    for (const field of ['content-length', 'content-type', 'docker-content-digest', 'etag', 'accept-ranges'])
      assert.equal(head.headers.get(field), get.headers.get(field), field)
    assert.equal(get.headers.get('content-length'), String(bytes.length))
    assert.equal(get.headers.get('content-type'), 'application/octet-stream')
  })
  it('takes an encoded colon', async () => {
    const answer = await registry.call('GET', `/v2/pull/blobs/blobs/${blob.digest.replace(':', '%3A')}`)
    assert.equal(answer.status, 200)
    await answer.body?.cancel()
  })
  it('answers 304 to whom has it', async () => {
    const headers = { 'if-none-match': `"other", "${blob.digest}"` }
    assert.equal((await registry.call('GET', `/v2/pull/blobs/blobs/${blob.digest}`, { headers })).status, 304)
  })
  const ranges: [string, number, string, string | undefined][] = [
    ['bytes=0-9', 206, '0123456789', 'bytes 0-9/200000'],
    ['bytes=199995-', 206, '56789', 'bytes 199995-199999/200000'],
    ['bytes=-3', 206, '789', 'bytes 199997-199999/200000'],
    ['bytes=199999-300000', 206, '9', 'bytes 199999-199999/200000'],
  ]
  for (const [range, status, text, contentRange] of ranges)
    it(`serves ${range}`, async () => {
      const answer = await registry.call('GET', `/v2/pull/blobs/blobs/${blob.digest}`, { headers: { range } })
      assert.equal(answer.status, status)
      assert.equal(answer.headers.get('content-range'), contentRange)
      assert.equal(await answer.text(), text)
    })
  it('answers 416 with the size', async () => {
    const answer = await registry.call('GET', `/v2/pull/blobs/blobs/${blob.digest}`, {
      headers: { range: 'bytes=200000-' },
    })
    assert.equal(answer.status, 416)
    assert.equal(answer.headers.get('content-range'), 'bytes */200000')
  })
  it('serves several ranges as the whole', async () => {
    const answer = await registry.call('GET', `/v2/pull/blobs/blobs/${blob.digest}`, {
      headers: { range: 'bytes=0-1,5-6' },
    })
    assert.equal(answer.status, 200)
    assert.equal((await answer.arrayBuffer()).byteLength, bytes.length)
  })
  it('serves the whole where If-Range names other content', async () => {
    const answer = await registry.call('GET', `/v2/pull/blobs/blobs/${blob.digest}`, {
      headers: { range: 'bytes=0-1', 'if-range': '"other"' },
    })
    assert.equal(answer.status, 200)
    await answer.body?.cancel()
  })
  it('is not readable by its digest from another repository', async () => {
    assert.equal((await registry.call('GET', `/v2/pull/other/blobs/${blob.digest}`)).status, 404)
    assert.equal((await registry.call('HEAD', `/v2/pull/other/blobs/${blob.digest}`)).status, 404)
  })
  it('keeps the empty blob', async () => {
    const empty = await registry.pushBlob('pull/blobs', '')
    const answer = await registry.call('GET', `/v2/pull/blobs/blobs/${empty.digest}`)
    assert.equal(answer.headers.get('content-length'), '0')
    assert.equal(await answer.text(), '')
  })
  it('deletes one that no manifest needs, and refuses one that a manifest needs', async () => {
    const free = await registry.pushBlob('delete/blobs', 'free')
    assert.equal((await registry.call('DELETE', `/v2/delete/blobs/blobs/${free.digest}`)).status, 202)
    assert.equal((await registry.call('GET', `/v2/delete/blobs/blobs/${free.digest}`)).status, 404)
    await registry.pushManifest('delete/blobs', 'v1')
    const refused = await registry.call('DELETE', `/v2/delete/blobs/blobs/${emptyConfig.digest}`)
    assert.equal(refused.status, 409)
    assert.equal(await codeOf(refused), 'DENIED')
    await registry.call('DELETE', '/v2/delete/blobs/manifests/v1')
    assert.equal((await registry.call('HEAD', `/v2/delete/blobs/blobs/${emptyConfig.digest}`)).status, 200)
  })
})

describe('uploads', () => {
  for (const size of [0, 10, 70_000, 3_000_000])
    it(`takes ${size} bytes by POST and PUT, by PATCH, in chunks, and again`, async () => {
      const bytes = Buffer.alloc(size, `content of ${size}`)
      const digest = digestOf(bytes)
      const check = async (repository: string) => {
        const answer = await registry.call('GET', `/v2/${repository}/blobs/${digest}`)
        assert.equal(answer.status, 200)
        assert.equal(digestOf(Buffer.from(await answer.arrayBuffer())), digest)
      }
      for (const again of ['', '-again']) {
        const whole = await newUpload(`up/whole${again}`)
        const put = await registry.call('PUT', `${whole}?digest=${digest}`, { body: bytes, headers: octets })
        assert.equal(put.status, 201)
        assert.equal(put.headers.get('docker-content-digest'), digest)
        assert.equal(put.headers.get('location'), `/v2/up/whole${again}/blobs/${digest}`)
        await check(`up/whole${again}`)

        const patched = await newUpload(`up/patched${again}`)
        const patch = await registry.call('PATCH', patched, { body: new Blob([bytes]).stream(), headers: octets })
        assert.equal(patch.status, 202)
        assert.equal(patch.headers.get('range'), `0-${Math.max(0, size - 1)}`)
        assert.equal((await registry.call('PUT', `${patched}?digest=${digest}`)).status, 201)
        await check(`up/patched${again}`)

        const chunked = await newUpload(`up/chunked${again}`)
        const third = Math.ceil(size / 3)
        for (let from = 0; from < size; from += third) {
          const to = Math.min(from + third, size)
          const last = to === size
          const answer = await registry.call(last ? 'PUT' : 'PATCH', last ? `${chunked}?digest=${digest}` : chunked, {
            body: bytes.subarray(from, to),
            headers: { ...octets, 'content-range': `${from}-${to - 1}` },
          })
          assert.equal(answer.status, last ? 201 : 202)
        }
        if (size === 0) assert.equal((await registry.call('PUT', `${chunked}?digest=${digest}`)).status, 201)
        await check(`up/chunked${again}`)
      }
    })

  it('takes content by its sha512', async () => {
    const bytes = Buffer.from('by sha512')
    const digest = digestOf(bytes, 'sha512')
    const started = await registry.call('POST', '/v2/up/sha512/blobs/uploads/?digest-algorithm=sha512')
    const location = started.headers.get('location') ?? ''
    await registry.call('PATCH', location, { body: bytes })
    assert.equal((await registry.call('PUT', `${location}?digest=${digest}`)).status, 201)
    assert.equal(await (await registry.call('GET', `/v2/up/sha512/blobs/${digest}`)).text(), 'by sha512')
  })
  it('tells where an upload stands, and refuses a chunk that starts elsewhere without losing the session', async () => {
    const location = await newUpload('up/order')
    const none = await registry.call('GET', location)
    assert.equal(none.status, 204)
    assert.equal(none.headers.get('range'), '0-0')
    await registry.call('PATCH', location, { body: 'abc', headers: { 'content-range': '0-2' } })
    for (const range of ['0-2', '5-7']) {
      const early = await registry.call('PATCH', location, { body: 'def', headers: { 'content-range': range } })
      assert.equal(early.status, 416)
      assert.equal(early.headers.get('range'), '0-2')
      assert.ok(location.startsWith(early.headers.get('location') ?? 'nowhere'))
      const digest = digestOf(Buffer.from('abcdef'))
      assert.equal(
        (
          await registry.call('PUT', `${location}?digest=${digest}`, {
            body: 'def',
            headers: { 'content-range': range },
          })
        ).status,
        416,
      )
    }
    assert.equal((await registry.call('GET', `${location}?digest=${unknown}`)).headers.get('range'), '0-2')
    await registry.call('PATCH', location, { body: 'def', headers: { 'content-range': '3-5' } })
    const digest = digestOf(Buffer.from('abcdef'))
    assert.equal((await registry.call('PUT', `${location}?digest=${digest}`)).status, 201)
  })
  it('refuses a chunk beyond the ten thousandth, and closes the upload with those it has', async () => {
    const first = await registry.call('PATCH', await newUpload('up/many'), { body: 'a' })
    const location = first.headers.get('location') ?? ''
    // As if it had been sent 9,999 times.
    await registry.deps.db.sql`
      update uploads set "offset" = 9999, digest_so_far = null,
        chunks = (select jsonb_agg(first) from (select chunks -> 0 as first) one, generate_series(1, 9999))
      where repository = 'up/many'`
    const last = await registry.call('PATCH', location, { body: 'b', headers: { 'content-range': '9999-9999' } })
    assert.deepEqual([last.status, last.headers.get('range')], [202, '0-9999'])
    const refused = await registry.call('PATCH', location, { body: 'c' })
    assert.equal(refused.status, 400)
    assert.match(await refused.clone().text(), /at most 10000 chunks.*larger chunks/)
    assert.equal(await codeOf(refused), 'BLOB_UPLOAD_INVALID')
    assert.equal((await registry.call('GET', location)).headers.get('range'), '0-9999')
    const digest = digestOf(Buffer.from(`${'a'.repeat(9999)}bcd`))
    const closed = await registry.call('PUT', `${location}?digest=${digest}`, { body: 'cd' })
    assert.equal(closed.status, 201, await closed.text())
    assert.equal((await registry.call('GET', `/v2/up/many/blobs/${digest}`)).headers.get('content-length'), '10002')
  })

  it('refuses a chunk whose range and length differ', async () => {
    const location = await newUpload('up/order')
    const answer = await registry.call('PATCH', location, { body: 'abc', headers: { 'content-range': '0-9' } })
    assert.equal(answer.status, 400)
    assert.equal(await codeOf(answer), 'SIZE_INVALID')
    assert.equal((await registry.call('GET', location)).headers.get('range'), '0-0')
  })
  it('answers a repeated closing PUT with 201 again', async () => {
    const location = await newUpload('up/repeat')
    const digest = digestOf(Buffer.from('once'))
    for (let i = 0; i < 3; i++)
      assert.equal((await registry.call('PUT', `${location}?digest=${digest}`, { body: 'once' })).status, 201)
    assert.equal((await registry.call('PUT', `${location}?digest=${unknown}`, { body: 'once' })).status, 400)
  })
  for (const form of ['POST', 'PUT', 'PATCH'])
    it(`stores nothing of a wrong digest by ${form}`, async () => {
      const digest = digestOf(Buffer.from(`wanted by ${form}`))
      const location = await newUpload('up/wrong')
      if (form === 'PATCH') await registry.call('PATCH', location, { body: 'something else' })
      const path = form === 'POST' ? `/v2/up/wrong/blobs/uploads/?digest=${digest}` : `${location}?digest=${digest}`
      const answer = await registry.call(
        form === 'POST' ? 'POST' : 'PUT',
        path,
        form === 'PATCH' ? {} : { body: 'something else' },
      )
      assert.equal(answer.status, 400)
      assert.equal(await codeOf(answer), 'DIGEST_INVALID')
      assert.equal((await registry.call('HEAD', `/v2/up/wrong/blobs/${digest}`)).status, 404)
      assert.equal(
        (await registry.call('HEAD', `/v2/up/wrong/blobs/${digestOf(Buffer.from('something else'))}`)).status,
        404,
      )
    })
  it('cancels: the session is gone', async () => {
    const location = await newUpload('up/cancel')
    await registry.call('PATCH', location, { body: 'abc' })
    assert.equal((await registry.call('DELETE', location)).status, 204)
    for (const method of ['GET', 'DELETE', 'PATCH']) assert.equal((await registry.call(method, location)).status, 404)
  })
  it('belongs to its repository', async () => {
    const location = await newUpload('up/mine')
    assert.equal((await registry.call('GET', location.replace('up/mine', 'up/yours'))).status, 404)
  })
  it('makes one blob of many uploads of the same content at once', async () => {
    const bytes = Buffer.alloc(100_000, 'same')
    const digest = digestOf(bytes)
    const answers = await Promise.all(
      Array.from({ length: 16 }, async (_, i) => {
        const location = await newUpload(`up/race${i % 4}`)
        return registry.call('PUT', `${location}?digest=${digest}`, { body: bytes, headers: octets })
      }),
    )
    assert.deepEqual(
      answers.map((answer) => answer.status),
      new Array(16).fill(201),
    )
    const rows = await registry.deps.db.sql`select storage_key as key from blobs where digest = ${digest}`
    assert.equal(rows.length, 1)
    assert.equal(await registry.deps.blobs.size(rows[0]?.key), bytes.length)
  })
  it('lets one of two writers at the same offset win', async () => {
    const location = await newUpload('up/two')
    const chunk = (text: string) =>
      registry.call('PATCH', location, { body: text, headers: { 'content-range': '0-2' } })
    const statuses = (await Promise.all([chunk('abc'), chunk('xyz')])).map((answer) => answer.status).sort()
    assert.deepEqual(statuses, [202, 416])
    assert.equal((await registry.call('GET', location)).headers.get('range'), '0-2')
  })
  it('asks the later of two closing requests to try again, and answers it as the first then', async () => {
    const { blobs } = registry.deps
    let begun = 0
    const link: BlobStore['link'] = async (from, to) => {
      const isFirst = begun++ === 0
      if (isFirst) await waitFor('the other to be as far', () => begun === 2)
      else await waitFor('the first to have dropped the chunk', async () => (await blobs.size(from)) === undefined)
      return blobs.link(from, to)
    }
    registry.deps.blobs = Object.assign(Object.create(blobs) as BlobStore, { link })
    try {
      const location = await newUpload('up/closed-twice')
      assert.equal((await registry.call('PATCH', location, { body: 'closed twice', headers: octets })).status, 202)
      const close = () => registry.call('PUT', `${location}?digest=${digestOf(Buffer.from('closed twice'))}`)
      const answers = await Promise.all([close(), close()])
      const late = answers.find((answer) => answer.status !== 201)
      assert.deepEqual(answers.map((answer) => answer.status).sort(), [201, 503])
      assert.ok(Number(late?.headers.get('retry-after')) > 0)
      assert.equal((await close()).status, 201)
      assert.equal(begun, 2)
    } finally {
      registry.deps.blobs = blobs
    }
  })
})

describe('mounts', () => {
  it('links from a named repository, and from any', async () => {
    const blob = await registry.pushBlob('mount/source', 'to be mounted')
    for (const [to, query] of [
      ['mount/named', `mount=${blob.digest}&from=mount/source`],
      ['mount/any', `mount=${blob.digest}`],
    ] as const) {
      const answer = await registry.call('POST', `/v2/${to}/blobs/uploads/?${query}`)
      assert.equal(answer.status, 201)
      assert.equal(answer.headers.get('docker-content-digest'), blob.digest)
      assert.equal(await (await registry.call('GET', `/v2/${to}/blobs/${blob.digest}`)).text(), 'to be mounted')
    }
  })
  it('opens a session where there is nothing to mount, and that can be cancelled', async () => {
    const blob = await registry.pushBlob('mount/source', 'elsewhere')
    for (const query of [
      `mount=${unknown}`,
      `mount=${unknown}&from=mount/source`,
      `mount=${blob.digest}&from=mount/nowhere`,
      `mount=${blob.digest}&from=BAD//NAME`,
    ]) {
      const answer = await registry.call('POST', `/v2/mount/target/blobs/uploads/?${query}`)
      assert.equal(answer.status, 202)
      assert.equal((await registry.call('DELETE', answer.headers.get('location') ?? '')).status, 204)
    }
    assert.equal((await registry.call('HEAD', `/v2/mount/target/blobs/${blob.digest}`)).status, 404)
  })
})

describe('manifests', () => {
  it('keeps the bytes, the media type and the digest', async () => {
    await registry.pushBlob('m/bytes', '{}')
    const body = `{ "schemaVersion":2,\n\t"config":${json(emptyConfig)},"layers":[], "custom":"ä" }`
    const digest = digestOf(Buffer.from(body))
    for (const type of [imageType]) {
      const put = await registry.call('PUT', '/v2/m/bytes/manifests/v1', { body, headers: { 'content-type': type } })
      assert.equal(put.status, 201)
      assert.equal(put.headers.get('docker-content-digest'), digest)
      for (const reference of ['v1', digest])
        for (const method of ['GET', 'HEAD']) {
          const answer = await registry.call(method, `/v2/m/bytes/manifests/${reference}`, {
            headers: { accept: 'text/plain' },
          })
          assert.equal(answer.status, 200)
          assert.equal(answer.headers.get('content-type'), type)
          assert.equal(answer.headers.get('content-length'), String(Buffer.byteLength(body)))
          assert.equal(answer.headers.get('docker-content-digest'), digest)
          assert.equal(await answer.text(), method === 'GET' ? body : '')
        }
    }
  })
  it('answers many who ask in the same moment, each what they asked for', async () => {
    type Wanted = { path: string; status: number; bytes?: string }
    const wanted: Wanted[] = []
    const content = await registry.pushBlob('moment/one', 'of one alone')
    for (const repository of ['moment/one', 'moment/two']) {
      for (const tag of ['a', 'b']) {
        const manifest = sampleManifest({ annotations: { of: `${repository} ${tag}` } })
        const { digest } = await registry.pushManifest(repository, tag, manifest)
        const bytes = json(manifest)
        wanted.push({ path: `/v2/${repository}/manifests/${tag}`, status: 200, bytes })
        wanted.push({ path: `/v2/${repository}/manifests/${digest}`, status: 200, bytes })
        const other = repository === 'moment/one' ? 'moment/two' : 'moment/one'
        wanted.push({ path: `/v2/${other}/manifests/${digest}`, status: 404 })
      }
      const held = repository === 'moment/one'
      const path = `/v2/${repository}/blobs/${content.digest}`
      wanted.push(held ? { path, status: 200, bytes: 'of one alone' } : { path, status: 404 })
    }
    const asked = Array.from({ length: 600 }, (_, i) => ({
      ...(wanted[i % wanted.length] as Wanted),
      method: i % 3 === 0 ? 'HEAD' : 'GET',
    }))
    const told = await Promise.all(
      asked.map(async ({ method, path }) => {
        const answer = await registry.call(method, path)
        return [answer.status, answer.headers.get('content-length'), await answer.text()] as const
      }),
    )
    for (const [i, { method, path, status, bytes }] of asked.entries()) {
      const [answered, length, text] = told[i] ?? []
      assert.equal(answered, status, `${method} ${path}`)
      if (bytes === undefined) continue
      assert.equal(length, String(Buffer.byteLength(bytes)), `${method} ${path}`)
      assert.equal(text, method === 'HEAD' ? '' : bytes, `${method} ${path}`)
    }
  })
  it('follows a tag that moves and forgets one that is deleted, at once', async () => {
    const first = await registry.pushManifest('m/moves', 'edge')
    const second = await registry.pushManifest('m/moves', 'edge', sampleManifest({ annotations: { v: '2' } }))
    assert.notEqual(first.digest, second.digest)
    const get = () => registry.call('GET', '/v2/m/moves/manifests/edge')
    assert.equal((await get()).headers.get('docker-content-digest'), second.digest)
    await registry.pushManifest('m/moves', 'edge')
    assert.equal((await get()).headers.get('docker-content-digest'), first.digest)
    assert.equal((await registry.call('DELETE', '/v2/m/moves/manifests/edge')).status, 202)
    assert.equal((await get()).status, 404)
    assert.equal((await registry.call('GET', `/v2/m/moves/manifests/${first.digest}`)).status, 200)
    const rows = await registry.deps.db.sql`
      select h.manifest_digest as digest from tag_history h join repositories r on r.id = h.repository_id
      where r.name = 'm/moves' order by h.id`
    assert.deepEqual(
      rows.map((row) => row.digest),
      [first.digest, second.digest, first.digest, null],
    )
  })
  it('takes tags in the query and names each', async () => {
    await registry.pushBlob('m/tags', '{}')
    const body = json(sampleManifest())
    const digest = digestOf(Buffer.from(body), 'sha512')
    const query = Array.from({ length: 12 }, (_, i) => `tag=t${i}`).join('&')
    const put = await registry.call('PUT', `/v2/m/tags/manifests/${digest}?${query}`, {
      body,
      headers: { 'content-type': imageType },
    })
    assert.equal(put.status, 201)
    assert.equal(put.headers.get('oci-tag')?.split(', ').length, 12)
    const tagged = await registry.call('GET', '/v2/m/tags/manifests/t11')
    assert.equal(tagged.headers.get('docker-content-digest'), digest)
  })
  it('takes exactly 4 MiB, and no more, announced or not', async () => {
    await registry.pushBlob('m/large', '{}')
    const padding = (size: number) => {
      const bare = json(sampleManifest({ annotations: { pad: '' } }))
      return json(sampleManifest({ annotations: { pad: 'x'.repeat(size - bare.length) } }))
    }
    const put = (body: string | ReadableStream) =>
      registry.call('PUT', '/v2/m/large/manifests/v1', { body, headers: { 'content-type': imageType } })
    assert.equal((await put(padding(4 * 1024 * 1024))).status, 201)
    assert.equal((await put(padding(4 * 1024 * 1024 + 1))).status, 413)
    assert.equal((await put(new Blob([padding(4 * 1024 * 1024 + 1)]).stream())).status, 413)
    assert.equal(
      (await (await registry.call('GET', '/v2/m/large/manifests/v1')).arrayBuffer()).byteLength,
      4 * 1024 * 1024,
    )
  })
  it('names the blobs that are missing', async () => {
    const missing = [unknown, digestOf(Buffer.from('also not there'))]
    await registry.pushBlob('m/missing', '{}')
    const layers = missing.map((digest) => ({ mediaType: 'a/b', digest, size: 1 }))
    const answer = await registry.call('PUT', '/v2/m/missing/manifests/v1', {
      body: json(sampleManifest({ layers })),
      headers: { 'content-type': imageType },
    })
    assert.equal(answer.status, 400)
    const { errors } = (await answer.json()) as { errors: { code: string; detail: { digests: string[] } }[] }
    assert.equal(errors[0]?.code, 'MANIFEST_BLOB_UNKNOWN')
    assert.deepEqual(errors[0]?.detail.digests.sort(), missing.sort())
    assert.equal((await registry.call('GET', '/v2/m/missing/manifests/v1')).status, 404)
  })
  it('refuses a blob that only another repository has', async () => {
    const blob = await registry.pushBlob('m/theirs', 'secret')
    await registry.pushBlob('m/ours', '{}')
    const body = json(sampleManifest({ layers: [blob] }))
    const answer = await registry.call('PUT', '/v2/m/ours/manifests/v1', {
      body,
      headers: { 'content-type': imageType },
    })
    assert.equal(await codeOf(answer), 'MANIFEST_BLOB_UNKNOWN')
  })
  it('takes sparse indexes, nested ones and platforms nobody knows', async () => {
    const inner = {
      schemaVersion: 2,
      mediaType: indexType,
      manifests: [
        { mediaType: imageType, digest: unknown, size: 7, platform: { os: 'unknown', architecture: 'unknown' } },
      ],
    }
    const pushed = await registry.pushManifest('m/index', 'inner', inner)
    await registry.pushManifest('m/index', 'outer', { schemaVersion: 2, mediaType: indexType, manifests: [pushed] })
    assert.equal((await registry.call('GET', '/v2/m/index/manifests/outer')).headers.get('content-type'), indexType)
  })
  it('does not give stored bytes a second media type', async () => {
    await registry.pushBlob('m/type', '{}')
    const body = json({ schemaVersion: 2, layers: [] })
    const put = (type: string) =>
      registry.call('PUT', '/v2/m/type/manifests/v1', { body, headers: { 'content-type': type } })
    assert.equal((await put(imageType)).status, 201)
    const other = await put('application/vnd.example.other+json')
    assert.equal(await codeOf(other), 'MANIFEST_INVALID')
    assert.equal((await put(imageType)).status, 201)
  })
  it('overwrites a tag only as If-Match allows', async () => {
    const first = await registry.pushManifest('m/match', 'v1')
    const put = (ifMatch: string, v: string) =>
      registry.call('PUT', '/v2/m/match/manifests/v1', {
        body: json(sampleManifest({ annotations: { v } })),
        headers: { 'content-type': imageType, 'if-match': ifMatch },
      })
    assert.equal((await put(`"${unknown}"`, '2')).status, 412)
    assert.equal((await put('"nonsense"', '2')).status, 412)
    assert.equal(
      (await registry.call('HEAD', '/v2/m/match/manifests/v1')).headers.get('docker-content-digest'),
      first.digest,
    )
    assert.equal((await put(`"${first.digest}"`, '2')).status, 201)
    assert.equal((await put(`"${first.digest}"`, '3')).status, 412)
  })
  it('answers 304 to whom has it', async () => {
    const { digest } = await registry.pushManifest('m/cached', 'v1')
    const answer = await registry.call('GET', '/v2/m/cached/manifests/v1', {
      headers: { 'if-none-match': `"${digest}"` },
    })
    assert.equal(answer.status, 304)
    assert.equal(answer.headers.get('docker-content-digest'), digest)
  })
  it('survives many pushes and deletes of one manifest at once', async () => {
    await registry.pushManifest('m/storm', 'v0')
    const body = json(sampleManifest())
    const digest = digestOf(Buffer.from(body))
    const answers = await Promise.all(
      Array.from({ length: 60 }, (_, i) =>
        i % 3 === 0
          ? registry.call('DELETE', `/v2/m/storm/manifests/${digest}`)
          : registry.call('PUT', `/v2/m/storm/manifests/t${i}`, { body, headers: { 'content-type': imageType } }),
      ),
    )
    for (const [i, { status }] of answers.entries())
      assert.ok(i % 3 === 0 ? status === 202 || status === 404 : status === 201, `${i}: ${status}`)
    const { tags } = (await (await registry.call('GET', '/v2/m/storm/tags/list')).json()) as { tags: string[] }
    for (const tag of tags) assert.equal((await registry.call('GET', `/v2/m/storm/manifests/${tag}`)).status, 200)
  })
})

describe('referrers', () => {
  const listOf = async (path: string) => {
    const answer = await registry.call('GET', path)
    assert.equal(answer.status, 200)
    assert.equal(answer.headers.get('content-type'), indexType)
    return {
      answer,
      list: ((await answer.json()) as { manifests: (Descriptor & { artifactType?: string; annotations?: object })[] })
        .manifests,
    }
  }
  it('is an empty index for what has never been seen', async () => {
    assert.deepEqual((await listOf(`/v2/r/never/referrers/${unknown}`)).list, [])
  })
  it('lists them with type and annotations, filters, and pages', async () => {
    const subject = { mediaType: imageType, digest: unknown, size: 3 }
    await registry.pushBlob('r/some', '{}')
    for (const [i, artifactType] of ['a/sbom+json', 'a/sbom+json', 'a/signature'].entries()) {
      const body = json(sampleManifest({ artifactType, subject, annotations: { i: String(i) } }))
      const digest = digestOf(Buffer.from(body))
      const put = await registry.call('PUT', `/v2/r/some/manifests/${digest}`, {
        body,
        headers: { 'content-type': imageType },
      })
      assert.equal(put.headers.get('oci-subject'), unknown)
    }
    await registry.pushManifest('r/some', 'index', { schemaVersion: 2, mediaType: indexType, manifests: [], subject })
    await registry.pushManifest('r/some', 'typed-by-config', sampleManifest({ subject }))
    const { list } = await listOf(`/v2/r/some/referrers/${unknown}`)
    assert.equal(list.length, 5)
    assert.deepEqual(
      list.map((each) => each.artifactType).sort(),
      ['a/sbom+json', 'a/sbom+json', 'a/signature', emptyConfig.mediaType, undefined].sort(),
    )
    assert.ok(list.some((each) => (each.annotations as { i?: string })?.i === '2'))

    for (const filter of ['a/sbom+json', 'a/sbom%2Bjson']) {
      const filtered = await listOf(`/v2/r/some/referrers/${unknown}?artifactType=${filter}`)
      assert.equal(filtered.list.length, 2)
      assert.equal(filtered.answer.headers.get('oci-filters-applied'), 'artifactType')
    }
    const seen: string[] = []
    let next: string | undefined = `/v2/r/some/referrers/${unknown}?n=2`
    while (next) {
      const page: Awaited<ReturnType<typeof listOf>> = await listOf(next)
      seen.push(...page.list.map((each) => each.digest))
      next = /<([^>]*)>; rel="next"/.exec(page.answer.headers.get('link') ?? '')?.[1]
    }
    assert.deepEqual(
      seen,
      list.map((each) => each.digest),
    )
  })
  it('keeps pages below the size of a manifest', async () => {
    const subject = { mediaType: imageType, digest: digestOf(Buffer.from('annotated')), size: 3 }
    for (let i = 0; i < 3; i++)
      await registry.pushManifest(
        'r/large',
        'digest',
        sampleManifest({ subject, annotations: { i: String(i), pad: 'x'.repeat(2_500_000) } }),
      )
    let next: string | undefined = `/v2/r/large/referrers/${subject.digest}`
    let found = 0
    while (next) {
      const page: Awaited<ReturnType<typeof listOf>> = await listOf(next)
      assert.equal(page.list.length, 1)
      found += page.list.length
      next = /<([^>]*)>; rel="next"/.exec(page.answer.headers.get('link') ?? '')?.[1]
    }
    assert.equal(found, 3)
  })
  it('go with their subject, at any depth, unless somebody gave them a name', async () => {
    const image = await registry.pushManifest('r/chain', 'v1')
    const signature = await registry.pushManifest(
      'r/chain',
      'digest',
      sampleManifest({ subject: image, annotations: { of: 'image' } }),
    )
    const counter = await registry.pushManifest(
      'r/chain',
      'digest',
      sampleManifest({ subject: signature, annotations: { of: 'signature' } }),
    )
    const named = await registry.pushManifest(
      'r/chain',
      'report',
      sampleManifest({ subject: image, annotations: { of: 'named' } }),
    )
    assert.equal((await registry.call('DELETE', `/v2/r/chain/manifests/${image.digest}`)).status, 202)
    for (const { digest } of [image, signature, counter])
      assert.equal((await registry.call('GET', `/v2/r/chain/manifests/${digest}`)).status, 404)
    assert.equal((await registry.call('GET', `/v2/r/chain/manifests/${named.digest}`)).status, 200)
  })
})

describe('listings', () => {
  const tags = ['1.0.0', '1.0.1', 'A', 'B', '_x', 'a', 'b']
  before(async () => {
    for (const tag of [...tags].reverse()) await registry.pushManifest('l/tags', tag)
  })
  const list = async (query: string) => {
    const answer = await registry.call('GET', `/v2/l/tags/tags/list${query}`)
    return { tags: ((await answer.json()) as { tags: string[] }).tags, link: answer.headers.get('link') }
  }
  it('is in byte order', async () => assert.deepEqual(await list(''), { tags, link: null }))
  it('pages', async () => {
    assert.deepEqual(await list('?n=3'), {
      tags: tags.slice(0, 3),
      link: '</v2/l/tags/tags/list?last=A&n=3>; rel="next"',
    })
    assert.deepEqual(await list('?last=A&n=3'), {
      tags: tags.slice(3, 6),
      link: '</v2/l/tags/tags/list?last=a&n=3>; rel="next"',
    })
    assert.deepEqual(await list('?last=a&n=3'), { tags: ['b'], link: null })
    assert.deepEqual(await list('?n=7'), { tags, link: null })
  })
  it('starts after a name that need not exist, and ends', async () => {
    assert.deepEqual((await list('?last=1.0.0.5')).tags, tags.slice(1))
    assert.deepEqual((await list('?last=zz')).tags, [])
    assert.deepEqual((await list('?last=%00')).tags, tags)
  })
  it('answers n=0 with nothing and no link, and bounds a huge n', async () => {
    assert.deepEqual(await list('?n=0'), { tags: [], link: null })
    assert.deepEqual(await list('?n=99999999999999999999'), { tags, link: null })
  })
  it('says [] for a repository without tags', async () => {
    await registry.pushManifest('l/none', 'digest')
    assert.deepEqual(await (await registry.call('GET', '/v2/l/none/tags/list')).json(), { name: 'l/none', tags: [] })
  })
  it('pages the catalog over repositories that have something', async () => {
    await registry.pushBlob('l/only-a-blob', 'x')
    const all: string[] = []
    let next: string | undefined = '/v2/_catalog?n=3'
    while (next) {
      const answer = await registry.call('GET', next)
      const page = ((await answer.json()) as { repositories: string[] }).repositories
      assert.ok(page.length <= 3)
      all.push(...page)
      next = /<([^>]*)>/.exec(answer.headers.get('link') ?? '')?.[1]
    }
    assert.deepEqual(all, [...new Set(all)].sort())
    assert.ok(all.includes('l/tags') && !all.includes('l/only-a-blob'))
  })
})
