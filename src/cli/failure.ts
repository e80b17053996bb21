import { fileTrouble } from '../client/file-trouble.ts'
import { printable } from './output.ts'

/** What the exit codes mean. Source: spec/packs.md. */
export const exitCodes = {
  ok: 0,
  /** Usage, a missing file, a registry that cannot be reached; everything that has no code of its own. */
  failed: 1,
  /** Bytes are not what their digest or size says. */
  mismatch: 2,
  /** A signature is missing, wrong, or by nobody who is trusted. */
  signature: 5,
  /** Something would move to an older version, and was not told to. */
  backwards: 8,
  /** A document, a set of requirements or a change that the rules of packs refuse. */
  refused: 11,
  /** Ctrl-C. */
  cancelled: 130,
} as const

/** The exit code of each failure that has one of its own; of all others it is 1. */
const exitCodeOfFailure: Record<string, number> = {
  DIGEST_INVALID: exitCodes.mismatch,
  DIGEST_MISMATCH: exitCodes.mismatch,
  SIZE_INVALID: exitCodes.mismatch,
  SIZE_MISMATCH: exitCodes.mismatch,
  AUDIT_BROKEN: exitCodes.mismatch,
  BACKUP_DAMAGED: exitCodes.mismatch,
  SIGNATURE_INVALID: exitCodes.signature,
  SIGNATURE_MISSING: exitCodes.signature,
  CHANNEL_BACKWARDS: exitCodes.backwards,
  IMPORT_BACKWARDS: exitCodes.backwards,
  IMPORT_REFUSED: exitCodes.refused,
  IMPORT_BASE_MISSING: exitCodes.refused,
  TAG_INVALID: exitCodes.refused,
  PACK_INVALID: exitCodes.refused,
  MANIFEST_INVALID: exitCodes.refused,
  VERSION_EXISTS: exitCodes.refused,
  VERSION_SPENT: exitCodes.refused,
  CHANNEL_INVALID: exitCodes.refused,
  DEPENDENCY_INVALID: exitCodes.refused,
  VERSION_HELD: exitCodes.refused,
  DEPENDENTS_EXIST: exitCodes.refused,
  RUNNER_TOO_OLD: exitCodes.refused,
  UNRESOLVABLE: exitCodes.refused,
  LOCK_INVALID: exitCodes.refused,
  BUNDLE_INVALID: exitCodes.refused,
  BUNDLE_INCOMPLETE: exitCodes.refused,
  INVENTORY_INVALID: exitCodes.refused,
  KEY_INVALID: exitCodes.refused,
  KEY_EXISTS: exitCodes.refused,
  KEY_NOT_SIGNING: exitCodes.refused,
  TOKEN_EXISTS: exitCodes.refused,
  QUOTA_EXCEEDED: exitCodes.refused,
  POLICY_INVALID: exitCodes.refused,
  RESTORE_REFUSED: exitCodes.refused,
  FOLDER_INVALID: exitCodes.refused,
}

export function exitCodeOf(error: unknown): number {
  return exitCodeOfFailure[codeOf(error) ?? ''] ?? exitCodes.failed
}

function codeOf(error: unknown): string | undefined {
  const { code } = Object(error) as { code?: unknown }
  return typeof code === 'string' ? code : undefined
}

type Report = { json: boolean; cancelled?: boolean; env: NodeJS.ProcessEnv }

/** Says what went wrong, and what to do next: in words to stderr, or as one JSON document to stdout. */
export function reportFailure(error: unknown, { json, cancelled = false, env }: Report): void {
  const code = cancelled ? 'CANCELLED' : (codeOf(error) ?? 'FAILED')
  const message = cancelled ? 'cancelled' : [wordsOf(error), adviceFor[code]].filter(Boolean).join('\n')
  const { about } = Object(error) as { about?: unknown }
  const facts = cancelled || about === undefined ? {} : { detail: about }
  if (json) process.stdout.write(`${JSON.stringify({ error: { code, message, ...facts } }, undefined, 2)}\n`)
  else process.stderr.write(`${printable(cancelled ? message : `error: ${message}`)}\n`)
  if (env.LOG_LEVEL === 'debug' && error instanceof Error) process.stderr.write(`${printable(error.stack ?? '')}\n`)
}

/** Says in JSON what is wrong with a command line. */
export function reportUsage(message: string): void {
  const error = { code: 'USAGE', message: message.replace(/^error: /, '') }
  process.stdout.write(`${JSON.stringify({ error }, undefined, 2)}\n`)
}

/** What to do next, where only this side of the wire knows. */
const adviceFor: Record<string, string> = {
  UNREACHABLE:
    'Start a registry on this machine with "packs serve", or say where yours is: --registry URL, or PACKS_REGISTRY in the environment.',
  UNAUTHORIZED: 'Log in first: packs login',
  ANSWER_INVALID: 'Is that the address of a packs registry? See --registry and PACKS_REGISTRY.',
  DEPENDENTS_EXIST: 'To leave it out of new resolutions only: packs yank. To delete it all the same: --force',
}

function wordsOf(error: unknown): string {
  return error instanceof Error ? (fileTrouble(error) ?? error.message) : String(error)
}
