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

/**
 * The least that a remote has to send of a body, on average over the time that it is waited for: whoever keeps it from
 * counting as dead with a byte now and then would hold a job, or a client that waits for a blob, for ever.
 */
export const slowestPace = { bytesPerSecond: 1024, waitedMs: 120_000 }
export type SlowestPace = typeof slowestPace

/**
 * The pieces of a body, for as long as they come fast enough. Time that whoever reads them takes does not count. Throws
 * what `tooSlow` makes. `now`: in milliseconds.
 */
export async function* steady<Piece extends Uint8Array>(
  pieces: AsyncIterable<Piece>,
  { bytesPerSecond, waitedMs }: SlowestPace,
  tooSlow: () => Error,
  now = () => performance.now(),
): AsyncGenerator<Piece, void, undefined> {
  let waited = 0
  let bytes = 0
  let since = now()
  for await (const piece of pieces) {
    waited += now() - since
    bytes += piece.length
    if (waited >= waitedMs) {
      if (bytes < (bytesPerSecond * waited) / 1000) throw tooSlow()
      waited = 0
      bytes = 0
    }
    yield piece
    since = now()
  }
}
