import { Failure } from '../errors.ts'
import { type Descriptor, isObject, parseAnnotations, parseDescriptor } from './descriptor.ts'
import type { Digest } from './digest.ts'
import { isMediaType, isNonDistributable, mediaTypes } from './media-types.ts'

/** The largest manifest that is taken, in bytes. Source: distribution-spec, "Pushing Manifests": at least 4 MiB. */
export const maxManifestBytes = 4 * 1024 * 1024

/** More than any real image or index has; keeps one manifest from costing the database minutes. */
const maxDescriptors = 20_000
/** Deeper nesting has no use and costs every reader that walks it. */
const maxNesting = 64

/** What the registry reads from a manifest. The bytes are kept as they came; this is never written back. */
export type Manifest = {
  mediaType: string
  kind: 'manifest' | 'index'
  /** The manifest's own, else (image manifests) the config's media type: what referrers are filtered by. */
  artifactType?: string
  subject?: Digest
  annotations?: Record<string, string>
  /** Blobs that must be in the repository: config and layers, without non-distributable ones. */
  blobs: Digest[]
  /** Members of an index; they may be absent. */
  children: Digest[]
}

function invalid(detail: string): Failure {
  return new Failure('MANIFEST_INVALID', { detail })
}

/**
 * Checks the bytes of a manifest against the media type they were sent as.
 * Throws MANIFEST_INVALID with a detail that says which part is wrong.
 * Source: image-spec, manifest.md and image-index.md; distribution-spec, "Pushing Manifests".
 */
export function parseManifest(bytes: Uint8Array, contentType: string | undefined): Manifest {
  const document = parseDocument(bytes)
  const mediaType = agreedMediaType(document, contentType)
  const isIndex = 'manifests' in document
  // One document must not be read as an image by one client and as an index by another (CVE-2021-41190).
  if (isIndex && ('layers' in document || 'config' in document))
    throw invalid('a document with "manifests" must not have "layers" or "config" as well')
  if (document.schemaVersion !== undefined && document.schemaVersion !== 2) throw invalid('schemaVersion must be 2')
  if (isIndex !== expectsIndex(mediaType, isIndex))
    throw invalid(`the document ${isIndex ? 'is an index' : 'is not an index'}, but was sent as ${mediaType}`)

  const { artifactType } = document
  if (artifactType !== undefined && (typeof artifactType !== 'string' || (artifactType && !isMediaType(artifactType))))
    throw invalid('artifactType must be a media type')
  const annotations = parseAnnotations(document.annotations, 'manifest')
  const subject = document.subject == null ? undefined : parseDescriptor(document.subject, 'subject').digest
  const content = isIndex ? indexContent(document) : imageContent(document)
  const effectiveType = artifactType || content.configType
  return {
    mediaType,
    kind: isIndex ? 'index' : 'manifest',
    ...(effectiveType ? { artifactType: effectiveType } : {}),
    ...(subject ? { subject } : {}),
    ...(annotations ? { annotations } : {}),
    blobs: content.blobs,
    children: content.children,
  }
}

function parseDocument(bytes: Uint8Array): Record<string, unknown> {
  let document: unknown
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
    refuseDeep(text)
    document = JSON.parse(text)
  } catch (cause) {
    if (cause instanceof Failure) throw cause
    throw new Failure('MANIFEST_INVALID', { detail: 'the body is not JSON in UTF-8', cause })
  }
  if (!isObject(document)) throw invalid('the body is not a JSON object')
  return document
}

/** Counts brackets outside of strings, before anything is built from the text. */
function refuseDeep(text: string): void {
  let depth = 0
  let quoted = false
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i)
    if (quoted) {
      if (c === 0x5c) i++
      else if (c === 0x22) quoted = false
    } else if (c === 0x22) quoted = true
    else if (c === 0x7b || c === 0x5b) {
      if (++depth > maxNesting) throw invalid(`nested deeper than ${maxNesting} levels`)
    } else if (c === 0x7d || c === 0x5d) depth--
  }
}

/** The body's mediaType and the Content-Type must say the same; either may be missing, not both. */
function agreedMediaType(document: Record<string, unknown>, contentType: string | undefined): string {
  const sent = contentType?.split(';')[0]?.trim()
  const { mediaType } = document
  if (mediaType !== undefined && (typeof mediaType !== 'string' || !isMediaType(mediaType)))
    throw invalid('mediaType must be a media type')
  if (sent && !isMediaType(sent)) throw invalid(`Content-Type ${JSON.stringify(sent)} is not a media type`)
  if (mediaType && sent && mediaType !== sent)
    throw invalid(`the body says mediaType ${mediaType}, but Content-Type says ${sent}`)
  const agreed = mediaType ?? sent
  if (!agreed) throw invalid('neither Content-Type nor mediaType says what this is')
  return agreed
}

function expectsIndex(mediaType: string, otherwise: boolean): boolean {
  if (mediaType === mediaTypes.index || mediaType === mediaTypes.dockerManifestList) return true
  if (mediaType === mediaTypes.manifest || mediaType === mediaTypes.dockerManifest) return false
  return otherwise
}

type Content = { blobs: Digest[]; children: Digest[]; configType?: string }

function indexContent(document: Record<string, unknown>): Content {
  const members = descriptors(document.manifests, 'manifests')
  return { blobs: [], children: unique(members) }
}

function imageContent(document: Record<string, unknown>): Content {
  const { config, others } = imageDescriptors(document)
  const wanted = others.filter((layer) => !isNonDistributable(layer.mediaType))
  return {
    blobs: unique(config ? [config, ...wanted] : wanted),
    children: [],
    ...(config ? { configType: config.mediaType } : {}),
  }
}

function imageDescriptors(document: Record<string, unknown>): { config: Descriptor | undefined; others: Descriptor[] } {
  const config = document.config == null ? undefined : parseDescriptor(document.config, 'config')
  const layers = document.layers == null ? [] : descriptors(document.layers, 'layers')
  // Artifact manifests of an early draft list `blobs`; they are kept like layers.
  const blobs = document.blobs == null ? [] : descriptors(document.blobs, 'blobs')
  return { config, others: [...layers, ...blobs] }
}

/** How many bytes a manifest says that each of its blobs has. Throws MANIFEST_INVALID. */
export function blobSizes(bytes: Uint8Array): Map<Digest, number> {
  const { config, others } = imageDescriptors(parseDocument(bytes))
  return new Map((config ? [config, ...others] : others).map(({ digest, size }) => [digest, size]))
}

function descriptors(value: unknown, where: string): Descriptor[] {
  if (!Array.isArray(value)) throw invalid(`${where} must be a list`)
  if (value.length > maxDescriptors) throw invalid(`${where} lists more than ${maxDescriptors} descriptors`)
  return value.map((entry, i) => parseDescriptor(entry, `${where}[${i}]`))
}

function unique(list: Descriptor[]): Digest[] {
  return [...new Set(list.map((entry) => entry.digest))]
}
