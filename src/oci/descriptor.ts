import { Failure } from '../errors.ts'
import { type Digest, parseDigest } from './digest.ts'
import { isMediaType } from './media-types.ts'

/** A reference to content. Source: image-spec, descriptor.md. Unknown fields are allowed and ignored. */
export type Descriptor = {
  mediaType: string
  digest: Digest
  size: number
  artifactType?: string
  annotations?: Record<string, string>
}

type Json = Record<string, unknown>

export function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function invalid(where: string, problem: string): Failure {
  return new Failure('MANIFEST_INVALID', { detail: `${where}: ${problem}` })
}

/** Checks one descriptor of a manifest. `where` names it in the failure, e.g. `layers[2]`. */
export function parseDescriptor(value: unknown, where: string): Descriptor {
  if (!isObject(value)) throw invalid(where, 'must be a descriptor (an object)')
  const { mediaType, digest, size, artifactType } = value
  if (typeof mediaType !== 'string' || !isMediaType(mediaType)) throw invalid(where, 'mediaType must be a media type')
  const parsed = typeof digest === 'string' ? parseDigest(digest) : undefined
  if (!parsed) throw invalid(where, 'digest must be sha256:<64 hex> or sha512:<128 hex>')
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0)
    throw invalid(where, 'size must be a whole number of bytes')
  if (artifactType !== undefined && typeof artifactType !== 'string') throw invalid(where, 'artifactType must be text')
  const annotations = parseAnnotations(value.annotations, where)
  return {
    mediaType,
    digest: parsed,
    size,
    ...(artifactType ? { artifactType } : {}),
    ...(annotations ? { annotations } : {}),
  }
}

/** What no database and few clients take as text: NUL, and a surrogate without its other half. */
const notText = /\0|\p{Surrogate}/u

/** Annotations: an object of texts, or absent. */
export function parseAnnotations(value: unknown, where: string): Record<string, string> | undefined {
  if (value === undefined || value === null) return undefined
  if (!isObject(value)) throw invalid(where, 'annotations must be an object')
  for (const [key, text] of Object.entries(value)) {
    if (typeof text !== 'string') throw invalid(where, `annotation ${JSON.stringify(key)} must be text`)
    if (notText.test(key) || notText.test(text))
      throw invalid(where, `annotation ${JSON.stringify(key)} has a NUL or half a surrogate pair in it`)
  }
  return value as Record<string, string>
}
