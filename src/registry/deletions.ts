import type { ObjectKey } from '../blobs/keys.ts'
import { forgetDeletions } from '../db/blobs.ts'
import { ask } from '../db/client.ts'
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
