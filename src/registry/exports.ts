import { createHash } from 'node:crypto'
import { type Cargo, type Composed, compose, documentFiles, type Listed } from '../bundles/compose.ts'
import { envelopeFile, type LeftOut } from '../bundles/contents.ts'
import { holds, type ReadInventory, readInventory } from '../bundles/inventory.ts'
import type { SigningKey } from '../bundles/keys.ts'
import { defaultLimits } from '../bundles/read.ts'
import type { Transaction } from '../db/client.ts'
import {
  type ExportedManifest,
  exportedBlobs,
  exportedManifests,
  exportedTags,
  type LivingVersion,
  type PackManifest,
} from '../db/exports.ts'
import type { Deps } from '../deps.ts'
import type { Digest } from '../oci/digest.ts'
import type { Tag } from '../oci/reference.ts'
import { attachedTo, roleOf } from '../packs/channel.ts'
import { layoutFormat } from '../packs/layout.ts'
import { type PackId, repositoryOf } from '../packs/pack.ts'
import {
  asProblem,
  type Choice,
  chooseVersions,
  type ExportRequest,
  mostFiles,
  type Problem,
  tooMany,
} from './export-request.ts'
import { signers, trustedKeys } from './keys.ts'
import { incomplete, type Layout, layoutOf, type Source } from './layout.ts'
import { atOneMoment, type MayPull } from './resolve.ts'

// A bundle file is planned in one transaction, which sees the registry at one moment, and made while it is sent: nothing
// is stored for it. Its bytes follow from what was asked, what is published and the keys, so any replica gives the same,
// and any part of it can be made by itself. What is deleted after it was planned ends the answer, in the middle if need
// be: the content of a digest is there, or it is not.

/** What of a file is made and not stored elsewhere, and which manifests it holds. `id` names its bytes. */
export type BundleFile = Composed & { id: string; manifests: readonly PackManifest[] }

/** A bundle as it would be made now. Without `file` there are problems. */
export type Plan = {
  problems: Problem[]
  packs: LivingVersion[]
  channels: { packId: PackId; channel: Tag; manifestDigest: Digest }[]
  referrers: (Listed & { subject: Digest })[]
  leftOut: LeftOut[]
  inventory: ReadInventory | undefined
  signedBy: string[]
  made: { file: BundleFile; layout: Layout; blobs: number; bytes: number } | undefined
}

/** The longest a plan may take: a hundred thousand versions are some seconds of work. */
export const planMs = 3 * 60 * 1000
/** Manifests that one statement is asked about. */
const atOnce = 5_000

/** Plans a bundle. Throws INVENTORY_INVALID, REQUEST_INVALID; whatever else is wrong is among its problems, at once. */
export async function planBundle(deps: Deps, request: ExportRequest, mayPull: MayPull): Promise<Plan> {
  const inventory =
    request.inventory === undefined ? undefined : readInventory(request.inventory, await trustedKeys(deps))
  const keys = await signers(deps)
  const found = await atOneMoment(deps, (tx) => gather(deps, tx, request, mayPull), { answerMs: planMs })
  const leftOut = inventory ? found.blobs.filter(({ digest }) => holds(inventory.inventory, digest)) : []
  const { packs } = found.choice
  const plan = {
    ...{ problems: found.problems, packs, inventory, signedBy: keys.map(({ keyid }) => keyid) },
    leftOut: leftOut.map(({ digest, size }) => ({ digest, size })),
    channels: found.tags.flatMap(({ packId, tag, digest }) =>
      attachedTo(tag) ? [] : { packId, channel: tag, manifestDigest: digest },
    ),
    referrers: found.referrers,
  }
  if (found.problems.length > 0) return { ...plan, made: undefined }
  const left = new Set(leftOut.map(({ digest }) => digest))
  const blobs = found.blobs.filter(({ digest }) => !left.has(digest))
  const made = make(found, { blobs, leftOut: plan.leftOut, base: inventory?.digest, keys })
  const isTooLarge = made.blobs > mostFiles || made.file.index.length > defaultLimits.indexBytes
  return isTooLarge ? { ...plan, problems: [tooMany(made.blobs)], made: undefined } : { ...plan, made }
}

type StoredManifest = ExportedManifest & { size: number; mediaType: string }
type Gathered = {
  choice: Choice
  problems: Problem[]
  manifests: StoredManifest[]
  tags: (Listed & { packId: PackId; tag: Tag })[]
  referrers: (Listed & { subject: Digest })[]
  blobs: Awaited<ReturnType<typeof exportedBlobs>>
}

/** Everything that belongs into the file, as it is at one moment. */
async function gather(deps: Deps, tx: Transaction, request: ExportRequest, mayPull: MayPull): Promise<Gathered> {
  const choice = await chooseVersions(deps, tx, request, mayPull)
  const roots = choice.packs.map(({ packId, manifestDigest }) => ({ packId, digest: manifestDigest }))
  const rows = onceEachPlace(await inTurns(roots, (some) => exportedManifests(tx, some, request)))
  const manifests = onceEach(rows)
  const here = new Set(manifests.map(({ digest }) => digest))
  const missing = rows.filter(({ digest }) => !here.has(digest))
  const problems = [...choice.problems, ...missingProblems(missing)]
  const tags = leavingTags(await inTurns(rows, (some) => exportedTags(tx, some)), request, choice, here)
  const referrers = request.referrers
    ? manifests.flatMap((manifest) =>
        manifest.subject && here.has(manifest.subject) ? { ...listed(manifest), subject: manifest.subject } : [],
      )
    : []
  const known = new Map(manifests.map((manifest) => [manifest.digest, manifest]))
  return {
    ...{ choice, problems, manifests, referrers },
    tags: tags.flatMap(({ packId, tag, digest }) => {
      const manifest = known.get(digest)
      return manifest ? { ...listed(manifest), packId, tag } : []
    }),
    blobs: await blobsOf(tx, manifests),
  }
}

/** The blobs that these manifests need, each once; by digest. */
export async function blobsOf(tx: Transaction, manifests: readonly PackManifest[]): Promise<Gathered['blobs']> {
  const blobs = await inTurns(manifests, (some) => exportedBlobs(tx, some))
  return [...new Map(blobs.map((blob) => [blob.digest, blob])).values()].sort(byDigest)
}

/** Asks about some at a time, so that no statement runs into its time limit. */
export async function inTurns<T, R>(list: readonly T[], question: (some: readonly T[]) => Promise<R[]>): Promise<R[]> {
  const answers: R[] = []
  for (let at = 0; at < list.length; at += atOnce)
    for (const answer of await question(list.slice(at, at + atOnce))) answers.push(answer)
  return answers
}

/** What several roots list is found with each of them. By digest, then by pack. */
function onceEachPlace(rows: readonly ExportedManifest[]): ExportedManifest[] {
  const found = new Map(rows.map((row) => [`${row.packId} ${row.digest}`, row]))
  return [...found.values()].sort((a, b) => byDigest(a, b) || (a.packId < b.packId ? -1 : 1))
}

function byDigest(a: { digest: Digest }, b: { digest: Digest }): number {
  return a.digest < b.digest ? -1 : a.digest > b.digest ? 1 : 0
}

/** A manifest may stand in the repositories of several packs; it is in the file once. */
function onceEach(rows: readonly ExportedManifest[]): StoredManifest[] {
  const found = new Map<Digest, StoredManifest>()
  for (const { size, mediaType, ...row } of rows)
    if (size !== null && mediaType !== null && !found.has(row.digest))
      found.set(row.digest, { ...row, size, mediaType })
  return [...found.values()]
}

function missingProblems(missing: readonly PackManifest[]): Problem[] {
  return [...digestsByPack(missing)].map(([packId, digests]) => asProblem(incomplete(repositoryOf(packId), digests)))
}

export function digestsByPack(manifests: readonly PackManifest[]): Map<PackId, Digest[]> {
  const byPack = new Map<PackId, Digest[]>()
  for (const { packId, digest } of manifests) {
    const digests = byPack.get(packId) ?? []
    digests.push(digest)
    byPack.set(packId, digests)
  }
  return byPack
}

/** Versions have their own names in the file, and each site keeps its own `latest`. */
function leavingTags(
  tags: Awaited<ReturnType<typeof exportedTags>>,
  { channels, referrers }: ExportRequest,
  { packs }: Choice,
  here: ReadonlySet<Digest>,
) {
  const versions = new Set(packs.map(({ packId, manifestDigest }) => `${packId} ${manifestDigest}`))
  return tags.filter(({ packId, tag, digest }) => {
    const subject = attachedTo(tag)
    if (subject) return referrers && here.has(subject)
    return channels && roleOf(tag).kind === 'channel' && versions.has(`${packId} ${digest}`)
  })
}

function listed({ digest, size, mediaType, artifactType }: StoredManifest): Listed {
  return { digest, size, mediaType, artifactType: artifactType ?? undefined }
}

function make(
  { choice, manifests, tags, referrers }: Gathered,
  { blobs, keys, ...cut }: Pick<Gathered, 'blobs'> & Pick<Cargo, 'leftOut' | 'base'> & { keys: readonly SigningKey[] },
): NonNullable<Plan['made']> {
  const known = new Map(manifests.map((manifest) => [manifest.digest, manifest]))
  const packs = choice.packs.flatMap(({ packId, version, manifestDigest }) => {
    const manifest = known.get(manifestDigest)
    return manifest ? { ...listed(manifest), packId, version } : []
  })
  const content = [...manifests, ...blobs]
  const composed = compose({ packs, tags, referrers, lock: choice.lock, ...cut, content }, keys)
  const file = {
    ...composed,
    id: idOf(composed),
    manifests: manifests.map(({ packId, digest }) => ({ packId, digest })),
  }
  const layout = layoutOfFile(composed, manifests, blobs)
  const sizes = [...layout.sources.values()]
  return { file, layout, blobs: sizes.length, bytes: sizes.reduce((sum, { size }) => sum + size, 0) }
}

/** The index names everything in the file by its digest, so with the signature it stands for all of its bytes. */
function idOf({ index, envelope }: Composed): string {
  const hash = createHash('sha256').update(`bundle file, layout ${layoutFormat}\n`)
  for (const part of [index, envelope]) hash.update(`${part?.length ?? 'no'} bytes\n`).update(part ?? '')
  return hash.digest('hex')
}

/** The file of these parts, manifests and blobs. */
export function layoutOfFile(
  { index, envelope, lock, missing }: Composed,
  manifests: readonly (PackManifest & { size: number })[],
  blobs: Awaited<ReturnType<typeof exportedBlobs>>,
): Layout {
  const sources: Source[] = [
    ...blobs,
    ...manifests.map(({ packId, digest, size }) => ({ digest, size, repository: repositoryOf(packId) })),
    ...documentFiles(lock, missing),
  ]
  return layoutOf(index, sources, envelope && { name: envelopeFile, bytes: envelope })
}
