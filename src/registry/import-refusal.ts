import { ask } from '../db/client.ts'
import { type Attempt, failImport, leaveImport } from '../db/imports.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import { type Body, cutOff } from './body.ts'
import { lifeSeconds } from './import-pulse.ts'
import { type ImportReport, refusal } from './import-report.ts'

/** A bundle that was judged whole, and refused. */
export class Refused extends Error {
  readonly report: ImportReport
  readonly failure: Failure
  constructor(report: ImportReport, id: string | undefined) {
    super('refused')
    this.report = report
    this.failure = refusal(report.problems, id)
  }
}

/** What ended an import, as a failure to be told. */
export function reasonOf(error: unknown, { stream }: Body): unknown {
  if (error instanceof Refused) return error.failure
  const isCutOff = stream.destroyed && !stream.readableEnded
  // A decompressor that is left without bytes takes that for damage.
  if (error instanceof Failure && !(isCutOff && error.key === 'BUNDLE_INVALID')) return error
  return isCutOff ? cutOff(error) : error
}

/** Failures that say nothing of the bundle: the same may be gone on with. */
const passing = new Set<string>(['BLOB_UPLOAD_INVALID', 'UNAVAILABLE', 'IMPORT_SUPERSEDED'])

export function isPassing(why: unknown): boolean {
  return !(why instanceof Failure) || passing.has(why.key)
}

/** Notes why an import ended before it was whole. What was judged and refused keeps its report; what was cut off can go on. */
export async function quarantine(
  deps: Deps,
  attempt: Attempt,
  why: unknown,
  report: ImportReport | undefined,
): Promise<void> {
  const known = why instanceof Failure ? why : undefined
  const error = { key: known?.key ?? 'UNKNOWN', detail: known?.detail ?? 'internal error; see the log' }
  const told = report ?? { problems: [{ key: error.key, message: String(error.detail) }] }
  try {
    if (isPassing(why)) await ask(deps.db, (sql) => leaveImport(sql, attempt, error))
    else await ask(deps.db, (sql) => failImport(sql, attempt, { error, report: told, lifeSeconds }))
  } catch (cause) {
    // Its lease ends by itself, and then it counts as left behind.
    deps.log.warn({ error: cause, import: attempt.id }, 'could not note how an import ended')
  }
}
