import { ask } from '../db/client.ts'
import { mirrorSchedules } from '../db/mirrors.ts'
import type { Deps } from '../deps.ts'
import { runMirror } from '../registry/mirrors.ts'
import type { JobContext, Schedule } from './jobs.ts'

/** Does the runs of a mirror. */
export function mirror(deps: Deps, { mirror: id }: { mirror: string }, context: JobContext) {
  return runMirror(deps, id, context)
}

/** When mirrors are to run by themselves. */
export async function mirrorTimes(deps: Deps): Promise<Schedule[]> {
  const rows = await ask(deps.db, mirrorSchedules)
  return rows.map(({ id, schedule, since }) => ({ cron: schedule, key: id, data: { mirror: id }, since }))
}
