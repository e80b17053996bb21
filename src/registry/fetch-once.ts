import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { askRelaxed, type Database } from '../db/client.ts'
import { claimFetch, endFetch, prolongFetch } from '../db/upstream-fetches.ts'
import type { Deps } from '../deps.ts'

// One fetch for all who ask for the same thing meanwhile. In a process they share a promise. Between processes, whoever
// fetches has a row that says so, which it prolongs while it does; the others look now and then whether the thing is here.
// When the row is gone and the thing is not here, or the row has not been prolonged in its time, the next one fetches. A
// process that is only slow may thus be overtaken: both store the same bytes under the same digest, which does no harm.
// No connection to the database is held while bytes flow.

const prolongMs = 3_000
const lookMs = 100

const running = new WeakMap<Database, Map<string, Promise<unknown>>>()

/** `here`: answers the thing where it need not be fetched; `fetch`: fetches it. */
export function once<T>(
  deps: Deps,
  thing: string,
  { here, fetch }: { here: () => Promise<T | undefined>; fetch: () => Promise<T> },
): Promise<T> {
  const fetching = running.get(deps.db) ?? new Map<string, Promise<unknown>>()
  running.set(deps.db, fetching)
  const begun = fetching.get(thing) as Promise<T> | undefined
  if (begun) return begun
  const started = amongProcesses(deps, thing, here, fetch).finally(() => fetching.delete(thing))
  fetching.set(thing, started)
  return started
}

async function amongProcesses<T>(
  deps: Deps,
  thing: string,
  here: () => Promise<T | undefined>,
  fetch: () => Promise<T>,
): Promise<T> {
  const holder = randomUUID()
  while (!(await askRelaxed(deps.db, (relaxed) => claimFetch(relaxed, thing, holder)))) {
    const found = await here()
    if (found !== undefined) return found
    await sleep(lookMs)
  }
  const timer = setInterval(() => {
    askRelaxed(deps.db, (relaxed) => prolongFetch(relaxed, thing, holder)).catch((error) =>
      deps.log.warn({ error, thing }, 'others may fetch this as well'),
    )
  }, prolongMs)
  try {
    // Whoever had it before may have just ended.
    return (await here()) ?? (await fetch())
  } finally {
    clearInterval(timer)
    await askRelaxed(deps.db, (relaxed) => endFetch(relaxed, thing, holder)).catch((error) =>
      deps.log.warn({ error, thing }, 'others wait for this until its time is over'),
    )
  }
}
