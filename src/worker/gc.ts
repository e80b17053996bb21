import type { Deps } from '../deps.ts'
import { type Swept, sweepLeftovers } from '../registry/collect-leftovers.ts'
import { collectGarbage, type Pass } from '../registry/collect-pass.ts'
import type { JobContext } from './jobs.ts'

/** Collects content that nothing refers to, and deletes its objects. */
export function gc(deps: Deps, _data: object, { signal, progress }: JobContext): Promise<Pass> {
  return collectGarbage(deps, { signal, onProgress: progress })
}

/** Removes from the store what crashes have left there and no row tells of. */
export function sweep(deps: Deps, _data: object, { signal }: JobContext): Promise<Swept> {
  return sweepLeftovers(deps, { signal })
}
