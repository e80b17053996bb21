import type { Context } from 'hono'
import * as v from 'valibot'
import { Failure } from '../../errors.ts'
import { hasMoreParts } from '../../oci/json.ts'
import { inWords, versionSchema, violationsOf } from '../../packs/document.ts'
import { type PackId, parsePackId } from '../../packs/pack.ts'
import { parseVersion, type Version } from '../../packs/version.ts'
import { readWhole } from '../../registry/body.ts'
import type { Env } from '../routes.ts'
import { bodyOf } from '../v2/request.ts'

type Request = Context<Env>

/** The pack in the path. Throws PACK_UNKNOWN where it cannot be the id of one. */
export function packIdParam(c: Request): PackId {
  const text = c.req.param('id') ?? ''
  const packId = parsePackId(text)
  if (packId) return packId
  throw new Failure('PACK_UNKNOWN', {
    detail: `${JSON.stringify(text.slice(0, 200))} is not the id of a pack: lowercase letters and digits, joined by single ".", "_" or "-"`,
  })
}

/** The exact version in the path. Throws VERSION_UNKNOWN where it is none. */
export function versionParam(c: Request): Version {
  const text = c.req.param('version') ?? ''
  const version = parseVersion(text)
  if (version) return version
  throw new Failure('VERSION_UNKNOWN', {
    detail: `${JSON.stringify(text.slice(0, 200))} is not a version; this call takes an exact one, such as 1.4.0`,
  })
}

/** A name or an id in the path, to be looked up. NUL is no text to PostgreSQL; what stands for it here names nothing. */
export function nameParam(c: Request, key: 'name' | 'id'): string {
  return (c.req.param(key) ?? '').replaceAll('\0', '\ufffd')
}

/** A query of these parameters and no others: a misspelt one must not be taken for one that was not given. */
export function query<const E extends v.ObjectEntries>(entries: E) {
  return v.strictObject(entries, (issue) =>
    issue.expected === 'never' ? 'is not a parameter of this call' : 'is not a query',
  )
}

/** A switch: absent, `true` or `false`; without a value it is on. */
export const switchSchema = v.optional(
  v.pipe(
    v.picklist(['true', 'false', ''], 'must be true or false'),
    v.metadata({ type: 'boolean', enum: undefined }),
    v.transform((text) => text !== 'false'),
  ),
  'false',
)

export const noQuery = query({})

export const runnerQuery = query({
  runner: v.optional(versionSchema),
})

/** The query, checked. Throws QUERY_INVALID with everything that is wrong with it. */
export function queryOf<S extends v.GenericSchema>(c: Request, schema: S): v.InferOutput<S> {
  const given = c.req.queries()
  const twice = Object.keys(given).filter((name) => (given[name]?.length ?? 0) > 1)
  if (twice.length > 0) throw new Failure('QUERY_INVALID', { detail: `given more than once: ${twice.join(', ')}` })
  const result = v.safeParse(schema, c.req.query())
  if (result.success) return result.output
  throw new Failure('QUERY_INVALID', { detail: inWords(violationsOf(result.issues)) })
}

/** Text in a query, of at most so many characters. */
export const textSchema = (most: number) =>
  v.pipe(
    v.string(),
    v.maxLength(most),
    v.check((value) => !value.includes('\0'), 'must not contain NUL'),
  )

/** Why something is meant that has to be meant. */
export const reasonSchema = v.pipe(textSchema(1000), v.trim(), v.minLength(1, 'must not be empty'))

/** How many entries a page may have. */
export const limitSchema = v.pipe(
  v.string(),
  v.regex(/^\d{1,4}$/, 'must be 1 to 1000'),
  v.metadata({ type: 'integer', minimum: 1, maximum: 1000 }),
  v.transform(Number),
  v.minValue(1, 'must be 1 to 1000'),
  v.maxValue(1000, 'must be 1 to 1000'),
)

const maxJsonBytes = 1024 * 1024
/** What a larger body has much of is text: content in base64, an inventory. */
const mostParts = 200_000

/** The JSON body, checked. Throws REQUEST_INVALID with what is wrong with it, CONTENT_TOO_LARGE. */
export async function jsonBody<S extends v.GenericSchema>(
  c: Request,
  schema: S,
  limit = maxJsonBytes,
): Promise<v.InferOutput<S>> {
  const bytes = await readWhole(bodyOf(c), limit)
  if (!bytes) throw new Failure('CONTENT_TOO_LARGE', { detail: `this body may have at most ${limit} bytes` })
  if (bytes.length > maxJsonBytes && hasMoreParts(bytes, mostParts))
    throw new Failure('CONTENT_TOO_LARGE', {
      detail: `this body may have at most ${mostParts} objects, lists and commas between their entries`,
    })
  const result = v.safeParse(schema, parseJson(bytes))
  if (result.success) return result.output
  throw new Failure('REQUEST_INVALID', { detail: `the body: ${inWords(violationsOf(result.issues))}` })
}

/** Throws REQUEST_INVALID. */
export function parseJson(bytes: Buffer, what = 'the body'): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (cause) {
    throw new Failure('REQUEST_INVALID', { detail: `${what} is not JSON in UTF-8: ${(cause as Error).message}`, cause })
  }
}

/** A JSON answer from text that is JSON already. */
export function jsonText(text: string, { status = 200, headers = {} as Record<string, string> } = {}): Response {
  return new Response(text, { status, headers: { 'content-type': 'application/json', ...headers } })
}
