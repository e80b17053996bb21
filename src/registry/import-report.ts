import type { SignatureOutcome } from '../bundles/signature.ts'
import type { Survey } from '../bundles/survey.ts'
import { Failure, type FailureKey } from '../errors.ts'
import { digestOf } from '../oci/digest.ts'
import type { Intake } from './import-intake.ts'
import type { Plan, Problem } from './import-plan.ts'
import type { Judgement } from './import-rules.ts'

/** What an import found, and what became of it. It is kept with the import and told to whoever sent it. */
export type ImportReport = {
  /** Nothing was stored: this is what would become of it. */
  dryRun: boolean
  /** Something is here that was not before; where nothing is, all of the bundle was here already. */
  changed: boolean
  kind: 'bundle' | 'layout'
  /** The digest of index.json. */
  index: string
  /** The inventory that an incremental bundle was made against. */
  base?: string
  signature: { kind: 'missing' | 'verified' | 'refused'; by?: { keyid: string; name?: string }[]; reason?: string }
  packs: Judgement['versions']
  channels: Judgement['channels']
  referrers: number
  /** `stored`: those that the registry did not have. */
  blobs: { count: number; bytes: number; stored: number; storedBytes: number; leftOut: number }
  force?: { reason: string }
  problems: Problem[]
}

type Facts = {
  survey: Survey
  signature: SignatureOutcome
  plan: Plan
  counts: Intake['counts']
  force: { reason: string } | undefined
  dryRun: boolean
}

export function reportOf(
  { survey, signature, plan, counts, force, dryRun }: Facts,
  judgement: Judgement,
  changed: boolean,
): ImportReport {
  const { layout, contents, leftOut } = survey
  const isForced = judgement.channels.some(({ backwards }) => backwards)
  return {
    ...{ dryRun, changed, kind: contents.isBundle ? 'bundle' : 'layout', index: digestOf(layout.index) },
    ...(contents.base ? { base: contents.base } : {}),
    signature: toldSignature(signature),
    ...{ packs: judgement.versions, channels: judgement.channels, referrers: plan.referrers },
    blobs: {
      ...{ count: layout.blobs, bytes: layout.size, leftOut: leftOut.length },
      ...{ stored: counts.stored, storedBytes: counts.storedBytes },
    },
    ...(force && isForced ? { force } : {}),
    problems: judgement.problems,
  }
}

function toldSignature(outcome: SignatureOutcome): ImportReport['signature'] {
  if (outcome.kind === 'refused') return { kind: 'refused', reason: outcome.reason }
  if (outcome.kind === 'missing') return { kind: 'missing' }
  return {
    kind: 'verified',
    by: outcome.by.map(({ keyid, name }) => ({ keyid, ...(name === undefined ? {} : { name }) })),
  }
}

/** What a refusal is called where there are several reasons: the first of these that is among them. */
const gravest: readonly FailureKey[] = [
  ...(['DENIED', 'BUNDLE_INVALID', 'SIGNATURE_INVALID', 'SIGNATURE_MISSING', 'IMPORT_BASE_MISSING'] as const),
  ...(['MANIFEST_INVALID', 'IMPORT_REFUSED', 'TAG_INVALID', 'VERSION_EXISTS', 'VERSION_SPENT'] as const),
  ...(['DEPENDENCY_INVALID', 'RUNNER_TOO_OLD', 'IMPORT_BACKWARDS', 'QUOTA_EXCEEDED'] as const),
]

/** As many problems as an answer names; the report has them all. */
const mostTold = 100

/** All that is in the way, as one failure. `id`: of the import, where there is one to look at. */
export function refusal(problems: readonly Problem[], id: string | undefined): Failure {
  const key = gravest.find((candidate) => problems.some((problem) => problem.key === candidate)) ?? 'IMPORT_REFUSED'
  const first = problems.filter((problem) => problem.key === key)
  const words = [...first, ...problems.filter((problem) => problem.key !== key)].slice(0, 3).map(inWords)
  const more = problems.length > words.length ? ` (and ${problems.length - words.length} more)` : ''
  const advice = key === 'IMPORT_BACKWARDS' ? '. If that is meant, import it again with force=true and a reason' : ''
  return new Failure(key, {
    detail: `${words.join('; ')}${more}${advice}`,
    about: { ...(id === undefined ? {} : { import: id }), problems: problems.slice(0, mostTold) },
  })
}

function inWords({ packId, version, message }: Problem): string {
  return packId === undefined ? message : `${packId} ${version ?? ''}: ${message}`
}
