import { askRead } from '../db/client.ts'
import { findRelease } from '../db/packs.ts'
import { Failure } from '../errors.ts'
import { algorithmOf, type Digest, digestOf } from '../oci/digest.ts'
import { parseManifest } from '../oci/manifest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Tag } from '../oci/reference.ts'
import { configOf, readArtifact } from '../packs/artifact.ts'
import { attachedTo, roleOf } from '../packs/channel.ts'
import {
  type Dependency,
  type PackDocument,
  type PackId,
  packTypes,
  parsePackId,
  typeOfArtifact,
} from '../packs/pack.ts'
import { isPattern, openPatterns, versionsIn } from '../packs/selection.ts'
import { compareVersions, tagOf, type Version } from '../packs/version.ts'
import { openBlob } from '../remote/blobs.ts'
import { listRepositories, listTags } from '../remote/listings.ts'
import { getManifest, type RemoteManifest } from '../remote/manifests.ts'
import { readWhole } from './body.ts'
import {
  type Attached,
  type AttachmentLimits,
  attachmentLimits,
  pullAttachments,
  pullTag,
} from './mirror-attachments.ts'
import { storeTree } from './mirror-store.ts'
import { attempt, each, type Mirroring, placeOf, readThere } from './mirroring.ts'

// Pulling goes pack by pack: the versions that are selected, each with its blobs first, through the same rules as any
// push, but that its dependencies may still be missing; what refers to it; then the channels. With closure, what the
// versions depend on is pulled as well, the highest version there that each range accepts.

/** The versions that were looked at, and whether each is here now. */
type Taken = Map<string, boolean>

/** `mostDependencies`: ranges of packs that a closure may go through. */
export type PullLimits = AttachmentLimits & { mostDependencies: number }
const pullLimits: PullLimits = { ...attachmentLimits, mostDependencies: 10_000 }

/** A run, what it has come by, and how far it goes. */
type Pulling = { run: Mirroring; taken: Taken; wanted: ReturnType<typeof openWanted>; limits: PullLimits }

/** Brings what is selected there to this registry. */
export async function pullSelected(run: Mirroring, limits = pullLimits): Promise<void> {
  const pulling: Pulling = { run, taken: new Map(), wanted: openWanted(run, limits), limits }
  await each(await packsThere(run), run.concurrency, (packId) => pullPack(pulling, packId))
  for (let now = pulling.wanted.take(); now.length > 0; now = pulling.wanted.take())
    await each(now, run.concurrency, (dependency) => pullDependency(pulling, dependency))
}

/** Dependencies to be looked at, each once. A remote could make up ever more of them as it is asked. */
function openWanted({ report }: Mirroring, { mostDependencies }: PullLimits) {
  const seen = new Set<string>()
  let waiting: Dependency[] = []
  let isFull = false
  return {
    add(dependencies: readonly Dependency[]): void {
      for (const dependency of dependencies) {
        const key = `${dependency.packId} ${dependency.version} ${dependency.optional ?? false}`
        if (seen.has(key)) continue
        if (seen.size < mostDependencies) {
          seen.add(key)
          waiting.push(dependency)
        } else if (!isFull) {
          isFull = true
          report.problem(`more than ${mostDependencies} dependencies follow from what is selected: the rest was left`)
        }
      }
    },
    take(): Dependency[] {
      const now = waiting
      waiting = []
      return now
    },
  }
}

/** The packs there that are selected. Only patterns need the catalog. */
async function packsThere(run: Mirroring): Promise<PackId[]> {
  const { selection, remote, prefix } = run
  const named = selection.packs.filter((pattern) => !isPattern(pattern)).flatMap((text) => parsePackId(text) ?? [])
  if (named.length === selection.packs.length) return named
  const matches = openPatterns(selection.packs)
  const found = (await listRepositories(remote, run)).flatMap((name) =>
    name.startsWith(`${prefix}/`) ? (parsePackId(name.slice(prefix.length + 1)) ?? []) : [],
  )
  return [...new Set([...named, ...found.filter(matches)])].sort()
}

type There = { versions: Version[]; channels: Tag[]; attached: Map<Digest, Tag[]> }

/** The tags of a pack there by what they are, the versions highest first; none, and a problem, where they have no end. */
async function tagsThere(run: Mirroring, packId: PackId): Promise<There | undefined> {
  const listing = await readThere(run, `the tags of ${packId}`, async () => ({
    tags: await listTags(run.remote, placeOf(run, packId), run),
  }))
  if (listing && !listing.tags) return undefined
  const there: There = { versions: [], channels: [], attached: new Map() }
  for (const tag of listing?.tags ?? []) {
    const role = roleOf(tag)
    if (role.kind === 'version') there.versions.push(role.version)
    else if (role.kind === 'channel') there.channels.push(tag)
    const subject = role.kind === 'attachment' && tag.includes('.') ? attachedTo(tag) : undefined
    const others = subject && there.attached.get(subject)
    if (others) others.push(tag)
    else if (subject) there.attached.set(subject, [tag])
  }
  there.versions.sort((a, b) => compareVersions(b, a))
  return there
}

async function pullPack(pulling: Pulling, packId: PackId): Promise<void> {
  const { run } = pulling
  const there = await tagsThere(run, packId)
  if (!there) {
    if (run.selection.packs.includes(packId)) run.report.problem(`${run.remote.url.host} has no pack ${packId}`)
    return
  }
  const { selection } = run
  const channels = there.channels.filter((tag) => !selection.channels || selection.channels.includes(tag))
  const named = new Map<Tag, Digest>()
  for (const tag of channels) {
    const manifest = await readable(run, packId, tag)
    if (manifest) named.set(tag, manifest.digest)
  }
  const digests = new Set(named.values())
  const present = new Set<Digest>()
  for (const version of versionsIn(selection.versions, there.versions).toReversed()) {
    const manifest = await readable(run, packId, tagOf(version))
    if (!manifest || (selection.channels && !digests.has(manifest.digest)) || !isOfType(run, manifest)) continue
    const arriving = { packId, version, manifest, attached: there.attached }
    if (await pullVersion(pulling, arriving)) present.add(manifest.digest)
  }
  for (const [tag, digest] of named)
    if (present.has(digest)) await pullTag(run, packId, { tag, digest, kind: 'channel' })
}

/** What a tag names there; undefined, and said in the report, where that cannot be used. */
function readable(run: Mirroring, packId: PackId, tag: Tag): Promise<RemoteManifest | undefined> {
  return readThere(run, `${packId}:${tag}`, () => getManifest(run.remote, placeOf(run, packId), tag, run))
}

function isOfType({ selection: { types } }: Mirroring, { bytes, mediaType }: RemoteManifest): boolean {
  if (!types || types.length === packTypes.length) return true
  try {
    const type = typeOfArtifact(parseManifest(bytes, mediaType).artifactType)
    return type !== undefined && types.includes(type)
  } catch {
    // What it is shall be said when it is refused.
    return true
  }
}

type Arriving = { packId: PackId; version: Version; manifest: RemoteManifest; attached: Attached }

/** Whether the version is here now. */
async function pullVersion({ run, taken, wanted, limits }: Pulling, arriving: Arriving): Promise<boolean> {
  const { packId, version, manifest, attached } = arriving
  const { digest } = manifest
  const key = `${packId}@${version}`
  const before = taken.get(key)
  if (before !== undefined) return before
  taken.set(key, true)
  run.note({ pack: packId })
  const state = await attempt(run, { kind: 'version', packId, reference: version, digest }, async () => {
    const here = await askRead(run.deps.db, (sql) => findRelease(sql, packId, version))
    if (here?.manifestDigest === digest && here.version === version) return { state: 'same' }
    if (here?.manifestDigest) return { state: 'different', there: here.manifestDigest }
    if (run.dryRun) return { state: 'missing' }
    await storeTree(run, packId, manifest, tagOf(version))
    const now = await askRead(run.deps.db, (sql) => findRelease(sql, packId, version))
    return now?.manifestDigest === digest ? { state: 'same' } : { state: 'missing' }
  })
  const isHereToo = state === 'same' || (run.dryRun && state === 'missing')
  taken.set(key, isHereToo)
  if (!isHereToo) return false
  if (run.selection.closure)
    wanted.add((await readThere(run, `what ${key} depends on`, () => dependenciesOf(run, arriving))) ?? [])
  if (run.selection.referrers) await pullAttachments(run, packId, digest, attached, limits)
  return true
}

async function pullDependency(pulling: Pulling, { packId, version: range, optional }: Dependency): Promise<void> {
  const { run } = pulling
  const there = await tagsThere(run, packId)
  const [version] = there ? versionsIn(range, there.versions) : []
  if (!there || !version) {
    if (!optional) run.report.problem(`${run.remote.url.host} has no version of ${packId} that satisfies ${range}`)
    return
  }
  const manifest = await readable(run, packId, tagOf(version))
  if (manifest) await pullVersion(pulling, { packId, version, manifest, attached: there.attached })
}

/** What a version depends on: as it is published here, or in a dry run as its config there says. */
async function dependenciesOf(run: Mirroring, { packId, version, manifest }: Arriving): Promise<Dependency[]> {
  const row = await run.deps.together.packVersion.load({ packId, version })
  if (row) return (JSON.parse(row.text) as PackDocument).dependencies
  const document: unknown = JSON.parse(manifest.bytes.toString())
  const config = configOf(document)
  const bytes = config && (await smallBlob(run, placeOf(run, packId), config.digest))
  return readArtifact(document, bytes, { packId, version }).document.dependencies
}

/** A blob of a few bytes, checked. */
async function smallBlob(run: Mirroring, place: RepositoryName, digest: Digest): Promise<Buffer> {
  const blob = await openBlob(run.remote, place, digest, run)
  if (!blob) throw new Failure('REMOTE_INVALID', { detail: `${run.remote.url.host} lacks ${digest} of ${place}` })
  // One that is longer is not read to its end, and would keep its connection.
  const bytes = await readWhole(blob, 1024 * 1024).finally(() => blob.stream.destroy())
  if (bytes && digestOf(bytes, algorithmOf(digest)) === digest) return bytes
  throw new Failure('REMOTE_INVALID', {
    detail: `${run.remote.url.host} sends something else for ${digest} of ${place}`,
  })
}
