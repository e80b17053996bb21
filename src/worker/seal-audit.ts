import type { Deps } from '../deps.ts'
import { sealAudit } from '../registry/audit.ts'

/** Seals what was written down of requests, so that it shows when some of it is taken away. */
export async function sealAuditEvents(deps: Deps): Promise<{ sealed: number }> {
  return await sealAudit(deps)
}
