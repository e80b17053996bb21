import type { Deps } from '../deps.ts'
import { openPace } from '../registry/collect-pace.ts'
import { tidy } from '../registry/deletions.ts'
import { tidyEvents } from '../registry/events.ts'
import type { JobContext } from './jobs.ts'

type Tidied = { expired: number; deleted: number; forgotten: number }

/**
 * Ends upload sessions that nobody came back to, deletes the objects that are queued for it, no faster than garbage
 * collection does, and forgets old events.
 */
export async function tidyUp(deps: Deps, _data: object, { signal }: Pick<JobContext, 'signal'>): Promise<Tidied> {
  const tidied = await tidy(deps, { signal, pace: openPace(deps.config.gcRate) })
  return { ...tidied, forgotten: await tidyEvents(deps) }
}
