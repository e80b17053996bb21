import { checkSeals, countLoose, lockSeals, sealEvents } from '../db/audit.ts'
import { ask } from '../db/client.ts'
import type { Deps } from '../deps.ts'

const mostInSeal = 10_000
/** Seals that are checked by one statement: some tens of milliseconds each when they are full. */
const checkedAtOnce = 20

/** Seals all events that there are. */
export async function sealAudit(deps: Deps): Promise<{ sealed: number }> {
  let sealed = 0
  for (let more = mostInSeal; more === mostInSeal; sealed += more)
    more = await ask(deps.db, (sql) =>
      sql.begin(async (tx) => {
        await lockSeals(tx)
        return sealEvents(tx, mostInSeal)
      }),
    )
  return { sealed }
}

export type AuditCheck = {
  intact: boolean
  seals: number
  events: number
  /** Events of the last minute or so, which are not protected yet. */
  unsealed: number
  /** The digest of the last seal, in hex: whoever notes it elsewhere can ask for it later. */
  head?: string
  /** Whether the head that was asked for is one of the seals. */
  headFound?: boolean
  /** The numbers of the seals that do not hold, the first 100. */
  broken: number[]
}

/** Checks every seal. `head`: a digest that was the last one at some time, and must still be there. */
export async function verifyAudit(deps: Deps, wanted?: string): Promise<AuditCheck> {
  const found: AuditCheck = { intact: true, seals: 0, events: 0, unsealed: 0, broken: [] }
  let last = 0
  for (let full = true; full; ) {
    const seals = await ask(deps.db, (sql) => checkSeals(sql, last, checkedAtOnce))
    for (const { number, events, digest, isIntact } of seals) {
      found.seals++
      found.events += events
      found.head = digest
      if (digest === wanted) found.headFound = true
      if (!isIntact && found.broken.length < 100) found.broken.push(number)
      last = number
    }
    full = seals.length === checkedAtOnce
  }
  if (wanted !== undefined) found.headFound ??= false
  const { unsealed, orphaned } = await ask(deps.db, countLoose)
  found.unsealed = unsealed
  found.intact = found.broken.length === 0 && orphaned === 0 && found.headFound !== false
  return found
}
