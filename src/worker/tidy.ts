import type { Deps } from '../deps.ts'
import { tidy } from '../registry/deletions.ts'

/** Ends upload sessions that nobody came back to, and deletes the objects that are queued for it. */
export async function tidyUp(deps: Deps): Promise<{ expired: number; deleted: number }> {
  return await tidy(deps)
}
