import { askRead } from '../db/client.ts'
import { attachedTags, type TaggedVersion, versionsAfter } from '../db/mirrored.ts'
import { listReferrers as referrersHere } from '../db/referrers.ts'
import { Failure } from '../errors.ts'
import type { Descriptor } from '../oci/descriptor.ts'
import type { Digest } from '../oci/digest.ts'
import { mediaTypes } from '../oci/media-types.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Tag } from '../oci/reference.ts'
import { roleOf } from '../packs/channel.ts'
import { type PackId, repositoryOf } from '../packs/pack.ts'
import { openPatterns, versionsIn } from '../packs/selection.ts'
import { tagOf, type Version } from '../packs/version.ts'
import { fallbackTag, listReferrers } from '../remote/listings.ts'
import { getManifest, putManifest } from '../remote/manifests.ts'
import { type AttachmentLimits, attachmentLimits, isBeyond, type Walk } from './mirror-attachments.ts'
import { pushTree } from './mirror-send.ts'
import { attempt, each, type Mirroring, placeOf, refusalOf, tried } from './mirroring.ts'
import { resolveVersion } from './resolve.ts'

// Pushing goes version by version: what it needs first, its manifest and tag, what refers to it, and when all versions are
// there, the channels. A target that keeps the rules of packs refuses a version before what it depends on: such versions
// are put back, and tried again for as long as others get through.

/** A version on its way, with the tags that travel along. */
type Traveller = Pick<TaggedVersion, 'packId' | 'version' | 'manifestDigest'> & { channels: Tag[] }

/** Brings what is selected here to the other registry. */
export async function pushSelected(run: Mirroring, limits = attachmentLimits): Promise<void> {
  const channels: (Traveller & { arrived: boolean })[] = []
  const send = async (version: Traveller, back: Traveller[] | undefined) => {
    const outcome = await pushVersion(run, version, limits, back !== undefined)
    if (outcome === 'waits') back?.push(version)
    else if (version.channels.length > 0) channels.push({ ...version, arrived: outcome === 'arrived' })
  }
  let waiting: Traveller[] = []
  await each(travellers(run), run.concurrency, (version) => send(version, waiting))
  for (let before = Number.POSITIVE_INFINITY; waiting.length > 0; ) {
    const still: Traveller[] | undefined = waiting.length < before ? [] : undefined
    before = waiting.length
    await each(waiting, 1, (version) => send(version, still))
    waiting = still ?? []
  }
  await each(channels, run.concurrency, async (version) => {
    for (const tag of version.channels) await pushChannel(run, version, tag)
  })
}

const packsAtOnce = 100

/** The selected versions, each once; with closure, also what each of them resolves to. */
async function* travellers(run: Mirroring): AsyncGenerator<Traveller, void, undefined> {
  const seen = new Set<string>()
  const isNew = ({ packId, version }: { packId: PackId; version: Version }) => {
    const key = `${packId}@${version}`
    return !seen.has(key) && Boolean(seen.add(key))
  }
  const { selection, deps } = run
  for (let after = ''; ; ) {
    const rows = await askRead(deps.db, (sql) => versionsAfter(sql, after, packsAtOnce))
    if (rows.length === 0) return
    after = rows.at(-1)?.packId ?? after
    for (const row of selectedOf(run, rows)) {
      if (selection.closure)
        for (const needed of await closureOf(run, row))
          if (needed.packId !== row.packId && isNew(needed)) yield { ...needed, channels: [] }
      if (isNew(row)) yield { ...row, channels: channelsOf(run, row) }
    }
  }
}

function selectedOf({ selection }: Mirroring, rows: readonly TaggedVersion[]): TaggedVersion[] {
  const { channels, types, versions } = selection
  const isNamed = openPatterns(selection.packs)
  const byPack = new Map<PackId, TaggedVersion[]>()
  for (const row of rows) {
    const all = byPack.get(row.packId)
    if (all) all.push(row)
    else byPack.set(row.packId, [row])
  }
  return [...byPack].flatMap(([packId, all]) => {
    if (!isNamed(packId)) return []
    const accepted = new Set(versionsIn(versions, all.map((row) => row.version).toReversed()))
    return all.filter(
      (row) =>
        accepted.has(row.version) &&
        (!types || types.includes(row.type)) &&
        (!channels || row.tags.some((tag) => channels.includes(tag))),
    )
  })
}

function channelsOf({ selection: { channels } }: Mirroring, { tags }: TaggedVersion): Tag[] {
  return tags.filter((tag) => {
    const { kind } = roleOf(tag)
    return (kind === 'channel' || kind === 'latest') && (!channels || channels.includes(tag))
  })
}

async function closureOf(run: Mirroring, { packId, version }: TaggedVersion) {
  try {
    return await resolveVersion(run.deps, { packId, version }, {}, () => true)
  } catch (error) {
    run.report.problem(`${packId} ${version} does not resolve here: ${refusalOf(error)}`)
    return []
  }
}

/** `waits`: the target wants its dependencies first, and it may wait; nothing is reported of it then. */
async function pushVersion(
  run: Mirroring,
  traveller: Traveller,
  limits: AttachmentLimits,
  mayWait: boolean,
): Promise<'arrived' | 'waits' | 'kept out'> {
  const { packId, version, manifestDigest: digest } = traveller
  run.note({ pack: packId })
  let waits = false
  const parity = await tried({ kind: 'version', packId, reference: version, digest }, async () => {
    try {
      return await bring(run, packId, digest, tagOf(version), { overwrite: false })
    } catch (error) {
      waits = mayWait && error instanceof Failure && error.about?.code === 'MANIFEST_INVALID'
      throw error
    }
  })
  if (waits) return 'waits'
  run.report.add(parity)
  const isHereToo = parity.state === 'same' || (run.dryRun && parity.state === 'missing')
  if (run.selection.referrers && isHereToo)
    await pushAttachments(run, { packId, side: 'here', looked: 0, limits }, digest)
  return isHereToo ? 'arrived' : 'kept out'
}

async function pushChannel(
  run: Mirroring,
  { packId, version, manifestDigest: digest, arrived }: Traveller & { arrived: boolean },
  tag: Tag,
): Promise<void> {
  await attempt(run, { kind: 'channel', packId, reference: tag, digest }, async () => {
    if (!arrived) return { state: 'missing', detail: `${version}, which it names, did not get there` }
    try {
      return await bring(run, packId, digest, tag, { overwrite: true })
    } catch (error) {
      if (tag !== 'latest' || !(error instanceof Failure) || error.key !== 'REMOTE_REFUSED') throw error
      // A registry of packs keeps `latest` itself, over all versions that it has.
      const there = await getManifest(run.remote, placeOf(run, packId), tag, run)
      if (!there) throw error
      return { state: 'same', there: there.digest, detail: 'latest is kept by the other registry' }
    }
  })
}

type Outcome = { state: 'same' | 'missing' | 'different'; there?: Digest | undefined; detail?: string }

/** Makes a reference there name a manifest of ours, and looks whether it does. */
async function bring(
  run: Mirroring,
  packId: PackId,
  digest: Digest,
  reference: Tag | Digest,
  { overwrite }: { overwrite: boolean },
): Promise<Outcome> {
  const place = placeOf(run, packId)
  const there = await getManifest(run.remote, place, reference, run)
  if (there?.digest === digest) return { state: 'same' }
  if (there && (!overwrite || run.dryRun)) return { state: 'different', there: there.digest }
  if (run.dryRun) return { state: 'missing' }
  await pushTree(run, packId, digest, reference)
  const now = await getManifest(run.remote, place, reference, run)
  if (now?.digest === digest) return { state: 'same' }
  return now ? { state: 'different', there: now.digest } : { state: 'missing', detail: 'it was sent, and is not there' }
}

/** What refers to a manifest, by its subject or by its tag, within the bounds that a pull has. */
async function pushAttachments(run: Mirroring, walk: Walk, subject: Digest, depth = 0): Promise<void> {
  const { packId } = walk
  const repository = repositoryOf(packId)
  for (const { tag, digest } of await askRead(run.deps.db, (sql) => attachedTags(sql, repository, subject))) {
    if (isBeyond(run, walk, subject, depth)) return
    await attempt(run, { kind: 'referrer', packId, reference: tag, digest }, () =>
      bring(run, packId, digest, tag, { overwrite: true }),
    )
  }
  const arrived: Descriptor[] = []
  for await (const referrer of referrersOf(run, packId, subject)) {
    if (isBeyond(run, walk, subject, depth)) break
    const { digest } = referrer
    const state = await attempt(run, { kind: 'referrer', packId, reference: digest, digest }, () =>
      bring(run, packId, digest, digest, { overwrite: false }),
    )
    if (state === 'same') arrived.push(referrer)
    await pushAttachments(run, walk, digest, depth + 1)
  }
  if (arrived.length > 0 && !run.dryRun) await listByTag(run, placeOf(run, packId), subject, arrived)
}

const referrersAtOnce = { limit: 1000, maxBytes: 4 * 1024 * 1024 }

/** What names a manifest here as its subject, page by page. */
async function* referrersOf(run: Mirroring, packId: PackId, subject: Digest): AsyncGenerator<Descriptor, void> {
  const repository = repositoryOf(packId)
  for (let more = true, last = ''; more; ) {
    const page = await askRead(run.deps.db, (sql) =>
      referrersHere(sql, repository, subject, { last, ...referrersAtOnce }),
    )
    yield* page.referrers.map(descriptorOf)
    last = page.referrers.at(-1)?.digest ?? ''
    more = page.more
  }
}

function descriptorOf(row: Awaited<ReturnType<typeof referrersHere>>['referrers'][number]): Descriptor {
  const { mediaType, digest, size, artifactType, annotations } = row
  return { mediaType, digest, size, ...(artifactType ? { artifactType } : {}), ...(annotations ? { annotations } : {}) }
}

/** Where the remote lacks the referrers API, the list under the fallback tag is kept by those who push. */
async function listByTag(
  run: Mirroring,
  place: RepositoryName,
  subject: Digest,
  arrived: readonly Descriptor[],
): Promise<void> {
  const { referrers: there, api } = await listReferrers(run.remote, place, subject, run)
  const listed = new Set(there.map(({ digest }) => digest))
  const missing = arrived.filter(({ digest }) => !listed.has(digest))
  if (api || missing.length === 0) return
  const manifests = [...there, ...missing].sort((a, b) => (a.digest < b.digest ? -1 : 1))
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.index, manifests }))
  await putManifest(run.remote, place, fallbackTag(subject), { mediaType: mediaTypes.index, bytes }, run)
  run.report.moved.manifests++
}
