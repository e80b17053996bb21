import { setTimeout as sleep } from 'node:timers/promises'
import type { Run } from './run.ts'

/** What a worker does for somebody who waits for its end. */
type Work = { state: string; error?: string | undefined }

const pollMs = 500
/** What nobody has taken by then is spoken of. */
const patienceMs = 5_000

/**
 * Asks how a worker's work stands until `isOver` says that it is at its end, or throws; answers the last answer. Says
 * meanwhile what keeps it waiting, and what `told` makes of its progress, each once.
 */
export async function outcomeOf<T extends Work>(
  at: Run,
  ask: () => Promise<T>,
  isOver: (work: T) => boolean,
  told: (work: T) => string | undefined = () => undefined,
): Promise<T> {
  const asked = performance.now()
  let last: string | undefined
  for (;;) {
    const work = await ask()
    if (isOver(work)) return work
    const words = told(work) ?? waitingText(work, performance.now() - asked)
    if (words !== undefined && words !== last) at.output.note(words)
    last = words ?? last
    await sleep(pollMs, undefined, { signal: at.signal })
  }
}

function waitingText({ state, error }: Work, waitedMs: number): string | undefined {
  if (state !== 'waiting') return undefined
  if (error !== undefined) return `${error}; it is tried again soon`
  if (waitedMs <= patienceMs) return undefined
  return 'no worker has taken it yet: "packs worker" runs one, and so does "packs serve" unless WORKER=false'
}
