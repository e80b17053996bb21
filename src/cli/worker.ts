import type { Config } from '../config.ts'
import { closeDeps, openDeps } from '../deps.ts'
import { openLog } from '../log.ts'
import { lockAwayAll } from '../registry/key-vault.ts'
import { startWorker } from '../worker/worker.ts'
import { type Stops, startDatabase } from './database.ts'
import { endOf } from './ended.ts'

/**
 * Runs jobs, and serves nothing, until it is told to stop; answers the exit code. A first signal lets running jobs end
 * for a while and gives back those that do not; a later one gives them back at once. Start-up problems are thrown as
 * Errors in words.
 */
export async function work(config: Config): Promise<number> {
  const log = openLog(config.logLevel)
  const stops: Stops = []
  const ended = endOf()
  try {
    const url = await startDatabase(config, log, stops, ended)
    const deps = await openDeps(config, url, log)
    stops.push(() => closeDeps(deps))
    await lockAwayAll(deps)
    const worker = startWorker(deps)
    stops.push(() => worker.stop({ hurry: ended.hurry }))
    log.info({ blobStore: deps.blobs.description, concurrency: config.workerConcurrency }, 'working')
    const code = await ended.code
    log.info('stopping')
    return code
  } finally {
    for (const stop of stops.reverse()) await stop()
  }
}
