import { askFor } from './answers.ts'
import { type Connection, jsonBody } from './connection.ts'

/** What the repositories of a glob may hold together, and what they do. Absent: no limit. `setAt`: RFC 3339. */
export type Quota = {
  repositories: string
  maxBytes?: number
  maxVersions?: number
  bytes: number
  versions: number
  setBy: string
  setAt: string
}

type Cancellable = { signal?: AbortSignal | undefined }

/** The quotas of a registry; to set and to remove them takes an administrator. `repositories`: a glob. */
export type Quotas = {
  list(options?: Cancellable): Promise<Quota[]>
  /** Throws QUOTA_UNKNOWN. */
  get(repositories: string, options?: Cancellable): Promise<Quota>
  /** In the place of what was set for this glob before. One of the limits at least. */
  set(
    repositories: string,
    limits: { bytes?: number | undefined; versions?: number | undefined },
    options?: Cancellable,
  ): Promise<Quota>
  /** False where there was none. */
  remove(repositories: string, options?: Cancellable): Promise<boolean>
}

export function quotasOf(connection: Connection): Quotas {
  const pathOf = (repositories: string) => `/quotas/${encodeURI(repositories)}`
  return {
    async list({ signal } = {}) {
      return (await askFor<{ quotas: Quota[] }>(connection, 'quotas', { path: '/quotas', signal })).quotas
    },
    async get(repositories, { signal } = {}) {
      return (await askFor<{ quota: Quota }>(connection, 'quota', { path: pathOf(repositories), signal })).quota
    },
    async set(repositories, limits, { signal } = {}) {
      const call = { method: 'PUT' as const, path: pathOf(repositories), body: jsonBody(limits), signal }
      return (await askFor<{ quota: Quota }>(connection, 'quota', call)).quota
    },
    async remove(repositories, { signal } = {}) {
      const call = { method: 'DELETE' as const, path: pathOf(repositories), signal }
      return (await askFor<{ deleted: boolean }>(connection, 'deleted', call)).deleted
    },
  }
}
