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

  QUOTA_EXCEEDED: { status: 403, title: 'the quota of these repositories is spent', code: 'DENIED' },
  QUOTA_UNKNOWN: { status: 404, title: 'no such quota' },
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
  PACK_INVALID: { status: 422, title: 'not a valid pack', code: 'MANIFEST_INVALID' },
  PACK_UNKNOWN: { status: 404, title: 'no such pack' },
  VERSION_UNKNOWN: { status: 404, title: 'no such version of this pack' },
  VERSION_EXISTS: { status: 409, title: 'this version is published, and versions never change', code: 'DENIED' },
  VERSION_SPENT: { status: 409, title: 'this version was deleted, and its number is not used again', code: 'DENIED' },
  CHANNEL_INVALID: { status: 409, title: 'a channel points at a published version of its pack', code: 'DENIED' },
  CHANNEL_BACKWARDS: { status: 409, title: 'the channel would go back to an older version', code: 'DENIED' },
  VERSION_HELD: { status: 409, title: 'this version is held', code: 'DENIED' },
  DEPENDENCY_INVALID: { status: 422, title: 'dependencies cannot be satisfied', code: 'MANIFEST_INVALID' },
  DEPENDENTS_EXIST: { status: 409, title: 'other packs depend on this version', code: 'DENIED' },
  BUNDLE_INCOMPLETE: { status: 409, title: 'members of this bundle are not here' },
  RUNNER_TOO_OLD: { status: 409, title: 'this version needs another runner' },
  UNRESOLVABLE: { status: 409, title: 'no set of versions satisfies all of this' },
  JOB_UNKNOWN: { status: 404, title: 'no such job' },
  JOB_NOT_FAILED: { status: 409, title: 'this job cannot be retried now' },
  JOB_ENDED: { status: 409, title: 'this job has ended' },
  MIRROR_UNKNOWN: { status: 404, title: 'no such mirror' },
  MIRROR_EXISTS: { status: 409, title: 'there is a mirror of this name' },
  WEBHOOK_UNKNOWN: { status: 404, title: 'no such webhook' },
  WEBHOOK_EXISTS: { status: 409, title: 'there is a webhook of this name' },
  DELIVERY_UNKNOWN: { status: 404, title: 'no such delivery' },
  DELIVERY_WAITS: { status: 409, title: 'this delivery has not ended' },
  EVENTS_GONE: { status: 410, title: 'events from there on are not here any more' },
  POLICY_UNKNOWN: { status: 404, title: 'no such policy' },
  RUN_UNKNOWN: { status: 404, title: 'no such run' },
  UPSTREAM_UNKNOWN: { status: 404, title: 'no such upstream' },
  UPSTREAM_READ_ONLY: { status: 403, title: 'this repository is filled from its upstream', code: 'DENIED' },
  ADDRESS_REFUSED: { status: 403, title: 'this address may not be asked', code: 'DENIED' },
  REMOTE_DENIED: { status: 403, title: 'the other registry does not let us', code: 'DENIED' },
  REMOTE_REFUSED: { status: 409, title: 'the other registry refuses this', code: 'DENIED' },
  REMOTE_INVALID: { status: 502, title: 'the other registry does not answer as a registry does' },
  REMOTE_UNREACHABLE: { status: 502, title: 'the other registry does not answer' },
  REQUEST_INVALID: { status: 400, title: 'the request cannot be understood' },
  CONTENT_TOO_LARGE: { status: 413, title: 'the request is larger than this form of it may be' },
  BUNDLE_INVALID: { status: 422, title: 'not a bundle that can be taken' },
  SIGNATURE_INVALID: { status: 422, title: 'the signature does not hold' },
  SIGNATURE_MISSING: { status: 422, title: 'a signature is needed' },
  BUNDLE_UNKNOWN: { status: 404, title: 'no such bundle file' },
  BUNDLE_GONE: { status: 410, title: 'content of this bundle file is not here any more' },
  INVENTORY_INVALID: { status: 422, title: 'not an inventory' },
  KEY_INVALID: { status: 422, title: 'not a key that can be used' },
  KEY_UNKNOWN: { status: 404, title: 'no such key' },
  KEY_EXISTS: { status: 409, title: 'there is such a key already' },
  KEY_NOT_SIGNING: { status: 409, title: 'this key does not sign here' },
  TOKEN_UNKNOWN: { status: 404, title: 'no such token' },
  TOKEN_EXISTS: { status: 409, title: 'there is such a token already' },
  EXPORT_UNKNOWN: { status: 404, title: 'no such export' },
  EXPORT_NOT_READY: { status: 409, title: 'this export is not made yet' },
  IMPORT_UNKNOWN: { status: 404, title: 'no such import' },
  IMPORT_REFUSED: { status: 422, title: 'this bundle cannot be imported here' },
  IMPORT_BACKWARDS: { status: 409, title: 'something would move to an older version' },
  IMPORT_BASE_MISSING: { status: 409, title: 'what this bundle leaves out is not here' },
  IMPORT_SUPERSEDED: { status: 409, title: 'the import goes on in another connection' },
  UNAVAILABLE: { status: 503, title: 'a part of the registry does not answer; try again' },
} as const satisfies Record<string, { status: number; title: string; code?: string }>

export type FailureKey = keyof typeof failures

/**
 * What travels with a failure beside its key. `detail` is shown to the client, in words or as facts; `about`: facts
 * beside the words; `headers` are sent along.
 */
export type FailureOptions = {
  detail?: unknown
  about?: Record<string, unknown>
  headers?: Record<string, string>
  cause?: unknown
}

/** A failure with a place in the table: thrown anywhere below `http`, rendered there. */
export class Failure extends Error {
  readonly key: FailureKey
  readonly detail: unknown
  readonly about: Record<string, unknown> | undefined
  readonly headers: Record<string, string>

  constructor(key: FailureKey, { detail, about, headers = {}, cause }: FailureOptions = {}) {
    super(failures[key].title, cause === undefined ? undefined : { cause })
    this.name = 'Failure'
    this.key = key
    this.detail = detail
    this.about = about
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
