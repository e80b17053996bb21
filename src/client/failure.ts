/** What this library finds out itself. */
type OwnCode =
  /** The bytes are not those that the digest names. Nothing of them was kept. */
  | 'DIGEST_MISMATCH'
  /** There are more or fewer bytes than were announced. */
  | 'SIZE_MISMATCH'
  /** The registry could not be reached, or fell silent, as often as it was tried. */
  | 'UNREACHABLE'
  /** The AbortSignal said stop. */
  | 'CANCELLED'
  /** The lock is none, or contradicts itself. */
  | 'LOCK_INVALID'
  /** What was asked cannot be put into a request: a pack id or an address that is none. */
  | 'REQUEST_INVALID'
  /** The answer is not one of a packs registry. */
  | 'ANSWER_INVALID'
  /** The registry sends this call to another address, where credentials must not follow. */
  | 'REDIRECTED'
  /** The file to be published changed while it was read. */
  | 'CONTENT_CHANGED'
  /** The file system refused: no space, no right. */
  | 'FILE_FAILED'

/** What the registry answers; there may be more of these in time. */
type ServerCode =
  | 'UNAUTHORIZED'
  | 'DENIED'
  | 'TOOMANYREQUESTS'
  | 'BLOB_UNKNOWN'
  | 'MANIFEST_UNKNOWN'
  | 'PACK_UNKNOWN'
  | 'PACK_INVALID'
  | 'VERSION_UNKNOWN'
  | 'VERSION_EXISTS'
  | 'VERSION_SPENT'
  | 'CHANNEL_INVALID'
  | 'CHANNEL_BACKWARDS'
  | 'VERSION_HELD'
  | 'TAG_INVALID'
  | 'DEPENDENCY_INVALID'
  | 'DEPENDENTS_EXIST'
  | 'RUNNER_TOO_OLD'
  | 'UNRESOLVABLE'
  | 'PRECONDITION_FAILED'
  | 'QUERY_INVALID'
  | 'CONTENT_TOO_LARGE'
  | 'BUNDLE_UNKNOWN'
  | 'BUNDLE_GONE'
  | 'INVENTORY_INVALID'
  | 'BUNDLE_INVALID'
  | 'SIGNATURE_INVALID'
  | 'SIGNATURE_MISSING'
  | 'EXPORT_UNKNOWN'
  | 'EXPORT_NOT_READY'
  | 'IMPORT_UNKNOWN'
  | 'IMPORT_REFUSED'
  | 'IMPORT_BACKWARDS'
  | 'IMPORT_BASE_MISSING'
  | 'IMPORT_SUPERSEDED'
  | 'JOB_UNKNOWN'
  | 'MIRROR_UNKNOWN'
  | 'MIRROR_EXISTS'
  | 'JOB_NOT_FAILED'
  | 'WEBHOOK_UNKNOWN'
  | 'WEBHOOK_EXISTS'
  | 'DELIVERY_UNKNOWN'
  | 'DELIVERY_WAITS'
  | 'EVENTS_GONE'
  | 'JOB_ENDED'
  | 'POLICY_UNKNOWN'
  | 'RUN_UNKNOWN'
  | 'TOKEN_UNKNOWN'
  | 'TOKEN_EXISTS'
  | 'UNAVAILABLE'

/** Why a call failed. Any other text is a key of the registry that this list does not know yet. */
export type PacksErrorCode = OwnCode | ServerCode | (string & {})

/**
 * What every call throws. `code` is stable and for programs, `message` for people and says what to do next. `status`:
 * of the HTTP answer, where there was one. `about`: facts beside the words, such as `{ nearest: ["1.4.0"] }`.
 */
export class PacksError extends Error {
  readonly code: PacksErrorCode
  readonly status?: number
  readonly about?: Record<string, unknown>

  constructor(
    code: PacksErrorCode,
    message: string,
    { status, about, cause }: { status?: number; about?: Record<string, unknown>; cause?: unknown } = {},
  ) {
    super(message, cause === undefined ? undefined : { cause })
    this.name = 'PacksError'
    this.code = code
    if (status !== undefined) this.status = status
    if (about !== undefined) this.about = about
  }
}

/** Throws CANCELLED where the signal has said stop. */
export function unlessCancelled(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw cancelled(signal)
}

export function cancelled(signal: AbortSignal): PacksError {
  return new PacksError('CANCELLED', 'cancelled', { cause: signal.reason })
}
