import { parseDescriptor } from '../oci/descriptor.ts'
import type { Digest } from '../oci/digest.ts'
import { type LayoutEntry, layoutName, namedEntry } from './layout.ts'
import { type PackId, parsePackId } from './pack.ts'
import { parseVersion, type Version } from './version.ts'

/** A bundle that is an index, as it is stored. */
export type BundleIndex = { packId: PackId; version: Version; digest: Digest; mediaType: string; bytes: Buffer }

/** What an index says of a member: a pack where it names one, in the way that `indexBytes` does. */
type Listed = Omit<LayoutEntry, 'annotations'> & { pack: Carried | undefined }

/** The members that an index lists, in its order. Its bytes have been checked when they were pushed. */
function membersOf(bytes: Buffer): Listed[] {
  const { manifests } = JSON.parse(bytes.toString()) as { manifests: unknown[] }
  return manifests.map((value, i) => {
    const { annotations = {}, ...descriptor } = parseDescriptor(value, `manifests[${i}]`)
    const packId = parsePackId(annotations['org.opencontainers.image.title'] ?? '')
    const version = parseVersion(annotations['org.opencontainers.image.version'] ?? '')
    const pack = packId && version ? { packId, version } : undefined
    return { ...descriptor, pack }
  })
}

/** A pack that a bundle brings along. */
export type Carried = { packId: PackId; version: Version }

/** The packs among the members of an index. */
export function carriedBy(bytes: Buffer): Carried[] {
  return membersOf(bytes).flatMap(({ pack }) => pack ?? [])
}

/**
 * What the index.json of a bundle's file lists: the bundle, and each member that the bundle says is a pack, under their
 * names. It follows from the index's own bytes alone, so a bundle's file never changes. A name is given once.
 */
export function bundleEntries({ packId, version, digest, mediaType, bytes }: BundleIndex): LayoutEntry[] {
  const { artifactType } = JSON.parse(bytes.toString()) as { artifactType?: unknown }
  const type = typeof artifactType === 'string' ? { artifactType } : {}
  const own = layoutName(packId, version)
  const entries = [namedEntry({ mediaType, digest, size: bytes.length, ...type }, own)]
  const names = new Set([own])
  for (const { pack, ...member } of membersOf(bytes)) {
    const name = pack && layoutName(pack.packId, pack.version)
    if (!name || names.has(name)) continue
    names.add(name)
    entries.push(namedEntry(member, name))
  }
  return entries
}

/** How two resolutions of a bundle differ, in words: `net 1.2.0 instead of 1.1.0, base 2.0.0 as well`. */
export function differenceInWords(published: Buffer, now: Buffer): string {
  const [before, after] = [published, now].map(
    (bytes) => new Map(membersOf(bytes).map((member) => [nameOf(member), member])),
  )
  const words: string[] = []
  for (const [name, { digest, pack }] of after ?? []) {
    const old = before?.get(name)
    const shown = pack?.version ?? digest
    if (!old) words.push(`${name} ${shown} as well`)
    else if (old.digest !== digest) words.push(`${name} ${shown} instead of ${old.pack?.version ?? old.digest}`)
  }
  for (const name of before?.keys() ?? []) if (!after?.has(name)) words.push(`no ${name} any more`)
  return words.slice(0, 5).join(', ') + (words.length > 5 ? ` and ${words.length - 5} more` : '')
}

function nameOf({ pack, digest }: Listed): string {
  return pack?.packId ?? digest
}
