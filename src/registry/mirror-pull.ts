import { askRead } from '../db/client.ts'
import { tagTarget } from '../db/mirrored.ts'
import { findRelease } from '../db/packs.ts'
import { Failure } from '../errors.ts'
import { algorithmOf, type Digest, digestOf } from '../oci/digest.ts'
import { parseManifest } from '../oci/manifest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Tag } from '../oci/reference.ts'
import { configOf, readArtifact } from '../packs/artifact.ts'
import { roleOf } from '../packs/channel.ts'
import {
  type Dependency,
  type PackDocument,
  type PackId,
  packTypes,
  parsePackId,
  repositoryOf,
  typeOfArtifact,
} from '../packs/pack.ts'
import { isPattern, openPatterns, versionsIn } from '../packs/selection.ts'
import { compareVersions, tagOf, type Version } from '../packs/version.ts'
import { openBlob } from '../remote/blobs.ts'
import { listReferrers, listRepositories, listTags } from '../remote/listings.ts'
import { getManifest, type RemoteManifest } from '../remote/manifests.ts'
import { readWhole } from './body.ts'
import { isHere, storeTree } from './mirror-store.ts'
import { attempt, each, type Mirroring, placeOf, refusalOf } from './mirroring.ts'

// Pulling goes pack by pack: the versions that are selected, each with its blobs first, through the same rules as any
// push, but that its dependencies may still be missing; what refers to it; then the channels. With closure, what the
// versions depend on is pulled as well, the highest version there that each range accepts.

/** The versions that were looked at, and whether each is here now. */
type Taken = Map<string, boolean>

/** Brings what is selected there to this registry. */
export async function pullSelected(run: Mirroring): Promise<void> {
  const taken: Taken = new Map()
  const wanted: Dependency[] = []
  await each(await packsThere(run), run.concurrency, (packId) => pullPack(run, packId, taken, wanted))
  while (wanted.length > 0) {
    const now = wanted.splice(0)
    await each(now, run.concurrency, (dependency) => pullDependency(run, dependency, taken, wanted))
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

type There = { versions: Version[]; channels: Tag[]; attached: Tag[] }

/** The tags of a pack there by what they are, the versions highest first. */
async function tagsThere(run: Mirroring, packId: PackId): Promise<There | undefined> {
  const tags = await listTags(run.remote, placeOf(run, packId), run)
  if (!tags) return undefined
  const there: There = { versions: [], channels: [], attached: [] }
  for (const tag of tags) {
    const role = roleOf(tag)
    if (role.kind === 'version') there.versions.push(role.version)
    else if (role.kind === 'channel') there.channels.push(tag)
    else if (role.kind === 'attachment' && tag.includes('.')) there.attached.push(tag)
  }
  there.versions.sort((a, b) => compareVersions(b, a))
  return there
}

async function pullPack(run: Mirroring, packId: PackId, taken: Taken, wanted: Dependency[]): Promise<void> {
  const there = await tagsThere(run, packId)
  if (!there) {
    if (run.selection.packs.includes(packId)) run.report.problem(`${run.remote.url.host} has no pack ${packId}`)
    return
  }
  const { selection } = run
  const channels = there.channels.filter((tag) => !selection.channels || selection.channels.includes(tag))
  const named = new Map<Tag, RemoteManifest>()
  for (const tag of channels) {
    const manifest = await readable(run, packId, tag)
    if (manifest) named.set(tag, manifest)
  }
  const digests = new Set([...named.values()].map(({ digest }) => digest))
  const present = new Set<Digest>()
  for (const version of versionsIn(selection.versions, there.versions).toReversed()) {
    const manifest = await readable(run, packId, tagOf(version))
    if (!manifest || (selection.channels && !digests.has(manifest.digest)) || !isOfType(run, manifest)) continue
    const arriving = { packId, version, manifest, attached: there.attached }
    if (await pullVersion(run, arriving, taken, wanted)) present.add(manifest.digest)
  }
  for (const [tag, manifest] of named)
    if (present.has(manifest.digest)) await pullTag(run, packId, tag, manifest, 'channel')
}

/** What a tag names there; undefined, and said in the report, where that cannot be used. */
async function readable(run: Mirroring, packId: PackId, tag: Tag): Promise<RemoteManifest | undefined> {
  try {
    return await getManifest(run.remote, placeOf(run, packId), tag, run)
  } catch (error) {
    run.report.problem(`${packId}:${tag} cannot be read there: ${refusalOf(error)}`)
    return undefined
  }
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

type Arriving = { packId: PackId; version: Version; manifest: RemoteManifest; attached: readonly Tag[] }

/** Whether the version is here now. */
async function pullVersion(run: Mirroring, arriving: Arriving, taken: Taken, wanted: Dependency[]): Promise<boolean> {
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
  if (run.selection.closure) wanted.push(...(await dependenciesOf(run, arriving)))
  if (run.selection.referrers) await pullAttachments(run, packId, digest, attached)
  return true
}

async function pullDependency(
  run: Mirroring,
  { packId, version: range, optional }: Dependency,
  taken: Taken,
  wanted: Dependency[],
): Promise<void> {
  const there = await tagsThere(run, packId)
  const [version] = there ? versionsIn(range, there.versions) : []
  if (!there || !version) {
    if (!optional) run.report.problem(`${run.remote.url.host} has no version of ${packId} that satisfies ${range}`)
    return
  }
  const manifest = await readable(run, packId, tagOf(version))
  if (manifest) await pullVersion(run, { packId, version, manifest, attached: there.attached }, taken, wanted)
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
  const bytes = await readWhole(blob, 1024 * 1024)
  if (bytes && digestOf(bytes, algorithmOf(digest)) === digest) return bytes
  throw new Failure('REMOTE_INVALID', {
    detail: `${run.remote.url.host} sends something else for ${digest} of ${place}`,
  })
}

async function pullTag(
  run: Mirroring,
  packId: PackId,
  tag: Tag,
  manifest: RemoteManifest,
  kind: 'channel' | 'referrer',
): Promise<void> {
  const repository = repositoryOf(packId)
  const { digest } = manifest
  await attempt(run, { kind, packId, reference: tag, digest }, async () => {
    const here = await askRead(run.deps.db, (sql) => tagTarget(sql, repository, tag))
    if (here === digest) return { state: 'same' }
    if (run.dryRun) return here ? { state: 'different', there: here } : { state: 'missing' }
    await storeTree(run, packId, manifest, tag)
    return { state: 'same' }
  })
}

/** How deep referrers of referrers go. */
const mostDeep = 8

async function pullAttachments(
  run: Mirroring,
  packId: PackId,
  subject: Digest,
  attached: readonly Tag[],
  depth = 0,
): Promise<void> {
  const place = placeOf(run, packId)
  for (const tag of attached.filter((name) => name.startsWith(`${subject.replace(':', '-')}.`))) {
    const manifest = await getManifest(run.remote, place, tag, run)
    if (manifest) await pullTag(run, packId, tag, manifest, 'referrer')
  }
  const { referrers } = await listReferrers(run.remote, place, subject, run)
  for (const { digest } of referrers) {
    await attempt(run, { kind: 'referrer', packId, reference: digest, digest }, async () => {
      if (await isHere(run, repositoryOf(packId), digest)) return { state: 'same' }
      if (run.dryRun) return { state: 'missing' }
      const manifest = await getManifest(run.remote, place, digest, run)
      if (!manifest) return { state: 'missing', detail: 'it is listed there, and is not there' }
      await storeTree(run, packId, manifest, undefined)
      return { state: 'same' }
    })
    if (depth < mostDeep) await pullAttachments(run, packId, digest, attached, depth + 1)
  }
}
