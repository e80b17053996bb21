import { Failure } from '../errors.ts'
import { type Descriptor, isObject, parseAnnotations, parseDescriptor } from '../oci/descriptor.ts'
import { type Digest, digestOf, parseDigest } from '../oci/digest.ts'
import { hasMoreParts } from '../oci/json.ts'
import { mediaTypes } from '../oci/media-types.ts'
import { parseTag, type Tag } from '../oci/reference.ts'
import { attachedTo } from '../packs/channel.ts'
import { type PackId, packMediaTypes, parsePackId } from '../packs/pack.ts'
import { type Version, versionOfTag } from '../packs/version.ts'

// What index.json of a bundle file lists, and by which marks each entry is known. A layout that another tool made has
// none of the marks: its entries are `image`s.
// Source: spec/packs.md, "Bundle files"; image-spec, image-layout.md.

export const annotations = {
  refName: 'org.opencontainers.image.ref.name',
  version: 'org.opencontainers.image.version',
  /** On an entry without a name: the digest of the manifest that it hangs on. */
  subject: 'org.opencontainers.image.referrer.subject',
  packId: 'vnd.stellaops.pack.id',
  /** On index.json itself. */
  bundleVersion: 'vnd.stellaops.bundle.version',
  /** On index.json itself: the sha256 of the inventory that an incremental bundle was made against. */
  bundleBase: 'vnd.stellaops.bundle.base',
} as const

/** The list of blobs that an incremental bundle leaves out, because its receiver has them. */
export const missingMediaType = 'application/vnd.stellaops.pack.missing.v1+json'

export const indexFile = 'index.json'
export const layoutFile = 'oci-layout'
export const envelopeFile = 'bundle.dsse.json'

/** An entry of index.json, by what it is for. */
export type Entry =
  | { kind: 'pack'; descriptor: Descriptor; packId: PackId; version: Version }
  | { kind: 'channel'; descriptor: Descriptor; packId: PackId; channel: Tag }
  | { kind: 'referrer'; descriptor: Descriptor; subject: Digest }
  /** A tag that says in its name what it belongs to, such as cosign's `sha256-….sig`. */
  | { kind: 'attachment'; descriptor: Descriptor; packId: PackId; tag: Tag; subject: Digest }
  | { kind: 'lock' | 'missing'; descriptor: Descriptor }
  /** What another tool put there; `name` is its tag, or whatever else stands in the name's place. */
  | { kind: 'image'; descriptor: Descriptor; name: string | undefined }

/** `isBundle`: made by a registry of packs, so that a lock must be there. Without it: any OCI layout. */
export type Contents = { isBundle: boolean; base: Digest | undefined; entries: readonly Entry[] }

/** More than any site has in one file; keeps a hostile index from costing minutes. */
const maxEntries = 500_000

/** Reads index.json. Throws BUNDLE_INVALID, in words that say which entry is wrong. */
export function parseIndex(bytes: Buffer): Contents {
  const document = parseJson(bytes, indexFile)
  const { manifests } = document
  if (!Array.isArray(manifests)) throw invalid(`${indexFile} has no list "manifests"`)
  if (manifests.length > maxEntries) throw invalid(`${indexFile} lists more than ${maxEntries} manifests`)
  const marks = inBundleTerms(() => parseAnnotations(document.annotations, indexFile)) ?? {}
  const bundleVersion = marks[annotations.bundleVersion]
  if (bundleVersion !== undefined && bundleVersion !== '1')
    throw invalid(`this is a bundle of version ${JSON.stringify(bundleVersion)}; this program knows version 1`)
  const base = marks[annotations.bundleBase]
  const baseDigest = base === undefined ? undefined : parseDigest(base)
  if (base !== undefined && !baseDigest) throw invalid(`${annotations.bundleBase} of ${indexFile} is not a digest`)
  const isBundle = bundleVersion !== undefined
  const entries = manifests.map((entry, i) =>
    entryOf(
      inBundleTerms(() => parseDescriptor(entry, `${indexFile}, manifests[${i}]`)),
      isBundle,
    ),
  )
  if (isBundle) requireOneEach(entries)
  return { isBundle, base: baseDigest, entries }
}

function entryOf(descriptor: Descriptor, isBundle: boolean): Entry {
  const marks = descriptor.annotations ?? {}
  const name = marks[annotations.refName]
  if (!isBundle) return { kind: 'image', descriptor, name }
  if (name === 'lock' || name === 'missing') return { kind: name, descriptor }
  if (name === undefined) {
    const subject = parseDigest(marks[annotations.subject] ?? '')
    if (!subject) throw invalid(`${descriptor.digest} has neither a name nor a subject in ${indexFile}`)
    return { kind: 'referrer', descriptor, subject }
  }
  const [id = '', written = '', ...more] = name.split('--')
  // A channel's name may have "--" in it; a pack id and a version's tag may not be told apart wrongly by that.
  const tag = parseTag([written, ...more].join('--'))
  const packId = parsePackId(id)
  if (!packId || !tag) throw invalid(`${JSON.stringify(name)} in ${indexFile} is not <pack id>--<tag>`)
  if ((marks[annotations.packId] ?? packId) !== packId)
    throw invalid(`${JSON.stringify(name)} in ${indexFile} says that its pack is ${marks[annotations.packId]}`)
  const version = versionOfTag(tag)
  const subject = attachedTo(tag)
  if (subject) return { kind: 'attachment', descriptor, packId, tag, subject }
  if (!version) return { kind: 'channel', descriptor, packId, channel: tag }
  if ((marks[annotations.version] ?? version) !== version)
    throw invalid(`${JSON.stringify(name)} in ${indexFile} says that its version is ${marks[annotations.version]}`)
  return { kind: 'pack', descriptor, packId, version }
}

/** One lock, at most one list of what is missing, and no name that stands for two things. */
function requireOneEach(entries: readonly Entry[]): void {
  if (!entries.some(({ kind }) => kind === 'lock')) throw invalid(`${indexFile} names no lock`)
  const names = new Set<string>()
  for (const { descriptor } of entries) {
    const name = descriptor.annotations?.[annotations.refName]
    if (name === undefined) continue
    if (names.has(name)) throw invalid(`${JSON.stringify(name)} stands in ${indexFile} twice`)
    names.add(name)
  }
}

/** The name of an entry in a bundle: `<pack id>--<tag>`. */
export function refNameOf(packId: PackId, tag: Tag): string {
  return `${packId}--${tag}`
}

/** The empty config of an artifact that has none: the two bytes `{}`. Source: image-spec, manifest.md. */
export const emptyConfig = Buffer.from('{}')

/** The manifest by which a document (the lock, the list of what is missing) is an artifact of the layout. */
export function documentManifest(mediaType: string, document: Buffer): Buffer {
  return Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: mediaTypes.manifest,
      artifactType: mediaType,
      config: { mediaType: mediaTypes.empty, digest: digestOf(emptyConfig), size: emptyConfig.length },
      layers: [{ mediaType, digest: digestOf(document), size: document.length }],
    }),
  )
}

/** The document that such a manifest names. Throws BUNDLE_INVALID where it is not one of this type. */
export function documentOf(manifest: Buffer, kind: 'lock' | 'missing'): { digest: Digest; size: number } {
  const mediaType = kind === 'lock' ? packMediaTypes.lock : missingMediaType
  const { artifactType, layers } = parseJson(manifest, `the manifest of the ${kind}`)
  const [layer, ...others] = Array.isArray(layers) ? layers : []
  if (artifactType !== mediaType || others.length > 0 || !isObject(layer) || layer.mediaType !== mediaType)
    throw invalid(`the manifest of the ${kind} must have one layer, of the type ${mediaType}`)
  const { digest, size } = inBundleTerms(() => parseDescriptor(layer, `the layer of the ${kind}`))
  return { digest, size }
}

/** A blob that an incremental bundle leaves out. */
export type LeftOut = { digest: Digest; size: number }

/** The bytes of the list of what is left out. */
export function missingBytes(leftOut: readonly LeftOut[]): Buffer {
  const digests = [...leftOut]
    .sort((a, b) => (a.digest < b.digest ? -1 : 1))
    .map(({ digest, size }) => ({ digest, size }))
  return Buffer.from(JSON.stringify({ digests }))
}

/** Throws BUNDLE_INVALID. */
export function parseMissing(bytes: Buffer): LeftOut[] {
  const { digests } = parseJson(bytes, 'the list of what is left out')
  if (!Array.isArray(digests)) throw invalid('the list of what is left out has no "digests"')
  return digests.map((entry: unknown, i) => {
    const { digest, size } = isObject(entry) ? entry : {}
    const parsed = typeof digest === 'string' ? parseDigest(digest) : undefined
    if (!parsed || !Number.isSafeInteger(size) || Number(size) < 0)
      throw invalid(`digests[${i}] of the list of what is left out must be { digest, size }`)
    return { digest: parsed, size: Number(size) }
  })
}

export function invalid(detail: string, cause?: unknown): Failure {
  return new Failure('BUNDLE_INVALID', { detail, cause })
}

/** The rules of manifests, told as what they are here: something wrong with the file. */
export function inBundleTerms<T>(read: () => T): T {
  try {
    return read()
  } catch (error) {
    if (error instanceof Failure && error.key === 'MANIFEST_INVALID') throw invalid(String(error.detail), error)
    throw error
  }
}

/** Twice what the largest list of manifests, or the largest lock, has: see hasMoreParts. */
export const mostParts = 3_000_000

export function parseJson(bytes: Buffer, what: string): Record<string, unknown> {
  if (hasMoreParts(bytes, mostParts)) throw invalid(`${what} has more than ${mostParts} objects, lists and entries`)
  let value: unknown
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (cause) {
    throw invalid(`${what} is not JSON in UTF-8`, cause)
  }
  if (!isObject(value)) throw invalid(`${what} is not a JSON object`)
  return value
}
