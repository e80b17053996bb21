import { ask } from '../db/client.ts'
import { recordEvents } from '../db/events.ts'
import { findRelease, lockPack, refreshPack, setState } from '../db/packs.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import { type PackId, type PackState, repositoryOf } from '../packs/pack.ts'
import type { Version } from '../packs/version.ts'
import { stateChanged } from './pack-events.ts'

type StateChange = { state: PackState; message?: string | undefined; replacedBy?: string | undefined }

/** Says of a version that it is active, deprecated or yanked. Throws VERSION_UNKNOWN. */
export async function changeState(deps: Deps, packId: PackId, version: Version, change: StateChange): Promise<void> {
  const { state, message, replacedBy } = change
  const changed = await ask(deps.db, (sql) =>
    sql.begin(async (tx) => {
      if (!(await findRelease(tx, packId, version))?.manifestDigest) return false
      await lockPack(tx, packId, repositoryOf(packId))
      const found = await setState(tx, { packId, version, state, message, replacedBy })
      if (!found) return false
      if (found.changed)
        await recordEvents(tx, [stateChanged(packId, version, { from: found.before, state, message, replacedBy })])
      await refreshPack(tx, packId)
      return true
    }),
  )
  if (!changed) throw new Failure('VERSION_UNKNOWN', { detail: `${packId} has no version ${version}` })
}
