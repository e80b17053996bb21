import type { Context } from 'hono'
import { Failure } from '../../errors.ts'
import { type Algorithm, type Digest, parseAlgorithm, parseDigest } from '../../oci/digest.ts'
import { parseName, type RepositoryName } from '../../oci/name.ts'
import { type ByteRange, parseChunkRange } from '../../oci/range.ts'
import type { Body } from '../../registry/body.ts'
import type { Env } from '../routes.ts'

type Request = Context<Env>

/** Throws NAME_INVALID. */
export function nameOf(c: Request): RepositoryName {
  const text = c.req.param('name') ?? ''
  return parseName(text) ?? fail('NAME_INVALID', `${JSON.stringify(text.slice(0, 300))} is not a repository name`)
}

/** The digest in the path. Throws DIGEST_INVALID. */
export function digestParam(c: Request): Digest {
  return checkedDigest(c.req.param('digest') ?? '')
}

/** The digest in the query, or undefined where there is none. Throws DIGEST_INVALID. */
export function digestQuery(c: Request, key = 'digest'): Digest | undefined {
  const text = c.req.query(key)
  return text === undefined ? undefined : checkedDigest(text)
}

function checkedDigest(text: string): Digest {
  return (
    parseDigest(text) ??
    fail('DIGEST_INVALID', `${JSON.stringify(text.slice(0, 200))} is not a sha256 or sha512 digest in lowercase hex`)
  )
}

/** Throws DIGEST_INVALID. */
export function algorithmQuery(c: Request): Algorithm {
  const text = c.req.query('digest-algorithm') ?? 'sha256'
  return parseAlgorithm(text) ?? fail('DIGEST_INVALID', `digest-algorithm must be sha256 or sha512`)
}

/** The chunk's place in the upload, or undefined where the client leaves it open. Throws BLOB_UPLOAD_INVALID. */
export function chunkRangeOf(c: Request): ByteRange | undefined {
  const header = c.env.incoming.headers['content-range']
  if (header === undefined) return undefined
  return parseChunkRange(header) ?? fail('BLOB_UPLOAD_INVALID', 'Content-Range of a chunk is <first>-<last>')
}

/**
 * The request's body as Node's own stream: the fastest there is. Throws SIZE_INVALID for a length beyond what numbers
 * here can hold, which Node lets through.
 */
export function bodyOf(c: Request): Body {
  const { incoming } = c.env
  const field = incoming.headers['content-length']
  const chunked = incoming.headers['transfer-encoding'] !== undefined
  if (field === undefined) return { stream: incoming, length: chunked ? undefined : 0 }
  const length = Number(field)
  if (!Number.isSafeInteger(length)) fail('SIZE_INVALID', `nothing can have a Content-Length of ${field}`)
  return { stream: incoming, length }
}

/** How many entries a page may have at most. */
const maxPage = 10_000

/** `n` and `last` of a listing. Throws QUERY_INVALID where `n` is not a whole number. */
export function pageOf(c: Request, fallback = maxPage): { limit: number; last: string } {
  const text = c.req.query('n')
  if (text !== undefined && !/^\d+$/.test(text))
    throw new Failure('QUERY_INVALID', { detail: 'n must be a whole number' })
  // NUL is no text to PostgreSQL, and nothing sorts before what follows it.
  const last = (c.req.query('last') ?? '').replaceAll('\0', '')
  return { limit: text === undefined ? fallback : Math.min(Number(text), maxPage), last }
}

function fail(key: 'NAME_INVALID' | 'DIGEST_INVALID' | 'BLOB_UPLOAD_INVALID' | 'SIZE_INVALID', detail: string): never {
  throw new Failure(key, { detail })
}
