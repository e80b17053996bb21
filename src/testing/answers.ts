import assert from 'node:assert/strict'
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js'
import ajvFormats from 'ajv-formats'
import { failures } from '../errors.ts'
import { openapiDocument } from '../http/openapi/document.ts'
import { operations } from '../http/openapi/operations.ts'
import { templateOf as written } from '../http/openapi/parameters.ts'

type Described = Record<string, { responses: Record<string, DescribedAnswer | { $ref: string }> }>
type DescribedAnswer = { content?: Record<string, unknown>; headers?: Record<string, { required: boolean }> }

const base = 'http://registry/openapi.json'
const surface =
  /^\/(?:packs|resolve|keys|tokens?|quotas|audit|jobs|scrub|bundles|inventory|mirrors|upstreams|retention|events|webhooks|healthz|readyz|metrics|openapi\.json)(?:[/?]|$)/

let opened: ReturnType<typeof open> | undefined

function open() {
  const document = openapiDocument()
  const ajv = new Ajv2020({ strict: false, allErrors: true })
  ajvFormats.default(ajv)
  ajv.addFormat('binary', true)
  // Readers must put up with fields they do not know. Here, a field that is not described is a field that was forgotten.
  ajv.addSchema({ ...(closed(document) as typeof document), $id: base })
  const found = new Map<string, ValidateFunction>()
  const validatorOf = (pointer: string) => {
    const known = found.get(pointer)
    if (known) return known
    const made = ajv.compile({ $ref: `${base}#${pointer}` })
    found.set(pointer, made)
    return made
  }
  return { document, validatorOf }
}

function closed(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(closed)
  if (typeof value !== 'object' || value === null) return value
  const copy = Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, closed(entry)]))
  const isOpen = copy.type === 'object' && copy.properties && copy.additionalProperties === undefined
  return isOpen ? { ...copy, additionalProperties: false } : copy
}

/**
 * Throws an AssertionError unless the description of the facade says that this call may be answered like this: the
 * status, the media type, the fields of the head that are promised, and every field of a JSON body.
 */
export async function checkAnswer(method: string, path: string, answer: Response): Promise<void> {
  if (!surface.test(path)) return
  opened ??= open()
  const { document, validatorOf } = opened
  const call = `${method} ${path} → ${answer.status}`
  const template = templateOf(new URL(path, 'http://registry').pathname, method)
  if (!template) return checkRefused(call, answer)
  const described = (document.paths as unknown as Record<string, Described>)[template] ?? {}
  const key = method === 'HEAD' && !described.head ? 'get' : method.toLowerCase()
  const place = `/paths/${pointerPart(template)}/${key}/responses/${answer.status}`
  const response = (described[key] as Described[string] | undefined)?.responses[answer.status]
  assert.ok(response, `${call}: this status is not described${answer.body ? `: ${await answer.clone().text()}` : ''}`)
  const pointer = '$ref' in response ? String(response.$ref).slice(1) : place
  const shared = document.components.responses as Record<string, DescribedAnswer>
  const { content, headers } = '$ref' in response ? (shared[pointer.split('/').at(-1) ?? ''] ?? {}) : response
  for (const [name, { required }] of Object.entries(headers ?? {}))
    assert.ok(!required || answer.headers.has(name), `${call}: ${name} is missing`)
  if (!content || method === 'HEAD') return
  const type = answer.headers.get('content-type')?.split(';')[0] ?? ''
  const wanted = content[type] ? type : '*/*'
  assert.ok(content[wanted], `${call}: the media type ${type} is not described`)
  if (!/json$/.test(wanted)) return
  const body: unknown = await answer.clone().json()
  const validate = validatorOf(`${pointer}/content/${pointerPart(wanted)}/schema`)
  const told = () => `${call}: ${JSON.stringify(validate.errors, null, 2)}\n${JSON.stringify(body, null, 2)}`
  assert.ok(validate(body), told())
}

/** A path that is none of ours, or a method that it does not have. */
async function checkRefused(call: string, answer: Response): Promise<void> {
  const { type } = (await answer
    .clone()
    .json()
    .catch(() => ({}))) as { type?: string }
  const refused = (['NOT_FOUND', 'UNSUPPORTED'] as const).filter((key) => failures[key].status === answer.status)
  assert.ok(
    refused.some((key) => type === `urn:packs-registry:${key}`) || call.startsWith('HEAD'),
    `${call}: this path and method are not described`,
  )
}

/** The template that the router takes for a path: the first in the order of the routes. */
function templateOf(path: string, method: string): string | undefined {
  const wanted = method === 'HEAD' ? ['head', 'get'] : [method.toLowerCase()]
  const fits = operations.filter(
    (operation) => wanted.includes(operation.method) && patternOf(operation.path).test(path),
  )
  const [first] = fits.sort((a, b) => wildcards(a.path) - wildcards(b.path))
  return first && written(first.path)
}

/** `/packs/:id`, or `/upstreams/:prefix{.+}`, as an expression. */
function patternOf(route: string): RegExp {
  return new RegExp(`^${route.replace(/:\w+(?:\{([^/]+)\})?/g, (_, pattern?: string) => pattern ?? '[^/]+')}$`)
}

const wildcards = (path: string) => path.split(':').length

/** A name as a part of a JSON pointer in a URI. */
function pointerPart(name: string): string {
  return encodeURIComponent(name.replaceAll('~', '~0').replaceAll('/', '~1'))
}
