import {
  annotations,
  documentManifest,
  emptyConfig,
  missingBytes,
  missingMediaType,
  refNameOf,
} from '../bundles/contents.ts'
import type { SigningKey } from '../bundles/keys.ts'
import { signBundle } from '../bundles/signature.ts'
import { type Digest, digestOf } from '../oci/digest.ts'
import { mediaTypes } from '../oci/media-types.ts'
import { manifestBytes } from '../packs/artifact.ts'
import { checkDocument } from '../packs/document.ts'
import { type LockedPack, lockBytes } from '../packs/lock.ts'
import { type PackDocument, packMediaTypes } from '../packs/pack.ts'
import { tagOf } from '../packs/version.ts'

/** A file of an archive; `type` is the type flag of its header: 0 a file, 1 a hard link, 2 a symbolic link, 5 a folder. */
export type TarEntry = { name: string; bytes?: Buffer; type?: string; link?: string; size?: number }

/** An archive of exactly these entries, good or bad. */
export function tarOf(entries: readonly TarEntry[], { end = true } = {}): Buffer {
  const blocks = entries.flatMap(({ name, bytes = Buffer.alloc(0), type = '0', link = '', size = bytes.length }) => {
    const header = Buffer.alloc(512)
    header.write(name, 0, 100)
    header.write('0000644\0'.padEnd(24, '0000000\0'), 100)
    header.write(`${size.toString(8).padStart(11, '0')}\0${'0'.repeat(11)}\0        ${type}`, 124)
    header.write(link, 157, 100)
    header.write('ustar\x0000', 257)
    const sum = header.reduce((total, byte) => total + byte, 0)
    header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
    return [header, bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512)]
  })
  return Buffer.concat([...blocks, ...(end ? [Buffer.alloc(1024)] : [])])
}

type SamplePack = {
  packId: string
  version: string
  content: string | Buffer
  dependencies?: readonly { packId: string; version: string }[]
}

export type SampleOptions = {
  packs?: readonly SamplePack[]
  /** `of`: the pack whose version it names, where that is another one. */
  channels?: readonly { packId: string; channel: string; of?: string }[]
  keys?: readonly SigningKey[]
  /** Digests that an incremental bundle leaves out. */
  leaveOut?: (digest: Digest) => boolean
  /** Changes what the lock says of a pack. */
  lie?: (pack: LockedPack) => LockedPack
  referrer?: boolean
}

const somePacks = [
  { packId: 'alpha', version: '1.0.0', content: 'the content of alpha' },
  { packId: 'beta', version: '2.1.0+build.7', content: 'the content of beta' },
]

/** Blobs and the entries of an index.json in the making. */
function startLayout() {
  const blobs = new Map<Digest, Buffer>()
  const manifests: object[] = []
  const add = (bytes: Buffer) => {
    const digest = digestOf(bytes)
    blobs.set(digest, bytes)
    return { digest, size: bytes.length }
  }
  const list = (bytes: Buffer, marks: Record<string, string>, artifactType: string) => {
    const { digest, size } = add(bytes)
    manifests.push({ mediaType: mediaTypes.manifest, digest, size, artifactType, annotations: marks })
    return { digest, size }
  }
  const listDocument = (document: Buffer, name: string, mediaType: string) => {
    list(documentManifest(mediaType, document), { [annotations.refName]: name }, mediaType)
    return add(document).digest
  }
  add(emptyConfig)
  return { blobs, manifests, add, list, listDocument }
}
type Layout = ReturnType<typeof startLayout>

function addPack({ add, list }: Layout, { packId, version, content, dependencies = [] }: SamplePack): LockedPack {
  const { document } = checkDocument({ packId, version, type: 'policy', dependencies }) as { document: PackDocument }
  const layer = { ...add(Buffer.from(content)), mediaType: packMediaTypes.content }
  add(Buffer.from(JSON.stringify(document)))
  const names = {
    [annotations.refName]: refNameOf(document.packId, tagOf(document.version)),
    [annotations.packId]: packId,
    [annotations.version]: version,
  }
  const manifest = manifestBytes(document, layer, '2026-01-01T00:00:00Z')
  const { digest, size } = list(manifest, names, packMediaTypes.artifact('policy'))
  const about = { packId: document.packId, version: document.version, type: 'policy' as const, dependencies: [] }
  return { ...about, ...layer, manifestDigest: digest, manifestSize: size }
}

function addReferrer({ add, list }: Layout, { manifestDigest, manifestSize }: LockedPack): Digest {
  const subject = { mediaType: mediaTypes.manifest, digest: manifestDigest, size: manifestSize }
  const layer = { mediaType: 'application/vnd.cyclonedx+json', ...add(Buffer.from('{"bomFormat":"CycloneDX"}')) }
  const config = { mediaType: mediaTypes.empty, ...add(emptyConfig) }
  const manifest = { schemaVersion: 2, mediaType: mediaTypes.manifest, config, layers: [layer], subject }
  const marks = { [annotations.subject]: manifestDigest }
  return list(Buffer.from(JSON.stringify(manifest)), marks, layer.mediaType).digest
}

/** Takes the blobs out and lists them; answers the inventory that the bundle is said to be made against. */
function leaveOutOf({ blobs, listDocument }: Layout, isLeftOut: (digest: Digest) => boolean): Digest | undefined {
  const leftOut = [...blobs].filter(([digest]) => isLeftOut(digest))
  if (leftOut.length === 0) return undefined
  const missing = missingBytes(leftOut.map(([digest, bytes]) => ({ digest, size: bytes.length })))
  listDocument(missing, 'missing', missingMediaType)
  for (const [digest] of leftOut) blobs.delete(digest)
  return digestOf(Buffer.from('an inventory'))
}

/** A bundle file, made by nobody's code but this: what the reader is held against. */
export function sampleBundle({
  packs = somePacks,
  channels = [{ packId: 'alpha', channel: 'stable' }],
  keys = [],
  leaveOut = () => false,
  lie = (pack) => pack,
  referrer = true,
}: SampleOptions = {}): { entries: TarEntry[]; bytes: Buffer; digests: Record<string, Digest> } {
  const layout = startLayout()
  const { blobs, manifests, list, listDocument } = layout
  const truths = packs.map((pack) => addPack(layout, pack))
  const digests: Record<string, Digest> = {}
  for (const { packId, digest, manifestDigest } of truths)
    Object.assign(digests, { [packId]: manifestDigest, [`${packId} content`]: digest })
  for (const { packId, channel, of = packId } of channels)
    list(blobs.get(digests[of] as Digest) as Buffer, { [annotations.refName]: `${packId}--${channel}` }, 'a/b')
  const [first] = truths
  if (referrer && first) digests.referrer = addReferrer(layout, first)
  const lock = lockBytes({ lockVersion: 1, roots: [], packs: truths.map(lie) })
  digests.lock = listDocument(lock, 'lock', packMediaTypes.lock)
  const base = leaveOutOf(layout, leaveOut)
  const marks = { [annotations.bundleVersion]: '1', ...(base ? { [annotations.bundleBase]: base } : {}) }
  const index = Buffer.from(
    JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.index, manifests, annotations: marks }),
  )
  const size = [...blobs.values()].reduce((sum, bytes) => sum + bytes.length, 0)
  const predicate = { packs: packs.length, blobs: blobs.size, size, base }
  const envelope = keys.length > 0 ? signBundle(index, digestOf(lock), predicate, keys) : undefined
  const entries: TarEntry[] = [
    { name: 'oci-layout', bytes: Buffer.from('{"imageLayoutVersion":"1.0.0"}') },
    { name: 'index.json', bytes: index },
    ...(envelope ? [{ name: 'bundle.dsse.json', bytes: envelope }] : []),
    ...[...blobs].sort(([a], [b]) => (a < b ? -1 : 1)).map(([digest, bytes]) => ({ name: pathOf(digest), bytes })),
  ]
  return { entries, bytes: tarOf(entries), digests }
}

export function pathOf(digest: Digest | undefined): string {
  return `blobs/${String(digest).replace(':', '/')}`
}
