import { setTimeout as sleep } from 'node:timers/promises'
import { PacksError, unlessCancelled } from './failure.ts'

/** Told before a pause: what failed, and in how many milliseconds it is tried again. */
export type OnWait = (failure: PacksError, delayMs: number) => void

/** How often a call is tried at most, and the first pause between tries in milliseconds: it doubles each time. */
export type Patience = { attempts: number; baseDelayMs: number; onWait?: OnWait | undefined }

/**
 * A failure that may pass. `retryAfterMs`: what the server asks for; `gained`: some of the work is done for good;
 * `lastingMs`: it is tried again for so long, however often that is.
 */
export class Passing extends Error {
  readonly failure: PacksError
  readonly retryAfterMs: number
  readonly gained: boolean
  readonly lastingMs: number

  constructor(failure: PacksError, { retryAfterMs = 0, gained = false, lastingMs = 0 } = {}) {
    super(failure.message, { cause: failure })
    this.failure = failure
    this.retryAfterMs = retryAfterMs
    this.gained = gained
    this.lastingMs = lastingMs
  }
}

const longestPauseMs = 10_000
/** A server may ask for hours; whoever waits for an answer will not wait that long. */
const longestRetryAfterMs = 60_000

/** Does it until it succeeds or fails for good. A try that gained something does not count. Throws PacksError. */
export async function persist<T>(
  { attempts, baseDelayMs, onWait }: Patience,
  signal: AbortSignal | undefined,
  attempt: () => Promise<T>,
): Promise<T> {
  let since = 0
  for (let failed = 0; ; ) {
    unlessCancelled(signal)
    try {
      return await attempt()
    } catch (error) {
      unlessCancelled(signal)
      if (!(error instanceof Passing)) throw error
      if (failed === 0 || error.gained) since = performance.now()
      failed = error.gained ? 1 : failed + 1
      if (failed >= attempts && performance.now() - since >= error.lastingMs) throw givenUp(error.failure, failed)
      const pauseMs = Math.min(baseDelayMs * 2 ** (failed - 1), longestPauseMs)
      // Jitter, so that many clients do not come back at the same moment.
      const delayMs = Math.max(pauseMs * (0.5 + Math.random() / 2), Math.min(error.retryAfterMs, longestRetryAfterMs))
      onWait?.(error.failure, delayMs)
      await sleep(delayMs, undefined, signal ? { signal } : {}).catch(() => unlessCancelled(signal))
    }
  }
}

function givenUp(failure: PacksError, attempts: number): PacksError {
  if (attempts < 2) return failure
  const { code, message, status, about } = failure
  return new PacksError(code, `${message} (tried ${attempts} times)`, {
    ...(status === undefined ? {} : { status }),
    ...(about === undefined ? {} : { about }),
    cause: failure.cause ?? failure,
  })
}

/** Retry-After in milliseconds; 0 where there is none. Source: RFC 9110, section 10.2.3. */
export function retryAfterMs(header: string | undefined): number {
  if (header === undefined) return 0
  if (/^\s*\d+\s*$/.test(header)) return Number(header) * 1000
  const time = Date.parse(header)
  return Number.isNaN(time) ? 0 : Math.max(0, time - Date.now())
}
