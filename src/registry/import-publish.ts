import type { ObjectKey } from '../blobs/keys.ts'
import { ask, type Transaction, violated } from '../db/client.ts'
import { queueDeletions } from '../db/deletions.ts'
import { type NewEvent, recordEvents } from '../db/events.ts'
import {
  enterBlobs,
  finishImport,
  linkBlobs,
  lockPacks,
  type PlacedManifest,
  placeEdges,
  placeManifests,
  placeTags,
  placeVersions,
  publishMs,
  takeBlobs,
} from '../db/import-publish.ts'
import { lockWhole } from '../db/imports.ts'
import { factsOf } from '../db/pack-rebuild.ts'
import { lockDependencies, refreshPacks } from '../db/packs.ts'
import type { Deps } from '../deps.ts'
import type { Digest } from '../oci/digest.ts'
import { type PackId, repositoryOf } from '../packs/pack.ts'
import { movingChannels } from './channels.ts'
import type { Plan, Problem } from './import-plan.ts'
import { type Judgement, type JudgeOptions, judge } from './import-rules.ts'
import { published } from './pack-events.ts'

// Publishing a whole bundle is one transaction. Locks: the import's row; then, in the order of registry/packs.ts, the
// packs' rows, by their ids; the one for dependencies; then whatever the statements lock, each in the order of its keys.
// Under them the plan is held against what is published once more, so a version that somebody publishes in the same
// moment is seen, or comes after. Imports of one process take turns before they take a connection: on theirs they would only
// wait for each other.

/** How long it may wait for a lock: another process may be publishing one. */
const lockMs = 60 * 1000
/** Rows in one statement. */
const atOnce = 5_000
/** How often it is tried where the collector is in the way. */
const mostTries = 3

export type Publishing = {
  id: string
  plan: Plan
  keys: ReadonlyMap<Digest, ObjectKey>
  options: JudgeOptions
  /** The report to be kept, as JSON text. */
  report(judgement: Judgement, changed: boolean): string
  reportLifeSeconds: number
  /** What is in the way at the very end: the keys that signed it may have been distrusted meanwhile. */
  lastLook(tx: Transaction): Promise<readonly Problem[]>
  /** What else belongs into the transaction, when all is written. */
  finally(tx: Transaction): Promise<void>
}

/** Nothing was published: this is in the way. */
class InTheWay extends Error {
  readonly problems: readonly Problem[]
  constructor(problems: readonly Problem[]) {
    super('in the way')
    this.problems = problems
  }
}

/** Content that was received, or that the registry held, went away: it has to come again. */
class ContentGone extends Error {}

/**
 * Publishes all of it, or nothing. Answers the problems that are in the way; none where it is published, or is over
 * already.
 */
export async function publishImport(deps: Deps, publishing: Publishing): Promise<readonly Problem[] | 'content gone'> {
  try {
    await deps.together.turn.load(() => publishInTries(deps, publishing))
    return []
  } catch (error) {
    if (error instanceof InTheWay) return error.problems
    if (error instanceof ContentGone || violated(error) !== undefined) return 'content gone'
    throw error
  }
}

/**
 * A link that was there, and that the collector had locked, is gone when it is to be locked here: see linkBlobs. Nothing is
 * lost with it, neither the content nor what was received, so the next try makes it anew.
 */
async function publishInTries(deps: Deps, publishing: Publishing): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      await ask(deps.db, (sql) => sql.begin((tx) => publish(tx, publishing)), { answerMs: publishMs })
      return
    } catch (error) {
      if (tries === mostTries || violated(error) !== 'manifest_blobs_link') throw error
    }
  }
}

async function publish(tx: Transaction, publishing: Publishing): Promise<void> {
  const { id, plan, options, report, reportLifeSeconds } = publishing
  const packIds = [...plan.places.keys()].sort()
  const limits = `set local statement_timeout = ${publishMs}; set local lock_timeout = ${lockMs}`
  // Others may want to set a quota meanwhile that this counts against: see refuse_over_quota.
  await tx.unsafe(`${limits}; set local packs.long = 'on'`)
  if (!(await lockWhole(tx, id))) return
  for (const some of chunks(packIds))
    await lockPacks(
      tx,
      some.map((packId) => ({ packId, repository: repositoryOf(packId) })),
    )
  await lockDependencies(tx)
  const judgement = await judge(tx, plan, options)
  if (judgement.problems.length > 0) throw new InTheWay(judgement.problems)
  const channels = judgement.tags.filter(({ kind }) => kind === 'channel')
  const changed = await movingChannels(tx, channels, () => write(tx, publishing, judgement), { allowOlder: true })
  if (changed) for (const some of chunks(packIds)) await refreshPacks(tx, some)
  const late = await publishing.lastLook(tx)
  if (late.length > 0) throw new InTheWay(late)
  await recordEvents(tx, [importCompleted(id, judgement, changed)])
  await finishImport(tx, id, report(judgement, changed), reportLifeSeconds)
  await publishing.finally(tx)
}

function importCompleted(id: string, { versions }: Judgement, changed: boolean): NewEvent {
  const fresh = versions.filter(({ outcome }) => outcome === 'new').length
  return { type: 'import.completed', subject: id, data: { import: id, changed, versions: versions.length, new: fresh } }
}

/** Whether anything was not there before. */
async function write(tx: Transaction, { id, plan, keys }: Publishing, judgement: Judgement): Promise<boolean> {
  const placed = placedManifests(plan)
  const needed = new Set(placed.flatMap(({ manifest }) => manifest.blobs))
  const wanted = [...keys].flatMap(([digest, key]) => (needed.has(digest) ? [key] : [])).sort()
  for (const some of chunks(wanted)) {
    const blobs = await takeBlobs(tx, id, some)
    if (blobs.length !== some.length) throw new ContentGone('content of the import was thrown away')
    await queueDeletions(tx, await enterBlobs(tx, blobs))
  }
  let written = 0
  for (const some of chunks(placed)) await linkBlobs(tx, some)
  for (const some of chunks(placed)) written += await placeManifests(tx, some)
  for (const some of chunks(placed)) await placeEdges(tx, some)
  for (const some of chunks(judgement.tags)) written += await placeTags(tx, some)
  const fresh = new Set(
    judgement.versions.filter(({ outcome }) => outcome === 'new').map((fate) => `${fate.packId} ${fate.version}`),
  )
  const versions = plan.versions.filter(({ packId, version }) => fresh.has(`${packId} ${version}`))
  for (const some of chunks(versions)) {
    written += await placeVersions(
      tx,
      some.map(({ packId, ...version }) => ({ packId, ...factsOf(version) })),
    )
    await recordEvents(
      tx,
      some.map((version) => published({ ...version, type: version.document.type })),
    )
  }
  return written > 0
}

/** In the order of packs, then of digests. */
function placedManifests({ places, manifests }: Plan): PlacedManifest[] {
  const order = ([a]: [PackId, unknown], [b]: [PackId, unknown]) => (a < b ? -1 : 1)
  return [...places].sort(order).flatMap(([packId, digests]) =>
    [...digests].sort().flatMap((digest) => {
      const found = manifests.get(digest)
      return found ? [{ packId, digest, ...found }] : []
    }),
  )
}

function* chunks<T>(list: readonly T[]): Generator<T[]> {
  for (let at = 0; at < list.length; at += atOnce) yield list.slice(at, at + atOnce)
}
