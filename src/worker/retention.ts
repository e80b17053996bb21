import type { Schedule } from './jobs.ts'

/** Every night; without an enabled policy there is nothing to do then. */
export async function retentionTimes(): Promise<Schedule[]> {
  return [{ cron: '30 2 * * *', key: 'nightly', data: { scheduled: true } }]
}
