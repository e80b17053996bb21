import { Failure, type FailureKey } from '../errors.ts'
import type { Descriptor } from '../oci/descriptor.ts'
import type { Digest } from '../oci/digest.ts'
import { type Manifest, parseManifest } from '../oci/manifest.ts'
import type { Tag } from '../oci/reference.ts'
import { type Content, configOf, readArtifact } from '../packs/artifact.ts'
import { type Carried, carriedBy } from '../packs/bundle.ts'
import { roleOf } from '../packs/channel.ts'
import type { PackDocument, PackId } from '../packs/pack.ts'
import { releaseOf, tagOf, type Version } from '../packs/version.ts'
import { type Effort, openEffort } from './import-effort.ts'

// What publishing a bundle would write, worked out from the file alone: which versions, which tags, and which manifests in
// which repositories. Nothing is asked of the registry here.

/** Something that keeps a bundle from being imported. */
export type Problem = { key: FailureKey; message: string; packId?: PackId; version?: string }

/** A version that the bundle holds. `carried`: the packs that it brings along, where it is a bundle itself. */
export type PlannedVersion = {
  packId: PackId
  version: Version
  manifestDigest: Digest
  document: PackDocument
  content: Content
  carried: readonly Carried[]
}

/** A tag that the bundle holds. `version`: the highest that it names, where it is a channel, or `latest`. */
export type PlannedTag = {
  packId: PackId
  tag: Tag
  digest: Digest
  kind: 'version' | 'channel' | 'latest' | 'attachment'
  version: Version | undefined
}

/** `manifests`: the bytes of each, and what they say. `places`: which of them go into the repository of which pack. */
export type Plan = {
  versions: readonly PlannedVersion[]
  tags: readonly PlannedTag[]
  manifests: ReadonlyMap<Digest, PlannedManifest>
  places: ReadonlyMap<PackId, ReadonlySet<Digest>>
  referrers: number
  problems: Problem[]
}

export type PlannedManifest = { manifest: Manifest; bytes: Buffer }

/** A manifest that stands in the index under the name of a pack. */
export type Root = { packId: PackId; tag: Tag; descriptor: Descriptor }
export type ListedReferrer = { digest: Digest; subject: Digest }

/** `manifestBytes`: of a manifest, in the file or held here. `textOf`: of a config. */
export type Source = {
  roots: readonly Root[]
  referrers: readonly ListedReferrer[]
  manifestBytes(digest: Digest): Buffer | undefined
  textOf(digest: Digest): Promise<Buffer | undefined>
}

/** Works out what a bundle means. What is wrong with it is among the problems. */
export async function planImport(
  { roots, referrers, manifestBytes, textOf }: Source,
  effort: Effort = openEffort(),
): Promise<Plan> {
  const problems: Problem[] = []
  const versions: PlannedVersion[] = []
  for (const root of roots) {
    const version = roleOf(root.tag)
    if (version.kind !== 'version') continue
    const bytes = manifestBytes(root.descriptor.digest)
    await effort(bytes?.length ?? 0)
    const planned = await readRoot(root, version.version, bytes, async (digest) => {
      const text = await textOf(digest)
      await effort(text?.length ?? 0)
      return text
    })
    if ('key' in planned) problems.push(planned)
    else versions.push(planned)
  }
  requireOneRelease(versions, problems)
  const tags = tagsOf(roots, versions, problems)
  const { manifests, read } = openManifests(manifestBytes, problems)
  const places = openPlaces(read)
  for (const { packId, descriptor } of roots) places.put(packId, descriptor.digest, descriptor.mediaType)
  const placed = placeReferrers(referrers, roots, places)
  return { versions, tags, manifests, places: places.places, referrers: placed, problems }
}

async function readRoot(
  { packId, descriptor }: Root,
  version: Version,
  bytes: Buffer | undefined,
  textOf: Source['textOf'],
): Promise<PlannedVersion | Problem> {
  const { digest, mediaType } = descriptor
  const problem = (message: string): Problem => ({ key: 'MANIFEST_INVALID', message, packId, version })
  if (!bytes) return problem(`the manifest ${digest} is not here`)
  try {
    const manifest: unknown = JSON.parse(bytes.toString())
    const config = configOf(manifest)
    const text = config && (await textOf(config.digest))
    if (config && !text) return problem(`its config ${config.digest} is not here`)
    const { document, content } = readArtifact(manifest, text, { packId, version })
    const whole = { digest, size: bytes.length, mediaType }
    const carried = content ? [] : carriedBy(bytes)
    return { packId, version, manifestDigest: digest, document, content: content ?? whole, carried }
  } catch (error) {
    if (error instanceof Failure) return problem(String(error.detail))
    throw error
  }
}

/** Two versions that differ only in their build part are one release. */
function requireOneRelease(versions: readonly PlannedVersion[], problems: Problem[]): void {
  const releases = new Map<string, Version>()
  for (const { packId, version } of versions) {
    const name = `${packId} ${releaseOf(version)}`
    const other = releases.get(name)
    if (other && other !== version)
      problems.push({
        ...{ key: 'VERSION_EXISTS', packId, version },
        message: `the bundle has ${other} as well, and a build part makes no other version`,
      })
    releases.set(name, version)
  }
}

function tagsOf(roots: readonly Root[], versions: readonly PlannedVersion[], problems: Problem[]): PlannedTag[] {
  const named = new Map<string, Version>()
  for (const { packId, manifestDigest, version } of versions) named.set(`${packId} ${manifestDigest}`, version)
  return roots.flatMap(({ packId, tag, descriptor: { digest } }): PlannedTag[] => {
    const { kind } = roleOf(tag)
    const version = named.get(`${packId} ${digest}`)
    if (kind === 'malformed') {
      const message = `the tag ${tag} looks like a version but is none by Semantic Versioning 2.0`
      problems.push({ key: 'TAG_INVALID', message, packId, version: tag })
      return []
    }
    return [{ packId, tag, digest, kind, version }]
  })
}

/** Manifests by their digest, each read once. */
function openManifests(manifestBytes: Source['manifestBytes'], problems: Problem[]) {
  const manifests = new Map<Digest, PlannedManifest>()
  const unread = new Set<Digest>()
  const read = (digest: Digest, mediaType: string | undefined): PlannedManifest | undefined => {
    const known = manifests.get(digest)
    if (known || unread.has(digest)) return known
    const bytes = manifestBytes(digest)
    try {
      const planned = bytes && { manifest: parseManifest(bytes, mediaType), bytes }
      if (planned) manifests.set(digest, planned)
      return planned
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      unread.add(digest)
      problems.push({ key: 'MANIFEST_INVALID', message: `${digest}: ${error.detail}` })
      return undefined
    }
  }
  return { manifests, read }
}

type Read = ReturnType<typeof openManifests>['read']

/** As many manifests as an import may put into repositories; what goes into several is counted in each. */
const mostPlaced = 1_000_000

/** Which manifests go into the repositories of which packs. */
function openPlaces(read: Read) {
  const places = new Map<PackId, Set<Digest>>()
  const homes = new Map<Digest, Set<PackId>>()
  let count = 0
  return {
    places,
    homesOf: (digest: Digest) => homes.get(digest),
    /** Puts a manifest, and everything it lists at any depth, into a place. Answers what was not in it before. */
    put(packId: PackId, digest: Digest, mediaType: string | undefined): Digest[] {
      const place = places.get(packId) ?? new Set()
      places.set(packId, place)
      const placed: Digest[] = []
      const waiting = [{ digest, mediaType }]
      for (let next = waiting.pop(); next; next = waiting.pop()) {
        if (place.has(next.digest)) continue
        const found = read(next.digest, next.mediaType)
        // An index may list what is not there (sparse): the rules of the file have decided on that.
        if (!found) continue
        if (++count > mostPlaced) throw tooManyPlaces()
        place.add(next.digest)
        homes.set(next.digest, (homes.get(next.digest) ?? new Set()).add(packId))
        placed.push(next.digest)
        for (const child of found.manifest.children) waiting.push({ digest: child, mediaType: undefined })
      }
      return placed
    },
  }
}
type Places = ReturnType<typeof openPlaces>

function tooManyPlaces(): Failure {
  return new Failure('IMPORT_REFUSED', {
    detail: `it has more than ${mostPlaced} manifests, counted in each of the packs that have them: export fewer packs into each bundle`,
  })
}

/**
 * What hangs on a version goes into the repository where that has its name; what hangs on something else, wherever that
 * is. What hangs on what hangs follows. Answers how many have a place.
 */
function placeReferrers(
  referrers: readonly ListedReferrer[],
  roots: readonly Root[],
  { places, homesOf, put }: Places,
): number {
  const named = new Map<Digest, Set<PackId>>()
  for (const { packId, descriptor } of roots)
    named.set(descriptor.digest, (named.get(descriptor.digest) ?? new Set()).add(packId))
  const hanging = new Map<Digest, Digest[]>()
  for (const { digest, subject } of referrers) {
    const others = hanging.get(subject)
    if (others) others.push(digest)
    else hanging.set(subject, [digest])
  }
  let count = 0
  // Each subject is looked at when it has a place, and with that what hangs on it.
  const subjects = [...named.keys(), ...[...places.values()].flatMap((place) => [...place])]
  for (let subject = subjects.pop(); subject; subject = subjects.pop()) {
    const homes = named.get(subject) ?? homesOf(subject)
    if (!homes) continue
    for (const digest of hanging.get(subject) ?? []) {
      count++
      named.set(digest, homes)
      subjects.push(digest)
      for (const home of homes) for (const placed of put(home, digest, undefined)) subjects.push(placed)
    }
    hanging.delete(subject)
  }
  return count
}

/** The tag under which a version stands. */
export function rootOf(packId: PackId, version: Version, descriptor: Descriptor): Root {
  return { packId, tag: tagOf(version), descriptor }
}
