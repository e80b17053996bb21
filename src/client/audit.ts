import { askFor } from './answers.ts'
import { type Connection, queryOf } from './connection.ts'
import { listed } from './pages.ts'

/** What was done or refused. Times are RFC 3339. */
export type AuditEvent = {
  id: number
  at: string
  /** The user, the service or the name of the API token. */
  who: string
  kind: string
  tokenId?: string
  address: string
  /** Method and route. */
  action: string
  path: string
  repository?: string
  digest?: string
  tags?: string
  /** Why, in the words of who did it, or of the policy that did. */
  reason?: string
  outcome: 'done' | 'refused' | 'failed'
  status: number
  requestId: string
}

/** All of these hold. `since`, `until`: a time, or a day. */
export type AuditQuery = {
  who?: string | undefined
  repository?: string | undefined
  digest?: string | undefined
  outcome?: AuditEvent['outcome'] | undefined
  since?: string | undefined
  until?: string | undefined
  /** How many are asked for at a time: 1 to 1,000. */
  pageSize?: number
}

export type AuditCheck = {
  intact: boolean
  seals: number
  events: number
  unsealed: number
  head?: string
  headFound?: boolean
  broken: number[]
}

type Cancellable = { signal?: AbortSignal | undefined }

/** What a registry wrote down; it takes an administrator. */
export type Audit = {
  /** The newest first, page by page as they are consumed. */
  list(query?: AuditQuery, options?: Cancellable): AsyncGenerator<AuditEvent, void, undefined>
  /** Whether anything was changed or taken away. `head`: the digest of the last seal at some time before. */
  verify(options?: { head?: string | undefined } & Cancellable): Promise<AuditCheck>
}

export function auditOf(connection: Connection): Audit {
  return {
    list: ({ pageSize = 1000, ...filters } = {}, { signal } = {}) =>
      listed(connection, 'events', { path: `/audit${queryOf({ ...filters, limit: String(pageSize) })}`, signal }),
    verify: ({ head, signal } = {}) =>
      askFor<AuditCheck>(connection, 'intact', { path: `/audit/verify${head ? `?head=${head}` : ''}`, signal }),
  }
}
