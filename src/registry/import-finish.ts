import { setTimeout as sleep } from 'node:timers/promises'
import type { ObjectKey } from '../blobs/keys.ts'
import { insertEvents } from '../db/audit.ts'
import { ask, askRead, type Transaction } from '../db/client.ts'
import { receivedBlobs } from '../db/import-blobs.ts'
import * as rows from '../db/imports.ts'
import { dropWaiting } from '../db/jobs.ts'
import { send } from '../db/queue.ts'
import type { Deps } from '../deps.ts'
import { Failure, type FailureKey, failures, unavailable } from '../errors.ts'
import type { Digest } from '../oci/digest.ts'
import { openBase } from './import-base.ts'
import { superseded } from './import-intake.ts'
import type { Problem } from './import-plan.ts'
import { publishImport } from './import-publish.ts'
import { lifeSeconds } from './import-pulse.ts'
import { recalled } from './import-receive.ts'
import { type ImportReport, refusal, reportOf } from './import-report.ts'
import { type Judgement, type JudgeOptions, judge } from './import-rules.ts'
import { contentOf } from './import-texts.ts'
import { judgeSignature, type Verified, verifyWhole } from './import-verify.ts'
import { lockKnownKeys } from './keys.ts'

// The second half of an import. Once it is received, verified and allowed, it is handed over: one transaction makes it
// `publishing` and sends a job for it, and from then on its rows are all that anybody needs to finish it. Normally the
// process that received it does, at once, and takes the job out of the queue in the transaction that publishes. The job
// is begun only when that has not happened for a while: because the process was killed, or because whoever sent the file
// did not want to wait, and then at once.
//
// Whoever publishes holds the lock of the import's row until it is done. PostgreSQL lets go of it when the process dies,
// so the row is locked exactly while somebody is at it: others look past it (skip locked), or wait and find it over.

/** How long a process has to itself what it has received. */
const headStartSeconds = 15
const lookMs = 250

/** An import on its way to be published. `mayPull`: which packs its sender may know of. `byJob`: nobody else puts down in the audit that it was. */
type Stage = {
  verified: Verified
  keys: ReadonlyMap<Digest, ObjectKey>
  publishing: rows.Publishing
  principal: string
  mayPull: JudgeOptions['mayPull']
  byJob: boolean
}

/** Makes an import any process's to publish. `soon`: by a job, at once. Throws IMPORT_SUPERSEDED. */
export async function handOver(
  deps: Deps,
  attempt: rows.Attempt,
  publishing: rows.Publishing,
  { soon }: { soon: boolean },
): Promise<void> {
  const { id } = attempt
  const later = soon ? {} : { startAfterSeconds: headStartSeconds }
  await ask(deps.db, (sql) =>
    sql.begin(async (tx) => {
      if (!(await rows.handOver(tx, attempt, publishing, lifeSeconds))) throw superseded()
      await send(tx, 'import', { import: id }, { key: id, ...later })
    }),
  )
}

/** Publishes an import that was handed over, or refuses it. What became of it is in its row: see `endOf`. */
export async function finishImport(deps: Deps, id: string, stage: Stage): Promise<void> {
  const { verified, keys } = stage
  const options = judgingOf(stage)
  if (verified.problems.length > 0) return refuse(deps, id, stage, verified.problems)
  const outcome = await publishImport(deps, {
    ...{ id, plan: verified.plan, keys, options, reportLifeSeconds: lifeSeconds },
    report: (judgement, changed) => JSON.stringify(told(stage, judgement, changed)),
    lastLook: async (tx) => judgeSignature(deps, verified.survey, await lockKnownKeys(tx)).problems,
    finally: (tx) => close(deps, tx, id, stage, undefined),
  })
  if (outcome === 'content gone') {
    const error = { key: 'UNAVAILABLE', detail: 'content of it was deleted while it was published; send it again' }
    await ask(deps.db, (sql) => rows.reopenWhole(sql, id, error))
  } else if (outcome.length > 0) await refuse(deps, id, stage, outcome)
}

function judgingOf({ publishing: { force, runner }, mayPull }: Stage): JudgeOptions {
  return { force: force !== undefined, runner, mayPull }
}

function told({ verified, publishing }: Stage, judgement: Judgement, changed: boolean): ImportReport {
  return reportOf(
    { ...verified, counts: publishing.counts, force: publishing.force, dryRun: false },
    judgement,
    changed,
  )
}

async function refuse(deps: Deps, id: string, stage: Stage, problems: readonly Problem[]): Promise<void> {
  const judgement = await ask(deps.db, (sql) => judge(sql, stage.verified.plan, judgingOf(stage)))
  const report = told(stage, { ...judgement, problems: [...problems] }, false)
  const { key, detail } = refusal(report.problems, id)
  const refusing = { error: { key, detail }, report: JSON.stringify(report), lifeSeconds }
  await ask(deps.db, (sql) =>
    sql.begin(async (tx) => {
      if (await rows.refuseWhole(tx, id, refusing)) await close(deps, tx, id, stage, key)
    }),
  )
}

/** What belongs to an import's end, in the transaction that ends it. `refused`: why, where it is not published. */
async function close(
  deps: Deps,
  tx: Transaction,
  id: string,
  { principal: who, publishing, byJob }: Pick<Stage, 'principal' | 'publishing' | 'byJob'>,
  refused: FailureKey | undefined,
): Promise<void> {
  await dropWaiting(tx, 'import', id)
  if (!byJob) return
  deps.log.info({ import: id, refused }, 'an import was finished by a job')
  const { kind, tokenId, address, requestId } = publishing.by
  const outcome = refused ? ('refused' as const) : ('done' as const)
  const status = refused ? failures[refused].status : 201
  const nothing = { repository: undefined, digest: undefined, tags: undefined, reason: publishing.force?.reason }
  const entry = { who, kind, tokenId, address, requestId, ...nothing, outcome, status }
  await insertEvents(tx, [{ ...entry, action: 'job import', path: `/bundles/imports/${id}` }])
}

/**
 * Finishes an import that its own process has left, from its rows. Does nothing where it is over, or a process is at it.
 * Answers whether it did.
 */
async function finishLeft(deps: Deps, id: string, { byJob }: { byJob: boolean }): Promise<boolean> {
  const whole = await ask(deps.db, (sql) => rows.findWhole(sql, id))
  if (!whole) return false
  try {
    await finishImport(deps, id, { ...(await stageOf(deps, id, whole)), byJob })
  } catch (error) {
    if (!(error instanceof Failure) || failures[error.key].status >= 500) throw error
    // What it stands on has changed meanwhile.
    const { key, detail } = error
    const report = JSON.stringify({ problems: [{ key, message: String(detail) }] })
    await ask(deps.db, (sql) =>
      sql.begin(async (tx) => {
        const isRefused = await rows.refuseWhole(tx, id, { error: { key, detail }, report, lifeSeconds })
        if (isRefused) await close(deps, tx, id, { ...whole, byJob }, key)
      }),
    )
  }
  return true
}

async function stageOf(deps: Deps, id: string, whole: rows.Whole): Promise<Omit<Stage, 'byJob'>> {
  const { principal, publishing, index, envelope } = whole
  const blobs = await ask(deps.db, (sql) => receivedBlobs(sql, id))
  const keys = new Map(blobs.flatMap(({ digest, key }) => (key ? [[digest, key] as const] : [])))
  // Whoever handed it over has made sure that its sender may read what it leaves out, and push all of it.
  const base = openBase(deps, () => true)
  const received = await recalled({
    ...{ index, envelope: envelope ?? undefined, blobs },
    contentOf: (digest) => contentOf(deps, digest, keys),
  })
  const verified = await verifyWhole(deps, received, { keys, base, pack: publishing.pack })
  return { verified, keys, publishing, principal, mayPull: () => true }
}

/** Waits until an import that was handed over is over, and sees to it where nobody else does. Undefined: there is none. */
export async function settled(
  deps: Deps,
  id: string,
  { byJob, signal }: { byJob: boolean; signal?: AbortSignal },
): Promise<rows.ImportRow | undefined> {
  for (;;) {
    signal?.throwIfAborted()
    const row = await askRead(deps.db, (sql) => rows.findImport(sql, id))
    if (row?.state !== 'publishing') return row
    if (!(await finishLeft(deps, id, { byJob }))) await sleep(lookMs)
  }
}

/** How an import that was handed over ends. Throws as importBundle does. */
export async function endOf(deps: Deps, id: string): Promise<ImportReport> {
  const row = await settled(deps, id, { byJob: false })
  if (row?.state === 'published' && row.report !== null) return JSON.parse(row.report) as ImportReport
  if (row?.state === 'failed') throw failureOf(row)
  throw unavailable('blob store', new Error('the import has to be sent again'))
}

function failureOf({ id, report, error }: rows.ImportRow): Failure {
  const { problems = [] } = (report === null ? {} : JSON.parse(report)) as { problems?: Problem[] }
  if (problems.length > 0) return refusal(problems, id)
  const { key, detail } = JSON.parse(error ?? '{"key":"IMPORT_REFUSED"}') as { key: FailureKey; detail?: unknown }
  return new Failure(key in failures ? key : 'IMPORT_REFUSED', { detail, about: { import: id } })
}
