import cluster from 'node:cluster'
import { createServer } from 'node:net'
import { openBlobStore } from '../blobs/open.ts'
import type { Config } from '../config.ts'
import { closeDeps, type Deps, openDeps } from '../deps.ts'
import { type Log, openLog } from '../log.ts'
import { sayClosed, shareMetrics, startWorkers } from '../processes.ts'
import { lockAwayAll } from '../registry/key-vault.ts'
import { cannotListen, startServer } from '../server.ts'
import { startDeliveries } from '../worker/deliveries.ts'
import { startWorker } from '../worker/worker.ts'
import { banner } from './banner.ts'
import { type Stops, startDatabase } from './database.ts'
import { endOf } from './ended.ts'

/** Under this name a worker learns the address of the database that the first process started or was given. */
const workerDatabase = 'PACKS_WORKER_DATABASE'

/** Under this name, the one of the workers that runs jobs beside serving learns that it does. */
const workerRunsJobs = 'PACKS_WORKER_JOBS'

/**
 * Serves until it is told to stop; answers the exit code. Start-up problems are thrown as Errors in words.
 * One process does it all, or with PROCESSES above 1 the first one starts workers.
 */
export async function serve(config: Config, source: NodeJS.ProcessEnv): Promise<number> {
  const log = openLog(config.logLevel)
  const database = source[workerDatabase]
  if (cluster.isWorker && database) {
    return serveAsWorker({ ...config, worker: source[workerRunsJobs] === 'true' }, database, log)
  }

  const started = performance.now()
  const stops: Stops = []
  const ended = endOf()
  try {
    await requireFreePort(config)
    const url = await startDatabase(config, log, stops, ended)
    const starting =
      config.processes > 1 ? startProcesses(config, url, log, stops) : startHere(config, url, log, stops, ended.hurry)
    const running = await Promise.race([starting, ended.code.then(() => undefined)])
    // Told to stop before it was ready: what the start still has to say does not matter any more.
    starting.catch(() => undefined)
    if (!running) return await ended.code
    const readyMs = Math.round(performance.now() - started)
    log.info({ url: running.url, blobStore: running.store, processes: config.processes, readyMs }, 'ready')
    if (!config.databaseUrl || process.stdout.isTTY) process.stdout.write(banner(config, running))
    const code = await ended.code
    log.info('stopping')
    return code
  } finally {
    for (const stop of stops.reverse()) await stop()
  }
}

type Running = { url: string; store: string }

async function startHere(
  config: Config,
  databaseUrl: string,
  log: Log,
  stops: Stops,
  hurry: AbortSignal,
): Promise<Running> {
  const deps = await openDeps(config, databaseUrl, log)
  stops.push(() => closeDeps(deps))
  await lockAwayAll(deps)
  const server = await startServer(deps, { hurry })
  stops.push(besides(deps, () => server.stop(), hurry))
  return { url: server.url, store: deps.blobs.description }
}

/**
 * Runs jobs and sends to webhooks beside a server that listens already, where that is set. Returns what stops all of it,
 * at once: none waits for another.
 */
function besides(deps: Deps, stopServer: () => Promise<void>, hurry: AbortSignal): () => Promise<void> {
  const works = deps.config.worker ? [startWorker(deps), startDeliveries(deps)] : []
  return async () => {
    await Promise.all([...works.map((work) => work.stop({ hurry })), stopServer()])
  }
}

async function startProcesses(config: Config, databaseUrl: string, log: Log, stops: Stops): Promise<Running> {
  // Opened once here, so that a store that cannot be used is said once, and not by every worker.
  const store = await openBlobStore(config.blobStore)
  await store.close()
  const environmentOf = (index: number) => ({
    [workerDatabase]: databaseUrl,
    [workerRunsJobs]: String(config.worker && index === 0),
  })
  const workers = startWorkers(config.processes, environmentOf, log)
  stops.push(() => workers.stop())
  const port = await workers.listening
  const host = config.host.includes(':') ? `[${config.host}]` : config.host
  return { url: `${config.tls ? 'https' : 'http'}://${host}:${port}`, store: store.description }
}

async function serveAsWorker(config: Config, databaseUrl: string, log: Log): Promise<number> {
  const ended = endOf()
  // The first process is gone, however that came: a worker without it is no use to anybody.
  process.on('disconnect', () => ended.end(0))
  const deps = await openDeps(config, databaseUrl, log)
  await lockAwayAll(deps)
  const server = await startServer(deps, { allMetrics: shareMetrics(deps.metrics.register, log), hurry: ended.hurry })
  const stop = besides(deps, () => server.stop(), ended.hurry)
  const code = await ended.code
  const stopped = stop()
  sayClosed()
  await stopped
  await closeDeps(deps)
  return code
}

/** Says that a port is taken before anything is started for it. */
function requireFreePort({ host, port }: Config): Promise<void> {
  return new Promise((resolve, reject) => {
    const probe = createServer()
    probe.once('error', (error) => reject(cannotListen(error, { host, port, setting: 'PORT' })))
    probe.listen({ host, port }, () => probe.close(() => resolve()))
  })
}
