import { X509Certificate } from 'node:crypto'
import { setMaxListeners } from 'node:events'
import { unwatchFile, watchFile } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { createServer as createHttpServer, type RequestListener, type Server } from 'node:http'
import { createServer as createHttpsServer, type Server as HttpsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { createSecureContext } from 'node:tls'
import { getRequestListener } from '@hono/node-server'
import { addRoutes, buildApp } from './app.ts'
import type { Config } from './config.ts'
import type { Deps } from './deps.ts'
import { answerMalformed, hasTwoHosts, refuseTwoHosts } from './http/malformed.ts'
import { Traffic } from './http/observe.ts'
import { addOpsRoutes, type ServerState } from './http/ops.ts'
import { PaceWatch, slowestPace } from './http/pace.ts'
import { answerPackDirectly } from './http/packs/direct.ts'
import { answerDirectly } from './http/v2/direct.ts'

export type RunningServer = {
  /** E.g. `http://127.0.0.1:5000` */
  readonly url: string
  /** Takes nothing new, finishes what is under way, and closes what is not done after `drainMs`. */
  stop(options?: { drainMs?: number }): Promise<void>
}

/** Above the 90 s after which Go clients drop an idle connection, so that it is never we who close it under them. */
const keepAliveMs = 95_000
/**
 * `idleMs`: a connection on which nothing moves is closed after this; a transfer that moves, and not too slowly (see
 * `http/pace.ts`), may take as long as it likes. `headersMs`: the head of a request has to be whole by then, however
 * busily it comes.
 */
const slowest = { idleMs: 120_000, headersMs: 60_000, ...slowestPace }
const defaultDrainMs = 30_000
/** Kubernetes swaps mounted secrets by a symbolic link, which file events miss: the files are looked at instead. */
const tlsCheckMs = 2_000

export type ServerOptions = {
  /** See ServerState. */
  allMetrics?: () => Promise<string>
  /** When it aborts, a stop under way does not wait any longer. */
  hurry?: AbortSignal
  /** Serves the registry at PORT; or at another port nothing but /healthz, /readyz and /metrics of a worker. */
  worker?: { port: number; isStopping: () => boolean }
  /** With clients. */
  patience?: Partial<typeof slowest>
}

/** Listens and serves. Throws an Error in words when the address cannot be had, or the certificate not be read. */
export async function startServer(
  deps: Deps,
  { allMetrics, hurry, worker, patience: given = {} }: ServerOptions = {},
): Promise<RunningServer> {
  const patience = { ...slowest, ...given }
  const { host, tls } = deps.config
  const port = worker?.port ?? deps.config.port
  let draining = false
  const drain = new AbortController()
  // Each stream of events listens to it.
  setMaxListeners(0, drain.signal)
  const traffic = new Traffic()
  deps.metrics.sources.traffic = () => traffic.total()
  const state: ServerState = {
    isDraining: () => draining || worker?.isStopping() === true,
    drain: drain.signal,
    ...(allMetrics ? { allMetrics } : {}),
  }
  const pace = new PaceWatch(patience, (facts) => deps.log.info(facts, 'a client was too slow'))
  const answer = worker ? operationsOf(deps, state) : everythingOf(deps, state)
  const listener: RequestListener = (incoming, outgoing) => {
    pace.begin(incoming, outgoing)
    if (draining) outgoing.shouldKeepAlive = false
    answer(incoming, outgoing)
  }
  const { server, unwatch } = await makeServer(deps, listener, patience)
  server.on(deps.config.tls ? 'secureConnection' : 'connection', (socket) => {
    traffic.watch(socket)
    pace.watch(socket)
  })
  server.requestTimeout = 0
  server.headersTimeout = patience.headersMs
  server.keepAliveTimeout = keepAliveMs
  server.timeout = patience.idleMs
  hurry?.addEventListener('abort', () => server.closeAllConnections())
  await listen(server, { host, port, setting: worker ? 'WORKER_PORT' : 'PORT' })
  return {
    url: `${tls ? 'https' : 'http'}://${host.includes(':') ? `[${host}]` : host}:${(server.address() as AddressInfo).port}`,
    async stop({ drainMs = defaultDrainMs } = {}) {
      draining = true
      // Whoever has an answer from now on, on a connection that is closed after it, is told not to use it again.
      for (const answer of pace.answers()) answer.shouldKeepAlive = false
      drain.abort()
      unwatch()
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      server.closeIdleConnections()
      // A connection that becomes idle after its last answer would otherwise be kept alive.
      const idle = setInterval(() => server.closeIdleConnections(), 100)
      const late = setTimeout(() => server.closeAllConnections(), drainMs)
      await closed
      clearInterval(idle)
      clearTimeout(late)
      pace.close()
    },
  }
}

function everythingOf(deps: Deps, state: ServerState): RequestListener {
  const shared = state.allMetrics !== undefined
  const throughRoutes = listenerOf(
    deps,
    buildApp(deps, (routes) => addRoutes(routes, deps, state), { shared }),
  )
  return (incoming, outgoing) => {
    if (hasTwoHosts(incoming)) return refuseTwoHosts(deps, outgoing)
    const directly = incoming.url?.startsWith('/packs/') ? answerPackDirectly : answerDirectly
    directly(deps, incoming, outgoing, () => throughRoutes(incoming, outgoing))
  }
}

function operationsOf(deps: Deps, state: ServerState): RequestListener {
  return listenerOf(
    deps,
    buildApp(deps, (routes) => addOpsRoutes(routes, deps, state)),
  )
}

function listenerOf(deps: Deps, app: ReturnType<typeof buildApp>): RequestListener {
  const errorHandler = (error: unknown) => answerMalformed(deps, error)
  return getRequestListener(app as Parameters<typeof getRequestListener>[0], { errorHandler })
}

async function makeServer(
  deps: Deps,
  listener: RequestListener,
  { headersMs }: typeof slowest,
): Promise<{ server: Server; unwatch: () => void }> {
  // How often Node looks for heads that are not whole.
  const options = { connectionsCheckingInterval: headersMs / 2 }
  const { tls } = deps.config
  if (!tls) return { server: createHttpServer(options, listener), unwatch() {} }
  const pair = await readCertificate(tls)
  const server = createHttpsServer({ ...options, ...pair }, listener)
  showEnd(deps, pair)
  return { server, unwatch: reloadOnChange(server, tls, deps) }
}

/** For the metrics: when the certificate that is served now ends. */
function showEnd({ metrics }: Deps, { cert }: { cert: Buffer }): void {
  const ends = Date.parse(new X509Certificate(cert).validTo) / 1000
  metrics.sources.certificateEnds = () => ends
}

type TlsFiles = NonNullable<Config['tls']>

/** Throws an Error in words unless both files can be read and belong together. */
async function readCertificate({ certFile, keyFile }: TlsFiles): Promise<{ cert: Buffer; key: Buffer }> {
  try {
    const [cert, key] = await Promise.all([readFile(certFile), readFile(keyFile)])
    createSecureContext({ cert, key })
    return { cert, key }
  } catch (cause) {
    throw new Error(
      `TLS_CERT_FILE ${certFile} and TLS_KEY_FILE ${keyFile} cannot be used: ${(cause as Error).message}`,
      {
        cause,
      },
    )
  }
}

/** New connections get the new certificate. One that cannot be used (half written, say) is left for the next look. */
function reloadOnChange(server: HttpsServer, files: TlsFiles, deps: Deps): () => void {
  const { log } = deps
  const reload = () => {
    readCertificate(files).then(
      (pair) => {
        server.setSecureContext(pair)
        showEnd(deps, pair)
        log.info({ file: files.certFile }, 'certificate read again')
      },
      (error) => log.warn({ error }, 'the changed certificate cannot be used; still using the one before'),
    )
  }
  const paths = [files.certFile, files.keyFile]
  for (const path of paths) watchFile(path, { interval: tlsCheckMs, persistent: false }, reload)
  return () => {
    for (const path of paths) unwatchFile(path, reload)
  }
}

type Address = { host: string; port: number; setting: string }

function listen(server: Server, address: Address): Promise<void> {
  const { host, port } = address
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => reject(cannotListen(error, address)))
    server.listen({ host, port, backlog: 1024 }, resolve)
  })
}

/** Why an address cannot be had, and what to do, in words. */
export function cannotListen(error: NodeJS.ErrnoException, { host, port, setting }: Address): Error {
  const reasons: Record<string, string> = {
    EADDRINUSE: `Port ${port} on ${host} is in use by another program. Stop that, or choose another port: ${setting}=${port + 1}`,
    EACCES: `Port ${port} may not be used by this user. Choose one above 1023, such as ${setting}=5000`,
    EADDRNOTAVAIL: `${host} is not an address of this machine. Set HOST to one that is, such as 127.0.0.1`,
  }
  return new Error(reasons[error.code ?? ''] ?? `Cannot listen on ${host}:${port}: ${error.message}`, { cause: error })
}
