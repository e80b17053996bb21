import { randomUUID } from 'node:crypto'
import { checkClosure } from '../bundles/closure.ts'
import type { Contents } from '../bundles/contents.ts'
import { type Meter, openMeter } from '../bundles/meter.ts'
import { decideVerification } from '../bundles/signature.ts'
import { signatureOf } from '../bundles/verify.ts'
import { ask } from '../db/client.ts'
import * as rows from '../db/imports.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import { digestOf } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import { type PackId, repositoryOf } from '../packs/pack.ts'
import type { Version } from '../packs/version.ts'
import { type Body, cutOff } from './body.ts'
import { openBase } from './import-base.ts'
import { type Intake, openIntake, superseded, tryingIntake } from './import-intake.ts'
import { namedByBundle, namedByLayout } from './import-layout.ts'
import { type Plan, type Problem, planImport } from './import-plan.ts'
import { publishImport, publishSeconds } from './import-publish.ts'
import { type Before, type Received, receive } from './import-receive.ts'
import { type ImportReport, refusal, reportOf } from './import-report.ts'
import { type Judgement, judge } from './import-rules.ts'
import { openTexts } from './import-texts.ts'
import { trustedKeys } from './keys.ts'

// A bundle comes in whole or not at all. It is received (its content goes to its last place in the store, where nothing
// names it), verified as a whole, and published in one transaction. Until that commits nobody can see any of it, and a
// process that dies at any moment leaves rows that say what it had stored, for the next try or for whoever tidies up.

/** How long what a try has stored is kept for the next, in seconds. */
const lifeSeconds = 24 * 60 * 60
const heartbeatMs = 3_000
/** For judging a bundle, beside the time that publishing may take. */
const marginSeconds = 120

/** `id`: of an import to go on with, or to begin under that id. `offset`: where in the whole file the body begins. */
export type ImportRequest = {
  body: Body
  id: string | undefined
  offset: number
  principal: string
  mayPush(repository: RepositoryName): boolean
  mayPull(repository: RepositoryName): boolean
  dryRun: boolean
  /** Channels may go back to older versions, for this reason. */
  force: { reason: string } | undefined
  runner: Version | undefined
  /** The pack of a layout that does not say which it is. */
  pack: PackId | undefined
}

export type Imported = { id: string | undefined; report: ImportReport }

/**
 * Imports a bundle, or the layout of another tool: plain, gzip or zstd. To import again what is here changes nothing.
 * Throws BUNDLE_INVALID, DIGEST_INVALID, SIGNATURE_INVALID, SIGNATURE_MISSING, IMPORT_BASE_MISSING, IMPORT_REFUSED,
 * IMPORT_BACKWARDS, VERSION_EXISTS, VERSION_SPENT, DEPENDENCY_INVALID, RUNNER_TOO_OLD, MANIFEST_INVALID, DENIED: all with
 * every problem there is; RANGE_INVALID where the body begins behind what is safe; IMPORT_SUPERSEDED.
 */
export async function importBundle(deps: Deps, request: ImportRequest): Promise<Imported> {
  if (request.dryRun) return tryImport(deps, request)
  const begun = await begin(deps, request)
  if ('report' in begun) return begun
  const { attempt, before } = begun
  const meter = openMeter(request.body.stream, request.offset)
  const intake = openIntake(deps, attempt, request.offset, before?.blobs ?? [])
  const pulse = startPulse(deps, attempt, meter, intake)
  try {
    const report = await run(deps, request, { attempt, before, meter, intake, pulse })
    return { id: attempt.id, report }
  } catch (error) {
    const why = reasonOf(error, request.body)
    // What has come is safe when the sender comes back, unless there is no use in it.
    if (isPassing(why)) await intake.finish().catch(() => undefined)
    await intake.settle()
    await pulse.stop()
    await quarantine(deps, attempt, why, error instanceof Refused ? error.report : undefined)
    throw why
  } finally {
    await pulse.stop()
    meter.stop()
  }
}

type Begun = { attempt: rows.Attempt; before: Before | undefined }

/** Begins an import, or goes on with one. One that is published already is told as it was. */
async function begin(deps: Deps, { id, offset, body, principal }: ImportRequest): Promise<Begun | Imported> {
  const life = { principal, lifeSeconds, total: body.length === undefined ? undefined : offset + body.length }
  const resumed = id === undefined ? undefined : await ask(deps.db, (sql) => rows.resumeImport(sql, id, life))
  if (id !== undefined && resumed) {
    if (offset > resumed.resumeAt)
      throw new Failure('RANGE_INVALID', {
        detail: `the import goes on at byte ${resumed.resumeAt}, and this begins at ${offset}`,
        about: { resumeAt: resumed.resumeAt },
      })
    const attempt = { id, attempt: resumed.attempt }
    if (offset === 0) return { attempt, before: undefined }
    const { index, envelope } = resumed
    const blobs = await ask(deps.db, (sql) => rows.receivedBlobs(sql, id))
    return { attempt, before: { index: index ?? undefined, envelope: envelope ?? undefined, blobs } }
  }
  const attempt = await ask(deps.db, (sql) => rows.insertImport(sql, id ?? randomUUID(), life))
  if (attempt && offset === 0) return { attempt, before: undefined }
  const row = id === undefined || attempt ? undefined : await ask(deps.db, (sql) => rows.findImport(sql, id))
  if (row?.principal === principal && row.report && row.state === 'published')
    return { id: row.id, report: JSON.parse(row.report) as ImportReport }
  throw new Failure('IMPORT_UNKNOWN', {
    detail: `there is no import ${id} to go on with; send the file from its start`,
  })
}

type Pulse = { count(blobs: number): void; stop(): Promise<void> }
type Running = { attempt: rows.Attempt; before: Before | undefined; meter: Meter; intake: Intake; pulse: Pulse }

/** Says from time to time how far the import is. Ends it where another connection has taken it over. */
function startPulse(deps: Deps, attempt: rows.Attempt, meter: Meter, intake: Intake): Pulse {
  let blobs = 0
  let stopped = false
  let last = Promise.resolve()
  const beat = async () => {
    const progress = { received: meter.received(), blobs, resumeAt: intake.resumeAt(), lifeSeconds }
    const isOurs = await ask(deps.db, (_, relaxed) => rows.touchImport(relaxed, attempt, progress)).catch(() => true)
    if (!isOurs) meter.through.destroy(superseded())
  }
  const timer = setInterval(() => {
    last = last.then(beat)
  }, heartbeatMs)
  return {
    count(number) {
      blobs = number
    },
    async stop() {
      if (stopped) return
      stopped = true
      clearInterval(timer)
      await last
      await beat()
    },
  }
}

async function run(deps: Deps, request: ImportRequest, { attempt, before, meter, intake, pulse }: Running) {
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
  await ask(deps.db, (sql) => rows.beginVerifying(sql, attempt, publishSeconds + marginSeconds))
  const verified = await verifyWhole(deps, request, received, intake, base)
  const options = { force: request.force !== undefined, runner: request.runner }
  if (verified.problems.length > 0) {
    const judgement = await ask(deps.db, (sql) => judge(sql, verified.plan, options))
    throw new Refused(toldOf(verified, judgement), attempt.id)
  }
  await storeKept(intake, received, verified.plan)
  let told: ImportReport | undefined
  const problems = await publishImport(deps, {
    ...{ attempt, plan: verified.plan, keys: intake.keys, options, reportLifeSeconds: lifeSeconds },
    report(judgement, changed) {
      told = reportOf({ ...verified, counts: intake.counts, force: request.force, dryRun: false }, judgement, changed)
      return JSON.stringify(told)
    },
  })
  if (told && problems.length === 0) return told
  const judgement = await ask(deps.db, (sql) => judge(sql, verified.plan, options))
  throw new Refused(toldOf(verified, { ...judgement, problems: [...problems] }), attempt.id)

  function toldOf(facts: Verified, judgement: Judgement): ImportReport {
    const all = { ...judgement, problems: [...facts.problems, ...judgement.problems] }
    return reportOf({ ...facts, counts: intake.counts, force: request.force, dryRun: false }, all, false)
  }
}

/** A bundle that was judged whole, and refused. */
class Refused extends Error {
  readonly report: ImportReport
  readonly failure: Failure
  constructor(report: ImportReport, id: string | undefined) {
    super('refused')
    this.report = report
    this.failure = refusal(report.problems, id)
  }
}

type Verified = {
  survey: Received['survey']
  signature: ReturnType<typeof signatureOf>
  plan: Plan
  problems: Problem[]
}

/** Everything that is wrong with the file itself, and what it means. */
async function verifyWhole(
  deps: Deps,
  request: ImportRequest,
  { survey, payloads, texts }: Received,
  intake: Intake,
  base: ReturnType<typeof openBase>,
): Promise<Verified> {
  const { contents, blobs, manifests, lock, leftOut } = survey
  const keys = await trustedKeys(deps)
  const signature = signatureOf(survey, keys, new Date())
  const refused = decideVerification(deps.config.bundleVerify, keys.length > 0, signature)
  const problems: Problem[] = refused ? [{ key: refused.key, message: String(refused.detail) }] : []
  const held = await base.manifests(leftOut)
  const source = {
    manifestBytes: (digest: Parameters<typeof payloads.get>[0]) => payloads.get(digest) ?? held.get(digest),
    textOf: openTexts(deps, texts, blobs, intake.keys),
  }
  const named = contents.isBundle ? namedByBundle(contents) : await namedByLayout(survey, source, request.pack)
  const hanging = named.referrers.flatMap(({ digest, subject }) => {
    const described = manifests.get(digest)
    const isListed = contents.isBundle || !described || described instanceof Failure
    const descriptor = { mediaType: isListed ? '' : described.mediaType, digest, size: blobs.get(digest) ?? 0 }
    return isListed ? [] : [{ kind: 'referrer' as const, descriptor, subject }]
  })
  const { violations } = checkClosure({
    ...{ contents: { ...contents, entries: [...contents.entries, ...hanging] }, lock: lock?.lock, leftOut },
    sizeOf: (digest) => blobs.get(digest),
    manifestOf: (digest) => manifests.get(digest),
  })
  problems.push(...violations.map((message): Problem => ({ key: 'BUNDLE_INVALID', message })), ...named.problems)
  const plan = await planImport({ ...named, ...source })
  problems.push(...plan.problems)
  requirePush([...plan.places.keys()], request)
  if (plan.places.size === 0 && problems.length === 0)
    problems.push({ key: 'IMPORT_REFUSED', message: 'there is no pack in it' })
  return { survey, signature, plan, problems }
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
async function tryImport(deps: Deps, request: ImportRequest): Promise<Imported> {
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
    const verified = await verifyWhole(deps, request, received, intake, base)
    const options = { force: request.force !== undefined, runner: request.runner }
    const judgement = await ask(deps.db, (sql) => judge(sql, verified.plan, options))
    const problems = [...verified.problems, ...judgement.problems]
    const changed =
      judgement.versions.some(({ outcome }) => outcome === 'new') ||
      judgement.channels.some(({ outcome }) => outcome !== 'present')
    const facts = { ...verified, counts: intake.counts, force: request.force, dryRun: true }
    const report = reportOf(facts, { ...judgement, problems }, changed)
    if (problems.length > 0) throw new Refused(report, undefined)
    return { id: undefined, report }
  } catch (error) {
    throw reasonOf(error, request.body)
  } finally {
    meter.stop()
  }
}

/** What ended an import, as a failure to be told. */
function reasonOf(error: unknown, { stream }: Body): unknown {
  if (error instanceof Refused) return error.failure
  const isCutOff = stream.destroyed && !stream.readableEnded
  // A decompressor that is left without bytes takes that for damage.
  if (error instanceof Failure && !(isCutOff && error.key === 'BUNDLE_INVALID')) return error
  return isCutOff ? cutOff(error) : error
}

/** Failures that say nothing of the bundle: the same may be gone on with. */
const passing = new Set<string>(['BLOB_UPLOAD_INVALID', 'UNAVAILABLE', 'IMPORT_SUPERSEDED'])

function isPassing(why: unknown): boolean {
  return !(why instanceof Failure) || passing.has(why.key)
}

/** Notes why an import ended. What was judged and refused keeps its report; what was cut off can go on. */
async function quarantine(
  deps: Deps,
  attempt: rows.Attempt,
  why: unknown,
  report: ImportReport | undefined,
): Promise<void> {
  const known = why instanceof Failure ? why : undefined
  const error = { key: known?.key ?? 'UNKNOWN', detail: known?.detail ?? 'internal error; see the log' }
  const told = report ?? { problems: [{ key: error.key, message: String(error.detail) }] }
  try {
    if (isPassing(why)) await ask(deps.db, (sql) => rows.leaveImport(sql, attempt, error))
    else await ask(deps.db, (sql) => rows.failImport(sql, attempt, { error, report: told, lifeSeconds }))
  } catch (cause) {
    // Its lease ends by itself, and then it counts as left behind.
    deps.log.warn({ error: cause, import: attempt.id }, 'could not note how an import ended')
  }
}
