import { createHash } from 'node:crypto'
import { type LeftOut, parseMissing } from '../bundles/contents.ts'
import { ask, askRead } from '../db/client.ts'
import { expirePlanned, findPlanned, keepPlanned, manifestSizes, type PackManifest } from '../db/exports.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import type { Digest } from '../oci/digest.ts'
import type { PackId } from '../packs/pack.ts'
import { type BundleFile, blobsOf, digestsByPack, inTurns, layoutOfFile, planMs } from './exports.ts'
import { type Layout, layoutBytes } from './layout.ts'
import { atOneMoment, type MayPull } from './resolve.ts'

/** How long a planned file can be fetched: a large one over a bad line takes days. Planning it again begins anew. */
const lifeSeconds = 7 * 24 * 60 * 60

/** Keeps a file, so that the very same one can be fetched by its id, from any replica. Answers until when. */
export async function keepFile(
  deps: Deps,
  { id, index, envelope, lock, missing, manifests }: BundleFile,
): Promise<Date> {
  const expiresAt = new Date(Date.now() + lifeSeconds * 1000)
  const byPack = [...digestsByPack(manifests)]
  const row = { id, index, envelope: envelope ?? null, lock, missing: missing ?? null }
  await ask(deps.db, async (sql) => {
    await keepPlanned(sql, { ...row, manifests: JSON.stringify(byPack) }, expiresAt)
    await expirePlanned(sql)
  })
  return expiresAt
}

/**
 * A file that was planned, as it was then. Throws BUNDLE_UNKNOWN, also where whoever asks may not read a pack of it;
 * BUNDLE_GONE where content of it was deleted since.
 */
export async function plannedLayout(deps: Deps, id: string, mayPull: MayPull): Promise<Layout> {
  const row = await askRead(deps.db, (sql) => findPlanned(sql, id))
  const packs = row ? (JSON.parse(row.manifests) as [PackId, Digest[]][]) : []
  if (!row || !packs.every(([packId]) => mayPull(packId)))
    throw new Failure('BUNDLE_UNKNOWN', {
      detail: 'no bundle file of this id is planned, or not any more; plan it again: POST /bundles/plan',
    })
  const composed = {
    ...{ index: row.index, envelope: row.envelope ?? undefined, lock: row.lock },
    missing: row.missing ?? undefined,
  }
  const manifests = packs.flatMap(([packId, digests]) => digests.map((digest) => ({ packId, digest })))
  const leftOut = composed.missing ? parseMissing(composed.missing) : []
  return layoutOfFile(composed, ...(await contentNow(deps, manifests, leftOut)))
}

/** Manifests and blobs as they are now. Blobs stay as long as a manifest needs them. */
async function contentNow(deps: Deps, manifests: readonly PackManifest[], leftOut: readonly LeftOut[]) {
  const [stored, blobs] = await atOneMoment(
    deps,
    async (tx) => [await inTurns(manifests, (some) => manifestSizes(tx, some)), await blobsOf(tx, manifests)] as const,
    { answerMs: planMs },
  )
  if (stored.length < manifests.length) {
    const here = new Set(stored.map(({ digest }) => digest))
    const gone = manifests.filter(({ digest }) => !here.has(digest))
    throw new Failure('BUNDLE_GONE', {
      detail: `${gone[0]?.packId} has deleted what this file was planned with; plan it again: POST /bundles/plan`,
      about: { packIds: [...new Set(gone.map(({ packId }) => packId))].slice(0, 100) },
    })
  }
  const left = new Set(leftOut.map(({ digest }) => digest))
  return [stored, blobs.filter(({ digest }) => !left.has(digest))] as const
}

/** The sha256 of the whole file, which is read for it. */
export async function sha256Of(deps: Deps, layout: Layout): Promise<string> {
  const hash = createHash('sha256')
  const whole = { first: 0, last: layout.size - 1 }
  for await (const bytes of layoutBytes(deps, layout, whole)) hash.update(bytes)
  return hash.digest('hex')
}
