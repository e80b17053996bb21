import { Failure } from '../errors.ts'
import { type Descriptor, isObject, parseDescriptor } from '../oci/descriptor.ts'
import { type Digest, digestOf } from '../oci/digest.ts'
import { mediaTypes } from '../oci/media-types.ts'
import { checkDocument, inWords } from './document.ts'
import { type PackDocument, type PackId, type PackType, packMediaTypes, parsePackId, typeOfArtifact } from './pack.ts'
import { parseVersion, type Version } from './version.ts'

/** The content of a pack as its manifest names it. `title`: the file name under which `oras pull` saves it. */
export type Content = { digest: Digest; size: number; mediaType: string; title?: string }

/** What a manifest says, read as a pack. An index (a bundle without content of its own) has no content layer. */
export type Artifact = { document: PackDocument; content: Content | undefined; created: string | undefined }

const title = 'org.opencontainers.image.title'
const created = 'org.opencontainers.image.created'
/** The document of a bundle that is an index: an index has no config to put it in. */
const documentAnnotation = 'vnd.stellaops.pack.config'

/** The largest config blob that is read, in bytes. */
export const maxConfigBytes = 1024 * 1024

/** The config blob of a document. Source: spec/packs.md. */
export function configBytes(document: PackDocument): Buffer {
  return Buffer.from(JSON.stringify(document))
}

/** JSON as Go's encoder writes it, so that a manifest made here is the one `oras push` would have made. */
function goJson(value: unknown): Buffer {
  const escapes: Record<string, string> = {
    '<': '\\u003c',
    '>': '\\u003e',
    '&': '\\u0026',
    '\u2028': '\\u2028',
    '\u2029': '\\u2029',
  }
  return Buffer.from(JSON.stringify(value).replace(/[<>&\u2028\u2029]/g, (c) => escapes[c] ?? c))
}

function sorted(annotations: Record<string, string | undefined>): Record<string, string> {
  const entries = Object.entries(annotations).filter((entry): entry is [string, string] => entry[1] !== undefined)
  return Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1)))
}

function annotationsOf(document: PackDocument, createdAt: string): Record<string, string> {
  const { license } = document.metadata
  return sorted({
    [title]: document.name,
    [created]: createdAt,
    'org.opencontainers.image.description': document.description,
    'org.opencontainers.image.version': document.version,
    'org.opencontainers.image.authors': document.author,
    'org.opencontainers.image.licenses': typeof license === 'string' ? license : undefined,
  })
}

/** The manifest of a pack with content, byte for byte what `oras push --config …` makes of the same input. */
export function manifestBytes(document: PackDocument, content: Content, createdAt: string): Buffer {
  const config = configBytes(document)
  return goJson({
    schemaVersion: 2,
    mediaType: mediaTypes.manifest,
    artifactType: packMediaTypes.artifact(document.type),
    config: { mediaType: packMediaTypes.config, digest: digestOf(config), size: config.length },
    layers: [
      {
        mediaType: content.mediaType,
        digest: content.digest,
        size: content.size,
        ...(content.title ? { annotations: { [title]: content.title } } : {}),
      },
    ],
    annotations: annotationsOf(document, createdAt),
  })
}

/** A member of a bundle's closure. */
export type Member = {
  packId: PackId
  version: Version
  manifestDigest: Digest
  manifestSize: number
  mediaType: string
}

/**
 * The index of a bundle without content of its own: its members are the closure's manifests. They are listed without
 * their artifactType: skopeo 1.9 (Debian 12) drops that when it copies an index, and so changes its digest.
 */
export function indexBytes(document: PackDocument, members: readonly Member[], createdAt: string): Buffer {
  return goJson({
    schemaVersion: 2,
    mediaType: mediaTypes.index,
    artifactType: packMediaTypes.artifact(document.type),
    manifests: members.map(({ packId, version, manifestDigest, manifestSize, mediaType }) => ({
      mediaType,
      digest: manifestDigest,
      size: manifestSize,
      annotations: { [title]: packId, 'org.opencontainers.image.version': version },
    })),
    annotations: sorted({ ...annotationsOf(document, createdAt), [documentAnnotation]: JSON.stringify(document) }),
  })
}

/** The time that a manifest says it was made at, if it does. */
export function createdOf(bytes: Buffer): string | undefined {
  const { annotations } = JSON.parse(bytes.toString()) as { annotations?: Record<string, string> }
  return annotations?.[created]
}

function invalid(detail: string): Failure {
  return new Failure('MANIFEST_INVALID', { detail })
}

/** Where a manifest has its document: in a config blob of this digest and size, or nowhere but in itself. */
export function configOf(manifest: unknown): Descriptor | undefined {
  const { config } = isObject(manifest) ? manifest : {}
  const descriptor = config == null ? undefined : parseDescriptor(config, 'config')
  if (descriptor?.mediaType !== packMediaTypes.config) return undefined
  if (descriptor.size > maxConfigBytes) throw invalid(`the config blob of a pack is at most ${maxConfigBytes} bytes`)
  return descriptor
}

/** Which version of which pack a manifest says that it is, by its document; undefined where it has none, or a bad one. */
export function identityOf(
  manifest: unknown,
  config: Buffer | undefined,
): { packId: PackId; version: Version } | undefined {
  const { annotations } = isObject(manifest) ? manifest : {}
  const embedded = isObject(annotations) ? annotations[documentAnnotation] : undefined
  const written = config ?? (typeof embedded === 'string' ? embedded : undefined)
  if (written === undefined) return undefined
  const { packId, version } = Object(parseJson(written)) as { packId?: unknown; version?: unknown }
  const id = typeof packId === 'string' ? parsePackId(packId) : undefined
  const number = typeof version === 'string' ? parseVersion(version) : undefined
  return id && number && { packId: id, version: number }
}

/**
 * Reads a manifest as the pack `packId` at `version` (what its repository and its tag say). `config`: the bytes that
 * `configOf` points at, if it does. Throws MANIFEST_INVALID with a detail that says what to fix.
 */
export function readArtifact(
  manifest: unknown,
  config: Buffer | undefined,
  { packId, version }: { packId: PackId; version: Version },
): Artifact {
  if (!isObject(manifest)) throw invalid('the body is not a JSON object')
  const annotations = (manifest.annotations ?? {}) as Record<string, string>
  const type = artifactTypeOf(manifest)
  // What has one is a referrer to everybody: it counts as no version of a quota, and goes with what it refers to.
  if (manifest.subject != null) throw invalid('a pack refers to no other manifest: leave out its subject')
  const document = documentOf(manifest, config, { packId, version, type }, annotations)
  const isIndex = 'manifests' in manifest
  if (isIndex && type !== 'bundle')
    throw invalid('only a bundle may be an index; other packs have one layer, their content')
  return { document, content: isIndex ? undefined : contentOf(manifest), created: annotations[created] }
}

function artifactTypeOf(manifest: Record<string, unknown>): PackType {
  const { artifactType } = manifest
  const type = typeOfArtifact(typeof artifactType === 'string' ? artifactType : undefined)
  if (type) return type
  const said = artifactType ? `is ${JSON.stringify(artifactType)}` : 'is missing'
  throw invalid(
    `under packs/, a tag that is a version names a pack: its artifactType must be ${packMediaTypes.artifact('policy')} ` +
      `(or analyzer, task, bundle) but ${said}. With oras: --artifact-type ${packMediaTypes.artifact('policy')}`,
  )
}

function documentOf(
  manifest: Record<string, unknown>,
  config: Buffer | undefined,
  expected: { packId: PackId; version: Version; type: PackType },
  annotations: Record<string, string>,
): PackDocument {
  const embedded = 'manifests' in manifest ? annotations[documentAnnotation] : undefined
  const written = config ?? embedded
  const result = checkDocument(written === undefined ? derived(expected, annotations) : parseJson(written))
  const where = config ? 'the config blob' : 'the annotations'
  if ('violations' in result) throw invalid(`${where} do not describe a pack: ${inWords(result.violations)}`)
  const { document } = result
  for (const key of ['packId', 'version', 'type'] as const) {
    const name = { packId: 'the repository', version: 'the tag', type: 'artifactType' }[key]
    if (document[key] !== expected[key])
      throw invalid(`${where} say ${key} ${document[key]}, but ${name} says ${expected[key]}: they must be the same`)
  }
  return document
}

/** A manifest without a config is described by its tag, its type and its annotations. */
function derived(
  expected: { packId: PackId; version: Version; type: PackType },
  annotations: Record<string, string>,
): Record<string, unknown> {
  const of = (name: string) => annotations[`org.opencontainers.image.${name}`]
  const metadata = {
    minRunnerVersion: annotations['vnd.stellaops.pack.minRunnerVersion'],
    maxRunnerVersion: annotations['vnd.stellaops.pack.maxRunnerVersion'],
    license: of('licenses'),
  }
  return {
    ...expected,
    version: of('version') ?? expected.version,
    name: of('title'),
    description: of('description'),
    author: of('authors'),
    dependencies: dependenciesOf(annotations['vnd.stellaops.pack.dependencies']),
    metadata: Object.fromEntries(Object.entries(metadata).filter(([, value]) => value !== undefined)),
  }
}

/** A JSON list as in a document, or `net-rules@^1.2.0, other@1.x`. */
function dependenciesOf(text: string | undefined): unknown {
  if (!text?.trim()) return []
  return text.trim().startsWith('[') ? parseJson(text) : text.split(',').map((entry) => entry.trim())
}

function parseJson(text: Buffer | string): unknown {
  try {
    return JSON.parse(text.toString())
  } catch (cause) {
    throw new Failure('MANIFEST_INVALID', {
      detail: `a pack's document is not JSON: ${(cause as Error).message}`,
      cause,
    })
  }
}

function contentOf(manifest: Record<string, unknown>): Content {
  const layers = Array.isArray(manifest.layers) ? manifest.layers : []
  if (layers.length !== 1) throw invalid(`a pack has one layer, its content; this manifest has ${layers.length}`)
  const { digest, size, mediaType, annotations } = parseDescriptor(layers[0], 'layers[0]')
  const named = annotations?.[title]
  return { digest, size, mediaType, ...(named ? { title: named } : {}) }
}
