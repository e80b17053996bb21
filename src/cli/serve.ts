import cluster from 'node:cluster'
import { createServer } from 'node:net'
import { AggregatorRegistry } from 'prom-client'
import { openBlobStore } from '../blobs/open.ts'
import type { Config } from '../config.ts'
import { startEmbedded } from '../db/embedded.ts'
import { migrate } from '../db/migrate.ts'
import { closeDeps, openDeps } from '../deps.ts'
import { type Log, openLog } from '../log.ts'
import { askForMetrics, startWorkers } from '../processes.ts'
import { cannotListen, startServer } from '../server.ts'
import { startTidying } from '../worker/tidy.ts'
import { banner } from './banner.ts'

/** Under this name a worker learns the address of the database that the first process started or was given. */
const workerDatabase = 'PACKS_WORKER_DATABASE'

/** Something running that must be stopped, the last started first. */
type Stops = (() => Promise<void>)[]

/**
 * Serves until it is told to stop; answers the exit code. Start-up problems are thrown as Errors in words.
 * One process does it all, or with PROCESSES above 1 the first one starts workers.
 */
export async function serve(config: Config, source: NodeJS.ProcessEnv): Promise<number> {
  const log = openLog(config.logLevel)
  const database = source[workerDatabase]
  if (cluster.isWorker && database) return serveAsWorker(config, database, log)

  const started = performance.now()
  const stops: Stops = []
  const ended = endOf()
  try {
    await requireFreePort(config)
    const embedded = config.databaseUrl
      ? undefined
      : await startEmbedded({ dataDir: config.dataDir, log, settings: embeddedSettings(config) })
    if (embedded) {
      stops.push(() => embedded.stop())
      embedded.exited.then((error) => {
        log.error({ error }, 'the embedded database has ended')
        ended.end(1)
      }, log.error)
    }
    const url = config.databaseUrl ?? embedded?.url ?? ''
    const applied = await migrate(url)
    if (applied.length > 0) log.info({ applied }, 'database schema brought up to date')
    const starting =
      config.processes > 1 ? startProcesses(config, url, log, stops) : startHere(config, url, log, stops, ended.hurry)
    const running = await Promise.race([starting, ended.code.then(() => undefined)])
    // Told to stop before it was ready: what the start still has to say does not matter any more.
    starting.catch(() => undefined)
    if (!running) return await ended.code
    const readyMs = Math.round(performance.now() - started)
    log.info({ url: running.url, blobStore: running.store, processes: config.processes, readyMs }, 'ready')
    if (embedded || process.stdout.isTTY) process.stdout.write(banner(config, running))
    const code = await ended.code
    log.info('stopping')
    return code
  } finally {
    for (const stop of stops.reverse()) await stop()
  }
}

/** Room for every process's pool, and for migrations, the lock and a person with psql. */
function embeddedSettings({ processes, databasePool }: Config): { max_connections: number } {
  return { max_connections: processes * databasePool + 15 }
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
  const server = await startServer(deps, { hurry })
  stops.push(() => server.stop(), startTidying(deps))
  return { url: server.url, store: deps.blobs.description }
}

async function startProcesses(config: Config, databaseUrl: string, log: Log, stops: Stops): Promise<Running> {
  // Opened once here, so that a store that cannot be used is said once, and not by every worker.
  const store = await openBlobStore(config.blobStore)
  await store.close()
  const workers = startWorkers(config.processes, { [workerDatabase]: databaseUrl }, log)
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
  AggregatorRegistry.setRegistries([deps.metrics.register])
  // Its constructor is what answers the first process when that collects the figures.
  new AggregatorRegistry()
  const server = await startServer(deps, { allMetrics: askForMetrics(), hurry: ended.hurry })
  const stopTidying = startTidying(deps)
  const code = await ended.code
  await stopTidying()
  await server.stop()
  await closeDeps(deps)
  return code
}

/** The same Ctrl-C may arrive twice: from the terminal, and handed on by npm. */
const sameSignalMs = 1_000

/** The wish to end: a first signal drains; a later one, by somebody who will not wait, cuts what is under way. */
function endOf(): { code: Promise<number>; end: (code: number) => void; hurry: AbortSignal } {
  let end: (code: number) => void = () => undefined
  const code = new Promise<number>((resolve) => {
    end = resolve
  })
  const hurry = new AbortController()
  let askedAt: number | undefined
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.on(signal, () => {
      askedAt ??= performance.now()
      if (performance.now() - askedAt > sameSignalMs) hurry.abort()
      end(0)
    })
  return { code, end, hurry: hurry.signal }
}

/** Says that a port is taken before anything is started for it. */
function requireFreePort({ host, port }: Config): Promise<void> {
  return new Promise((resolve, reject) => {
    const probe = createServer()
    probe.once('error', (error) => reject(cannotListen(error, host, port)))
    probe.listen({ host, port }, () => probe.close(() => resolve()))
  })
}
