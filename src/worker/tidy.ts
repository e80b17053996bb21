import type { Deps } from '../deps.ts'
import { tidy } from '../registry/deletions.ts'
import { tidyEvents } from '../registry/events.ts'

/** Ends upload sessions that nobody came back to, deletes the objects that are queued for it, and forgets old events. */
export async function tidyUp(deps: Deps): Promise<{ expired: number; deleted: number; forgotten: number }> {
  return { ...(await tidy(deps)), forgotten: await tidyEvents(deps) }
}
