import type { ScrubMode } from '../db/scrub.ts'
import type { Deps } from '../deps.ts'
import { type Scrubbed, scrub } from '../registry/scrub.ts'
import type { JobContext, Schedule } from './jobs.ts'

/** Checks everything that is stored, from where the last try was left. What is wrong is told, and not repaired. */
export async function scrubStore(
  deps: Deps,
  { mode = 'full', repair = false }: { mode?: ScrubMode; repair?: boolean },
  { signal, progress }: JobContext,
): Promise<Scrubbed | { skipped: string }> {
  const done = await scrub(deps, { mode, repair, signal, onProgress: progress })
  return done ?? { skipped: 'another process scrubs already' }
}

/** When it is done by itself. */
export async function scrubTimes({ config }: Deps): Promise<Schedule[]> {
  return config.scrubSchedule === undefined ? [] : [{ cron: config.scrubSchedule }]
}
