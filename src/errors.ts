/**
 * Every way a request can fail, in one table. A rule throws `new Failure(key, …)`; the surface that answers renders it
 * (`/v2`: the specification's error document). `code` is the wire code where it differs from the key: the first block
 * are the distribution specification's own codes, the second ours.
 * Source: OCI distribution-spec, "Error Codes".
 */
export const failures = {
  BLOB_UNKNOWN: { status: 404, title: 'blob unknown to registry' },
  BLOB_UPLOAD_INVALID: { status: 400, title: 'blob upload invalid' },
  BLOB_UPLOAD_UNKNOWN: { status: 404, title: 'blob upload unknown to registry' },
  DIGEST_INVALID: { status: 400, title: 'provided digest did not match uploaded content' },
  MANIFEST_BLOB_UNKNOWN: { status: 400, title: 'manifest references a blob unknown to this repository' },
  MANIFEST_INVALID: { status: 400, title: 'manifest invalid' },
  MANIFEST_UNKNOWN: { status: 404, title: 'manifest unknown to registry' },
  NAME_INVALID: { status: 400, title: 'invalid repository name' },
  NAME_UNKNOWN: { status: 404, title: 'repository name not known to registry' },
  SIZE_INVALID: { status: 400, title: 'provided length did not match content length' },
  UNAUTHORIZED: { status: 401, title: 'authentication required' },
  DENIED: { status: 403, title: 'requested access to the resource is denied' },
  UNSUPPORTED: { status: 405, title: 'the operation is unsupported' },
  TOOMANYREQUESTS: { status: 429, title: 'too many requests' },

  MANIFEST_TOO_LARGE: { status: 413, title: 'manifest larger than the registry accepts', code: 'SIZE_INVALID' },
  UPLOAD_OUT_OF_ORDER: {
    status: 416,
    title: 'chunk does not start where the upload stands',
    code: 'BLOB_UPLOAD_INVALID',
  },
  BLOB_IN_USE: { status: 409, title: 'blob is part of a manifest in this repository', code: 'DENIED' },
  RANGE_INVALID: { status: 416, title: 'range outside of the content' },
  QUERY_INVALID: { status: 400, title: 'query parameter invalid' },
  TAG_INVALID: { status: 400, title: 'invalid tag name' },
  TOO_MANY_TAGS: { status: 414, title: 'too many tag parameters' },
  PRECONDITION_FAILED: { status: 412, title: 'the condition given in the request does not hold' },
  NOT_FOUND: { status: 404, title: 'no such endpoint' },
  UNAVAILABLE: { status: 503, title: 'a part of the registry does not answer; try again' },
} as const satisfies Record<string, { status: number; title: string; code?: string }>

export type FailureKey = keyof typeof failures

/** What travels with a failure beside its key. `detail` is shown to the client; `headers` are sent along. */
export type FailureOptions = { detail?: unknown; headers?: Record<string, string>; cause?: unknown }

/** A failure with a place in the table: thrown anywhere below `http`, rendered there. */
export class Failure extends Error {
  readonly key: FailureKey
  readonly detail: unknown
  readonly headers: Record<string, string>

  constructor(key: FailureKey, { detail, headers = {}, cause }: FailureOptions = {}) {
    super(failures[key].title, cause === undefined ? undefined : { cause })
    this.name = 'Failure'
    this.key = key
    this.detail = detail
    this.headers = headers
  }
}

/** A part the registry stands on (database, blob store) is down or overloaded: 503, worth trying again. */
export function unavailable(part: string, cause?: unknown, retryAfterSeconds = 1): Failure {
  return new Failure('UNAVAILABLE', {
    detail: { part },
    headers: { 'retry-after': String(retryAfterSeconds) },
    cause,
  })
}
