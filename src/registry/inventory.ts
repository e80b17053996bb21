import { type InventoryPack, inventoryBytes } from '../bundles/inventory.ts'
import { askRead } from '../db/client.ts'
import { type HeldVersion, heldBlobs, heldVersions } from '../db/inventory.ts'
import type { Deps } from '../deps.ts'
import type { Digest } from '../oci/digest.ts'
import type { PackId } from '../packs/pack.ts'
import { signers } from './keys.ts'
import type { MayPull } from './resolve.ts'

/** As many rows as one statement answers: at some 5 microseconds each, far from any limit of time. */
const pageRows = 50_000

/**
 * What this site holds of packs, for others to leave it out of what they send; signed, where there is a key. What comes
 * or goes while it is put together may be in it or not: whoever imports is told of what is missing then.
 */
export async function inventoryDocument(deps: Deps, mayPull: MayPull): Promise<Buffer> {
  const packs = await packsHeld(deps, mayPull)
  const blobs = await blobsHeld(
    deps,
    packs.map(({ packId }) => packId),
  )
  return inventoryBytes({ ...blobs, packs }, await signers(deps))
}

async function packsHeld(deps: Deps, mayPull: MayPull): Promise<InventoryPack[]> {
  const byPack = new Map<PackId, HeldVersion[]>()
  let after = { packId: '', precedence: '' }
  for (let rows = pageRows; rows === pageRows; ) {
    const page = await askRead(deps.db, (sql) => heldVersions(sql, after, pageRows))
    for (const { packId, version, manifestDigest } of page) {
      const versions = byPack.get(packId) ?? []
      versions.push({ packId, version, manifestDigest })
      byPack.set(packId, versions)
    }
    rows = page.length
    after = page.at(-1) ?? after
  }
  return [...byPack].filter(([packId]) => mayPull(packId)).map(([packId, versions]) => ({ packId, versions }))
}

async function blobsHeld(deps: Deps, packIds: readonly PackId[]): Promise<{ blobs: Buffer; otherBlobs: Digest[] }> {
  const pages: Buffer[] = []
  const otherBlobs: Digest[] = []
  let after = ''
  for (let rows = pageRows; rows === pageRows; ) {
    const page = await askRead(deps.db, (sql) => heldBlobs(sql, packIds, after, pageRows))
    pages.push(page.sha256)
    otherBlobs.push(...page.others)
    rows = page.count
    after = page.last ?? after
  }
  return { blobs: Buffer.concat(pages), otherBlobs }
}
