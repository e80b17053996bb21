import { askFor } from './answers.ts'
import { type Connection, jsonBody } from './connection.ts'
import type { PackType } from './pack.ts'

/** Which packs and versions a mirror is about. Whatever is given must hold. */
export type MirrorSelection = {
  /** Pack ids, with `*` for any characters; all packs unless given. */
  packs?: string[]
  /** A range of versions, such as `^1.2.0`. */
  versions?: string
  /** Only versions that one of these names. */
  channels?: string[]
  types?: PackType[]
  /** Whether all they need comes along: false unless given. */
  closure?: boolean
  /** Whether signatures, SBOMs and attestations come along: true unless given. */
  referrers?: boolean
}

export type MirrorOptions = {
  /** Whether the other registry, or one of `hosts`, may have a private or loopback address. */
  allowPrivate?: boolean
  /** Further hosts that belong to it: its token service, the store it redirects to. */
  hosts?: string[]
  concurrency?: number
  bytesPerSecond?: number
}

/** A mirror to be set up. */
export type NewMirror = {
  name: string
  direction: 'push' | 'pull'
  /** The other registry, such as `https://registry.example`. */
  url: string
  /** What stands before the ids of packs there: `packs` unless given. */
  prefix?: string
  selection?: MirrorSelection
  /** Five fields of cron, in UTC; null: only when it is told to. */
  schedule?: string | null
  /** Kept by the registry, and never shown again. */
  credentials?: { username: string; password: string } | { token: string } | null
  options?: MirrorOptions
}

/** A mirror as it is shown. `credentials`: whether it has some. */
export type Mirror = {
  name: string
  direction: 'push' | 'pull'
  url: string
  prefix: string
  selection: MirrorSelection
  schedule?: string
  credentials: boolean
  options: MirrorOptions
  createdAt: string
}

export type MirrorRun = {
  id: string
  dryRun: boolean
  state: 'waiting' | 'running' | 'completed' | 'failed'
  createdAt: string
  startedAt?: string
  finishedAt?: string
  progress: Record<string, unknown>
  /** Of a completed run: whether both sides are the same. */
  clean?: boolean
  error?: string
}

/** How a thing compares on both sides, by digest. */
export type MirrorEntry = {
  kind: 'version' | 'channel' | 'referrer'
  packId: string
  reference: string
  digest: string
  state: 'same' | 'missing' | 'different' | 'refused'
  there?: string
  detail?: string
}

export type MirrorParity = {
  /** The run that found it, and when. */
  run: string
  checkedAt: string
  parity: {
    clean: boolean
    dryRun: boolean
    counts: Record<MirrorEntry['state'], number>
    moved: { manifests: number; blobs: number; mounted: number; bytes: number; requests: number }
    problems: string[]
    entries: MirrorEntry[]
    more: number
  }
}

type Cancellable = { signal?: AbortSignal | undefined }

/** Other registries that packs are pushed to or pulled from. */
export type Mirrors = {
  list(options?: Cancellable): Promise<Mirror[]>
  /** Throws MIRROR_EXISTS, REQUEST_INVALID. */
  add(mirror: NewMirror, options?: Cancellable): Promise<Mirror>
  /** Throws MIRROR_UNKNOWN, as all that follow do. */
  show(name: string, options?: Cancellable): Promise<Mirror>
  change(name: string, change: Partial<Omit<NewMirror, 'name' | 'direction'>>, options?: Cancellable): Promise<Mirror>
  /** False where there was none. What has been mirrored stays. */
  remove(name: string, options?: Cancellable): Promise<boolean>
  /** Has it run, soon. `dryRun`: only looks what it would do. */
  run(name: string, options?: Cancellable & { dryRun?: boolean | undefined }): Promise<MirrorRun>
  /** The newest first. */
  runs(name: string, options?: Cancellable): Promise<MirrorRun[]>
  /** What the last run that came to its end found. Throws NOT_FOUND where there was none. */
  parity(name: string, options?: Cancellable): Promise<MirrorParity>
}

export function mirrorsOf(connection: Connection): Mirrors {
  const path = (name: string, rest = '') => `/mirrors/${encodeURIComponent(name)}${rest}`
  return {
    async list({ signal } = {}) {
      return (await askFor<{ mirrors: Mirror[] }>(connection, 'mirrors', { path: '/mirrors', signal })).mirrors
    },
    async add(mirror, { signal } = {}) {
      const call = { method: 'POST' as const, path: '/mirrors', body: jsonBody(mirror), signal }
      return (await askFor<{ mirror: Mirror }>(connection, 'mirror', call)).mirror
    },
    async show(name, { signal } = {}) {
      return (await askFor<{ mirror: Mirror }>(connection, 'mirror', { path: path(name), signal })).mirror
    },
    async change(name, change, { signal } = {}) {
      const call = { method: 'PATCH' as const, path: path(name), body: jsonBody(change), signal }
      return (await askFor<{ mirror: Mirror }>(connection, 'mirror', call)).mirror
    },
    async remove(name, { signal } = {}) {
      const call = { method: 'DELETE' as const, path: path(name), signal }
      return (await askFor<{ deleted: boolean }>(connection, 'deleted', call)).deleted
    },
    async run(name, { dryRun, signal } = {}) {
      const call = { method: 'POST' as const, path: path(name, dryRun ? '/run?dryRun=true' : '/run'), signal }
      return (await askFor<{ run: MirrorRun }>(connection, 'run', call)).run
    },
    async runs(name, { signal } = {}) {
      return (await askFor<{ runs: MirrorRun[] }>(connection, 'runs', { path: path(name, '/runs'), signal })).runs
    },
    parity: (name, { signal } = {}) =>
      askFor<MirrorParity>(connection, 'parity', { path: path(name, '/parity'), signal }),
  }
}
