import { RateLimiterMemory, RateLimiterRes } from 'rate-limiter-flexible'
import { Failure } from '../errors.ts'

/** How many requests may come, and how many wrong passwords: each process counts for itself. */
export type Limits = {
  /** Throws TOOMANYREQUESTS. `who`: a principal or an address. */
  count(who: string): Promise<void>
  /** Throws TOOMANYREQUESTS where an address has shown too many credentials that do not hold. */
  requirePatience(address: string): Promise<void>
  /** An address has shown a credential that does not hold. */
  noteFailure(address: string): Promise<void>
  /** Whether requests are counted at all. */
  readonly counts: boolean
}

/** Wrong credentials an address may show in a minute, before any further one that is not known yet is refused. */
const wrongAMinute = 30

export function openLimits({ requestsAMinute }: { requestsAMinute: number }): Limits {
  const requests = new RateLimiterMemory({ points: Math.max(1, requestsAMinute), duration: 60 })
  const wrong = new RateLimiterMemory({ points: wrongAMinute, duration: 60 })
  return {
    counts: requestsAMinute > 0,
    async count(who) {
      if (requestsAMinute === 0) return
      await requests.consume(who).catch(refuse)
    },
    async requirePatience(address) {
      const state = await wrong.get(address)
      if (state && state.consumedPoints >= wrongAMinute) refuse(state)
    },
    async noteFailure(address) {
      await wrong.consume(address).catch(() => undefined)
    },
  }
}

function refuse(state: unknown): never {
  if (!(state instanceof RateLimiterRes)) throw state
  const seconds = Math.max(1, Math.ceil(state.msBeforeNext / 1000))
  throw new Failure('TOOMANYREQUESTS', {
    detail: `too many requests; come back in ${seconds} s`,
    headers: { 'retry-after': String(seconds) },
  })
}
