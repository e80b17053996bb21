import { isIPv6 } from 'node:net'
import { RateLimiterCluster, RateLimiterMemory, RateLimiterRes } from 'rate-limiter-flexible'
import { Failure } from '../errors.ts'

// How many requests may come, and how many wrong passwords. A server counts as one, however many processes it has: the
// first of them keeps the figures, and the others ask it (see processes.ts). Several servers over one database count each
// for itself: figures that all of them share would be a row that all of them wait for.

export type Limits = {
  /** Throws TOOMANYREQUESTS. `who`: a principal or an address. */
  count(who: string): Promise<void>
  /** Throws TOOMANYREQUESTS where an address has shown too many credentials that do not hold. */
  requirePatience(address: string): Promise<void>
  /** An address has shown a credential that does not hold. */
  noteFailure(address: string): Promise<void>
  /**
   * Checks a password of an address when those before it are checked, so that of many that come at once no more are looked
   * at than of as many one after the other. False counts as a failure. Throws TOOMANYREQUESTS in the place of a check.
   */
  inTurn(address: string, check: () => Promise<boolean>): Promise<boolean>
  /** Whether requests are counted at all. */
  readonly counts: boolean
}

type Limiter = Pick<RateLimiterMemory, 'consume' | 'get'>

/** Wrong credentials an address may show in a minute, before any further one that is not known yet is refused. */
const wrongAMinute = 30
/** How long the first process may take. It has nothing else to do. */
const answerMs = 2_000

/** `shared`: this is one of several processes, of which the first counts. */
export function openLimits({ requestsAMinute, shared }: { requestsAMinute: number; shared: boolean }): Limits {
  const open = shared ? sharedLimiter : (_name: string, points: number) => limiterOf(points)
  const requests = open('requests', Math.max(1, requestsAMinute))
  const wrong = open('wrong credentials', wrongAMinute)
  /** The last check of each network that has one under way. */
  const turns = new Map<string, Promise<unknown>>()
  const limits: Limits = {
    counts: requestsAMinute > 0,
    async count(who) {
      if (requestsAMinute === 0) return
      await requests.consume(networkOf(who)).catch(refuse)
    },
    async requirePatience(address) {
      const state = await wrong.get(networkOf(address))
      if (state && state.consumedPoints >= wrongAMinute) refuse(state)
    },
    async noteFailure(address) {
      await wrong.consume(networkOf(address)).catch((state) => {
        if (!(state instanceof RateLimiterRes)) throw state
      })
    },
    inTurn(address, check) {
      const who = networkOf(address)
      const next = async () => {
        await limits.requirePatience(address)
        const holds = await check()
        if (!holds) await limits.noteFailure(address)
        return holds
      }
      // How the one before ended is told to whoever asked for it.
      const turn = (turns.get(who) ?? Promise.resolve()).then(next, next).finally(() => {
        if (turns.get(who) === turn) turns.delete(who)
      })
      turns.set(who, turn)
      return turn
    },
  }
  return limits
}

function limiterOf(points: number): Limiter {
  return new RateLimiterMemory({ points, duration: 60 })
}

/** While the first process does not answer, each counts for itself. */
function sharedLimiter(name: string, points: number): Limiter {
  const joint = new RateLimiterCluster({ keyPrefix: name, points, duration: 60, timeoutMs: answerMs })
  const own = limiterOf(points)
  const unlessSilent = <T>(answer: Promise<T>, instead: () => Promise<T>) =>
    answer.catch((state) => {
      if (state instanceof RateLimiterRes) throw state
      return instead()
    })
  return {
    consume: (who) => unlessSilent(joint.consume(who), () => own.consume(who)),
    get: (who) => unlessSilent(joint.get(who), () => own.get(who)),
  }
}

/** Whoever has one address of version 6 has all those that begin with the same 64 bits, and counts as one. */
export function networkOf(who: string): string {
  if (!isIPv6(who)) return who
  const [head = '', tail] = who.split('::')
  const groups = head.split(':').filter(Boolean)
  const after = tail === undefined ? [] : tail.split(':').filter(Boolean)
  const missing = tail === undefined ? 0 : Math.max(0, 8 - groups.length - after.length)
  const whole = [...groups, ...Array<string>(missing).fill('0'), ...after]
  return `${whole
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(':')}::/64`
}

function refuse(state: unknown): never {
  if (!(state instanceof RateLimiterRes)) throw state
  const seconds = Math.max(1, Math.ceil(state.msBeforeNext / 1000))
  throw new Failure('TOOMANYREQUESTS', {
    detail: `too many requests; come back in ${seconds} s`,
    headers: { 'retry-after': String(seconds) },
  })
}
