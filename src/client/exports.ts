import { askFor } from './answers.ts'
import { type BundleRequest, readFile } from './bundles.ts'
import { type Connection, jsonBody } from './connection.ts'
import { listed } from './pages.ts'

/** A bundle file that the registry makes in the background and keeps until `expiresAt`. Sizes in bytes. */
export type Export = {
  /** Names the bytes: the same request in the same state is the same export. */
  id: string
  state: 'waiting' | 'running' | 'ready' | 'failed'
  size: number
  written: number
  /** Of the whole file, when it is ready. */
  sha256?: string
  index: string
  blobs: number
  bytes: number
  packs: number
  channels: number
  referrers: number
  leftOut: number
  signedBy: string[]
  /** Who asked for it first. */
  by: string
  createdAt: string
  finishedAt?: string
  expiresAt: string
  error?: string
}

type Cancellable = { signal?: AbortSignal | undefined }

/** Bundle files that a registry makes in the background. */
export type Exports = {
  /** Has one made. Throws as `bundles.plan` tells of problems: UNRESOLVABLE, PACK_UNKNOWN and others. */
  request(request: BundleRequest, options?: Cancellable): Promise<Export>
  /** The newest first, page by page as they are consumed. */
  list(options?: Cancellable & { pageSize?: number }): AsyncGenerator<Export, void, undefined>
  /** Throws EXPORT_UNKNOWN. */
  show(id: string, options?: Cancellable): Promise<Export>
  /** False where there was none. */
  remove(id: string, options?: Cancellable): Promise<boolean>
  /** The bytes of one that is ready, as `bundles.read`. Throws EXPORT_UNKNOWN, EXPORT_NOT_READY. */
  read(
    file: Pick<Export, 'id' | 'size'>,
    options?: Cancellable & { from?: number },
  ): AsyncGenerator<Buffer, void, undefined>
}

export function exportsOf(connection: Connection): Exports {
  const path = (id: string) => `/bundles/exports/${encodeURIComponent(id)}`
  return {
    async request(request, { signal } = {}) {
      const call = { method: 'POST' as const, path: '/bundles/exports', body: jsonBody(request), signal }
      return (await askFor<{ export: Export }>(connection, 'export', call)).export
    },
    list: ({ pageSize = 100, signal } = {}) =>
      listed(connection, 'exports', { path: `/bundles/exports?limit=${pageSize}`, signal }),
    async show(id, { signal } = {}) {
      return (await askFor<{ export: Export }>(connection, 'export', { path: path(id), signal })).export
    },
    async remove(id, { signal } = {}) {
      const call = { method: 'DELETE' as const, path: path(id), signal }
      return (await askFor<{ deleted: boolean }>(connection, 'deleted', call)).deleted
    },
    read: ({ id, size }, options = {}) => readFile(connection, { path: `${path(id)}/file`, etag: id, size }, options),
  }
}
