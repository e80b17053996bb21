import { randomUUID } from 'node:crypto'
import type { Contents } from '../bundles/contents.ts'
import { openMeter } from '../bundles/meter.ts'
import { ask, askRead } from '../db/client.ts'
import { receivedBlobs } from '../db/import-blobs.ts'
import * as rows from '../db/imports.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import { digestOf } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import { type PackId, repositoryOf } from '../packs/pack.ts'
import type { Version } from '../packs/version.ts'
import type { Body } from './body.ts'
import { openBase } from './import-base.ts'
import { endOf, finishImport, handOver } from './import-finish.ts'
import { type Intake, openIntake, tryingIntake } from './import-intake.ts'
import type { Plan } from './import-plan.ts'
import { lifeSeconds, type Pulse, startPulse } from './import-pulse.ts'
import { overQuotas } from './import-quotas.ts'
import { type Before, type Received, receive } from './import-receive.ts'
import { isPassing, quarantine, Refused, reasonOf } from './import-refusal.ts'
import { type ImportReport, reportOf } from './import-report.ts'
import { type JudgeOptions, judge } from './import-rules.ts'
import { contentOf } from './import-texts.ts'
import { type Verified, verifyWhole } from './import-verify.ts'

// A bundle comes in whole or not at all. It is received (its content goes to its last place in the store, where nothing
// names it), verified as a whole, and published in one transaction. Until that commits nobody can see any of it, and a
// process that dies at any moment leaves rows that say what it had stored, for the next try or for whoever tidies up.
//
//   receiving → verifying → publishing → published
//       ↑ ↓         ↓            ↓ ↘ receiving, where content of it went away
//      failed     failed       failed
//
// Up to `verifying` one connection has it, whose attempt is the row's, and only the sender can go on with what it leaves
// behind. What is `publishing` any process can finish: see import-finish.ts.

/** For judging a bundle, in seconds. */
const verifySeconds = 120

/** `id`: of an import to go on with, or to begin under that id. `offset`: where in the whole file the body begins. */
export type ImportRequest = {
  body: Body
  id: string | undefined
  offset: number
  principal: string
  /** For the audit, where a job publishes it. */
  by: rows.Publishing['by']
  /** Rejects where whoever sends it may nothing any more. */
  still(): Promise<void>
  mayPush(repository: RepositoryName): boolean
  mayPull(repository: RepositoryName): boolean
  dryRun: boolean
  /** It is published by a job; the sender does not wait for that. */
  detached: boolean
  /** Channels may go back to older versions, for this reason. */
  force: { reason: string } | undefined
  runner: Version | undefined
  /** The pack of a layout that does not say which it is. */
  pack: PackId | undefined
}

/** Without a report it was left to a job. */
export type Imported = { id: string | undefined; report: ImportReport } | { id: string; report: undefined }

/**
 * Imports a bundle, or the layout of another tool: plain, gzip or zstd. To import again what is here changes nothing.
 * Throws BUNDLE_INVALID, DIGEST_INVALID, SIGNATURE_INVALID, SIGNATURE_MISSING, IMPORT_BASE_MISSING, IMPORT_REFUSED,
 * IMPORT_BACKWARDS, VERSION_EXISTS, VERSION_SPENT, DEPENDENCY_INVALID, RUNNER_TOO_OLD, MANIFEST_INVALID, DENIED: all with
 * every problem there is; RANGE_INVALID where the body begins behind what is safe; IMPORT_SUPERSEDED.
 */
export async function importBundle(deps: Deps, request: ImportRequest): Promise<Imported> {
  if (request.dryRun) return { id: undefined, report: await tryImport(deps, request) }
  const begun = await begin(deps, request)
  const { id } = begun
  const stage = 'attempt' in begun ? await bringIn(deps, request, begun) : undefined
  if (request.detached) return { id, report: undefined }
  const { mayPull } = judgingOf(request)
  if (stage) await finishImport(deps, id, { ...stage, principal: request.principal, mayPull, byJob: false })
  return { id, report: await endOf(deps, id) }
}

type Begun = rows.Attempt & { before: Before | undefined }

/** Begins an import, or goes on with one. Without an attempt: all of it is here already. */
async function begin(deps: Deps, { id, offset, body, principal }: ImportRequest): Promise<Begun | { id: string }> {
  const life = { principal, lifeSeconds, total: body.length === undefined ? undefined : offset + body.length }
  const resumed =
    id === undefined ? undefined : await ask(deps.db, (sql) => rows.resumeImport(sql, id, { ...life, offset }))
  if (id !== undefined && resumed) {
    if (offset > resumed.resumeAt)
      throw new Failure('RANGE_INVALID', {
        detail: `the import goes on at byte ${resumed.resumeAt}, and this begins at ${offset}`,
        about: { resumeAt: resumed.resumeAt },
      })
    const attempt = { id, attempt: resumed.attempt }
    if (offset === 0) return { ...attempt, before: undefined }
    const { index, envelope } = resumed
    const blobs = await ask(deps.db, (sql) => receivedBlobs(sql, id))
    const keys = new Map(blobs.flatMap(({ digest, key }) => (key ? [[digest, key] as const] : [])))
    const before = { index: index ?? undefined, envelope: envelope ?? undefined, blobs }
    return { ...attempt, before: { ...before, contentOf: (digest) => contentOf(deps, digest, keys) } }
  }
  const attempt = await ask(deps.db, (sql) => rows.insertImport(sql, id ?? randomUUID(), life))
  if (attempt && offset === 0) return { ...attempt, before: undefined }
  const row = id === undefined || attempt ? undefined : await askRead(deps.db, (sql) => rows.findImport(sql, id))
  if (row?.principal === principal && (row.state === 'publishing' || row.state === 'published')) return { id: row.id }
  throw new Failure('IMPORT_UNKNOWN', {
    detail: `there is no import ${id} to go on with; send the file from its start`,
  })
}

type Whole = { verified: Verified; keys: Intake['keys']; publishing: rows.Publishing }

/** Receives and verifies an import, and hands it over. */
async function bringIn(deps: Deps, request: ImportRequest, { id, attempt, before }: Begun): Promise<Whole> {
  const meter = openMeter(request.body.stream, request.offset)
  const intake = openIntake(deps, { id, attempt }, request.offset, before?.blobs ?? [])
  const pulse = startPulse(deps, { id, attempt }, meter, intake)
  try {
    return await prepare(deps, request, { attempt: { id, attempt }, before, meter, intake, pulse })
  } catch (error) {
    const why = reasonOf(error, request.body)
    // What has come is safe when the sender comes back, unless there is no use in it.
    if (isPassing(why)) await intake.finish().catch(() => undefined)
    await intake.settle()
    await pulse.stop()
    await quarantine(deps, { id, attempt }, why, error instanceof Refused ? error.report : undefined)
    throw why
  } finally {
    await pulse.stop()
    meter.stop()
  }
}

function judgingOf({ force, runner, mayPull }: ImportRequest): JudgeOptions {
  return { force: force !== undefined, runner, mayPull: (packId) => mayPull(repositoryOf(packId)) }
}

type Preparing = {
  attempt: rows.Attempt
  before: Before | undefined
  meter: ReturnType<typeof openMeter>
  intake: Intake
  pulse: Pulse
}

async function prepare(
  deps: Deps,
  request: ImportRequest,
  { attempt, before, meter, intake, pulse }: Preparing,
): Promise<Whole> {
  const { keys, counts } = intake
  const { force, runner, pack, by } = request
  const judging = judgingOf(request)
  const base = openBase(deps, request.mayPull)
  const received = await receive(meter, intake, before, {
    async onIndex(bytes, contents) {
      requirePush(packsOf(contents), request)
      await ask(deps.db, (sql) => rows.keepHead(sql, attempt, { index: bytes, indexDigest: digestOf(bytes) }))
    },
    onEnvelope: (envelope) => ask(deps.db, (sql) => rows.keepHead(sql, attempt, { envelope })),
    onLeftOut: base.require,
    onBlob: pulse.count,
  })
  await pulse.stop()
  await ask(deps.db, (sql) => rows.beginVerifying(sql, attempt, verifySeconds))
  const verified = await verifyWhole(deps, received, { keys, base, pack })
  requirePush([...verified.plan.places.keys()], request)
  // What is published at once is judged then; whoever does not wait for that is told here.
  if (request.detached || verified.problems.length > 0) {
    const judgement = await ask(deps.db, (sql) => judge(sql, verified.plan, judging))
    const problems = [...verified.problems, ...judgement.problems]
    const report = reportOf({ ...verified, counts, force, dryRun: false }, { ...judgement, problems }, false)
    if (problems.length > 0) throw new Refused(report, attempt.id)
  }
  await storeKept(intake, received, verified.plan)
  await request.still()
  const options = { ...(force ? { force } : {}), ...(runner ? { runner } : {}), ...(pack ? { pack } : {}) }
  const publishing = { ...options, counts: { ...counts }, by }
  await handOver(deps, attempt, publishing, { soon: request.detached })
  return { verified, keys, publishing }
}

function packsOf({ entries }: Contents): PackId[] {
  return entries.flatMap((entry) => ('packId' in entry ? [entry.packId] : []))
}

/** Throws DENIED. */
function requirePush(packIds: readonly PackId[], { mayPush }: ImportRequest): void {
  for (const repository of new Set(packIds.map(repositoryOf)))
    if (!mayPush(repository)) throw new Failure('DENIED', { detail: { repository, action: 'push' } })
}

/** Content that looks like a manifest, and is a layer or a config as well, was kept in its row; now it goes to the store. */
async function storeKept(intake: Intake, { payloads }: Received, plan: Plan): Promise<void> {
  for (const { manifest } of plan.manifests.values())
    for (const digest of manifest.blobs) {
      const bytes = payloads.get(digest)
      if (bytes && !intake.keys.has(digest))
        await intake.add({ digest, size: bytes.length, end: undefined }, bytes, { keep: false })
    }
  await intake.finish()
}

/** What would become of a bundle. Nothing is stored, and no row is written. */
async function tryImport(deps: Deps, request: ImportRequest): Promise<ImportReport> {
  const { force, pack } = request
  const judging = judgingOf(request)
  const meter = openMeter(request.body.stream, 0)
  const intake = tryingIntake()
  const base = openBase(deps, request.mayPull)
  try {
    const received = await receive(meter, intake, undefined, {
      onIndex: async (_, contents) => requirePush(packsOf(contents), request),
      onEnvelope: async () => undefined,
      onLeftOut: base.require,
      onBlob: () => undefined,
    })
    const verified = await verifyWhole(deps, received, { keys: intake.keys, base, pack })
    requirePush([...verified.plan.places.keys()], request)
    const judgement = await ask(deps.db, (sql) => judge(sql, verified.plan, judging))
    const problems = [...verified.problems, ...judgement.problems, ...(await overQuotas(deps, verified))]
    const changed =
      judgement.versions.some(({ outcome }) => outcome === 'new') ||
      judgement.channels.some(({ outcome }) => outcome !== 'present')
    const facts = { ...verified, counts: intake.counts, force, dryRun: true }
    const report = reportOf(facts, { ...judgement, problems }, changed)
    if (problems.length > 0) throw new Refused(report, undefined)
    return report
  } catch (error) {
    throw reasonOf(error, request.body)
  } finally {
    meter.stop()
  }
}
