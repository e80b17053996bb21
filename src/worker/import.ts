import type { Deps } from '../deps.ts'
import { settled } from '../registry/import-finish.ts'
import type { JobContext } from './jobs.ts'

/** Publishes a bundle that was received and verified. That it is refused is no failure of the job: its report says so. */
export async function finishImport(
  deps: Deps,
  { import: id }: { import: string },
  { signal }: JobContext,
): Promise<{ import: string; state: string }> {
  const row = await settled(deps, id, { byJob: true, signal })
  return { import: id, state: row?.state ?? 'forgotten' }
}
