import type { Meter } from '../bundles/meter.ts'
import { askRelaxed } from '../db/client.ts'
import { type Attempt, touchImport } from '../db/imports.ts'
import type { Deps } from '../deps.ts'
import { type Intake, superseded } from './import-intake.ts'

/** How long what an import has stored is kept for the next try, in seconds. */
export const lifeSeconds = 24 * 60 * 60
const heartbeatMs = 3_000

export type Pulse = { count(blobs: number): void; stop(): Promise<void> }

/** Says from time to time how far an import is. Ends it where another connection has taken it over. */
export function startPulse(deps: Deps, attempt: Attempt, meter: Meter, intake: Intake): Pulse {
  let blobs = 0
  let stopped = false
  let last = Promise.resolve()
  const beat = async () => {
    const progress = { received: meter.received(), blobs, resumeAt: intake.resumeAt(), lifeSeconds }
    const isOurs = await askRelaxed(deps.db, (relaxed) => touchImport(relaxed, attempt, progress)).catch(() => true)
    if (!isOurs) meter.through.destroy(superseded())
  }
  const timer = setInterval(() => {
    last = last.then(beat)
  }, heartbeatMs)
  return {
    count(number) {
      blobs = number
    },
    async stop() {
      if (stopped) return
      stopped = true
      clearInterval(timer)
      await last
      await beat()
    },
  }
}
