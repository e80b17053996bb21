import type { Config } from '../config.ts'
import { closeDeps, openDeps } from '../deps.ts'
import { openLog } from '../log.ts'
import { lockAwayAll } from '../registry/key-vault.ts'
import { startServer } from '../server.ts'
import { startDeliveries } from '../worker/deliveries.ts'
import { startWorker } from '../worker/worker.ts'
import { type Stops, startDatabase } from './database.ts'
import { endOf } from './ended.ts'

/**
 * Runs jobs and sends to webhooks, and serves nothing but probes and metrics where WORKER_PORT is set, until it is told
 * to stop; answers the exit code. A first signal lets running jobs end for a while and gives back those that do not; a
 * later one gives them back at once. Start-up problems are thrown as Errors in words.
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
    let stopping = false
    const { workerPort: port } = config
    const { hurry } = ended
    // Stopped after the worker: while jobs come to their end, it still tells how that goes.
    const server =
      port === undefined ? undefined : await startServer(deps, { hurry, worker: { port, isStopping: () => stopping } })
    if (server) stops.push(() => server.stop())
    const works = [startWorker(deps), startDeliveries(deps)]
    stops.push(async () => {
      await Promise.all(works.map((work) => work.stop({ hurry })))
    })
    const about = { blobStore: deps.blobs.description, concurrency: config.workerConcurrency }
    log.info({ ...about, ...(server ? { probes: server.url } : {}) }, 'working')
    const code = await ended.code
    stopping = true
    log.info('stopping')
    return code
  } finally {
    for (const stop of stops.reverse()) await stop()
  }
}
