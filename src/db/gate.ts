import { unavailable } from '../errors.ts'

// Who may use a connection of a pool, and when. There are as many slots as connections: the driver would put one more
// statement behind another on its connection, and so behind a lock that that one waits for. (Relaxed statements, which are
// short, have some more.)
//
// What writes may wait for locks, for as long as somebody else keeps them; what only reads waits for nobody. So some
// slots are for reads alone: however many writers wait for one lock, what is there can be read.

export type Kind = 'read' | 'write'

export type Gate = {
  /** Takes a slot: at once (undefined), or when there is one. Throws UNAVAILABLE where there is none for too long. */
  enter(kind: Kind): Promise<void> | undefined
  leave(kind: Kind): void
  readonly active: number
  readonly waiting: number
}

export type GateLimits = {
  /** How long a statement may wait for a free connection before the client is told to come back. */
  waitMs: number
  /** How many of a kind may wait at once. */
  maxWaiting: number
}

type Waiter = { place: number; go(): void }

/** A gate of `max` slots, `spared` of them for reads alone. */
export function openGate({ max, spared }: { max: number; spared: number }, limits: GateLimits): Gate {
  const taken = { read: 0, write: 0 }
  const queues: Record<Kind, Waiter[]> = { read: [], write: [] }
  let places = 0
  const active = () => taken.read + taken.write
  const isOpen = (kind: Kind) => active() < max && (kind === 'read' || taken.write < max - spared)

  /** Lets in who has waited longest, of those who may. */
  const admit = () => {
    const [read, write] = [isOpen('read') ? queues.read[0] : undefined, isOpen('write') ? queues.write[0] : undefined]
    const kind = read && (!write || read.place < write.place) ? 'read' : 'write'
    const first = kind === 'read' ? read : write
    if (!first) return
    queues[kind].shift()
    taken[kind]++
    first.go()
  }
  const wait = (kind: Kind) =>
    new Promise<void>((resolve, reject) => {
      const queue = queues[kind]
      const timer = setTimeout(() => {
        queue.splice(queue.indexOf(waiter), 1)
        reject(exhausted())
      }, limits.waitMs)
      const waiter = {
        place: places++,
        go() {
          clearTimeout(timer)
          resolve()
        },
      }
      queue.push(waiter)
    })
  return {
    enter(kind) {
      if (isOpen(kind)) {
        taken[kind]++
        return undefined
      }
      if (queues[kind].length >= limits.maxWaiting) throw exhausted()
      return wait(kind)
    },
    leave(kind) {
      taken[kind]--
      admit()
    },
    get active() {
      return active()
    },
    get waiting() {
      return queues.read.length + queues.write.length
    },
  }
}

function exhausted() {
  return unavailable('database', new Error('connection pool exhausted'))
}
