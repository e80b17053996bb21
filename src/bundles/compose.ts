import { type Digest, digestOf } from '../oci/digest.ts'
import { mediaTypes } from '../oci/media-types.ts'
import type { Tag } from '../oci/reference.ts'
import { type LayoutEntry, layoutIndex } from '../packs/layout.ts'
import { type PackId, packMediaTypes } from '../packs/pack.ts'
import { tagOf, type Version } from '../packs/version.ts'
import {
  annotations,
  documentManifest,
  emptyConfig,
  type LeftOut,
  missingBytes,
  missingMediaType,
  refNameOf,
} from './contents.ts'
import type { SigningKey } from './keys.ts'
import { signBundle } from './signature.ts'

/** A manifest that index.json lists. */
export type Listed = { digest: Digest; size: number; mediaType: string; artifactType: string | undefined }

/** What a bundle carries, in the order in which index.json lists it. */
export type Cargo = {
  packs: readonly (Listed & { packId: PackId; version: Version })[]
  /** Channels, and tags that say in their name what they belong to. */
  tags: readonly (Listed & { packId: PackId; tag: Tag })[]
  referrers: readonly (Listed & { subject: Digest })[]
  lock: Buffer
  /** Blobs that the receiver has, by the inventory `base`. */
  leftOut: readonly LeftOut[]
  base: Digest | undefined
  /** Every manifest and blob that the file holds, but for its own documents. */
  content: readonly { digest: Digest; size: number }[]
}

/** The parts of a bundle file that are made, not stored. */
export type Composed = {
  index: Buffer
  envelope: Buffer | undefined
  lock: Buffer
  missing: Buffer | undefined
}

/** The same cargo and keys give the same bytes: there is no clock and no chance in them. */
export function compose(cargo: Cargo, keys: readonly SigningKey[]): Composed {
  const { lock, leftOut } = cargo
  const missing = leftOut.length > 0 ? missingBytes(leftOut) : undefined
  const base = missing && cargo.base
  const marks = { [annotations.bundleVersion]: '1', ...(base ? { [annotations.bundleBase]: base } : {}) }
  const index = layoutIndex(entriesOf(cargo, missing), marks)
  const files = new Map([...cargo.content, ...documentFiles(lock, missing)].map(({ digest, size }) => [digest, size]))
  const size = [...files.values()].reduce((sum, bytes) => sum + bytes, 0)
  const predicate = { packs: cargo.packs.length, blobs: files.size, size, base }
  const envelope = keys.length > 0 ? signBundle(index, digestOf(lock), predicate, keys) : undefined
  return { index, envelope, lock, missing }
}

function entriesOf({ packs, tags, referrers, lock }: Cargo, missing: Buffer | undefined): LayoutEntry[] {
  return [
    ...packs.map((pack) =>
      entry(pack, {
        [annotations.refName]: refNameOf(pack.packId, tagOf(pack.version)),
        [annotations.packId]: pack.packId,
        [annotations.version]: pack.version,
      }),
    ),
    ...tags.map((tagged) => entry(tagged, { [annotations.refName]: refNameOf(tagged.packId, tagged.tag) })),
    ...referrers.map((referrer) => entry(referrer, { [annotations.subject]: referrer.subject })),
    documentEntry('lock', packMediaTypes.lock, lock),
    ...(missing ? [documentEntry('missing', missingMediaType, missing)] : []),
  ]
}

function entry({ mediaType, digest, size, artifactType }: Listed, marks: Record<string, string>): LayoutEntry {
  return { mediaType, digest, size, ...(artifactType ? { artifactType } : {}), annotations: marks }
}

function documentEntry(name: 'lock' | 'missing', artifactType: string, document: Buffer): LayoutEntry {
  const manifest = documentManifest(artifactType, document)
  const listed = { digest: digestOf(manifest), size: manifest.length, mediaType: mediaTypes.manifest, artifactType }
  return entry(listed, { [annotations.refName]: name })
}

/** The documents of a bundle as files under blobs/, with the manifests that lead to them. */
export function documentFiles(
  lock: Buffer,
  missing: Buffer | undefined,
): { digest: Digest; size: number; bytes: Buffer }[] {
  const files = [
    ...[emptyConfig, lock, documentManifest(packMediaTypes.lock, lock)],
    ...(missing ? [missing, documentManifest(missingMediaType, missing)] : []),
  ]
  return files.map((bytes) => ({ digest: digestOf(bytes), size: bytes.length, bytes }))
}
