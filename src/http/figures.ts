import { unsealedSeconds } from '../db/audit.ts'
import { askRead } from '../db/client.ts'
import { type Backlog, readBacklog } from '../db/collect-plan.ts'
import { countJobs, type JobCounts } from '../db/dead-letters.ts'
import { outboxDepth } from '../db/events.ts'
import { countFindings, type FindingKind, findingKinds } from '../db/findings.ts'
import { listQuotas, type QuotaRow } from '../db/quotas.ts'
import { listRuns, type ScrubRunRow } from '../db/scrub.ts'
import { countOpenUploads } from '../db/uploads.ts'
import { countDeliveries } from '../db/webhooks.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'

export type PartState = 'ok' | 'down'

/** Whether what the registry stands on answers, part by part. */
export async function partsOf(deps: Deps): Promise<{ database: PartState; blobStore: PartState }> {
  const [database, blobStore] = await Promise.all([
    check(() => askRead(deps.db, (sql) => sql`select 1`)),
    check(() => deps.blobs.ping()),
  ])
  return { database, blobStore }
}

async function check(probe: () => Promise<unknown>): Promise<PartState> {
  try {
    await probe()
    return 'ok'
  } catch (error) {
    if (error instanceof Failure && error.key === 'UNAVAILABLE') return 'down'
    throw error
  }
}

/**
 * The figures of the whole registry, looked up now, as text for Prometheus. Without the database there are none of what
 * it holds: a figure that is not known is absent, not 0.
 */
export async function sharedFigures(deps: Deps): Promise<string> {
  const figures = deps.metrics.shared()
  const parts = await partsOf(deps)
  for (const [part, state] of Object.entries(parts)) figures.parts.labels(part).set(state === 'ok' ? 1 : 0)
  const space = parts.blobStore === 'ok' ? await deps.blobs.space?.() : undefined
  for (const [state, bytes] of Object.entries(space ?? {})) figures.blobSpace.labels(state).set(bytes)
  if (parts.database === 'ok') await lookUp(deps, figures)
  else
    for (const figure of [
      ...[figures.uploadsOpen, figures.auditUnsealed, figures.backlogAge, figures.collectedAt],
      ...[figures.outbox, figures.outboxOldest, figures.deliveriesOldest],
    ])
      figure.remove()
  return figures.register.metrics()
}

type Figures = ReturnType<Deps['metrics']['shared']>

async function lookUp({ db }: Deps, figures: Figures): Promise<void> {
  figures.uploadsOpen.set(await askRead(db, (sql) => countOpenUploads(sql)))
  figures.auditUnsealed.set(await askRead(db, unsealedSeconds))
  for (const counts of await askRead(db, countJobs)) showJobs(figures, counts)
  showBacklog(figures, await askRead(db, readBacklog))
  for (const quota of await askRead(db, listQuotas)) showQuota(figures, quota)
  const [outbox, deliveries] = [await askRead(db, outboxDepth), await askRead(db, countDeliveries)]
  figures.outbox.set(outbox.count)
  figures.outboxOldest.set(outbox.oldestSeconds)
  figures.deliveriesByState.labels('waiting').set(deliveries.waiting)
  figures.deliveriesByState.labels('dead').set(deliveries.dead)
  figures.deliveriesOldest.set(deliveries.oldestSeconds)
  showScrubs(figures, await askRead(db, countFindings), await askRead(db, listRuns))
}

/** A kind of which there is nothing is a nought: an alert can tell that from a registry that does not answer. */
function showScrubs(figures: Figures, open: ReadonlyMap<FindingKind, number>, runs: readonly ScrubRunRow[]): void {
  for (const kind of findingKinds) figures.findings.labels(kind).set(open.get(kind) ?? 0)
  for (const { mode, finishedAt } of runs)
    if (finishedAt !== null) figures.scrubFinished.labels(mode).set(Date.parse(finishedAt) / 1000)
}

function showBacklog(figures: Figures, { due, queued, oldestDueSeconds, lastRunAt }: Backlog): void {
  figures.backlog.labels('due').set(due)
  figures.backlog.labels('queued').set(queued)
  figures.backlogAge.set(oldestDueSeconds)
  if (lastRunAt === undefined) figures.collectedAt.remove()
  else figures.collectedAt.set(lastRunAt)
}

function showQuota({ quota }: Figures, { glob, bytes, maxBytes, versions, maxVersions }: QuotaRow): void {
  const figures = { bytes: [bytes, maxBytes], versions: [versions, maxVersions] }
  for (const [unit, [used, limit]] of Object.entries(figures)) {
    quota.labels(glob, unit, 'used').set(Number(used))
    if (typeof limit === 'number') quota.labels(glob, unit, 'limit').set(limit)
  }
}

function showJobs(figures: Figures, counts: JobCounts): void {
  const { name, oldestDueSeconds, oldestFailedSeconds, ...states } = counts
  for (const [state, count] of Object.entries(states)) figures.jobsByState.labels(name, state).set(count)
  figures.jobsWaited.labels(name).set(oldestDueSeconds)
  figures.jobsDeadFor.labels(name).set(oldestFailedSeconds)
}
