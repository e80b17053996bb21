import type { Sql, Transaction } from '../db/client.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import type { Lock } from '../packs/lock.ts'
import type { Dependency, PackDocument, PackId } from '../packs/pack.ts'
import { satisfies, type Version } from '../packs/version.ts'
import { type MayPull, resolveLock } from './resolve.ts'

/**
 * What the dependencies of a bundle resolve to now. A bundle that says on which runners it runs has members that run
 * there. What it depends on optionally is taken where that fits to all the rest as it is, one by one by their ids; where
 * something else brings the pack along, its range holds. Throws UNRESOLVABLE, PACK_UNKNOWN.
 */
export async function resolveBundle(
  deps: Deps,
  sql: Sql | Transaction,
  { dependencies, metadata }: PackDocument,
  mayPull: MayPull,
): Promise<Lock> {
  const { minRunnerVersion } = metadata
  const runner = minRunnerVersion as Version | undefined
  const resolve = (roots: readonly Dependency[], lock?: Lock) =>
    resolveLock(deps, sql, { roots: roots.map(({ packId, version }) => ({ packId, version })), runner, lock }, mayPull)

  let roots = dependencies.filter((entry) => !entry.optional)
  let lock = await resolve(roots)
  const optional = dependencies.filter((entry) => entry.optional).sort((a, b) => (a.packId < b.packId ? -1 : 1))
  for (const entry of optional) {
    const versions = versionsOf(lock)
    const brought = versions.get(entry.packId)
    if (brought !== undefined) {
      roots = [...roots, entry]
      if (!satisfies(brought, entry.version)) lock = await resolve(roots, lock)
      continue
    }
    const more = await resolve([...roots, entry], lock).catch(absent)
    if (!more || !fits(more, versions, optional)) continue
    roots = [...roots, entry]
    lock = more
  }
  return lock
}

function versionsOf({ packs }: Lock): Map<PackId, Version> {
  return new Map(packs.map(({ packId, version }) => [packId, version]))
}

/** Whether nothing that is taken already changes, and every optional range holds. */
function fits(lock: Lock, taken: ReadonlyMap<PackId, Version>, optional: readonly Dependency[]): boolean {
  const now = versionsOf(lock)
  const isSame = [...taken].every(([packId, version]) => now.get(packId) === version)
  const holds = optional.every(({ packId, version: range }) => {
    const version = now.get(packId)
    return version === undefined || satisfies(version, range)
  })
  return isSame && holds
}

function absent(error: unknown): undefined {
  if (error instanceof Failure && ['UNRESOLVABLE', 'PACK_UNKNOWN'].includes(error.key)) return undefined
  throw error
}
