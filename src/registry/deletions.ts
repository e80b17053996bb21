import type { ObjectKey } from '../blobs/keys.ts'
import { forgetDeletions, queuedDeletions } from '../db/blobs.ts'
import { ask } from '../db/client.ts'
import { expireExports } from '../db/export-files.ts'
import { expireImports, forgetImports } from '../db/imports.ts'
import { expireUploads } from '../db/uploads.ts'
import type { Deps } from '../deps.ts'

/**
 * Deletes objects that stand in the deletion queue already, now rather than at the worker's next round. The queue is
 * what guarantees it: should this fail, the rows are still there. So the caller does not wait, and no client learns.
 */
export function discardSoon(deps: Deps, keys: readonly ObjectKey[]): void {
  if (keys.length === 0) return
  discard(deps, keys).catch((error) => deps.log.warn({ error, keys: keys.length }, 'objects left for a later deletion'))
}

async function discard(deps: Deps, keys: readonly ObjectKey[]): Promise<void> {
  await deps.blobs.delete(keys)
  await ask(deps.db, (_, relaxed) => forgetDeletions(relaxed, keys))
}

/** As many objects as S3 deletes in one call. */
const batch = 1000

/** Each may have a hundred thousand objects. */
const fewImports = 5
/** How long the report of an import is kept after what it had stored is thrown away, in seconds. */
const reportSeconds = 30 * 24 * 60 * 60

/**
 * Ends the uploads and imports that nobody came back to, removes exports whose time is over, and deletes what is queued.
 * Harmless in several processes at once.
 */
export async function tidy(deps: Deps): Promise<{ expired: number; deleted: number }> {
  let expired = 0
  for (let more = batch; more === batch; expired += more) more = await ask(deps.db, (sql) => expireUploads(sql, batch))
  for (let more = fewImports; more === fewImports; expired += more)
    more = await ask(deps.db, (sql) => expireImports(sql, fewImports))
  for (let more = batch; more === batch; expired += more) more = await ask(deps.db, (sql) => expireExports(sql, batch))
  for (let more = batch; more === batch; ) more = await ask(deps.db, (sql) => forgetImports(sql, reportSeconds, batch))
  let deleted = 0
  for (let more = batch; more === batch; deleted += more) {
    const keys = await ask(deps.db, (sql) => queuedDeletions(sql, batch))
    if (keys.length > 0) await discard(deps, keys)
    more = keys.length
  }
  return { expired, deleted }
}
