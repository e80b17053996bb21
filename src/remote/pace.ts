import { setTimeout as sleep } from 'node:timers/promises'

/** A bucket of bytes that fills as time goes by; it holds what a second brings. */
export type Pace = { take(bytes: number, signal?: AbortSignal): Promise<void> }

/**
 * Keeps all that passes through it at `bytesPerSecond` on average; undefined: as fast as it goes. A piece larger than
 * the bucket is let through and paid for afterwards, so whoever comes next waits.
 */
export function openPace(bytesPerSecond: number | undefined): Pace {
  if (bytesPerSecond === undefined) return { take: async () => undefined }
  let level = bytesPerSecond
  let filled = performance.now()
  return {
    async take(bytes, signal) {
      const now = performance.now()
      level = Math.min(bytesPerSecond, level + ((now - filled) / 1000) * bytesPerSecond)
      filled = now
      level -= bytes
      if (level < 0) await sleep((-level / bytesPerSecond) * 1000, undefined, signal ? { signal } : {})
    },
  }
}

/** The pieces of a body, no faster than the pace. */
export async function* paced(
  pace: Pace,
  pieces: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  signal?: AbortSignal,
): AsyncGenerator<Uint8Array, void, undefined> {
  for await (const piece of pieces) {
    await pace.take(piece.length, signal)
    yield piece
  }
}
