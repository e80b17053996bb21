import type { Deps } from '../deps.ts'
import { tendQuotas } from '../registry/quotas.ts'

/** Adds up what repositories with a quota hold, so that whoever pushes has little to add. */
export async function tendAllQuotas(deps: Deps): Promise<{ measured: number }> {
  return await tendQuotas(deps)
}
