import { PacksError } from './failure.ts'

export type PackType = 'policy' | 'analyzer' | 'task' | 'bundle'

/** `deprecated`: still resolved, with a warning. `yanked`: left out of resolution, still served to a lock. */
export type PackState = 'active' | 'deprecated' | 'yanked'

/** `version`: a range in npm's notation. */
export type Dependency = { packId: string; version: string; optional?: true }

/** What an author says of a pack: `pack.json`. */
export type PackDocument = {
  packId: string
  version: string
  type: PackType
  name: string
  description?: string
  author?: string
  dependencies: Dependency[]
  /** Open. Known keys: minRunnerVersion, maxRunnerVersion, license, homepage, keywords, readme, changes. */
  metadata: Record<string, unknown>
}

/**
 * A published version. `digest`, `size` (bytes) and `mediaType` are the content's; for a bundle without content of its
 * own they are those of its index. `publishedAt`: RFC 3339.
 */
export type Pack = PackDocument & {
  digest: string
  size: number
  mediaType: string
  title?: string
  manifestDigest: string
  publishedAt: string
  state: PackState
  message?: string
  replacedBy?: string
  channels: string[]
}

/** A pack in a list, described by its latest version; with `runner` in the query, by the newest that runs there. */
export type PackSummary = {
  packId: string
  version: string
  type: PackType
  name: string
  description?: string
  author?: string
  digest: string
  size: number
  publishedAt: string
  state: PackState
  /** How many versions there are. */
  versions: number
  minRunnerVersion?: string
  keywords?: string[]
}

/** A version in the list of a pack's versions. */
export type PackVersion = {
  version: string
  state: PackState
  message?: string
  replacedBy?: string
  channels: string[]
  minRunnerVersion?: string
  digest: string
  size: number
  manifestDigest: string
  publishedAt: string
}

/** A version that needs the one that was asked for. */
export type Dependent = { packId: string; version: string; range: string; optional: boolean; state: PackState }

/** A signature, an SBOM or an attestation: the descriptor of a manifest whose subject is the pack's manifest. */
export type Referrer = {
  digest: string
  size: number
  mediaType: string
  artifactType?: string
  annotations?: Record<string, string>
}

const idGrammar = /^[a-z0-9]+(?:[._-][a-z0-9]+)*$/
/** Source: semver.org 2.0.0, its own regular expression. */
const versionGrammar =
  /^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?(?:\+([0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?$/

export function isPackId(value: unknown): value is string {
  return typeof value === 'string' && value.length <= 128 && idGrammar.test(value)
}

export function isVersion(value: unknown): value is string {
  return typeof value === 'string' && value.length <= 128 && versionGrammar.test(value)
}

/** The address of a pack, or of something of it. Throws REQUEST_INVALID where a part cannot stand in an address. */
export function packPath(packId: string, ...parts: string[]): string {
  if (!isPackId(packId))
    throw new PacksError(
      'REQUEST_INVALID',
      `${JSON.stringify(packId)} is not the id of a pack: lowercase letters and digits, joined by single ".", "_" or "-"`,
    )
  // An address takes dots alone for a step up, encoded or not.
  for (const part of parts)
    if (/^\.*$/.test(part) || /\p{Surrogate}/u.test(part))
      throw new PacksError('REQUEST_INVALID', `${JSON.stringify(part)} names no version of ${packId}`)
  return ['/packs', packId, ...parts.map(encodeURIComponent)].join('/')
}
