import { setTimeout as sleep } from 'node:timers/promises'

/** Waits until so many rows may be worked on. Throws the signal's reason when it aborts. */
export type Pace = (rows: number, signal?: AbortSignal | undefined) => Promise<void>

export const unpaced: Pace = async (_, signal) => signal?.throwIfAborted()

/**
 * No more than so many rows a second, evenly: what is not used up is not saved, for a burst of a whole second's rows is
 * what others would notice. 0: as many as it can.
 */
export function openPace(rowsPerSecond: number): Pace {
  if (rowsPerSecond === 0) return unpaced
  let free = performance.now()
  return async (rows, signal) => {
    signal?.throwIfAborted()
    const now = performance.now()
    const wait = free - now
    free = Math.max(free, now) + (rows / rowsPerSecond) * 1000
    if (wait > 0) await sleep(wait, undefined, signal ? { signal } : {})
  }
}
