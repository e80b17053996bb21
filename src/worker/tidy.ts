import type { Deps } from '../deps.ts'
import { tidy } from '../registry/deletions.ts'

const everyMs = 10 * 60 * 1000

/**
 * Tidies up every ten minutes, in every serving process: there is little to do, and whoever comes first does it.
 * Returns what stops it, after the round that is under way.
 */
export function startTidying(deps: Deps): () => Promise<void> {
  let round = Promise.resolve()
  const run = async () => {
    try {
      const done = await tidy(deps)
      if (done.expired + done.deleted > 0) deps.log.info(done, 'tidied up')
    } catch (error) {
      deps.log.warn({ error }, 'could not tidy up; the next round tries again')
    }
  }
  const timer = setInterval(() => {
    round = round.then(run)
  }, everyMs)
  return async () => {
    clearInterval(timer)
    await round
  }
}
