import { unwatchFile, watchFile } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { createServer as createHttpServer, type RequestListener, type Server } from 'node:http'
import { createServer as createHttpsServer, type Server as HttpsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { createSecureContext } from 'node:tls'
import { getRequestListener } from '@hono/node-server'
import { buildApp } from './app.ts'
import type { Config } from './config.ts'
import type { Deps } from './deps.ts'
import { Traffic } from './http/observe.ts'
import type { ServerState } from './http/ops.ts'
import { answerPackDirectly } from './http/packs/direct.ts'
import { answerDirectly } from './http/v2/direct.ts'
import type { Log } from './log.ts'

export type RunningServer = {
  /** E.g. `http://127.0.0.1:5000` */
  readonly url: string
  /** Takes nothing new, finishes what is under way, and closes what is not done after `drainMs`. */
  stop(options?: { drainMs?: number }): Promise<void>
}

/** Above the 90 s after which Go clients drop an idle connection, so that it is never we who close it under them. */
const keepAliveMs = 95_000
/**
 * `idleMs`: a connection on which nothing moves is closed after this; a transfer that moves may take as long as it likes.
 * `headersMs`: the head of a request has to be whole by then, however busily it comes.
 */
const slowest = { idleMs: 120_000, headersMs: 60_000 }
const defaultDrainMs = 30_000
/** Kubernetes swaps mounted secrets by a symbolic link, which file events miss: the files are looked at instead. */
const tlsCheckMs = 2_000

/**
 * Listens and serves. Throws an Error in words when the address cannot be had, or the certificate not be read.
 * `allMetrics`: see ServerState. `hurry`: when it aborts, a stop under way does not wait any longer. `patience`: with
 * clients.
 */
export async function startServer(
  deps: Deps,
  {
    allMetrics,
    hurry,
    patience = slowest,
  }: { allMetrics?: () => Promise<string>; hurry?: AbortSignal; patience?: typeof slowest } = {},
): Promise<RunningServer> {
  const { host, port, tls } = deps.config
  let draining = false
  const traffic = new Traffic()
  const state: ServerState = {
    isDraining: () => draining,
    traffic: () => traffic.total(),
    ...(allMetrics ? { allMetrics } : {}),
  }
  const { server, unwatch } = await makeServer(deps, state, patience)
  server.on(deps.config.tls ? 'secureConnection' : 'connection', (socket) => traffic.watch(socket))
  server.requestTimeout = 0
  server.headersTimeout = patience.headersMs
  server.keepAliveTimeout = keepAliveMs
  server.timeout = patience.idleMs
  hurry?.addEventListener('abort', () => server.closeAllConnections())
  await listen(server, host, port)
  return {
    url: `${tls ? 'https' : 'http'}://${host.includes(':') ? `[${host}]` : host}:${(server.address() as AddressInfo).port}`,
    async stop({ drainMs = defaultDrainMs } = {}) {
      draining = true
      unwatch()
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      server.closeIdleConnections()
      // A connection that becomes idle after its last answer would otherwise be kept alive.
      const idle = setInterval(() => server.closeIdleConnections(), 100)
      const late = setTimeout(() => server.closeAllConnections(), drainMs)
      await closed
      clearInterval(idle)
      clearTimeout(late)
    },
  }
}

async function makeServer(
  deps: Deps,
  state: ServerState,
  { headersMs }: typeof slowest,
): Promise<{ server: Server; unwatch: () => void }> {
  // How often Node looks for heads that are not whole.
  const options = { connectionsCheckingInterval: headersMs / 2 }
  const throughRoutes = getRequestListener(buildApp(deps, state) as Parameters<typeof getRequestListener>[0])
  const listener: RequestListener = (incoming, outgoing) => {
    const directly = incoming.url?.startsWith('/packs/') ? answerPackDirectly : answerDirectly
    directly(deps, incoming, outgoing, () => throughRoutes(incoming, outgoing))
  }
  const { tls } = deps.config
  if (!tls) return { server: createHttpServer(options, listener), unwatch() {} }
  const server = createHttpsServer({ ...options, ...(await readCertificate(tls)) }, listener)
  return { server, unwatch: reloadOnChange(server, tls, deps.log) }
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
function reloadOnChange(server: HttpsServer, files: TlsFiles, log: Log): () => void {
  const reload = () => {
    readCertificate(files).then(
      (pair) => {
        server.setSecureContext(pair)
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

function listen(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => reject(cannotListen(error, host, port)))
    server.listen({ host, port, backlog: 1024 }, resolve)
  })
}

/** Why an address cannot be had, and what to do, in words. */
export function cannotListen(error: NodeJS.ErrnoException, host: string, port: number): Error {
  const reasons: Record<string, string> = {
    EADDRINUSE: `Port ${port} on ${host} is in use by another program. Stop that, or choose another port: PORT=${port + 1}`,
    EACCES: `Port ${port} may not be used by this user. Choose one above 1023, such as PORT=5000`,
    EADDRNOTAVAIL: `${host} is not an address of this machine. Set HOST to one that is, such as 127.0.0.1`,
  }
  return new Error(reasons[error.code ?? ''] ?? `Cannot listen on ${host}:${port}: ${error.message}`, { cause: error })
}
