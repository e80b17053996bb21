import type { Deps } from '../deps.ts'
import { type Collected, collectContent } from '../registry/collect.ts'
import type { JobContext } from './jobs.ts'

/** Collects content that nothing refers to. */
export function collectGarbage(deps: Deps, _data: object, { signal, progress }: JobContext): Promise<Collected> {
  return collectContent(deps, { signal, onProgress: progress })
}
