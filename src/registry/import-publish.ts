import type { ObjectKey } from '../blobs/keys.ts'
import { ask, type Transaction, violated } from '../db/client.ts'
import { queueDeletions } from '../db/deletions.ts'
import { type NewEvent, recordEvents } from '../db/events.ts'
import {
  enterBlobs,
  finishImport,
  linkBlobs,
  lockImport,
  lockPacks,
  type PlacedManifest,
  placeEdges,
  placeManifests,
  placeTags,
  placeVersions,
  takeBlobs,
} from '../db/import-publish.ts'
import type { Attempt } from '../db/imports.ts'
import { factsOf } from '../db/pack-rebuild.ts'
import { lockDependencies, refreshPacks } from '../db/packs.ts'
import type { Deps } from '../deps.ts'
import { unavailable } from '../errors.ts'
import type { Digest } from '../oci/digest.ts'
import { type PackId, repositoryOf } from '../packs/pack.ts'
import { superseded } from './import-intake.ts'
import type { Plan, Problem } from './import-plan.ts'
import { type Judgement, type JudgeOptions, judge } from './import-rules.ts'
import { movingChannels, published } from './pack-events.ts'

// Publishing a whole bundle is one transaction. Locks, in the order of registry/packs.ts: the packs' rows, by their ids;
// the one for dependencies; then whatever the statements lock, each in the order of its keys. Under them the plan is held
// against what is published once more, so a version that somebody publishes in the same moment is seen, or comes after.

/** An import may write very many rows; the longest it may take. */
export const publishSeconds = 10 * 60
const publishMs = publishSeconds * 1000
/** Rows in one statement. */
const atOnce = 5_000

export type Publishing = {
  attempt: Attempt
  plan: Plan
  keys: ReadonlyMap<Digest, ObjectKey>
  options: JudgeOptions
  /** The report to be kept, as JSON text. */
  report(judgement: Judgement, changed: boolean): string
  reportLifeSeconds: number
}

/** Nothing was published: this is in the way. */
class InTheWay extends Error {
  readonly problems: readonly Problem[]
  constructor(problems: readonly Problem[]) {
    super('in the way')
    this.problems = problems
  }
}

/**
 * Publishes all of it, or nothing. Answers the problems that are in the way, none where it is published.
 * Throws IMPORT_SUPERSEDED; UNAVAILABLE where content went in the same moment: the next try stores it.
 */
export async function publishImport(deps: Deps, publishing: Publishing): Promise<readonly Problem[]> {
  try {
    await ask(deps.db, (sql) => sql.begin((tx) => publish(tx, publishing)), { answerMs: publishMs })
    return []
  } catch (error) {
    if (error instanceof InTheWay) return error.problems
    if (violated(error) === undefined) throw error
    throw unavailable('blob store', error)
  }
}

async function publish(tx: Transaction, publishing: Publishing): Promise<void> {
  const { attempt, plan, options, report, reportLifeSeconds } = publishing
  const packIds = [...plan.places.keys()].sort()
  await tx.unsafe(`set local statement_timeout = ${publishMs}`)
  if (!(await lockImport(tx, attempt))) throw superseded()
  for (const some of chunks(packIds))
    await lockPacks(
      tx,
      some.map((packId) => ({ packId, repository: repositoryOf(packId) })),
    )
  await lockDependencies(tx)
  const judgement = await judge(tx, plan, options)
  if (judgement.problems.length > 0) throw new InTheWay(judgement.problems)
  const channels = judgement.tags.filter(({ kind }) => kind === 'channel')
  const changed = await movingChannels(tx, channels, () => write(tx, publishing, judgement))
  if (changed) for (const some of chunks(packIds)) await refreshPacks(tx, some)
  await recordEvents(tx, [importCompleted(attempt.id, judgement, changed)])
  await finishImport(tx, attempt.id, report(judgement, changed), reportLifeSeconds)
}

function importCompleted(id: string, { versions }: Judgement, changed: boolean): NewEvent {
  const fresh = versions.filter(({ outcome }) => outcome === 'new').length
  return { type: 'import.completed', subject: id, data: { import: id, changed, versions: versions.length, new: fresh } }
}

/** Whether anything was not there before. */
async function write(tx: Transaction, { attempt, plan, keys }: Publishing, judgement: Judgement): Promise<boolean> {
  const placed = placedManifests(plan)
  const needed = new Set(placed.flatMap(({ manifest }) => manifest.blobs))
  const wanted = [...keys].flatMap(([digest, key]) => (needed.has(digest) ? [key] : [])).sort()
  for (const some of chunks(wanted)) {
    const blobs = await takeBlobs(tx, attempt.id, some)
    if (blobs.length !== some.length)
      throw unavailable('blob store', new Error('content of the import was thrown away while it was published'))
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
