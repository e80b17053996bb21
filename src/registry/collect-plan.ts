import { ask, type Sql } from '../db/client.ts'
import { reviewClock } from '../db/collect.ts'
import { plannedBlobs, plannedDeletions, plannedLinks } from '../db/collect-plan.ts'
import { expiredExports } from '../db/export-files.ts'
import { expiredImports } from '../db/imports.ts'
import { expiredUploads } from '../db/uploads.ts'
import type { Deps } from '../deps.ts'
import { findLeftovers } from './collect-leftovers.ts'

/** Something that a pass would take away. `name`: a digest, an object's key, an id or a path. `size` in bytes. */
export type Finding = {
  kind: 'link' | 'blob' | 'object' | 'upload' | 'import' | 'export' | 'staged object' | 'multipart upload' | 'file'
  name: string
  repository?: string
  size?: number
  /** ISO 8601. */
  since: string
  reason: string
}

const pageRows = 2_000

/** What a pass would take away if it began now, and why. Nothing is changed. What others do meanwhile may be missed. */
export async function* planCollection(deps: Deps, { signal }: { signal?: AbortSignal } = {}): AsyncGenerator<Finding> {
  const until = await ask(deps.db, reviewClock)
  const pages = <T>(read: (sql: Sql, page: { until: string; after: T | undefined; limit: number }) => Promise<T[]>) =>
    inPages<T>((after) => ask(deps.db, (sql) => read(sql, { until, after, limit: pageRows })), signal)
  for await (const { id, repository, size, since } of pages(expiredUploads))
    yield { kind: 'upload', name: id, repository, size, since: since.toISOString(), reason: 'its session has expired' }
  for await (const { id, size, since } of pages(expiredImports))
    yield { kind: 'import', name: id, size, since: since.toISOString(), reason: 'nobody came back to it' }
  for await (const { id, size, since } of pages(expiredExports))
    yield { kind: 'export', name: id, size, since: since.toISOString(), reason: 'its time is over' }
  for await (const { digest: name, repository, size, since: date, goes, blobGoes } of pages(plannedLinks)) {
    const since = date.toISOString()
    if (goes) yield { kind: 'link', name, repository, size, since, reason: 'no manifest of the repository needs it' }
    if (blobGoes) yield { kind: 'blob', name, size, since, reason: 'no repository has it any more' }
  }
  for await (const { digest: name, size, since, goes } of pages(plannedBlobs))
    if (goes) yield { kind: 'blob', name, size, since: since.toISOString(), reason: 'no repository has it any more' }
  for await (const { key: name, since, error } of pages(plannedDeletions)) {
    const reason = error === null ? 'no row names it' : `no row names it; the store would not delete it: ${error}`
    yield { kind: 'object', name, since: since.toISOString(), reason }
  }
  for await (const { kind, name, size, since } of findLeftovers(deps)) {
    signal?.throwIfAborted()
    const reason =
      kind === 'staged object' ? 'no upload session names it' : 'its writer has not touched it for two days'
    yield { kind, name, ...(size === undefined ? {} : { size }), since: since.toISOString(), reason }
  }
}

async function* inPages<T>(
  read: (after: T | undefined) => Promise<T[]>,
  signal: AbortSignal | undefined,
): AsyncGenerator<T, void, undefined> {
  let after: T | undefined
  for (;;) {
    signal?.throwIfAborted()
    const page = await read(after)
    yield* page
    if (page.length < pageRows) return
    after = page.at(-1)
  }
}
