import type { Digest } from '../oci/digest.ts'
import type { LockedPack } from './lock.ts'
import type { PackId } from './pack.ts'
import type { Range, Version } from './version.ts'

type Resolved = { version: Version; digest: Digest; size: number; manifestDigest: Digest }

/** A dependency and what it brings. Without `resolved`: optional, and left out. */
export type TreeNode = {
  packId: PackId
  range: Range
  optional?: true
  resolved?: Resolved
  /** Its dependencies are told elsewhere in the tree, at most as deep as here. */
  seen?: true
  /** Its dependencies are left out, for the tree is deep enough: ask for its own tree. */
  truncated?: true
  dependencies: TreeNode[]
}

export type DependencyTree = { packId: PackId; version: Version; dependencies: TreeNode[] }

/** Levels of a tree. Each is two of JSON, and many readers, such as .NET's, go down 64 of those at most. */
const mostLevels = 30

/**
 * What a pack brings along, as a tree: each pack is told where it is nearest to the root, and named elsewhere, so that
 * the tree is as large as what is resolved, and circles end. `packs`: as resolved, the root among them.
 */
export function dependencyTree(
  packs: readonly LockedPack[],
  root: { packId: PackId; version: Version },
): DependencyTree {
  const resolved = new Map(packs.map((pack) => [pack.packId, pack]))
  const tree: DependencyTree = { packId: root.packId, version: root.version, dependencies: [] }
  const told = new Set([root.packId])
  let level: { packId: PackId; dependencies: TreeNode[] }[] = [tree]
  for (let depth = 1; level.length > 0; depth++) {
    const next: typeof level = []
    for (const { packId, dependencies } of level)
      for (const dependency of resolved.get(packId)?.dependencies ?? []) {
        const pack = resolved.get(dependency.packId)
        const seen = pack !== undefined && told.has(pack.packId)
        const node: TreeNode = {
          ...{ packId: dependency.packId, range: dependency.version },
          ...(dependency.optional ? { optional: true } : {}),
          ...(pack ? { resolved: resolvedOf(pack) } : {}),
          ...(seen ? { seen } : {}),
          ...(pack && !seen && depth === mostLevels && pack.dependencies.length > 0 ? { truncated: true } : {}),
          dependencies: [],
        }
        dependencies.push(node)
        if (!pack || seen) continue
        told.add(pack.packId)
        if (depth < mostLevels) next.push(node)
      }
    level = next
  }
  return tree
}

function resolvedOf({ version, digest, size, manifestDigest }: LockedPack): Resolved {
  return { version, digest, size, manifestDigest }
}
