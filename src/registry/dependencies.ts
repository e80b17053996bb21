import { findCandidates } from '../db/candidates.ts'
import type { Sql, Transaction } from '../db/client.ts'
import { Failure } from '../errors.ts'
import type { Carried } from '../packs/bundle.ts'
import { inWords, type Violation } from '../packs/document.ts'
import type { Dependency, PackDocument, PackId } from '../packs/pack.ts'
import type { Candidate } from '../packs/resolve.ts'
import { compareVersions, openRanges, satisfies, type Version } from '../packs/version.ts'

/**
 * `allowMissing`: what is not published yet may be. `carried`: what the pack, a bundle, brings along itself. `mayPull`:
 * packs of which this is false are as unknown to whoever publishes as those that there are not.
 */
type Allowed = {
  allowMissing: boolean
  carried?: readonly Carried[]
  mayPull?: ((packId: PackId) => boolean) | undefined
}

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
  { allowMissing, carried = [], mayPull = () => true }: Allowed,
  published = openPublished(sql),
): Promise<Violation[]> {
  if (dependencies.length === 0) return []
  const violations: Violation[] = []
  await published.load(dependencies.map((entry) => entry.packId))
  for (const [i, entry] of dependencies.entries()) {
    const isReadable = mayPull(entry.packId)
    if (entry.optional || allowMissing || (isReadable && published.accepted(entry).length > 0)) continue
    if (carried.some(({ packId: id, version }) => id === entry.packId && satisfies(version, entry.version))) continue
    const there = isReadable ? published.of(entry.packId).map((candidate) => candidate.version) : []
    const known = there.length > 0 ? `it has ${there.slice(0, 5).join(', ')}` : 'there is no such pack'
    violations.push({
      path: `dependencies.${i}`,
      message: `no published version of ${entry.packId} satisfies ${entry.version}: ${known}`,
    })
  }
  const circle = await findCircle(packId, dependencies, published)
  if (circle) {
    const names = circle.map((id) => (id === packId || mayPull(id) ? id : 'a pack that you may not read'))
    violations.push({ path: 'dependencies', message: `would close a circle: ${names.join(' needs ')}` })
  }
  return violations
}

export type Published = {
  /** Must be awaited before the packs are asked for. */
  load(packIds: readonly PackId[]): Promise<void>
  of(packId: PackId): readonly Candidate[]
  /** Those in the range that are not yanked. */
  accepted(dependency: Dependency): readonly Candidate[]
}

/**
 * What is published of the packs that are looked at, each read once. `also`: what is about to be published with it, and
 * counts as if it were.
 */
export function openPublished(
  sql: Sql | Transaction,
  also: ReadonlyMap<PackId, readonly Candidate[]> = new Map(),
): Published {
  const candidates = new Map<PackId, readonly Candidate[]>()
  const versions = new Map<PackId, readonly Version[]>()
  const spansIn = openRanges()
  const of = (packId: PackId) => candidates.get(packId) ?? []
  return {
    of,
    async load(packIds) {
      const unknown = [...new Set(packIds)].filter((packId) => !candidates.has(packId))
      if (unknown.length === 0) return
      const found = await findCandidates(sql, unknown)
      for (const packId of unknown) {
        candidates.set(packId, together(found.get(packId) ?? [], also.get(packId) ?? []))
        versions.set(
          packId,
          of(packId).map((candidate) => candidate.version),
        )
      }
    },
    accepted({ packId, version: range }) {
      const found = spansIn(range, versions.get(packId) ?? []).flatMap(({ first, end }) => of(packId).slice(first, end))
      return [...new Set(found)].filter((candidate) => candidate.state !== 'yanked')
    },
  }
}

/** Both, the highest first; a version that is in both once. */
function together(there: readonly Candidate[], also: readonly Candidate[]): readonly Candidate[] {
  const known = new Set(there.map(({ version }) => version))
  const more = also.filter(({ version }) => !known.has(version))
  if (more.length === 0) return there
  return [...there, ...more].sort((a, b) => compareVersions(b.version, a.version))
}

/**
 * The way from the new version back to its own pack, over all versions that ranges accept; level by level, each range
 * of a pack and each version once.
 */
async function findCircle(
  packId: PackId,
  dependencies: readonly Dependency[],
  published: Published,
): Promise<PackId[] | undefined> {
  const seen = new Set<string | Candidate | Candidate['dependencies']>()
  const isNew = (what: string | Candidate | Candidate['dependencies']) => !seen.has(what) && seen.add(what)
  let level = dependencies.map((dependency) => ({ dependency, path: [packId] }))
  while (level.length > 0) {
    await published.load(level.map(({ dependency }) => dependency.packId))
    const next: typeof level = []
    for (const { dependency, path } of level) {
      const way = [...path, dependency.packId]
      for (const candidate of published.accepted(dependency)) {
        if (!isNew(candidate) || !isNew(candidate.dependencies)) continue
        for (const entry of candidate.dependencies) {
          if (entry.packId === packId) return [...way, packId]
          if (isNew(`${entry.packId} ${entry.version}`)) next.push({ dependency: entry, path: way })
        }
      }
    }
    level = next
  }
  return undefined
}
