import { ask, type Database } from './client.ts'
import { relayEvents } from './events.ts'

/** How long a process waits between two relays of its own, in milliseconds: under load, one moves what many have written. */
const pauseMs = 20

/** Relays what this process has written; see db/events.ts. */
export type Relay = {
  /** Something has been written. */
  ring(): void
  /** Relays no more, when what is under way has ended. */
  close(): Promise<void>
}

/** Relays all that there is. Throws UNAVAILABLE. */
export async function relayAll(db: Database): Promise<void> {
  while (await ask(db, relayEvents));
}

/** What fails is told to `onError`, and left for the next relay, be it one of another process. */
export function openRelay(db: Database, onError: (error: unknown) => void): Relay {
  let running: Promise<void> | undefined
  let wanted = false
  let closed = false
  const run = async () => {
    while (wanted && !closed) {
      wanted = false
      await relayAll(db).catch(onError)
      await new Promise((resolve) => setTimeout(resolve, pauseMs))
    }
    running = undefined
  }
  return {
    ring() {
      wanted = true
      if (!closed) running ??= run()
    },
    async close() {
      closed = true
      await running
    },
  }
}
