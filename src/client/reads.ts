import { createHash } from 'node:crypto'
import { askFor, notOurs } from './answers.ts'
import { ask, type Call, type Connection, jsonBody, queryOf } from './connection.ts'
import { PacksError } from './failure.ts'
import { type Lock, parseLock } from './lock.ts'
import {
  type Dependent,
  type Pack,
  type PackState,
  type PackSummary,
  type PackType,
  type PackVersion,
  packPath,
  type Referrer,
} from './pack.ts'
import { listed } from './pages.ts'

type Cancellable = { signal?: AbortSignal | undefined }
type ForRunner = Cancellable & {
  /** The runner's version: only what it can run. */
  runner?: string | undefined
}

/** Filters of a search; all must hold. */
export type SearchQuery = {
  /** Words or beginnings of words. */
  q?: string
  type?: PackType
  author?: string
  /** The runner's version: only packs that it can run, each shown by the newest such version. */
  runner?: string
  state?: PackState
  /** `relevance` with words, else `id`, unless given. */
  sort?: 'id' | 'updated' | 'relevance'
  /** How many are asked for at a time: 1 to 1,000. */
  pageSize?: number
}

/** What to resolve. */
export type ResolveRequest = {
  /** Packs with ranges: `{ packId, version }`, or `net-rules@^1.2.0`. */
  roots: readonly ({ packId: string; version: string } | string)[]
  runner?: string
  /** For every pack that has this channel, its version is tried first. */
  channel?: string
  /** Its versions are tried first: what need not change does not. */
  lock?: Lock
}

/** What a version needs, all the way down. `resolved`: the version chosen; absent where nothing satisfies the range. */
export type DependencyTree = {
  packId: string
  version: string
  dependencies: DependencyNode[]
}
export type DependencyNode = {
  packId: string
  range: string
  optional?: boolean
  resolved?: string
  dependencies?: DependencyNode[]
}

/** What is asked of packs. */
export type Reads = {
  /** Packs, page by page as they are consumed. */
  search(query?: SearchQuery, options?: Cancellable): AsyncGenerator<PackSummary, void, undefined>
  /**
   * A version of a pack: exact, the highest in a range, that of a channel, or `latest`; without `version` the latest,
   * or the newest that the runner can run. Throws PACK_UNKNOWN, VERSION_UNKNOWN, RUNNER_TOO_OLD.
   */
  pack(packId: string, options?: ForRunner & { version?: string | undefined }): Promise<Pack>
  /** All versions, the newest first. Throws PACK_UNKNOWN. */
  versions(packId: string, options?: ForRunner): Promise<PackVersion[]>
  /** What a version needs, resolved against what is published now. */
  dependencies(packId: string, version: string, options?: ForRunner): Promise<DependencyTree>
  /** Versions of other packs that need this one. */
  dependents(packId: string, version: string, options?: Cancellable): Promise<Dependent[]>
  /** Signatures, SBOMs and attestations of a version. */
  referrers(packId: string, version: string, options?: Cancellable): Promise<Referrer[]>
  /** The closure of the roots as a lock. `bytes`: its exact text, to be stored. Throws UNRESOLVABLE, which says why. */
  resolve(request: ResolveRequest, options?: Cancellable): Promise<{ lock: Lock; bytes: Uint8Array }>
}

export function readsOf(connection: Connection): Reads {
  return {
    search: ({ pageSize, ...filters } = {}, { signal } = {}) =>
      listed(connection, 'packs', { path: `/packs${queryOf({ ...filters, limit: pageSize?.toString() })}`, signal }),
    async pack(packId, { version, runner, signal } = {}) {
      const path = version === undefined ? packPath(packId) : packPath(packId, version, 'manifest')
      const call = { path: path + queryOf({ runner }), signal }
      return (await askFor<{ pack: Pack }>(connection, 'pack', call)).pack
    },
    async versions(packId, { runner, signal } = {}) {
      const call = { path: packPath(packId, 'versions') + queryOf({ runner }), signal }
      return (await askFor<{ versions: PackVersion[] }>(connection, 'versions', call)).versions
    },
    async dependencies(packId, version, { runner, signal } = {}) {
      const call = { path: packPath(packId, version, 'dependencies') + queryOf({ runner }), signal }
      return askFor<DependencyTree>(connection, 'dependencies', call)
    },
    async dependents(packId, version, { signal } = {}) {
      const all: Dependent[] = []
      const call = { path: packPath(packId, version, 'dependents'), signal }
      for await (const dependent of listed<Dependent>(connection, 'dependents', call)) all.push(dependent)
      return all
    },
    async referrers(packId, version, { signal } = {}) {
      const call = { path: packPath(packId, version, 'referrers'), signal }
      return (await askFor<{ referrers: Referrer[] }>(connection, 'referrers', call)).referrers
    },
    async resolve(request, { signal } = {}) {
      const call = { method: 'POST' as const, path: '/resolve', body: jsonBody(request), signal }
      const { bytes, headers } = await ask(connection, call)
      requireWhole(bytes, headers['repr-digest'])
      return { lock: lockIn(connection, call, bytes), bytes }
    },
  }
}

/** A lock that is wrong in an answer is no fault of a file: what answers is no registry. */
function lockIn(connection: Connection, call: Call, bytes: Uint8Array): Lock {
  try {
    return parseLock(bytes)
  } catch (error) {
    throw error instanceof PacksError ? notOurs(connection, call, error) : error
  }
}

/** Throws DIGEST_MISMATCH where the bytes are not those the registry sent. Source: RFC 9530, "Repr-Digest". */
function requireWhole(bytes: Uint8Array, header: string | string[] | undefined): void {
  const announced = /(?:^|[,\s])sha-256=:([A-Za-z0-9+/=]+):/.exec(String(header ?? ''))?.[1]
  if (announced === undefined || announced === createHash('sha256').update(bytes).digest('base64')) return
  throw new PacksError('DIGEST_MISMATCH', 'the lock was changed on its way from the registry; resolve again')
}
