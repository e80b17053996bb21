import { ask, type Transaction } from '../db/client.ts'
import { deleteHold, findHolds, type Hold, putHold } from '../db/holds.ts'
import { findRelease, lockPack } from '../db/packs.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import { type PackId, repositoryOf } from '../packs/pack.ts'
import type { Version } from '../packs/version.ts'

// A held version is deleted by nobody, whatever right they have and whatever they force, until it is released. It is
// held under the lock of its pack, under which versions are deleted: either the deletion comes first, and there is
// nothing left to hold, or it finds the hold.

/** Holds a version; again: with another reason. Throws VERSION_UNKNOWN. */
export function holdVersion(deps: Deps, hold: Omit<Hold, 'heldAt'>): Promise<Hold> {
  const { packId, version } = hold
  return ask(deps.db, (sql) =>
    sql.begin(async (tx) => {
      const there = (await findRelease(tx, packId, version))?.manifestDigest
      if (there) await lockPack(tx, packId, repositoryOf(packId))
      const found = there && (await findRelease(tx, packId, version))
      if (found?.manifestDigest && found.version === version) return putHold(tx, hold)
      throw new Failure('VERSION_UNKNOWN', { detail: `${packId} has no version ${version} that could be held` })
    }),
  ) as Promise<Hold>
}

/** Lets a version be deleted again. False where it was not held. */
export function releaseVersion(deps: Deps, packId: PackId, version: Version): Promise<boolean> {
  return ask(deps.db, (sql) => deleteHold(sql, packId, version))
}

/** Throws VERSION_HELD where one of these is held. Under the pack's lock. */
export async function requireNotHeld(tx: Transaction, packId: PackId, versions: readonly Version[]): Promise<void> {
  const [hold] = await findHolds(tx, packId, versions)
  if (!hold) return
  const { version, reason, heldBy, heldAt } = hold
  throw new Failure('VERSION_HELD', {
    detail: `${packId} ${version} is held by ${heldBy} since ${heldAt}: ${reason}. Nobody deletes it until an administrator releases it (packs retention release ${packId}@${version})`,
    about: { hold },
  })
}
