/**
 * A variable is one of these values; a set of values is a number whose bit i says whether value i is in it.
 * What cannot be together is a clause: never are all of its terms true.
 */
export type Term = { variable: number; set: bigint }

/** `reason`: why it holds, where it was given; `parents`: what it was concluded from, where it was not. */
type Clause<Reason> = {
  readonly terms: readonly Term[]
  readonly reason?: Reason
  readonly parents: readonly Clause<Reason>[]
  waiting: boolean
}

/** A variable lost some of its values: by a clause, or by decision. */
type Entry<Reason> = {
  readonly index: number
  readonly level: number
  readonly variable: number
  readonly before: bigint
  readonly after: bigint
  readonly cause: Clause<Reason> | undefined
}

type Exclusion<Reason> = { set: bigint; reason: Reason }

type Variable<Reason> = {
  /** Without what is excluded for good. */
  readonly initial: bigint
  readonly exclusions: readonly Exclusion<Reason>[]
  domain: bigint
  readonly history: Entry<Reason>[]
  readonly clauses: Clause<Reason>[]
}

/**
 * Finds out what follows from clauses and decisions, and learns from every dead end what it was that could not be
 * together: the search never meets the same dead end twice, and goes back straight to a decision that matters.
 *
 * A trail holds, in order, every narrowing of a variable with the clause it follows from. Where all terms of a clause
 * are true, the clause is joined with the causes of its latest terms until one decision alone stands for the dead end
 * at its level; what is left is a new clause, and it holds whatever is decided. Everything learned follows from the
 * clauses given, so a search that decides in a fixed order finds what plain backtracking in that order would find first.
 * Source: conflict-driven clause learning (Marques-Silva, Sakallah 1999), over sets of values as in PubGrub.
 */
export class Solver<Reason> {
  /** How many decisions stand. */
  level = 0
  /** Work done: clauses looked at. */
  steps = 0
  readonly #variables: Variable<Reason>[] = []
  readonly #trail: Entry<Reason>[] = []
  #agenda: Clause<Reason>[] = []

  /** A new variable over the values of `full`; some of them never, with a reason for each such set. */
  variable(full: bigint, exclusions: readonly Exclusion<Reason>[] = []): number {
    const initial = exclusions.reduce((set, exclusion) => set & ~exclusion.set, full)
    return this.#variables.push({ initial, exclusions, domain: initial, history: [], clauses: [] }) - 1
  }

  /** The values that are still possible. */
  domain(variable: number): bigint {
    return this.#of(variable).domain
  }

  /** Never are all of these true. Two terms of one variable are one. */
  add(terms: readonly Term[], reason: Reason): void {
    this.#add({ terms: joined(terms), reason, parents: [], waiting: false })
  }

  /** Takes one value, which must be possible. */
  decide(variable: number, value: bigint): void {
    this.level++
    this.#narrow(variable, value, undefined)
  }

  /** Takes decisions back until `level` of them stand. */
  backTo(level: number): void {
    this.level = level
    for (let entry = this.#trail.at(-1); entry && entry.level > level; entry = this.#trail.at(-1)) {
      this.#trail.pop()
      const variable = this.#of(entry.variable)
      variable.domain = entry.before
      variable.history.pop()
      // It was noted at the level where it was seen; it may follow from less than that.
      if (entry.cause) this.#await(entry.cause)
    }
  }

  /**
   * Draws the next conclusions, up to a dead end. `quiet`: there are no more. `learned`: a dead end; decisions were
   * taken back, and there is more to conclude. Else no decision is left to take back: the reasons that rule each
   * other out.
   */
  settle(): 'quiet' | 'learned' | Reason[] {
    for (let next = 0; ; next++) {
      const clause = this.#agenda[next]
      if (!clause) {
        this.#agenda = []
        return 'quiet'
      }
      clause.waiting = false
      this.steps++
      const open = this.#openTerm(clause)
      if (open === 'idle') continue
      if (open) this.#narrow(open.variable, this.domain(open.variable) & ~open.set, clause)
      else {
        this.#agenda = this.#agenda.slice(next + 1)
        return this.#learn(clause)
      }
    }
  }

  /** The one term that is not yet true; undefined where all are; `idle` where one is false, or several are open. */
  #openTerm({ terms }: Clause<Reason>): Term | 'idle' | undefined {
    let open: Term | undefined
    for (const term of terms) {
      const { domain } = this.#of(term.variable)
      if ((domain & ~term.set) === 0n) continue
      if (open || (domain & term.set) === 0n) return 'idle'
      open = term
    }
    return open
  }

  /** Joins a clause whose terms are all true with its causes; see above. */
  #learn(clause: Clause<Reason>): 'learned' | Reason[] {
    const terms = new Map(clause.terms.map(({ variable, set }) => [variable, set]))
    const parents = [clause]
    for (;;) {
      const { latest, level } = this.#lastTrue(terms, parents)
      if (!latest) return reasonsOf(parents)
      if (latest.level > level || !latest.cause) {
        this.backTo(level)
        this.#await(clause)
        const learned = [...terms].map(([variable, set]) => ({ variable, set }))
        this.#add({ terms: learned, parents, waiting: false })
        return 'learned'
      }
      parents.push(latest.cause)
      this.steps += latest.cause.terms.length
      for (const { variable, set } of latest.cause.terms) {
        const there = terms.get(variable)
        if (variable === latest.variable) terms.set(variable, (there ?? 0n) | set)
        else terms.set(variable, there === undefined ? set : there & set)
      }
    }
  }

  /**
   * The entry that made the last of the terms true, and the level at which the others were. Drops the terms that are
   * always true; where that is for what is excluded, the exclusion is another parent.
   */
  #lastTrue(terms: Map<number, bigint>, parents: Clause<Reason>[]) {
    let latest: Entry<Reason> | undefined
    let level = 0
    for (const [variable, set] of terms) {
      const { initial, exclusions, history } = this.#of(variable)
      if ((initial & ~set) === 0n) {
        terms.delete(variable)
        for (const { set: excluded, reason } of exclusions)
          if ((excluded & ~set) !== 0n) parents.push({ terms: [], reason, parents: [], waiting: false })
        continue
      }
      let entry = history.find(({ after }) => (after & ~set) === 0n)
      if (latest && entry && entry.index < latest.index) [latest, entry] = [entry, latest]
      if (latest) level = Math.max(level, latest.level)
      latest = entry
    }
    return { latest, level }
  }

  #add(clause: Clause<Reason>): void {
    for (const { variable } of clause.terms) this.#of(variable).clauses.push(clause)
    this.#await(clause)
  }

  #await(clause: Clause<Reason>): void {
    if (clause.waiting) return
    clause.waiting = true
    this.#agenda.push(clause)
  }

  #narrow(index: number, after: bigint, cause: Clause<Reason> | undefined): void {
    const variable = this.#of(index)
    const before = variable.domain
    const entry = { index: this.#trail.length, level: this.level, variable: index, before, after, cause }
    this.#trail.push(entry)
    variable.history.push(entry)
    variable.domain = after
    for (const clause of variable.clauses) this.#await(clause)
  }

  #of(variable: number): Variable<Reason> {
    return this.#variables[variable] as Variable<Reason>
  }
}

function joined(terms: readonly Term[]): Term[] {
  const sets = new Map<number, bigint>()
  for (const { variable, set } of terms) sets.set(variable, (sets.get(variable) ?? set) & set)
  return [...sets].map(([variable, set]) => ({ variable, set }))
}

/** Everything given that these clauses were concluded from. */
function reasonsOf<Reason>(clauses: readonly Clause<Reason>[]): Reason[] {
  const seen = new Set<Clause<Reason>>()
  const reasons = new Set<Reason>()
  const open = [...clauses]
  for (let clause = open.pop(); clause; clause = open.pop()) {
    if (seen.has(clause)) continue
    seen.add(clause)
    if (clause.reason !== undefined) reasons.add(clause.reason)
    open.push(...clause.parents)
  }
  return [...reasons]
}
