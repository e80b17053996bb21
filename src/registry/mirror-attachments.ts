import { askRead } from '../db/client.ts'
import { tagTarget } from '../db/tags.ts'
import { Failure } from '../errors.ts'
import type { Digest } from '../oci/digest.ts'
import { parseManifest } from '../oci/manifest.ts'
import type { Tag } from '../oci/reference.ts'
import { type PackId, repositoryOf } from '../packs/pack.ts'
import { listReferrers } from '../remote/listings.ts'
import { getManifest, type RemoteManifest } from '../remote/manifests.ts'
import { storeTree } from './mirror-store.ts'
import { attempt, type Mirroring, manifestHere, placeOf, readThere } from './mirroring.ts'

// What a remote lists as referrers is only what it says: a list may come back to itself, name what belongs to something
// else, or have no end. So a referrer is taken when its own bytes name the subject that it is listed under, once for each
// version, and no more of them than any version has. What names a subject cannot be older than that, so a walk that asks
// the bytes goes in no circles.

/** Tags that say by their name what they belong to (cosign's). */
export type Attached = ReadonlyMap<Digest, readonly Tag[]>

/** `mostDeep`: of referrers of referrers. `mostReferrers`: of one version, at any depth. */
export type AttachmentLimits = { mostDeep: number; mostReferrers: number }
export const attachmentLimits: AttachmentLimits = { mostDeep: 8, mostReferrers: 10_000 }

/** How far a walk through what hangs on a version has come, on the side that it is read from. */
export type Walk = { packId: PackId; side: 'here' | 'there'; looked: number; limits: AttachmentLimits }

type Pull = Walk & { attached: Attached; taken: Set<Digest> }

/** Brings what hangs on a version there. What cannot be brought is in the report. */
export function pullAttachments(
  run: Mirroring,
  packId: PackId,
  version: Digest,
  attached: Attached,
  limits = attachmentLimits,
): Promise<void> {
  return pullBelow(run, { packId, side: 'there', looked: 0, limits, attached, taken: new Set() }, version, 0)
}

async function pullBelow(run: Mirroring, walk: Pull, subject: Digest, depth: number): Promise<void> {
  const { packId, attached, taken } = walk
  const place = placeOf(run, packId)
  for (const tag of attached.get(subject) ?? []) {
    if (isBeyond(run, walk, subject, depth)) return
    const manifest = await readThere(run, `${packId}:${tag}`, () => getManifest(run.remote, place, tag, run))
    if (manifest) await pullTag(run, packId, { tag, kind: 'referrer', digest: manifest.digest }, manifest)
  }
  const listed = await readThere(run, `what refers to ${subject} of ${packId}`, () =>
    listReferrers(run.remote, place, subject, run),
  )
  for (const { digest } of listed?.referrers ?? []) {
    if (taken.has(digest)) continue
    if (isBeyond(run, walk, subject, depth)) return
    if (!(await pullReferrer(run, packId, subject, digest))) continue
    taken.add(digest)
    await pullBelow(run, walk, digest, depth + 1)
  }
}

/** Whether no more is looked at, and says so in the report. */
export function isBeyond(run: Mirroring, walk: Walk, subject: Digest, depth: number): boolean {
  const { mostDeep, mostReferrers } = walk.limits
  if (depth <= mostDeep && walk.looked++ < mostReferrers) return false
  const reason = depth > mostDeep ? `goes deeper than ${mostDeep}` : `is more than ${mostReferrers} for one version`
  run.report.problem(`what refers to ${subject} of ${walk.packId} ${walk.side} ${reason}: the rest was left`)
  return true
}

/** Whether it is here now, or in a dry run would be. */
async function pullReferrer(run: Mirroring, packId: PackId, subject: Digest, digest: Digest): Promise<boolean> {
  let isThere = false
  const state = await attempt(run, { kind: 'referrer', packId, reference: digest, digest }, async () => {
    const here = await manifestHere(run, repositoryOf(packId), digest)
    const stored = here?.payload && { digest, mediaType: here.mediaType, bytes: here.payload }
    const manifest = stored ?? (await getManifest(run.remote, placeOf(run, packId), digest, run))
    if (!manifest) return { state: 'missing', detail: 'it is listed there, and is not there' }
    const { subject: named } = parseManifest(manifest.bytes, manifest.mediaType || undefined)
    if (named !== subject)
      throw new Failure('REMOTE_INVALID', {
        detail: `it is listed there under ${subject}, and refers to ${named ?? 'nothing'}`,
      })
    isThere = true
    if (stored) return { state: 'same' }
    if (run.dryRun) return { state: 'missing' }
    await storeTree(run, packId, manifest, undefined)
    return { state: 'same' }
  })
  return state === 'same' || (state === 'missing' && isThere)
}

/** Makes a tag here name what it names there. `known`: its manifest, where it is at hand. */
export async function pullTag(
  run: Mirroring,
  packId: PackId,
  { tag, digest, kind }: { tag: Tag; digest: Digest; kind: 'channel' | 'referrer' },
  known?: RemoteManifest,
): Promise<void> {
  await attempt(run, { kind, packId, reference: tag, digest }, async () => {
    const here = await askRead(run.deps.db, (sql) => tagTarget(sql, repositoryOf(packId), tag))
    if (here === digest) return { state: 'same' }
    if (run.dryRun) return here ? { state: 'different', there: here } : { state: 'missing' }
    const manifest = known ?? (await getManifest(run.remote, placeOf(run, packId), digest, run))
    if (!manifest) return { state: 'missing', detail: 'it was there, and is not there any more' }
    await storeTree(run, packId, manifest, tag)
    return { state: 'same' }
  })
}
