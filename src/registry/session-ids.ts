import { createHmac, type KeyObject, randomUUID } from 'node:crypto'
import { isSameSecret } from '../auth/secrets.ts'
import type { Algorithm } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'

/**
 * An upload as its Location names it. `fresh`: it was opened and, as far as this id tells, has no chunk yet; all there
 * is to know of it is in the id, signed. Once it has a chunk there is a row, and its Location is the bare `id`.
 */
export type SessionId = { id: string; repository: RepositoryName; fresh: { algorithm: Algorithm } | undefined }

const form = /^([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:\.([0-9a-z]{1,10})\.(sha256|sha512)\.([0-9a-f]{32}))?$/

/** A new id, good until `expiresAt` (seconds since 1970) in this repository and on every process. */
export function newSessionId(
  secret: KeyObject,
  { repository, algorithm, expiresAt }: { repository: RepositoryName; algorithm: Algorithm; expiresAt: number },
): string {
  const facts = `${randomUUID()}.${Math.floor(expiresAt).toString(36)}.${algorithm}`
  return `${facts}.${signature(secret, repository, facts)}`
}

/** Undefined where the text is no id, or one that we did not sign for this repository, or has expired. */
export function parseSessionId(
  secret: KeyObject,
  repository: RepositoryName,
  text: string,
  nowSeconds: number,
): SessionId | undefined {
  const match = form.exec(text)
  if (!match) return undefined
  const [, id = '', expires, algorithm, signed] = match
  if (expires === undefined || signed === undefined) return { id, repository, fresh: undefined }
  if (!isSameSecret(signed, signature(secret, repository, `${id}.${expires}.${algorithm}`))) return undefined
  if (Number.parseInt(expires, 36) <= nowSeconds) return undefined
  return { id, repository, fresh: { algorithm: algorithm as Algorithm } }
}

function signature(secret: KeyObject, repository: RepositoryName, facts: string): string {
  return createHmac('sha256', secret).update(`${repository} ${facts}`).digest('hex').slice(0, 32)
}
