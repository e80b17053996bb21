import { allOf, bit, bitsFrom, type Choices, type Exclusion, type Reason, ruledOut } from './choices.ts'
import { type Conflict, explain, givenUp } from './conflict.ts'
import type { Dependency, PackId, PackState } from './pack.ts'
import { Solver } from './solver.ts'
import { openRanges, type Range, runs, type Version } from './version.ts'

// Resolution. Roots and versions ask for ranges of packs; one version of each is to be found so that all are satisfied.
//
// - Packs are decided level by level: the roots by their ids, then what the first of them needs by its ids, and so on.
//   Each gets the first version, in order of preference, with which there is a solution for all: the locked one, the
//   one that the channel names, then the highest. So what is nearer to the roots is the newer, and the answer is the
//   one that plain backtracking in this order would find first.
// - A pre-release is taken only where a range names one of the same release (npm's rule), a yanked version only where
//   the lock has exactly that, a version that the runner cannot run never.
// - An optional range is a range: where the pack is there, whoever brought it, its version satisfies all ranges. What
//   is optional comes last, and changes no version that is needed: pack by pack, in the same order, it is taken with
//   what it needs where that fits to everything taken so far, else left out.
// - Packs may need each other in circles.

export type Candidate = {
  version: Version
  state: PackState
  /** Candidates with the same list may share it: that makes them cheaper. */
  dependencies: readonly Dependency[]
  minRunner?: Version | undefined
  maxRunner?: Version | undefined
  /** The channel that was asked for names it. */
  preferred?: boolean | undefined
}

/** The candidates of each pack, highest first. A pack that is not in it is unknown. */
export type Catalogue = ReadonlyMap<PackId, readonly Candidate[]>

export type Root = { packId: PackId; version: Range }

export type Request = {
  roots: readonly Root[]
  runner?: Version | undefined
  /** Versions to be tried first, yanked or not. */
  locked?: ReadonlyMap<PackId, Version> | undefined
}

export type Resolution = { chosen: Map<PackId, Version> } | { conflict: Conflict }

/** Resolves over a whole catalogue. */
export function resolve(catalogue: Catalogue, request: Request): Resolution {
  const search = resolving(request)
  let turn = search.next(catalogue)
  while (!turn.done) turn = search.next(catalogue)
  return turn.value
}

/** Where a resolution is given up. Steps of the solver take a third of a microsecond each. */
const most = { steps: 1_000_000, versions: 500_000, levels: 1000 }
const stepsPerTurn = 20_000

/**
 * Resolves over a catalogue that comes piece by piece: yields the packs it has to know next, and goes on with a
 * catalogue of at least those. An empty list is a pause: long work lets others have their turn.
 */
export function* resolving(request: Request): Generator<PackId[], Resolution, Catalogue> {
  const search = new Search(request)
  const roots = [...request.roots].sort((a, b) => (a.packId < b.packId ? -1 : 1))
  for (const root of roots) search.constrain({ kind: 'root', packId: root.packId, range: root.version })
  const outcome = yield* search.decide([...new Set(roots.map((root) => root.packId))])
  if (typeof outcome === 'object') return { conflict: outcome }
  const given = yield* search.addOptional()
  return given ? { conflict: given } : { chosen: search.chosen }
}

type Asked = Extract<Reason, { range: Range }>

/** A pack whose candidates are known. */
type Known = Choices & {
  variable: number
  candidates: readonly Candidate[]
  /** Places of the candidates that are tried before all others. */
  preferred: readonly number[]
  /** Which candidates each list of dependencies belongs to. */
  lists: ReadonlyMap<readonly Dependency[], bigint>
  /** Dependencies that the solver has been told of. */
  told: Set<string>
}

class Search {
  readonly chosen = new Map<PackId, Version>()
  readonly #request: Request
  readonly #solver = new Solver<Reason>()
  readonly #accepted = openRanges()
  readonly #known = new Map<PackId, Known>()
  /** What is to be said of packs that are not known yet. */
  readonly #pending = new Map<PackId, Asked[]>()
  #versions = 0
  #levels = 0
  #paused = 0

  constructor(request: Request) {
    this.#request = request
  }

  /**
   * Decides these packs and all they need that is not chosen yet; then adds them to what is chosen. `left out`: that
   * cannot be, given what is chosen. A conflict where nothing was chosen before.
   */
  *decide(first: readonly PackId[]): Generator<PackId[], 'found' | 'left out' | Conflict, Catalogue> {
    const solver = this.#solver
    // The decision at level n + 1 is on the n-th of the queue; the queue ended at ends[n] when n decisions stood.
    const queue = [...first]
    const ends = [queue.length]
    const queued = new Set(queue)
    for (;;) {
      const state = solver.settle()
      if (Array.isArray(state)) return explain(state, this.#known)
      const excess = this.#excess()
      if (excess) return givenUp(excess)
      if (solver.steps - this.#paused > stepsPerTurn) {
        this.#paused = solver.steps
        yield []
      }
      if (state === 'learned') {
        ends.length = solver.level + 1
        for (const dropped of queue.splice(ends[solver.level] ?? 0)) queued.delete(dropped)
        continue
      }
      const packId = queue[solver.level]
      if (packId === undefined) break
      const known = this.#known.get(packId)
      if (!known) {
        yield* this.#learnOf(queue.slice(solver.level))
        continue
      }
      const place = this.#best(known)
      if (place === undefined) return 'left out'
      for (const dependency of this.#dependenciesOf(known, place)) {
        if (dependency.optional || this.chosen.has(dependency.packId) || queued.has(dependency.packId)) continue
        queue.push(dependency.packId)
        queued.add(dependency.packId)
      }
      solver.decide(known.variable, bit(place))
      ends.push(queue.length)
    }
    this.#choose(queue)
    return 'found'
  }

  /** Takes what is optional for what is chosen, where it fits. */
  *addOptional(): Generator<PackId[], Conflict | undefined, Catalogue> {
    const tried = new Set<PackId>()
    for (;;) {
      const wave = [...this.chosen.keys()].flatMap((packId) => {
        const known = this.#known.get(packId) as Known
        const place = known.versions.indexOf(this.chosen.get(packId) as Version)
        return this.#dependenciesOf(known, place)
          .filter((dependency) => dependency.optional)
          .map((dependency) => dependency.packId)
      })
      const next = [...new Set(wave)].filter((packId) => !this.chosen.has(packId) && !tried.has(packId))
      if (next.length === 0) return undefined
      yield* this.#learnOf(next)
      for (const packId of next) {
        tried.add(packId)
        if (this.chosen.has(packId)) continue
        const outcome = yield* this.decide([packId])
        if (typeof outcome === 'object') return outcome
      }
    }
  }

  /** What is asked of a pack: told to the solver as soon as the pack is known. */
  constrain(reason: Asked): void {
    const known = this.#known.get(reason.packId)
    if (known) {
      const spans = this.#accepted(reason.range, known.versions)
      reason.accepted = spans.reduce((set, { first, end }) => set | bitsFrom(first, end), 0n)
      this.#tell(reason)
    } else this.#pending.set(reason.packId, [...(this.#pending.get(reason.packId) ?? []), reason])
  }

  /** Makes what was decided final. */
  #choose(queue: readonly PackId[]): void {
    const solver = this.#solver
    const decided = queue.map((packId) => {
      const known = this.#known.get(packId) as Known
      return { known, value: solver.domain(known.variable) }
    })
    solver.backTo(0)
    for (const { known, value } of decided) {
      const version = known.versions.find((_, place) => bit(place) === value)
      this.chosen.set(known.packId, version as Version)
      this.#tell({ kind: 'chosen', packId: known.packId, set: allOf(known) & ~value })
    }
  }

  #excess(): string | undefined {
    if (this.#solver.steps > most.steps) return 'too many versions do not fit together'
    if (this.#versions > most.versions) return `it has to look at more than ${most.versions} versions`
    return this.#levels > most.levels ? `it goes down more than ${most.levels} levels of dependencies` : undefined
  }

  *#learnOf(packIds: readonly PackId[]): Generator<PackId[], void, Catalogue> {
    const unknown = packIds.filter((packId) => !this.#known.has(packId))
    if (unknown.length === 0) return
    this.#levels++
    const catalogue = yield unknown
    for (const packId of unknown) this.#learn(packId, catalogue.get(packId) ?? [])
  }

  #learn(packId: PackId, candidates: readonly Candidate[]): void {
    this.#versions += candidates.length
    const versions = candidates.map((candidate) => candidate.version)
    const lockedVersion = this.#request.locked?.get(packId)
    const locked = lockedVersion === undefined ? -1 : versions.indexOf(lockedVersion)
    const named = candidates.findIndex((candidate) => candidate.preferred)
    const preferred = [locked, named].filter((place) => place >= 0)
    const exclusions = this.#exclusionsOf(packId, candidates, locked)
    const variable = this.#solver.variable(allOf({ versions }), exclusions)
    const lists = listsOf(candidates)
    const known = { packId, variable, candidates, versions, preferred, exclusions, lists, told: new Set<string>() }
    this.#known.set(packId, known)
    for (const reason of this.#pending.get(packId) ?? []) this.constrain(reason)
    this.#pending.delete(packId)
  }

  #exclusionsOf(packId: PackId, candidates: readonly Candidate[], locked: number): Exclusion[] {
    const { runner } = this.#request
    let yanked = 0n
    let unfit = 0n
    // Most candidates ask for the same of a runner as the one before.
    let last: Candidate | undefined
    let fits = true
    for (const [place, candidate] of candidates.entries()) {
      const { minRunner: min, maxRunner: max } = candidate
      if (runner && (min !== last?.minRunner || max !== last?.maxRunner)) fits = runs(runner, { min, max })
      last = candidate
      if (candidate.state === 'yanked' && place !== locked) yanked |= bit(place)
      else if (!fits) unfit |= bit(place)
    }
    const exclusions: Exclusion[] = []
    if (yanked) exclusions.push({ set: yanked, reason: { kind: 'yanked', packId, set: yanked } })
    if (unfit && runner) exclusions.push({ set: unfit, reason: { kind: 'unfit', packId, set: unfit, runner } })
    return exclusions
  }

  #tell(reason: Reason): void {
    const known = (packId: PackId) => this.#known.get(packId) as Known
    this.#solver.add(
      ruledOut(reason, known, (packId) => known(packId).variable),
      reason,
    )
  }

  /** The dependencies of a candidate, by id; the solver is told of them, for all candidates that have the same. */
  #dependenciesOf(known: Known, place: number): readonly Dependency[] {
    const dependencies = known.candidates[place]?.dependencies ?? []
    const sorted = [...dependencies].sort((a, b) => (a.packId < b.packId ? -1 : 1))
    for (const { packId, version: range, optional = false } of sorted) {
      const key = `${packId} ${optional} ${range}`
      if (known.told.has(key)) continue
      known.told.add(key)
      let versions = 0n
      for (const [list, set] of known.lists)
        if (list.some((e) => e.packId === packId && e.version === range && (e.optional ?? false) === optional))
          versions |= set
      this.constrain({ kind: 'needs', by: known.packId, versions, packId, range, optional })
    }
    return sorted
  }

  /** The place of the candidate to be tried first, of those that are possible. */
  #best({ variable, preferred, candidates }: Known): number | undefined {
    const domain = this.#solver.domain(variable)
    const possible = (place: number) => (domain & bit(place)) !== 0n
    const place = preferred.find(possible) ?? candidates.findIndex((_, i) => possible(i))
    return place < 0 ? undefined : place
  }
}

/** Which candidates each list of dependencies belongs to. */
function listsOf(candidates: readonly Candidate[]): Map<readonly Dependency[], bigint> {
  const lists = new Map<readonly Dependency[], bigint>()
  let first = 0
  for (const [place, { dependencies }] of candidates.entries()) {
    if (candidates[place + 1]?.dependencies === dependencies) continue
    lists.set(dependencies, (lists.get(dependencies) ?? 0n) | bitsFrom(first, place + 1))
    first = place + 1
  }
  return lists
}
