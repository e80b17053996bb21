import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { after, before, describe, it } from 'node:test'
import { Validator } from '@seriousme/openapi-schema-validator'
import { Ajv2020 } from 'ajv/dist/2020.js'
import ajvFormats from 'ajv-formats'
import { addRoutes } from '../../app.ts'
import type { Deps } from '../../deps.ts'
import { checkDocument } from '../../packs/document.ts'
import { parseLock } from '../../packs/lock.ts'
import { checkAnswer } from '../../testing/answers.ts'
import { startDatabases, type TestDatabases } from '../../testing/database.ts'
import { startRegistry, type TestRegistry } from '../../testing/registry.ts'
import type { ServerState } from '../ops.ts'
import { methods, type Routes } from '../routes.ts'
import { openapiDocument } from './document.ts'
import { lock } from './examples.ts'
import { specFiles } from './files.ts'
import { templateOf } from './parameters.ts'

type Json = Record<string, unknown>
type Content = Record<string, { schema: Json; examples?: Record<string, { value: unknown }> }>
type Described = {
  operationId: string
  summary: string
  tags: string[]
  parameters: { name: string; in: string; required?: boolean; description: string; schema: Json }[]
  requestBody?: { content: Content }
  responses: Record<string, { $ref?: string; description?: string; content?: Content; headers?: object }>
}

const document = JSON.parse(JSON.stringify(openapiDocument()))
const paths = document.paths as Record<string, Record<string, Described>>
const described = Object.entries(paths).flatMap(([path, item]) =>
  Object.entries(item).map(([method, operation]) => ({ path, method, operation })),
)

const ajv = new Ajv2020({ strict: true, strictTypes: false, strictRequired: false, allErrors: true })
ajvFormats.default(ajv)
ajv.addFormat('binary', true)
ajv.addVocabulary(['openapi', 'info', 'servers', 'tags', 'paths', 'components', 'security', 'example'])
ajv.addSchema({ ...document, $id: 'http://registry/' })

it('spec/ has what the code says', () => {
  for (const [name, text] of Object.entries(specFiles())) {
    const file = new URL(`../../../spec/${name}`, import.meta.url)
    const said = existsSync(file) ? readFileSync(file, 'utf8') : ''
    assert.ok(said === text, `spec/${name} is out of date: npm run openapi`)
  }
})

it('every route is described, and nothing else is', () => {
  const found: string[] = []
  const note = (method: string) => (path: string) => {
    if (!path.startsWith('/v2')) found.push(`${method} ${templateOf(path)}`)
  }
  const routes = Object.fromEntries(methods.map((method) => [method, note(method)])) as unknown as Routes
  addRoutes(routes, {} as Deps, {} as ServerState)
  const told = described.filter(({ method }) => method !== 'head').map(({ path, method }) => `${method} ${path}`)
  assert.deepEqual(told.sort(), found.sort())
})

describe('the document', () => {
  it('is valid by the schema of OpenAPI itself', async () => {
    const { valid, errors } = await new Validator().validate(structuredClone(document))
    assert.ok(valid, JSON.stringify(errors))
  })

  it('is OpenAPI 3.1: names are unique, parameters are those of the path, references lead somewhere', () => {
    assert.match(document.openapi, /^3\.1\.\d+$/)
    const ids = described.map(({ operation }) => operation.operationId)
    assert.equal(new Set(ids).size, ids.length)
    const tags = (document.tags as { name: string }[]).map((tag) => tag.name)
    for (const { path, method, operation } of described) {
      assert.ok(operation.summary && operation.tags.length > 0, `${method} ${path}`)
      for (const tag of operation.tags) assert.ok(tags.includes(tag), tag)
      const inPath = operation.parameters.filter((parameter) => parameter.in === 'path')
      assert.deepEqual(
        inPath.map(({ name }) => name),
        [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name),
      )
      for (const parameter of inPath) assert.equal(parameter.required, true)
      for (const response of Object.values(operation.responses))
        assert.ok(response.$ref || response.description, `${method} ${path}`)
    }
    for (const [, pointer = ''] of JSON.stringify(document).matchAll(/"\$ref":"#\/([^"]+)"/g)) {
      const found = pointer
        .split('/')
        .reduce((part: Json | undefined, key) => part?.[key] as Json | undefined, document)
      assert.ok(found, `#/${pointer} leads nowhere`)
    }
  })

  it('has examples that its schemas accept', () => {
    const contents = described.flatMap(({ path, method, operation }) => [
      ...Object.entries(operation.responses).map(
        ([status, { content }]) => [`${method} ${path} ${status}`, content] as const,
      ),
      [`${method} ${path} body`, operation.requestBody?.content] as const,
    ])
    let [checked, count] = [0, 0]
    for (const [where, content] of contents)
      for (const { schema, examples } of Object.values(content ?? {})) {
        const validate = ajv.compile({ ...rebased(schema), $id: `http://registry/content/${count++}` })
        for (const { value } of Object.values(examples ?? {})) {
          assert.ok(validate(value), `${where}: ${ajv.errorsText(validate.errors)}`)
          checked += 1
        }
      }
    assert.ok(checked > 30)
  })

  it('describes the locks that are accepted', () => {
    const validate = ajv.compile(JSON.parse(specFiles()['lock.schema.json'] ?? ''))
    const [pack] = lock.packs
    const locks: unknown[] = [
      lock,
      { ...lock, roots: ['net-rules@^1'] },
      { ...lock, lockVersion: 2 },
      { ...lock, at: 'now' },
      { ...lock, channel: '-' },
      { ...lock, packs: [{ ...pack, size: -1 }] },
      { ...lock, packs: [{ ...pack, digest: 'sha256:0' }] },
      { ...lock, packs: [{ ...pack, dependencies: [{ packId: 'a', version: '*', optional: false }] }] },
      { ...lock, packs: [{ ...pack, dependencies: [{ packId: 'a', version: '*', resolved: '1.0.0' }] }] },
    ]
    for (const entry of locks) assert.equal(validate(entry), !('violations' in parseLock(entry)), JSON.stringify(entry))
  })

  it('describes what the checks accept', () => {
    const validate = ajv.getSchema('http://registry/#/components/schemas/PackDocument')
    const valid = { packId: 'a', version: '1.0.0', type: 'policy' }
    const documents: unknown[] = [
      valid,
      { ...valid, dependencies: ['b@^1', { packId: 'c', version: '1.x', optional: true }], metadata: { own: [1] } },
      { ...valid, packId: 'A' },
      { ...valid, packId: 'a/b' },
      { ...valid, packId: 'a'.repeat(129) },
      { ...valid, version: 'v1.0.0' },
      { ...valid, version: '1.0' },
      { ...valid, type: 'image' },
      { ...valid, extra: 1 },
      { ...valid, name: '' },
      { ...valid, metadata: [] },
      { ...valid, metadata: { minRunnerVersion: '1' } },
      { ...valid, dependencies: [{ packId: 'b', version: '*', more: 1 }] },
      { ...valid, dependencies: {} },
      { packId: 'a', version: '1.0.0' },
      null,
    ]
    for (const document of documents)
      assert.equal(validate?.(document), 'document' in checkDocument(document), JSON.stringify(document))
  })
})

/** References of the document, from another one. */
function rebased(schema: Json): Json {
  return JSON.parse(JSON.stringify(schema).replaceAll('"#/', '"http://registry/#/'))
}

describe('GET /openapi.json', () => {
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

  it('answers the document, and nothing to who has it', async () => {
    const answer = await registry.call('GET', '/openapi.json')
    assert.deepEqual(await answer.json(), document)
    const headers = { 'if-none-match': answer.headers.get('etag') ?? '' }
    assert.equal((await registry.call('GET', '/openapi.json', { headers })).status, 304)
  })

  const undescribed: { name: string; call: [string, string]; answer: Response; says: RegExp }[] = [
    { name: 'a status', call: ['GET', '/packs'], answer: new Response('', { status: 418 }), says: /418: this status/ },
    { name: 'a media type', call: ['GET', '/packs'], answer: new Response('x'), says: /media type text\/plain/ },
    { name: 'a field', call: ['GET', '/packs'], answer: Response.json({ packs: [], more: 1 }), says: /additionalProp/ },
    { name: 'a failure', call: ['GET', '/packs'], answer: told(403, 'PACK_UNKNOWN'), says: /allowed values/ },
    { name: 'a path', call: ['GET', '/packs/a/b/c/d'], answer: Response.json({}), says: /path and method/ },
  ]
  for (const { name, call, answer, says } of undescribed)
    it(`tests notice ${name} that is not described`, async () => {
      await assert.rejects(checkAnswer(...call, answer), says)
    })
})

function told(status: number, code: string): Response {
  const body = JSON.stringify({ type: `urn:packs-registry:${code}`, title: 'x', status })
  return new Response(body, { status, headers: { 'content-type': 'application/problem+json' } })
}
