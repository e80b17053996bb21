import { absent, bit, type Choices, type Reason, ruledOut } from './choices.ts'
import type { PackId } from './pack.ts'
import { Solver } from './solver.ts'
import { isPrerelease, type Range, type Version } from './version.ts'

/** Somebody asks for a range of a pack. Without `requiredBy`: the request does. */
export type Constraint = { packId: PackId; requiredBy?: { packId: PackId; version: Version }; range: Range }

/** Why there is no solution: in words, and the constraints that cannot hold together. */
export type Conflict = { words: string; constraints: Constraint[] }

type Known = ReadonlyMap<PackId, Choices>
type Asked = Extract<Reason, { range: Range }>

const mostMinimised = 100
const mostStepsPerTrial = 20_000
const mostShown = 40

/** Reasons that rule each other out, told from the roots on: none of them can be left out. */
export function explain(reasons: readonly Reason[], known: Known): Conflict {
  const core = fromTheRoots(minimal(fromTheRoots(reasons), known))
  const told = core.map((reason) => sentence(reason, core, known))
  const more = told.length > mostShown ? `; and ${told.length - mostShown} more` : ''
  const asked = core.filter((reason): reason is Asked => 'range' in reason)
  return {
    words: told.slice(0, mostShown).join('; ') + more,
    constraints: asked.map((reason) => constraintOf(reason, core, known)),
  }
}

/** The work was given up, with no answer either way. `why`: what there is too much of. */
export function givenUp(why: string): Conflict {
  return {
    words:
      `the search was given up, for ${why}: there may be a solution, or none. ` +
      'Ask for fewer packs at once, for narrower ranges, or with a lock to start from',
    constraints: [],
  }
}

/** Without every reason that the others rule each other out without. Far from the roots first. */
function minimal(reasons: readonly Reason[], known: Known): readonly Reason[] {
  if (reasons.length > mostMinimised) return reasons
  return reasons.reduceRight((core: readonly Reason[], reason) => {
    const rest = core.filter((other) => other !== reason)
    return fitTogether(rest, known) ? core : rest
  }, reasons)
}

/** Whether there is a solution to these alone; true also where that takes long to find out. */
function fitTogether(reasons: readonly Reason[], known: Known): boolean {
  const solver = new Solver<Reason>()
  const variables = new Map<PackId, number>()
  const choicesOf = (packId: PackId) => known.get(packId) as Choices
  const variableOf = (packId: PackId) => {
    const variable = variables.get(packId) ?? solver.variable(bit(choicesOf(packId).versions.length) - 1n)
    variables.set(packId, variable)
    return variable
  }
  for (const reason of reasons) solver.add(ruledOut(reason, choicesOf, variableOf), reason)
  for (;;) {
    const state = solver.settle()
    if (Array.isArray(state)) return false
    if (solver.steps > mostStepsPerTrial) return true
    if (state === 'learned') continue
    const open = [...variables.values()].find((variable) => isOpen(solver.domain(variable)))
    if (open === undefined) return true
    const domain = solver.domain(open)
    solver.decide(open, domain & -domain)
  }
}

/** Several versions are possible, and one must be. */
function isOpen(domain: bigint): boolean {
  return (domain & absent) === 0n && (domain & (domain - 1n)) !== 0n
}

/** In the order in which one comes to them from the roots. */
function fromTheRoots(reasons: readonly Reason[]): Reason[] {
  const distance = new Map<PackId, number>()
  let level = reasons.filter((reason) => reason.kind === 'root').map((reason) => reason.packId)
  for (let far = 0; level.length > 0; far++) {
    for (const packId of level) distance.set(packId, far)
    const here = new Set(level)
    level = reasons.flatMap((r) => (r.kind === 'needs' && here.has(r.by) && !distance.has(r.packId) ? [r.packId] : []))
  }
  const key = (reason: Reason) => {
    const far = reason.kind === 'root' ? -1 : (distance.get(reason.kind === 'needs' ? reason.by : reason.packId) ?? 1e6)
    const first = reason.kind === 'needs' ? reason.by : ''
    return {
      far,
      text: `${first} ${reason.packId} ${'range' in reason ? reason.range : reason.kind}`,
      set: sizeOf(reason),
    }
  }
  return reasons
    .map((reason) => ({ reason, ...key(reason) }))
    .sort((a, b) => a.far - b.far || (a.text < b.text ? -1 : a.text > b.text ? 1 : a.set < b.set ? -1 : 1))
    .map(({ reason }) => reason)
}

function sizeOf(reason: Reason): bigint {
  return reason.kind === 'needs' ? reason.versions : 0n
}

function constraintOf(reason: Asked, core: readonly Reason[], known: Known): Constraint {
  const { packId, range } = reason
  if (reason.kind === 'root') return { packId, range }
  const [highest] = versionsIn(relevant(reason, core, known), known.get(reason.by))
  return { packId, requiredBy: { packId: reason.by, version: highest as Version }, range }
}

function sentence(reason: Reason, core: readonly Reason[], known: Known): string {
  const { packId } = reason
  const choices = known.get(packId)
  if (reason.kind === 'root') return `the request asks for ${packId} ${reason.range}${missing(reason, choices)}`
  if (reason.kind === 'needs') {
    const { by, range, optional } = reason
    const { text, many } = named(relevant(reason, core, known), known.get(by))
    const verb = optional ? (many ? 'go only with' : 'goes only with') : many ? 'need' : 'needs'
    return `${by} ${text} ${verb} ${packId} ${range}${missing(reason, choices)}`
  }
  const { text, many } = named(wanted(packId, reason.set, core), choices)
  if (reason.kind === 'unfit') return `${packId} ${text} ${many ? 'do' : 'does'} not run on runner ${reason.runner}`
  if (reason.kind === 'yanked') return `${packId} ${text} ${many ? 'are' : 'is'} yanked`
  return `${packId} is chosen`
}

/** What there is instead, where no version is in the range. */
function missing({ accepted = 0n }: Asked, choices: Choices | undefined): string {
  if (accepted !== 0n) return ''
  const versions = choices?.versions ?? []
  if (versions.length === 0) return ', and there is no such pack'
  const more = versions.length > 3 ? `, and ${versions.length - 3} lower` : ''
  const hint = versions.every(isPrerelease) ? '; a pre-release is taken only where a range names one' : ''
  return `, and there is none (there is ${versions.slice(0, 3).join(', ')}${more}${hint})`
}

/** Those of its versions that could be chosen, as far as the other reasons tell. */
function relevant(reason: Asked & { kind: 'needs' }, core: readonly Reason[], known: Known): bigint {
  const excluded = known.get(reason.by)?.exclusions.reduce((set, exclusion) => set | exclusion.set, 0n) ?? 0n
  return wanted(reason.by, reason.versions & ~excluded, core) || reason.versions
}

/** Those of a set of versions that the reasons ask for; all of them, where they ask for none. */
function wanted(packId: PackId, set: bigint, core: readonly Reason[]): bigint {
  const asking = core.filter((reason): reason is Asked => 'range' in reason && reason.packId === packId)
  const root = asking.find((reason) => reason.kind === 'root')
  const accepted = root ? (root.accepted ?? 0n) : asking.reduce((all, { accepted = 0n }) => all | accepted, 0n)
  return set & accepted || set
}

function versionsIn(set: bigint, choices: Choices | undefined): Version[] {
  return (choices?.versions ?? []).filter((_, place) => (set & bit(place)) !== 0n)
}

/** Versions in words: `1.2.0`, or `1.0.0 to 1.9.0` where everything between them is meant, too. */
function named(set: bigint, choices: Choices | undefined): { text: string; many: boolean } {
  const spans: Version[][] = []
  let span: Version[] | undefined
  for (const [place, version] of (choices?.versions ?? []).entries()) {
    if ((set & bit(place)) === 0n) span = undefined
    else if (span) span.push(version)
    else {
      span = [version]
      spans.push(span)
    }
  }
  const texts = spans.map((s) => (s.length > 1 ? `${s.at(-1)} to ${s[0]}` : `${s[0]}`))
  const more = texts.length > 3 ? ` and ${texts.length - 3} more` : ''
  return { text: texts.slice(0, 3).join(', ') + more, many: spans.flat().length > 1 }
}
