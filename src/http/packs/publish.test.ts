import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { connect } from 'node:net'
import { after, before, beforeEach, describe, it } from 'node:test'
import { digestOf } from '../../oci/digest.ts'
import { tidy } from '../../registry/deletions.ts'
import { startDatabases, type TestDatabases } from '../../testing/database.ts'
import { ask, codeIn, formOf, type Part, publish } from '../../testing/packs.ts'
import { emptyConfig, imageType, startRegistry, type TestRegistry } from '../../testing/registry.ts'
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

type Json = Record<string, unknown>

/** Every pack gets a name of its own, so that tests do not meet. */
let count = 0
let packId = ''
beforeEach(() => {
  packId = `pack-${count++}`
})

const document = (over: Json = {}) => ({ packId, version: '1.0.0', type: 'policy', ...over })
const manifestPart = (over: Json = {}): Part => ({ name: 'manifest', body: JSON.stringify(document(over)) })
const contentPart: Part = { name: 'content', body: 'content', filename: 'c.tgz', type: 'application/gzip' }

async function send(body: Uint8Array | string, type: string, query = '') {
  const answer = await registry.call('POST', `/packs${query}`, { body, headers: { 'content-type': type } })
  return { status: answer.status, body: (await answer.json()) as Json }
}
const sendForm = (parts: readonly Part[], query = '') => {
  const { body, type } = formOf(parts)
  return send(body, type, query)
}

/** Files in the store that are no finished blobs. */
function leftovers(): string[] {
  const folder = registry.deps.config.blobStore.replace('file:', '')
  const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
  return files.map((entry) => `${entry.parentPath}/${entry.name}`.slice(folder.length + 1)).filter(isTemporary)
}
const isTemporary = (path: string) => !/^blobs\/sha(256|512)\/[0-9a-f]{2}\/[0-9a-f]+\.[0-9a-f]{8}$/.test(path)

const figure = async (name: string) => {
  const text = await (await registry.call('GET', '/metrics')).text()
  return Number(new RegExp(`^${name} (\\d+)`, 'm').exec(text)?.[1])
}

/** Nothing of the pack can be seen by any door. */
async function assertInvisible() {
  assert.equal((await ask(registry, 'GET', `/packs/${packId}`)).status, 404)
  assert.equal((await ask(registry, 'GET', `/packs/${packId}/versions`)).status, 404)
  assert.deepEqual((await ask(registry, 'GET', `/packs?q=${packId}`)).body.packs, [])
  const tags = await registry.call('GET', `/v2/packs/${packId}/tags/list`)
  assert.ok(tags.status === 404 || ((await tags.json()) as Json).tags?.toString() === '')
}

describe('POST /packs refuses', () => {
  const deep = JSON.parse(`${'{"a":'.repeat(20)}1${'}'.repeat(20)}`)
  const documents: { name: string; over: Json; says: RegExp }[] = [
    { name: 'an unknown type', over: { type: 'image' }, says: /type must be one of policy, analyzer, task, bundle/ },
    { name: 'no type', over: { type: undefined }, says: /type is missing/ },
    { name: 'a version with a v', over: { version: 'v1.0.0' }, says: /version must be a version by Semantic/ },
    { name: 'a version of two parts', over: { version: '1.0' }, says: /version must be/ },
    { name: 'a leading zero', over: { version: '01.0.0' }, says: /version must be/ },
    { name: 'a version that is a number', over: { version: 1 }, says: /version must be text/ },
    { name: 'a number beyond what is safe', over: { version: '99999999999999999.0.0' }, says: /version must be/ },
    { name: 'an id with capitals', over: { packId: 'Net-Policy' }, says: /packId must be lowercase/ },
    { name: 'an id with a slash', over: { packId: 'net/policy' }, says: /packId must be lowercase/ },
    { name: 'an id that leads out', over: { packId: '../x' }, says: /packId must be lowercase/ },
    { name: 'an id with --', over: { packId: 'net--policy' }, says: /packId must be lowercase/ },
    { name: 'an id of 129 characters', over: { packId: 'a'.repeat(129) }, says: /at most 128/ },
    { name: 'an unknown field', over: { colour: 'red' }, says: /colour is not a field of a pack/ },
    { name: 'an empty name', over: { name: ' ' }, says: /name must not be empty/ },
    { name: 'NUL', over: { description: 'a\0b' }, says: /description must not contain NUL/ },
    { name: 'half a surrogate pair', over: { description: '\ud800' }, says: /half a surrogate/ },
    { name: 'metadata that is deep', over: { metadata: deep }, says: /nested at most 16/ },
    { name: 'metadata that is a list', over: { metadata: ['x'] }, says: /metadata must be an object/ },
    { name: 'NUL in metadata', over: { metadata: { x: ['a\0b'] } }, says: /without NUL/ },
    {
      name: 'numbers that would be rounded',
      over: { metadata: { x: [1, { 'build id': 9007199254740992 }] } },
      says: /metadata\.x\.1\.build id must not be a number above 9007199254740991/,
    },
    { name: 'a runner that is none', over: { metadata: { minRunnerVersion: '1' } }, says: /minRunnerVersion must be/ },
    {
      name: 'runners the wrong way round',
      over: { metadata: { minRunnerVersion: '2.0.0', maxRunnerVersion: '1.0.0' } },
      says: /must not be above maxRunnerVersion/,
    },
    { name: 'a license that is none', over: { metadata: { license: 'free' } }, says: /SPDX/ },
    { name: 'a homepage that runs', over: { metadata: { homepage: 'javascript:x' } }, says: /http or https/ },
    { name: 'a range that is none', over: { dependencies: ['a@latest!'] }, says: /dependencies\.0\.version must be/ },
    { name: 'a dependency twice', over: { dependencies: ['a@1', 'a@2'] }, says: /name a pack once only/ },
    {
      name: 'too many dependencies',
      over: { dependencies: Array.from({ length: 501 }, (_, i) => `d${i}`) },
      says: /at most 500/,
    },
    { name: 'a digest that is none', over: { digest: 'md5:1' }, says: /digest must be sha256/ },
    { name: 'a size that is none', over: { size: -1 }, says: /size must be a whole number/ },
    { name: 'a time that is none', over: { created: 'yesterday' }, says: /created must be a time/ },
    { name: 'a day that is none', over: { created: '2026-02-31T99:00:00Z' }, says: /created must be a time/ },
  ]
  for (const { name, over, says } of documents)
    it(name, async () => {
      const { status, body } = await sendForm([manifestPart(over), contentPart])
      assert.deepEqual([status, codeIn(body)], [422, 'PACK_INVALID'])
      assert.match(String(body.detail), says)
      await assertInvisible()
      // The same by JSON: the rules are of the document, not of the form it comes in.
      const json = JSON.stringify({ manifest: document(over), content: 'Y29udGVudA==' })
      assert.deepEqual((await send(json, 'application/json')).body, body)
    })

  it('a pack that depends on itself', async () => {
    const { status, body } = await sendForm([manifestPart({ dependencies: [packId] }), contentPart])
    assert.deepEqual([status, codeIn(body)], [422, 'PACK_INVALID'])
    assert.match(String(body.detail), /must not name the pack itself/)
  })

  const huge = 'x'.repeat(1024 * 1024)
  const forms: { name: string; parts: () => Part[]; status?: number; says: RegExp }[] = [
    { name: 'two contents', parts: () => [manifestPart(), contentPart, contentPart], says: /two parts "content"/ },
    { name: 'content first', parts: () => [contentPart, manifestPart()], says: /comes after the part "manifest"/ },
    { name: 'two manifests', parts: () => [manifestPart(), manifestPart(), contentPart], says: /comes once/ },
    { name: 'another part', parts: () => [{ name: 'x', body: '' }], says: /no part "x" in a publish/ },
    {
      name: 'another file',
      parts: () => [manifestPart(), { ...contentPart, name: 'x' }],
      says: /no part "x" in a publish/,
    },
    { name: 'four parts', parts: () => [manifestPart(), contentPart, contentPart, contentPart], says: /two parts/ },
    { name: 'an empty form', parts: () => [], says: /malformed|manifest" is missing/ },
    { name: 'no manifest', parts: () => [contentPart], says: /comes after the part "manifest"/ },
    { name: 'no content', parts: () => [manifestPart()], says: /"content" is missing/ },
    {
      name: 'a manifest that is no JSON',
      parts: () => [{ name: 'manifest', body: '{' }, contentPart],
      says: /not JSON/,
    },
    {
      name: 'a manifest that is no UTF-8',
      parts: () => [{ name: 'manifest', body: Buffer.from('ff', 'hex'), filename: 'pack.json' }, contentPart],
      says: /not JSON in UTF-8/,
    },
    {
      name: 'a manifest that is no UTF-8, and no file',
      parts: () => [{ name: 'manifest', body: Buffer.from('{"description":"caf\u00e9"}', 'latin1') }, contentPart],
      says: /not JSON in UTF-8/,
    },
    {
      name: 'a number that no JSON reader keeps',
      parts: () => [
        { name: 'manifest', body: JSON.stringify(document({ metadata: { x: 7 } })).replace('7', '1e400') },
        contentPart,
      ],
      status: 422,
      says: /metadata\.x must not be a number above/,
    },
    {
      name: 'a huge manifest',
      parts: () => [manifestPart({ metadata: { huge } }), contentPart],
      status: 413,
      says: /at most 1048576 bytes/,
    },
    {
      name: 'a huge manifest as a file',
      parts: () => [{ ...manifestPart({ metadata: { huge } }), filename: 'pack.json' }, contentPart],
      status: 413,
      says: /at most 1048576 bytes/,
    },
    {
      name: 'a manifest nested a hundred thousand times',
      parts: () => [{ name: 'manifest', body: '['.repeat(100_000) + ']'.repeat(100_000) }, contentPart],
      status: 422,
      says: /must be a JSON object/,
    },
  ]
  for (const { name, parts, status = 400, says } of forms)
    it(name, async () => {
      const answer = await sendForm(parts())
      assert.equal(answer.status, status, JSON.stringify(answer.body))
      assert.match(String(answer.body.detail), says)
      await assertInvisible()
    })

  const bodies: { name: string; type: string; body: string; status?: number; says: RegExp }[] = [
    { name: 'another media type', type: 'text/plain', body: 'x', says: /multipart\/form-data or application\/json/ },
    { name: 'a form without a boundary', type: 'multipart/form-data', body: 'x', says: /boundary/i },
    {
      name: 'a form that ends early',
      type: 'multipart/form-data; boundary=b',
      body: '--b\r\nContent-Disposition: form-data; name="manifest"\r\n\r\n{}',
      says: /malformed|end/i,
    },
    { name: 'JSON that is none', type: 'application/json', body: '{', says: /not JSON/ },
    { name: 'JSON without a manifest', type: 'application/json', body: '{}', says: /manifest is missing/ },
    {
      name: 'content that is no base64',
      type: 'application/json',
      body: '{"manifest":{},"content":"%%%"}',
      says: /content must be base64/,
    },
    {
      name: 'base64 of a length that base64 never has',
      type: 'application/json',
      body: '{"manifest":{},"content":"AAAAA"}',
      says: /content must be base64/,
    },
    {
      name: 'JSON that is too large',
      type: 'application/json',
      body: `{"content":"${'A'.repeat(12 * 1024 * 1024)}"}`,
      status: 413,
      says: /at most/,
    },
  ]
  for (const { name, type, body, status = 400, says } of bodies)
    it(name, async () => {
      const answer = await send(body, type)
      assert.equal(answer.status, status, JSON.stringify(answer.body))
      assert.match(String(answer.body.detail), says)
    })

  for (const query of ['?dryrun=true', '?dryRun=maybe', '?dryRun=true&dryRun=false', '?force=true'])
    it(`the query ${query}`, async () => {
      const { status, body } = await sendForm([manifestPart(), contentPart], query)
      assert.deepEqual([status, codeIn(body)], [400, 'QUERY_INVALID'])
      await assertInvisible()
    })

  const large = randomBytes(200_000)
  for (const [size, content] of [
    ['small', 'content'],
    ['large', large],
  ] as const)
    for (const [name, over, code] of [
      ['digest', { digest: `sha256:${'0'.repeat(64)}` }, 'DIGEST_INVALID'],
      ['size', { size: 5 }, 'SIZE_INVALID'],
    ] as const)
      it(`${size} content of another ${name} than declared`, async () => {
        const { status, body } = await publish(registry, { packId, ...over }, content)
        assert.deepEqual([status, codeIn(body)], [400, code])
        await assertInvisible()
      })

  it('content whose media type is none', async () => {
    const json = { manifest: document(), content: 'YQ==', contentType: 'not a type' }
    const { status, body } = await ask(registry, 'POST', '/packs', json)
    assert.equal(status, 400, JSON.stringify(body))
    await assertInvisible()
  })
})

describe('a publish that is cut off', () => {
  /** Sends a request of which only a part arrives, and closes the connection. */
  async function cut(head: string, ...pieces: Uint8Array[]) {
    const socket = connect(Number(new URL(registry.url).port), '127.0.0.1')
    socket.on('error', () => undefined)
    socket.write(head)
    for (const piece of pieces) await new Promise((resolve) => socket.write(piece, resolve))
    await waitFor('the publish to be under way', async () => (await figure('packs_http_requests_in_flight')) >= 2)
    return socket
  }
  const { type } = formOf([])
  const head = (fields: string) =>
    `POST /packs HTTP/1.1\r\nHost: localhost\r\nContent-Type: ${type}\r\n${fields}\r\n\r\n`

  for (const [name, size] of [
    ['small', 1000],
    ['large', 3_000_000],
  ] as const)
    it(`leaves nothing of ${name} content: no version, no file, no open upload, no request`, async () => {
      const { body } = formOf([manifestPart(), { ...contentPart, body: randomBytes(size) }])
      const half = body.subarray(0, body.length - 500)
      const socket = await cut(head(`Content-Length: ${body.length}`), half)
      socket.destroy()
      await waitFor('the publish to end', async () => (await figure('packs_http_requests_in_flight')) === 1)
      await waitFor('what it has left to be deleted', () => leftovers().length === 0)
      await assertInvisible()
      assert.equal(await figure('packs_uploads_open'), 0)
      await tidy(registry.deps)
      assert.equal((await publish(registry, { packId })).status, 201)
    })

  it('leaves nothing where the form ends early, or has something behind it', async () => {
    const { body } = formOf([manifestPart(), { ...contentPart, body: randomBytes(200_000) }])
    const early = await send(body.subarray(0, body.length - 20), type)
    assert.deepEqual([early.status, codeIn(early.body)], [400, 'REQUEST_INVALID'])
    const parts = [manifestPart(), { ...contentPart, body: randomBytes(200_000) }, { ...contentPart, name: 'more' }]
    assert.equal((await sendForm(parts)).status, 400)
    await waitFor('what it has left to be deleted', () => leftovers().length === 0)
    await assertInvisible()
    assert.equal(await figure('packs_uploads_open'), 0)
  })
})

describe('POST /packs', () => {
  it('publishes 20 MB, and what comes out is what went in', async () => {
    const content = randomBytes(20_000_000)
    const digest = digestOf(content)
    const { status, body, location } = await publish(registry, { packId, digest, size: content.length }, content)
    assert.deepEqual([status, body.digest], [201, digest])
    const answer = await registry.call('GET', location ?? '')
    assert.equal(digestOf(new Uint8Array(await answer.arrayBuffer())), digest)
    assert.equal(await figure('packs_uploads_open'), 0)
  })

  it('publishes nothing at all as content', async () => {
    assert.equal((await publish(registry, { packId }, '')).status, 201)
    const answer = await registry.call('GET', `/packs/${packId}/1.0.0`)
    assert.deepEqual([answer.status, await answer.text()], [200, ''])
  })

  it('publishes JSON with base64 as the form would', async () => {
    const created = '2026-01-31T12:00:00Z'
    const json = {
      manifest: document({ created }),
      content: 'Y29udGVudA==',
      contentType: 'text/x-rego',
      filename: 'ü.rego',
    }
    const { status, body } = await ask(registry, 'POST', '/packs', json)
    assert.deepEqual([status, body.digest], [201, digestOf(Buffer.from('content'))])
    const part = { name: 'content', body: 'content', filename: 'ü.rego', type: 'text/x-rego' }
    const again = await sendForm([manifestPart({ created }), part])
    assert.deepEqual([again.status, again.body], [200, body])
    const content = await registry.call('GET', `/packs/${packId}/1.0.0`)
    assert.equal(content.headers.get('content-type'), 'text/x-rego')
  })

  it('tries out without storing, and says everything that is wrong at once', async () => {
    await publish(registry, { packId: 'there' })
    const bad = document({ version: '1', name: '', dependencies: [{ packId: 'X', version: '!' }], digest: 'x' })
    const wrong = await sendForm([{ name: 'manifest', body: JSON.stringify(bad) }, contentPart], '?dryRun=true')
    assert.deepEqual(
      [wrong.status, wrong.body.valid, (wrong.body.violations as Json[]).map((violation) => violation.path).sort()],
      [200, false, ['dependencies.0.packId', 'dependencies.0.version', 'digest', 'name', 'version']],
    )
    const over = { version: '1.0.0+linux', dependencies: ['there@^2', 'nowhere@1', 'there2@1.x'] }
    const dry = await sendForm([manifestPart(over), contentPart], '?dryRun=true')
    assert.deepEqual(
      [dry.body.valid, (dry.body.violations as Json[]).map((violation) => violation.path), dry.body.tag],
      [false, ['dependencies.0', 'dependencies.1', 'dependencies.2'], '1.0.0_linux'],
    )
    const fine = await sendForm([manifestPart({ dependencies: ['there@^1'] }), contentPart], '?dryRun=true')
    assert.deepEqual(
      [fine.body.valid, fine.body.violations, fine.body.digest],
      [true, [], digestOf(Buffer.from('content'))],
    )
    const taken = await sendForm([manifestPart({ packId: 'there' })], '?dryRun=true')
    assert.match(JSON.stringify(taken.body.violations), /published already/)
    await assertInvisible()
  })

  it('says in a dry run that the content is not as declared', async () => {
    const over = { digest: `sha256:${'0'.repeat(64)}`, size: 1 }
    const { body } = await sendForm([manifestPart(over), contentPart], '?dryRun=true')
    assert.deepEqual(
      [body.valid, (body.violations as Json[]).map((violation) => violation.path)],
      [false, ['digest', 'size']],
    )
  })

  it('takes the same again, and nothing else', async () => {
    const first = await publish(registry, { packId, name: 'One' })
    const again = await publish(registry, { packId, name: 'One' })
    assert.deepEqual([again.status, again.body], [200, first.body])
    const refused: [Json, string, RegExp, string][] = [
      [{ name: 'Two' }, 'content', /with this content, but another document/, 'VERSION_EXISTS'],
      [{ name: 'One' }, 'other', /with the content sha256:/, 'VERSION_EXISTS'],
      [{ name: 'One', version: '1.0.0+linux' }, 'content', /a build part makes no other version/, 'VERSION_EXISTS'],
      [{ name: 'One', size: 1 }, 'content', /declared as 1 bytes/, 'SIZE_INVALID'],
    ]
    for (const [over, content, says, code] of refused) {
      const { body } = await publish(registry, { packId, ...over }, content)
      assert.equal(codeIn(body), code)
      assert.match(String(body.detail), says)
    }
  })

  it('takes the same from many at once', async () => {
    const created = (i: number) => `2026-01-31T12:00:0${i}Z`
    const many = Array.from({ length: 8 }, (_, i) => publish(registry, { packId, created: created(i) }))
    const answers = await Promise.all(many)
    assert.deepEqual(answers.map(({ status }) => status).sort(), [200, 200, 200, 200, 200, 200, 200, 201])
    assert.equal(new Set(answers.map(({ body }) => body.manifestDigest)).size, 1)
  })

  it('never uses a number again', async () => {
    await publish(registry, { packId })
    await registry.call('DELETE', `/packs/${packId}/1.0.0`)
    for (const version of ['1.0.0', '1.0.0+other']) {
      const { status, body } = await publish(registry, { packId, version })
      assert.deepEqual([status, codeIn(body)], [409, 'VERSION_SPENT'])
      assert.match(String(body.detail), /was deleted.*Publish a higher one/)
    }
    const dry = await sendForm([manifestPart(), contentPart], '?dryRun=true')
    assert.match(JSON.stringify(dry.body.violations), /was deleted/)
    assert.equal((await publish(registry, { packId, version: '1.0.1' })).status, 201)
  })

  it('lists what depends on a version page by page, and of very many only the first in a refusal', async () => {
    await publish(registry, { packId })
    const users = Array.from({ length: 23 }, (_, i) => `${packId}-${String(i).padStart(2, '0')}`)
    for (const user of users) await publish(registry, { packId: user, dependencies: [`${packId}@^1`] })
    await publish(registry, { packId: users[0], version: '2.0.0', dependencies: [`${packId}@1.x`] })
    // What needs another version is in no list.
    await publish(
      registry,
      { packId: `${packId}-05x`, dependencies: [`${packId}@^2`] },
      'content',
      '?allowMissing=true',
    )
    const { status, body } = await ask(registry, 'DELETE', `/packs/${packId}/1.0.0`)
    const about = body.about as { dependents: Json[]; more: number }
    assert.deepEqual([status, about.dependents.length, about.more], [409, 20, 4])
    assert.match(String(body.detail), /-00 2\.0\.0, .* and 19 more may use/)

    const pages: string[][] = []
    const path = `/packs/${packId}/1.0.0/dependents?limit=10`
    for (let after: unknown = ''; after !== undefined; ) {
      const page = await ask(registry, 'GET', after === '' ? path : `${path}&after=${after}`)
      assert.equal(page.status, 200)
      pages.push((page.body.dependents as Json[]).map((entry) => `${entry.packId} ${entry.version}`))
      after = page.body.next
    }
    assert.deepEqual(
      pages.map(({ length }) => length),
      [10, 10, 4],
    )
    assert.deepEqual(pages.flat(), [`${users[0]} 2.0.0`, ...users.map((user) => `${user} 1.0.0`)])
    const foreign = await ask(registry, 'GET', `${path}&after=bm9uc2Vuc2U.AAAAAAAAAAAAAAAAAAAAAA`)
    assert.deepEqual([foreign.status, codeIn(foreign.body)], [400, 'QUERY_INVALID'])
  })

  it('names what depends on a version that is to be deleted', async () => {
    await publish(registry, { packId })
    await publish(registry, { packId: `${packId}-user`, dependencies: [`${packId}@^1`] })
    const { status, body } = await ask(registry, 'DELETE', `/packs/${packId}/1.0.0`)
    assert.deepEqual([status, codeIn(body)], [409, 'DEPENDENTS_EXIST'])
    assert.deepEqual(
      (body.about as { dependents: Json[] }).dependents.map((entry) => `${entry.packId} ${entry.version}`),
      [`${packId}-user 1.0.0`],
    )
    const found = await ask(registry, 'GET', `/packs/${packId}/1.0.0/dependents`)
    assert.deepEqual((found.body.dependents as Json[]).length, 1)
    assert.deepEqual((await ask(registry, 'DELETE', `/packs/${packId}/1.0.0?force=true`)).body, { deleted: true })
    assert.deepEqual((await ask(registry, 'DELETE', `/packs/${packId}/1.0.0`)).body, { deleted: false })
    assert.deepEqual((await ask(registry, 'DELETE', '/packs/never-there/1.0.0')).body, { deleted: false })
  })

  it('changes states and channels by their rules', async () => {
    await publish(registry, { packId })
    const wrong: [string, string, unknown, number, string][] = [
      ['PUT', `/packs/${packId}/channels/stable`, { version: '2.0.0' }, 404, 'VERSION_UNKNOWN'],
      ['PUT', `/packs/${packId}/channels/latest`, { version: '1.0.0' }, 409, 'CHANNEL_INVALID'],
      ['PUT', `/packs/${packId}/channels/1.0.0`, { version: '1.0.0' }, 400, 'TAG_INVALID'],
      ['PUT', `/packs/${packId}/channels/v1.0.0`, { version: '1.0.0' }, 400, 'TAG_INVALID'],
      ['PUT', `/packs/${packId}/channels/a%2Fb`, { version: '1.0.0' }, 400, 'TAG_INVALID'],
      ['PUT', `/packs/${packId}/channels/stable`, { version: '1' }, 400, 'REQUEST_INVALID'],
      ['PUT', `/packs/${packId}/channels/stable`, { version: '1.0.0', more: 1 }, 400, 'REQUEST_INVALID'],
      ['PUT', '/packs/never-there/channels/stable', { version: '1.0.0' }, 404, 'VERSION_UNKNOWN'],
      ['PATCH', `/packs/${packId}/1.0.0`, { state: 'gone' }, 400, 'REQUEST_INVALID'],
      ['PATCH', `/packs/${packId}/1.0.0`, { state: 'yanked', replacedBy: 'X' }, 400, 'REQUEST_INVALID'],
      ['PATCH', `/packs/${packId}/1.0.0`, { state: 'yanked', message: 'a\0' }, 400, 'REQUEST_INVALID'],
      ['PATCH', `/packs/${packId}/2.0.0`, { state: 'yanked' }, 404, 'VERSION_UNKNOWN'],
      ['PATCH', `/packs/${packId}/latest`, { state: 'yanked' }, 404, 'VERSION_UNKNOWN'],
      ['PATCH', `/packs/${packId}/1.0.0`, [], 400, 'REQUEST_INVALID'],
      ['DELETE', `/packs/${packId}/%5E1`, undefined, 404, 'VERSION_UNKNOWN'],
      ['DELETE', `/packs/${packId}/1.0.0?force=yes`, undefined, 400, 'QUERY_INVALID'],
      ['PUT', `/packs/${packId}/1.0.0`, {}, 405, 'UNSUPPORTED'],
      ['GET', `/packs/${packId}/1.0.0/nothing`, undefined, 404, 'NOT_FOUND'],
    ]
    for (const [method, path, body, status, code] of wrong) {
      const answer = await ask(registry, method, path, body)
      assert.deepEqual(
        [answer.status, codeIn(answer.body)],
        [status, code],
        `${method} ${path} ${JSON.stringify(body)}`,
      )
    }
    const change = { state: 'deprecated', message: 'old', replacedBy: 'other@2.0.0' }
    const { pack } = (await ask(registry, 'PATCH', `/packs/${packId}/1.0.0`, change)).body as { pack: Json }
    assert.deepEqual([pack.state, pack.message, pack.replacedBy], ['deprecated', 'old', 'other@2.0.0'])
    const back = (await ask(registry, 'PATCH', `/packs/${packId}/1.0.0`, { state: 'active' })).body as { pack: Json }
    assert.deepEqual([back.pack.state, back.pack.message], ['active', undefined])
  })
})

it('what a version is replaced by is a pack, or a version of one, and no other text', async () => {
  await publish(registry, { packId: 'replaced' })
  const change = (replacedBy: unknown) =>
    ask(registry, 'PATCH', '/packs/replaced/1.0.0', { state: 'yanked', replacedBy })
  for (const wrong of [
    ...['x@\0', 'a@\ud800', 'a@\u001b[31mX', `a@${'1'.repeat(6000)}`, `a@1.0.${'0'.repeat(6000)}`, '---@zz', '@1.0.0'],
    ...[
      'a@',
      'a@1',
      'a@^1.0.0',
      'a@stable',
      'a@1.0.0@1.0.0',
      'a@1.0.0\n',
      ' a',
      'A@1.0.0',
      `${'a'.repeat(129)}@1.0.0`,
      1,
    ],
  ]) {
    const { status, body } = await change(wrong)
    assert.deepEqual([status, codeIn(body)], [400, 'REQUEST_INVALID'], JSON.stringify(wrong))
    assert.match(String(body.detail), /replacedBy must be the id of a pack, or id@version/)
  }
  for (const right of ['other', 'a.b_c-d@2.0.0-rc.1+build.7', `${'a'.repeat(128)}@1.0.0`]) {
    const { body } = await change(right)
    assert.equal((body.pack as Json).replacedBy, right)
  }
})

describe('a push of a pack by any client is refused', () => {
  const artifactType = 'application/vnd.stellaops.pack.policy.v1'
  const configType = 'application/vnd.stellaops.pack.config.v1+json'

  async function push(tag: string, config: Json | string | undefined, over: Json = {}) {
    const repository = `packs/${packId}`
    await registry.pushBlob(repository, '{}')
    const layer = await registry.pushBlob(repository, 'content')
    const bytes = config === undefined ? undefined : typeof config === 'string' ? config : JSON.stringify(config)
    const descriptor =
      bytes === undefined ? emptyConfig : { ...(await registry.pushBlob(repository, bytes)), mediaType: configType }
    const manifest = {
      schemaVersion: 2,
      mediaType: imageType,
      artifactType,
      config: descriptor,
      layers: [layer],
      ...over,
    }
    const answer = await registry.call('PUT', `/v2/${repository}/manifests/${tag}`, {
      body: JSON.stringify(manifest),
      headers: { 'content-type': imageType },
    })
    return { status: answer.status, text: await answer.text() }
  }

  const cases: { name: string; tag?: string; config?: () => Json | string; over?: Json; says: RegExp }[] = [
    { name: 'whose config is another version', config: () => document({ version: '1.0.1' }), says: /tag says 1\.0\.0/ },
    { name: 'whose config is another pack', config: () => document({ packId: 'other' }), says: /repository says/ },
    {
      name: 'whose config is another type',
      config: () => document({ type: 'task' }),
      says: /artifactType says policy/,
    },
    { name: 'of an unknown type', over: { artifactType: 'application/vnd.stellaops.pack.image.v1' }, says: /must be/ },
    { name: 'whose config is no JSON', config: () => '{', says: /not JSON/ },
    { name: 'whose config is no pack', config: () => '{}', says: /packId is missing/ },
    { name: 'whose config is a list', config: () => '[]', says: /must be a JSON object/ },
    { name: 'with two contents', over: { layers: [emptyConfig, emptyConfig] }, says: /has 2/ },
    {
      name: 'that is deep',
      config: () => document({ metadata: JSON.parse(`${'{"a":'.repeat(17)}1${'}'.repeat(17)}`) }),
      says: /nested/,
    },
    {
      name: 'that depends on what is not there',
      config: () => document({ dependencies: ['nowhere@^1'] }),
      says: /no published version of nowhere satisfies/,
    },
    {
      name: 'that depends on itself',
      config: () => document({ dependencies: [packId] }),
      says: /must not name the pack itself/,
    },
    {
      name: 'whose annotations are no dependencies',
      over: { annotations: { 'vnd.stellaops.pack.dependencies': 'A@1' } },
      says: /dependencies\.0\.packId/,
    },
  ]
  for (const { name, tag = '1.0.0', config, over, says } of cases)
    it(name, async () => {
      const { status, text } = await push(tag, config?.(), over)
      assert.ok(status === 400 || status === 422, `${status} ${text}`)
      assert.match(text, /MANIFEST_INVALID/)
      assert.match(text, says)
      await assertInvisible()
    })

  it('over a deleted number, with other content, or as a channel of nothing', async () => {
    assert.equal((await push('1.0.0', document())).status, 201)
    assert.equal((await push('1.0.0', document({ name: 'Other' }))).status, 409)
    assert.equal((await push('edge', document({ name: 'Other' }))).status, 409)
    await registry.call('DELETE', `/v2/packs/${packId}/manifests/1.0.0`)
    const { status, text } = await push('1.0.0', document())
    assert.equal(status, 409)
    assert.match(text, /was deleted/)
  })

  it('under a name that is no pack id', async () => {
    for (const repository of ['packs/a/b', 'packs/a__b']) {
      const layer = await registry.pushBlob(repository, 'content')
      const manifest = { schemaVersion: 2, mediaType: imageType, artifactType, config: emptyConfig, layers: [layer] }
      await registry.pushBlob(repository, '{}')
      const answer = await registry.call('PUT', `/v2/${repository}/manifests/1.0.0`, {
        body: JSON.stringify(manifest),
        headers: { 'content-type': imageType },
      })
      assert.equal(answer.status, 400)
      assert.match(await answer.text(), /NAME_INVALID/)
    }
  })
})
