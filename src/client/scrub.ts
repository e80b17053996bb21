import type { Connection } from './connection.ts'
import { pages } from './pages.ts'

/** Something that a scrub found to be wrong. Times are RFC 3339. */
export type ScrubFinding = {
  id: number
  kind: string
  digest?: string
  key?: string
  size?: number
  expected?: string
  actual?: string
  /** The object that the wrong bytes were put into. */
  quarantine?: string
  firstSeen: string
  lastSeen: string
  resolvedAt?: string
  repaired?: string
  /** Those that have the content, each with manifests that need it; some. */
  repositories: { name: string; manifests: string[] }[]
}

/** A pass over everything: one that is under way, or the last one of its mode. */
export type ScrubPass = {
  mode: 'full' | 'quick'
  phase: 'blobs' | 'objects' | 'manifests'
  running: boolean
  total: number
  blobs: number
  bytes: number
  objects: number
  manifests: number
  found: number
  repaired: number
  startedAt: string
  finishedAt?: string
}

export type ScrubState = { passes: ScrubPass[]; open: Record<string, number>; findings: ScrubFinding[]; next?: string }

type Options = {
  /** Resolved findings too. */
  all?: boolean | undefined
  kind?: string | undefined
  limit?: number
  signal?: AbortSignal | undefined
}

/** What scrubs did and found; it takes an administrator. */
export type Scrubs = {
  /** Passes, how many findings are open, and the newest findings: at most `limit`. */
  show(options?: Options): Promise<ScrubState>
}

export function scrubsOf(connection: Connection): Scrubs {
  return {
    async show({ all = false, kind, limit = 50, signal } = {}) {
      const query = new URLSearchParams({
        all: String(all),
        limit: String(Math.min(limit, 1000)),
        ...(kind ? { kind } : {}),
      })
      const state: ScrubState = { passes: [], open: {}, findings: [] }
      for await (const page of pages<ScrubState>(connection, 'findings', { path: `/scrub?${query}`, signal })) {
        const findings = [...state.findings, ...page.findings]
        Object.assign(state, page, { findings: findings.slice(0, limit) })
        if (page.next === undefined) delete state.next
        if (findings.length >= limit) break
      }
      return state
    },
  }
}
