import { parseName, type RepositoryName } from '../oci/name.ts'
import type { Range, Version } from './version.ts'

declare const brand: unique symbol

/** The name of a pack: lowercase words joined by `.`, `_` or `-`, at most 128 characters. */
export type PackId = string & { readonly [brand]: 'PackId' }

export const packTypes = ['policy', 'analyzer', 'task', 'bundle'] as const
export type PackType = (typeof packTypes)[number]

export const packStates = ['active', 'deprecated', 'yanked'] as const
/** `deprecated`: still resolved, with a warning. `yanked`: left out of resolution, still served to a lock. */
export type PackState = (typeof packStates)[number]

export type Dependency = { packId: PackId; version: Range; optional?: true }

/** What an author says of a pack; it is the config blob of the artifact. Key order is the order of the fields here. */
export type PackDocument = {
  packId: PackId
  version: Version
  type: PackType
  name: string
  description?: string
  author?: string
  dependencies: Dependency[]
  /** Open. Known keys are checked: minRunnerVersion, maxRunnerVersion, license, homepage, keywords, readme, changes. */
  metadata: Record<string, unknown>
}

export const idGrammar = /^[a-z0-9]+(?:[._-][a-z0-9]+)*$/

export function parsePackId(text: string): PackId | undefined {
  return text.length <= 128 && idGrammar.test(text) ? (text as PackId) : undefined
}

const folder = 'packs/'

/** The repository that holds a pack. */
export function repositoryOf(packId: PackId): RepositoryName {
  return parseName(folder + packId) as RepositoryName
}

/** Whether the rules of packs hold in this repository. */
export function isPackRepository(repository: RepositoryName): boolean {
  return repository.startsWith(folder)
}

/** The pack that a repository holds; undefined outside of `packs/`, and where the rest is no pack id. */
export function packIdOf(repository: RepositoryName): PackId | undefined {
  return isPackRepository(repository) ? parsePackId(repository.slice(folder.length)) : undefined
}

/** Source: spec/packs.md, "As an OCI artifact". */
export const packMediaTypes = {
  artifact: (type: PackType) => `application/vnd.stellaops.pack.${type}.v1`,
  config: 'application/vnd.stellaops.pack.config.v1+json',
  content: 'application/vnd.stellaops.pack.content.v1.tar+gzip',
  lock: 'application/vnd.stellaops.pack.lock.v1+json',
} as const

/** The type of pack that an artifactType stands for. */
export function typeOfArtifact(artifactType: string | undefined): PackType | undefined {
  return packTypes.find((type) => packMediaTypes.artifact(type) === artifactType)
}
