import type { Digest } from '../oci/digest.ts'
import type { PackId } from '../packs/pack.ts'

/**
 * How a thing compares on both sides, by digest. `missing`: where it should come to. `different`: another digest has its
 * name there, and versions never change. `refused`: it could not be moved, `detail` says why.
 */
export type Parity = {
  kind: 'version' | 'channel' | 'referrer'
  packId: PackId
  /** The version, the tag, or of a referrer without one its digest. */
  reference: string
  /** What it is on the side that things come from. */
  digest: Digest
  state: 'same' | 'missing' | 'different' | 'refused'
  /** What has its name on the other side. */
  there?: Digest | undefined
  detail?: string | undefined
}

export type ParityReport = {
  /** Everything is on both sides, the same. */
  clean: boolean
  dryRun: boolean
  counts: Record<Parity['state'], number>
  moved: { manifests: number; blobs: number; mounted: number; bytes: number; requests: number }
  /** What hinders that is about no single one of them. */
  problems: string[]
  /** What is not the same first. */
  entries: Parity[]
  /** How many more entries there are than are listed. */
  more: number
}

/** Entries that a report lists at most. */
const mostEntries = 10_000
const mostProblems = 100

export type OpenReport = {
  add(entry: Parity): void
  problem(words: string): void
  readonly moved: ParityReport['moved']
  close(dryRun: boolean): ParityReport
}

export function openReport(): OpenReport {
  const counts: ParityReport['counts'] = { same: 0, missing: 0, different: 0, refused: 0 }
  const moved = { manifests: 0, blobs: 0, mounted: 0, bytes: 0, requests: 0 }
  const lists = { same: [] as Parity[], others: [] as Parity[] }
  const problems: string[] = []
  return {
    moved,
    add(entry) {
      counts[entry.state]++
      const list = entry.state === 'same' ? lists.same : lists.others
      if (list.length < mostEntries) list.push(entry)
    },
    problem(words) {
      if (problems.length < mostProblems) problems.push(words)
    },
    close(dryRun) {
      const entries = [...sorted(lists.others), ...sorted(lists.same)].slice(0, mostEntries)
      const total = counts.same + counts.missing + counts.different + counts.refused
      const clean = counts.same === total && problems.length === 0
      return { clean, dryRun, counts, moved, problems, entries, more: total - entries.length }
    },
  }
}

function sorted(entries: Parity[]): Parity[] {
  const keyOf = ({ packId, kind, reference }: Parity) => `${packId} ${kind} ${reference}`
  return entries.sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1))
}
