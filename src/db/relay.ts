import { batched } from './batch.ts'
import { ask, type Database } from './client.ts'
import { relayEvents } from './events.ts'

/** How long a process waits between two relays of its own, in milliseconds: under load, one moves what many have written. */
const pauseMs = 20

/** Relays what this process has written; see db/events.ts. */
export type Relay = {
  /** Something has been written. */
  ring(): void
  /**
   * Relays all that there is when it is called. However many call it, one relay of this process is under way, and one
   * more that begins when it has ended: none of them waits on a connection for others. Throws UNAVAILABLE.
   */
  settle(): Promise<void>
  /** Relays no more, when what is under way has ended. */
  close(): Promise<void>
}

/** What fails is told to `onError`, and left for the next relay, be it one of another process. */
export function openRelay(db: Database, onError: (error: unknown) => void): Relay {
  const relayed = batched(
    async (callers: undefined[]) => {
      while (await ask(db, relayEvents));
      return callers
    },
    { most: Number.POSITIVE_INFINITY },
  )
  const settle = async () => void (await relayed.load(undefined))
  let running: Promise<void> | undefined
  let wanted = false
  let closed = false
  const run = async () => {
    while (wanted && !closed) {
      wanted = false
      await settle().catch(onError)
      await new Promise((resolve) => setTimeout(resolve, pauseMs))
    }
    running = undefined
  }
  return {
    ring() {
      wanted = true
      if (!closed) running ??= run()
    },
    settle,
    async close() {
      closed = true
      await running
    },
  }
}
