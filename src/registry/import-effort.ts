import { setImmediate as othersHadTheirTurn } from 'node:timers/promises'
import { Failure } from '../errors.ts'

/** As many bytes of manifests and configs as are read to plan an import. All manifests of a file have a quarter of that. */
const mostBytes = 1024 ** 3
/** Others have their turn after so many. */
const turnBytes = 2 * 1024 * 1024

/** To be told of what is about to be read. Throws IMPORT_REFUSED where it is too much. */
export type Effort = (bytes: number) => Promise<void>

/**
 * Bounds what planning an import costs: an index may list one large manifest under very many names, and it is read under
 * each.
 */
export function openEffort(most = mostBytes): Effort {
  let [total, inTurn] = [0, 0]
  return async (bytes) => {
    total += bytes
    inTurn += bytes
    if (total > most)
      throw new Failure('IMPORT_REFUSED', {
        detail: `its manifests and configs have more than ${most} bytes, counted under each name that they have: export fewer packs into each bundle`,
      })
    if (inTurn < turnBytes) return
    inTurn = 0
    await othersHadTheirTurn()
  }
}
