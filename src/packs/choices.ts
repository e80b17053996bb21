import type { PackId } from './pack.ts'
import type { Range, Version } from './version.ts'

// What may be chosen of a pack, as the values of a variable of the solver: bit 0 for none of it, bit i + 1 for its i-th
// candidate.

export const absent = 1n

/** Made once: there are millions of uses of the first few. */
const bits = Array.from({ length: 1024 }, (_, place) => 1n << BigInt(place + 1))

export function bit(place: number): bigint {
  return bits[place] ?? 1n << BigInt(place + 1)
}

/** The candidates from one place up to, not including, another. */
export function bitsFrom(first: number, end: number): bigint {
  return bit(end) - bit(first)
}

/** Every value there is for a pack, and for none of it. */
export function allOf({ versions }: { versions: readonly Version[] }): bigint {
  return bit(versions.length) - 1n
}

/** Why something cannot be chosen. `accepted`: the versions in the range, as soon as the pack is known. */
export type Reason =
  | { kind: 'root'; packId: PackId; range: Range; accepted?: bigint }
  /** These versions of `by` give a range of the pack. */
  | { kind: 'needs'; by: PackId; versions: bigint; packId: PackId; range: Range; optional: boolean; accepted?: bigint }
  | { kind: 'yanked'; packId: PackId; set: bigint }
  | { kind: 'unfit'; packId: PackId; set: bigint; runner: Version }
  | { kind: 'chosen'; packId: PackId; set: bigint }

export type Exclusion = { set: bigint; reason: Reason }

/** A pack whose versions, highest first, are known; and which of them never may be chosen. */
export type Choices = { packId: PackId; versions: readonly Version[]; exclusions: readonly Exclusion[] }

/** What a reason rules out, as terms of the solver. */
export function ruledOut(
  reason: Reason,
  choicesOf: (packId: PackId) => Choices,
  variableOf: (packId: PackId) => number,
) {
  const variable = variableOf(reason.packId)
  if (reason.kind !== 'root' && reason.kind !== 'needs') return [{ variable, set: reason.set }]
  const all = allOf(choicesOf(reason.packId))
  const accepted = reason.accepted ?? 0n
  if (reason.kind === 'root') return [{ variable, set: all & ~accepted }]
  const refused = all & ~accepted & ~(reason.optional ? absent : 0n)
  return [
    { variable: variableOf(reason.by), set: reason.versions },
    { variable, set: refused },
  ]
}
