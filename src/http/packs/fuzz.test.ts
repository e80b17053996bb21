import assert from 'node:assert/strict'
import { after, before, it } from 'node:test'
import fc from 'fast-check'
import { startDatabases, type TestDatabases } from '../../testing/database.ts'
import { ask, formOf, publish } from '../../testing/packs.ts'
import { openRaw, type RawClient } from '../../testing/raw.ts'
import { startRegistry, type TestRegistry } from '../../testing/registry.ts'

let databases: TestDatabases
let registry: TestRegistry
let raw: RawClient
before(async () => {
  databases = await startDatabases()
  registry = await startRegistry(await databases.fresh())
  raw = openRaw(registry)
  await publish(registry, { packId: 'known' })
})
after(async () => {
  raw?.close()
  await registry?.stop()
  await databases?.stop()
})

const valid = {
  packId: 'fuzz',
  version: '1.0.0',
  type: 'policy',
  name: 'Fuzz',
  description: 'text',
  author: 'me',
  dependencies: ['known@^1', { packId: 'other', version: '*', optional: true }],
  metadata: { minRunnerVersion: '1.0.0', keywords: ['a'], homepage: 'https://example.com', license: 'MIT' },
  created: '2026-01-31T12:00:00Z',
}
const odd = fc.oneof(
  fc.jsonValue({ maxDepth: 4 }),
  fc.string({ unit: 'binary', maxLength: 40 }),
  fc.constantFrom(
    '1.0.0',
    '^1',
    '\0',
    '\ud800',
    '__proto__',
    'known',
    '99999999999999999999.0.0',
    -0,
    1e308,
    'x'.repeat(5000),
  ),
)
/** A document of which a few fields are missing, or something else; often enough none, so that some are published. */
const document = fc
  .record({
    packId: fc.string({ unit: fc.constantFrom('a', 'b', 'c', '-', '0'), minLength: 1, maxLength: 8 }),
    version: fc.tuple(fc.nat(3), fc.nat(3), fc.nat(3)).map((numbers) => numbers.join('.')),
    over: fc.oneof(
      fc.constant({}),
      fc.dictionary(
        fc.oneof(fc.constantFrom('digest', 'size', ...Object.keys(valid)), fc.string({ maxLength: 5 })),
        odd,
        { maxKeys: 3 },
      ),
    ),
    without: fc.oneof(fc.constant<string[]>([]), fc.subarray(Object.keys(valid), { maxLength: 3 })),
  })
  .map(({ packId, version, over, without }) => {
    const all = Object.entries({ ...valid, packId, version, ...over }).filter(([key]) => !without.includes(key))
    return Object.fromEntries(all)
  })

/** A form whose bytes are cut, doubled or overwritten somewhere. */
const form = fc
  .record({
    document,
    content: fc.uint8Array({ maxLength: 200 }),
    at: fc.double({ min: 0, max: 1, noNaN: true }),
    change: fc.constantFrom('none', 'cut', 'double', 'overwrite', 'swap'),
    noise: fc.uint8Array({ minLength: 1, maxLength: 20 }),
  })
  .map(({ document, content, at, change, noise }) => {
    const parts = [
      { name: 'manifest', body: JSON.stringify(document) },
      { name: 'content', body: content, filename: 'c' },
    ]
    const { body, type } = formOf(change === 'swap' ? parts.reverse() : parts)
    const place = Math.floor(at * body.length)
    const [start, end] = [body.subarray(0, place), body.subarray(place)]
    const bytes = {
      none: body,
      swap: body,
      cut: start,
      double: Buffer.concat([body, end]),
      overwrite: Buffer.concat([start, noise, end.subarray(noise.length)]),
    }[change]
    return { bytes, type }
  })

it('answers 400 random documents and broken forms with anything but a 5xx', async () => {
  let published = 0
  await fc.assert(
    fc.asyncProperty(
      form,
      fc.constantFrom('', '?dryRun=true', '?allowMissing=true'),
      async ({ bytes, type }, query) => {
        const status = await raw.send('POST', `/packs${query}`, { 'content-type': type }, bytes)
        assert.ok(status >= 200 && status < 500, `${bytes} gave ${status}`)
        if (status === 201) published += 1
      },
    ),
    { numRuns: 400 },
  )
  assert.ok(published > 0, 'nothing was published: what is sent is too broken to find anything')
})

it('answers what it took, as it is described', async () => {
  const { body } = await ask(registry, 'GET', '/packs?limit=1000')
  for (const { packId } of body.packs as { packId: string }[]) {
    const { versions } = (await ask(registry, 'GET', `/packs/${packId}/versions`)).body as {
      versions: { version: string }[]
    }
    for (const { version } of versions)
      assert.equal((await ask(registry, 'GET', `/packs/${packId}/${version}/manifest`)).status, 200)
  }
})

const word = fc.oneof(
  fc.constantFrom(
    'known',
    '1.0.0',
    'latest',
    '%5E1',
    '',
    '..',
    '%00',
    '%',
    '%ff',
    'channels',
    'manifest',
    'x'.repeat(300),
  ),
  fc.string({ unit: 'binary', maxLength: 12 }).map((text) => {
    try {
      return encodeURIComponent(text)
    } catch {
      return '%ed%a0%80'
    }
  }),
)
const path = fc.oneof(
  fc.array(word, { maxLength: 4 }).map((parts) => ['/packs', ...parts].join('/')),
  fc
    .tuple(word, word, fc.constantFrom('manifest', 'dependencies', 'dependents', 'referrers'))
    .map((parts) => ['/packs', ...parts].join('/')),
  fc
    .tuple(fc.constantFrom('policies', 'holds', 'runs', 'plan', 'run'), fc.array(word, { maxLength: 2 }))
    .map(([kind, parts]) => ['/retention', kind, ...parts].join('/')),
  fc.constantFrom('/packs', '/resolve', '/packs/known/1.0.0', '/packs/known/channels/stable'),
)
const names = [
  'type',
  'q',
  'author',
  'runner',
  'state',
  'sort',
  'limit',
  'after',
  'force',
  'dryRun',
  'channel',
  'allowOlder',
  'reason',
  '__proto__',
]
const query = fc
  .array(fc.tuple(fc.constantFrom(...names), word), { maxLength: 3 })
  .map((pairs) => pairs.map(([key, value]) => `${key}=${value}`).join('&'))
const headers = fc.record(
  {
    'content-type': fc.constantFrom(
      'application/json',
      'multipart/form-data; boundary=',
      'multipart/form-data; boundary=x',
      'a',
    ),
    range: fc.constantFrom('bytes=0-', 'bytes=-0', 'bytes=9-1', 'bytes=99999999999999999999-'),
    'if-match': fc.constantFrom('"x"', '*', `"sha256:${'0'.repeat(64)}"`),
    'if-none-match': fc.constantFrom('"x"', '*', ','),
  },
  { requiredKeys: [] },
)
const body = fc.oneof(
  odd.map((value) => JSON.stringify(value) ?? ''),
  fc
    .record(
      {
        roots: odd,
        runner: odd,
        channel: odd,
        lock: odd,
        state: odd,
        version: odd,
        name: odd,
        policy: odd,
        reason: odd,
      },
      { requiredKeys: [] },
    )
    .map((value) => JSON.stringify(value)),
)

it('answers 1,000 random requests with anything but a 5xx', async () => {
  const methods = fc.constantFrom('GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS')
  await fc.assert(
    fc.asyncProperty(methods, path, query, headers, body, async (method, path, query, headers, body) => {
      const isRead = method === 'GET' || method === 'HEAD'
      const status = await raw.send(method, `${path}?${query}`, headers, Buffer.from(isRead ? '' : body))
      assert.ok(status >= 200 && status < 500, `${method} ${path}?${query} gave ${status}`)
    }),
    { numRuns: 1000 },
  )
})
