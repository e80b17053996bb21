import type { Deps } from '../deps.ts'
import { type Collected, collectContent } from './collect.ts'
import { type Swept, sweepLeftovers } from './collect-leftovers.ts'
import { openPace } from './collect-pace.ts'
import { type Emptied, emptyQueue, endForgotten } from './deletions.ts'

/** What a pass did. */
export type Pass = Collected & Emptied

export type PassOptions = {
  signal?: AbortSignal | undefined
  /** Rows and objects a second; 0: as many as it can. Absent: as the settings say. */
  rate?: number | undefined
  onProgress?: ((pass: Pass) => void) | undefined
}

/** One pass: collects the rows that are due, and deletes the objects that are queued. */
export async function collectGarbage(deps: Deps, options: PassOptions = {}): Promise<Pass> {
  const { signal, rate = deps.config.gcRate, onProgress } = options
  const pace = openPace(rate)
  const { metrics } = deps
  const pass = { links: 0, blobs: 0, bytes: 0, kept: 0, objects: 0, failed: 0 }
  const note = (done: Partial<Pass>) => {
    metrics.collected.labels('link').inc((done.links ?? pass.links) - pass.links)
    metrics.collected.labels('blob').inc((done.blobs ?? pass.blobs) - pass.blobs)
    metrics.collected.labels('object').inc((done.objects ?? pass.objects) - pass.objects)
    metrics.collectedBytes.inc((done.bytes ?? pass.bytes) - pass.bytes)
    Object.assign(pass, done)
    onProgress?.({ ...pass })
  }
  await collectContent(deps, { signal, pace, onProgress: note })
  await emptyQueue(deps, { signal, pace, onProgress: note })
  return pass
}

/** What all kinds of garbage collection did. `ended`: uploads and imports that nobody came back to, and old exports. */
export type WholePass = Pass & Swept & { ended: number }

/** A pass with everything that else goes by a schedule of its own. */
export async function collectEverything(deps: Deps, options: PassOptions = {}): Promise<WholePass> {
  const ended = await endForgotten(deps)
  const swept = await sweepLeftovers(deps, options)
  const pass = await collectGarbage(deps, options)
  return { ended, ...pass, ...swept }
}
