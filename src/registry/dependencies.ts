import type { Sql, Transaction } from '../db/client.ts'
import { candidatesOf, type StoredCandidate } from '../db/packs.ts'
import { Failure } from '../errors.ts'
import type { Carried } from '../packs/bundle.ts'
import { inWords, type Violation } from '../packs/document.ts'
import type { Dependency, PackDocument, PackId } from '../packs/pack.ts'
import { satisfies } from '../packs/version.ts'

/** `allowMissing`: what is not published yet may be. `carried`: what the pack, a bundle, brings along itself. */
type Allowed = { allowMissing: boolean; carried?: readonly Carried[] }

/** Throws DEPENDENCY_INVALID with every dependency that cannot be, or would close a circle. */
export async function requireDependencies(
  sql: Sql | Transaction,
  document: PackDocument,
  allowed: Allowed,
): Promise<void> {
  const violations = await badDependencies(sql, document, allowed)
  if (violations.length > 0)
    throw new Failure('DEPENDENCY_INVALID', { detail: inWords(violations), about: { violations } })
}

/** What is wrong with the dependencies of a document, given what is published now. */
export async function badDependencies(
  sql: Sql | Transaction,
  { packId, dependencies }: PackDocument,
  { allowMissing, carried = [] }: Allowed,
): Promise<Violation[]> {
  const violations: Violation[] = []
  const seen = new Map<PackId, StoredCandidate[]>()
  const load = async (packIds: PackId[]) => {
    const unknown = [...new Set(packIds)].filter((id) => !seen.has(id))
    if (unknown.length === 0) return
    for (const id of unknown) seen.set(id, [])
    for (const found of await candidatesOf(sql, unknown)) seen.set(found.packId, found.candidates)
  }
  const accepted = ({ packId: id, version }: Dependency) =>
    (seen.get(id) ?? []).filter((candidate) => candidate.state !== 'yanked' && satisfies(candidate.version, version))

  await load(dependencies.map((entry) => entry.packId))
  for (const [i, entry] of dependencies.entries()) {
    if (accepted(entry).length > 0 || entry.optional || allowMissing) continue
    if (carried.some(({ packId: id, version }) => id === entry.packId && satisfies(version, entry.version))) continue
    const there = (seen.get(entry.packId) ?? []).map((candidate) => candidate.version)
    const known = there.length > 0 ? `it has ${there.slice(0, 5).join(', ')}` : 'there is no such pack'
    violations.push({
      path: `dependencies.${i}`,
      message: `no published version of ${entry.packId} satisfies ${entry.version}: ${known}`,
    })
  }
  const circle = await findCircle(packId, dependencies, load, accepted)
  if (circle) violations.push({ path: 'dependencies', message: `would close a circle: ${circle.join(' needs ')}` })
  return violations
}

/** The way from the new version back to its own pack, over all versions that ranges accept; level by level. */
async function findCircle(
  packId: PackId,
  dependencies: readonly Dependency[],
  load: (packIds: PackId[]) => Promise<void>,
  accepted: (dependency: Dependency) => StoredCandidate[],
): Promise<PackId[] | undefined> {
  const visited = new Set<string>()
  let level: { dependency: Dependency; path: PackId[] }[] = dependencies.map((dependency) => ({
    dependency,
    path: [packId],
  }))
  while (level.length > 0) {
    await load(level.map(({ dependency }) => dependency.packId))
    const next: typeof level = []
    for (const { dependency, path } of level) {
      const way = [...path, dependency.packId]
      for (const candidate of accepted(dependency)) {
        const name = `${dependency.packId}@${candidate.version}`
        if (visited.has(name)) continue
        visited.add(name)
        for (const entry of candidate.dependencies) {
          if (entry.packId === packId) return [...way, packId]
          next.push({ dependency: entry, path: way })
        }
      }
    }
    level = next
  }
  return undefined
}
