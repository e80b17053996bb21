import { ask, type Database } from '../db/client.ts'
import { readBacklog } from '../db/collect-plan.ts'
import { countFindings, findingKinds } from '../db/findings.ts'
import { countJobs } from '../db/jobs.ts'
import { listRuns } from '../db/scrub.ts'
import { countOpenUploads } from '../db/uploads.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import { requireAccess } from './access.ts'
import type { Routes } from './routes.ts'

/** What the server knows and the app does not. */
export type ServerState = {
  /** The server is finishing what it has and takes nothing new. */
  isDraining(): boolean
  /** Bytes over all connections so far. */
  traffic(): { read: number; written: number }
  /** The metrics of every process of this server, as Prometheus reads them; undefined: there is only this one. */
  allMetrics?: () => Promise<string>
}

export function addOpsRoutes(routes: Routes, deps: Deps, state: ServerState): void {
  // Liveness: the process answers. It says nothing of what stands behind it, or an outage there would restart us.
  routes.get('/healthz', () => Response.json({ status: 'ok' }))

  // Readiness: each part by name.
  routes.get('/readyz', async () => {
    const [database, blobStore] = await Promise.all([
      check(() => ask(deps.db, (sql) => sql`select 1`)),
      check(() => deps.blobs.ping()),
    ])
    const parts = { database, blobStore, server: state.isDraining() ? 'draining' : 'ok' }
    const ready = Object.values(parts).every((part) => part === 'ok')
    return Response.json(
      { status: ready ? 'ok' : 'unavailable', parts },
      ready ? { status: 200 } : { status: 503, headers: { 'retry-after': '1' } },
    )
  })

  routes.get('/metrics', async (c) => {
    requireAccess(c, '*', 'pull')
    await refresh(deps, state)
    const text = await (state.allMetrics?.() ?? deps.metrics.register.metrics())
    return new Response(text, { headers: { 'content-type': deps.metrics.register.contentType } })
  })
}

async function check(probe: () => Promise<unknown>): Promise<string> {
  try {
    await probe()
    return 'ok'
  } catch (error) {
    if (error instanceof Failure && error.key === 'UNAVAILABLE') return 'down'
    throw error
  }
}

/** Figures that are asked for rather than counted. Without the database there are none of what it holds. */
async function refresh({ db, metrics }: Deps, state: ServerState): Promise<void> {
  showPool(db, metrics)
  const { read, written } = state.traffic()
  metrics.received.reset()
  metrics.received.inc(read)
  metrics.sent.reset()
  metrics.sent.inc(written)
  const open = await ask(db, (sql) => countOpenUploads(sql)).catch(() => undefined)
  if (open === undefined) metrics.uploadsOpen.reset()
  else metrics.uploadsOpen.set(open)
  const backlog = await ask(db, readBacklog).catch(() => undefined)
  metrics.backlog.reset()
  metrics.backlogAge.set(backlog?.oldestDueSeconds ?? 0)
  metrics.collectedAt.set(backlog?.lastRunAt ?? 0)
  if (backlog) {
    metrics.backlog.labels('due').set(backlog.due)
    metrics.backlog.labels('queued').set(backlog.queued)
  }
  await showScrubs(db, metrics)
  const jobs = await ask(db, countJobs).catch(() => [])
  metrics.jobsByState.reset()
  metrics.jobsWaited.reset()
  for (const { name, state, count, waitedSeconds } of jobs) {
    metrics.jobsByState.labels(name, state).set(count)
    if (state === 'waiting') metrics.jobsWaited.labels(name).set(waitedSeconds)
  }
}

async function showScrubs(db: Database, { findings, scrubFinished }: Deps['metrics']): Promise<void> {
  const open = await ask(db, countFindings).catch(() => undefined)
  findings.reset()
  // A kind that is not there is a nought: an alert can tell that from a registry that does not answer.
  if (open) for (const kind of findingKinds) findings.labels(kind).set(open.get(kind) ?? 0)
  const runs = await ask(db, listRuns).catch(() => [])
  scrubFinished.reset()
  for (const { mode, finishedAt } of runs)
    if (finishedAt !== null) scrubFinished.labels(mode).set(Date.parse(finishedAt) / 1000)
}

function showPool({ use }: Database, { pool }: Deps['metrics']): void {
  pool.labels('active').set(use.active)
  pool.labels('waiting').set(use.waiting)
  pool.labels('max').set(use.max)
}
