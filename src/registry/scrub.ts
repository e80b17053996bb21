import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { ask, askRead } from '../db/client.ts'
import { countFindings, type FindingKind, resolveUnseen } from '../db/findings.ts'
import {
  advanceRun,
  finishRun,
  leaveRun,
  renewRun,
  type ScrubCounts,
  type ScrubMode,
  type ScrubPhase,
  type ScrubRun,
  takeRun,
} from '../db/scrub.ts'
import { type Deps, uploadLifeSeconds } from '../deps.ts'
import { checkBlobs } from './scrub-blobs.ts'
import { checkPayloads } from './scrub-manifests.ts'
import { reconcileObjects } from './scrub-objects.ts'

// A pass compares the store and the database, both ways, while everything goes on: pushes, the collector, other passes.
//
//   blobs      every row, by its digest: is its object there, as long, and (in a full pass) are its bytes right?
//   objects    every object that the store lists: does a row name it?
//   manifests  every manifest: is the digest of its bytes the one it is known by?
//
// A row is wrong when, locked, it still names the object that was found to be wrong or missing (db/damage.ts). For an
// object is deleted only after its row is gone or points elsewhere, and keys are never used twice: what the row names
// now, it named when the object was looked at.
//
// An object is an orphan when it is old, no row names it, and after that was asked it is still there:
//   - Old: imports, exports and repairs name an object before it is there, but a push puts it first and commits its row next. A
//     chunk becomes content under a second name that keeps the chunk's time, so for as long as a session may live an
//     object may be without a row. It has to be twice as old.
//   - Named by: blobs, chunks of uploads, imports, exports, repairs (findings), and the deletion queue. A name goes only after the
//     object is gone: the collector queues a key in the transaction in which it deletes the row, and the key leaves the
//     queue after the object was deleted. What was listed, deleted and forgotten is not there when it is asked for last.
//   - An old object without a name never gets one, so it can be deleted at any time: by way of the queue, by a statement
//     that looks at all those names again.
//
// Repairs make new objects and never write over one: a copy under a new key, named in its finding before it is there;
// then the row is pointed at it, if it still names the wrong one. A trigger queues what the row pointed at before, and
// ends the finding, in the same transaction; whoever pushes damaged content again heals it in the same way (healBlobs).
// Locks are taken in the order: pass, blob, finding, deletion queue.
//
// A pass belongs to one process at a time, by a lease that is renewed while it works: `holder` and `leased_until`. How far
// it is stands in its row, written after what was found; whoever takes it up does the last page again, which changes
// nothing. Two that hold one for a moment, because one of them was paused, do the same things twice: every step is safe
// in any number of processes.

const phases: Record<ScrubPhase, (pass: Pass) => Promise<void>> = {
  blobs: checkBlobs,
  objects: reconcileObjects,
  manifests: checkPayloads,
}

export type ScrubOptions = {
  mode: ScrubMode
  repair?: boolean
  /** Bytes a second that are read to be hashed; 0: as fast as it goes. */
  rate?: number
  signal?: AbortSignal | undefined
  onProgress?: ((counts: ScrubCounts & { phase: ScrubPhase }) => void) | undefined
  /** How old an object without a row has to be before it counts as an orphan. */
  orphanAgeSeconds?: number
  /** Drop orphans even where they are so many that this may be the wrong database for the store. */
  dropMany?: boolean
}

/** A pass at work. */
export type Pass = {
  deps: Deps
  run: ScrubRun
  mode: ScrubMode
  repair: boolean
  dropMany: boolean
  orphanAgeSeconds: number
  signal: AbortSignal
  pace: (bytes: number) => Promise<void> | undefined
  /** Writes down how far it is. Throws where another process has taken the pass up. */
  save(): Promise<void>
  /** Orphans that were left where they are, because they are too many. */
  spared: number
}

/** What a pass did, and how many findings of each kind are open now. */
export type Scrubbed = ScrubCounts & {
  mode: ScrubMode
  open: Partial<Record<FindingKind, number>>
  /** Orphans that a repair left where they are: so many that this may not be the database of this store. */
  spared: number
}

const renewMs = 10_000

/**
 * Makes a pass, or goes on with the one of this mode that was left. Undefined where another process is at it. When it
 * ends early, by an error or the signal, it can be gone on with.
 */
export async function scrub(deps: Deps, options: ScrubOptions): Promise<Scrubbed | undefined> {
  const { mode, repair = false, rate = deps.config.scrubRate, onProgress, dropMany = false } = options
  const { orphanAgeSeconds = 2 * uploadLifeSeconds } = options
  const run = await ask(deps.db, (sql) => takeRun(sql, mode, randomUUID()))
  if (!run) return undefined
  const lost = new AbortController()
  const signal = options.signal ? AbortSignal.any([options.signal, lost.signal]) : lost.signal
  const lose = () => lost.abort(new Error('another process has taken this pass up'))
  const save = async () => {
    signal.throwIfAborted()
    if (!(await ask(deps.db, (sql) => advanceRun(sql, run)))) lose()
    signal.throwIfAborted()
    onProgress?.({ ...run })
  }
  const pace = openPace(rate, signal)
  const pass: Pass = { deps, run, mode, repair, dropMany, orphanAgeSeconds, signal, pace, save, spared: 0 }
  const heart = setInterval(() => {
    ask(deps.db, (sql) => renewRun(sql, run)).then(
      (held) => held || lose(),
      (error) => deps.log.warn({ error }, 'the lease of a scrub could not be renewed'),
    )
  }, renewMs)
  try {
    const order = Object.keys(phases) as ScrubPhase[]
    for (const phase of order.slice(order.indexOf(run.phase))) {
      if (run.phase !== phase) Object.assign(run, { phase, position: '' })
      await save()
      await phases[phase](pass)
    }
    return await finish(pass)
  } catch (error) {
    await ask(deps.db, (sql) => leaveRun(sql, run)).catch((cause) =>
      deps.log.warn({ error: cause }, 'a scrub is left for its lease to end'),
    )
    throw error
  } finally {
    clearInterval(heart)
  }
}

async function finish({ deps, run, mode, spared }: Pass): Promise<Scrubbed> {
  await ask(deps.db, (sql) =>
    sql.begin(async (tx) => {
      if (!(await advanceRun(tx, run))) throw new Error('another process has taken this pass up')
      await resolveUnseen(tx, run.id)
      await finishRun(tx, run)
    }),
  )
  const open = Object.fromEntries(await askRead(deps.db, countFindings))
  const { blobs, bytes, objects, manifests, found, repaired } = run
  deps.log.info({ mode, blobs, bytes, objects, manifests, found, repaired, open }, 'scrubbed')
  return { mode, blobs, bytes, objects, manifests, found, repaired, open, spared }
}

/** Waits, after so many bytes, until `rate` bytes a second allow for more. */
function openPace(rate: number, signal: AbortSignal): (bytes: number) => Promise<void> | undefined {
  let free = performance.now()
  return (bytes) => {
    signal.throwIfAborted()
    if (rate === 0) return undefined
    const now = performance.now()
    free = Math.max(free, now) + (bytes / rate) * 1000
    // Shorter waits are more work than rest; what is owed adds up.
    return free - now > 5 ? sleep(free - now, undefined, { signal }) : undefined
  }
}
