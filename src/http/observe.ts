import { randomBytes } from 'node:crypto'
import type { Deps } from '../deps.ts'
import { Failure, failures } from '../errors.ts'
import type { Env, RequestFacts } from './routes.ts'

type Bindings = Env['Bindings']

const wellFormed = /^[A-Za-z0-9._-]{8,128}$/

/** Names the request in the log and in errors: the name that a proxy gave it, else one of ours. */
export function requestId(bindings: Bindings): string {
  const given = bindings.incoming.headers['x-request-id']
  bindings.id ??= typeof given === 'string' && wellFormed.test(given) ? given : randomBytes(8).toString('hex')
  return bindings.id
}

/** Bytes that went over each connection up to its last finished request. */
const counted = new WeakMap<object, { read: number; written: number }>()

/** Counts a request and writes it to the log when its answer has ended, or its client has left. */
export function observe(deps: Deps, bindings: Bindings): void {
  const started = performance.now()
  const { incoming, outgoing } = bindings
  deps.metrics.inFlight.inc()
  outgoing.once('close', () => {
    deps.metrics.inFlight.dec()
    const seconds = (performance.now() - started) / 1000
    const route = bindings.route ?? 'none'
    const method = incoming.method ?? ''
    const status = outgoing.writableFinished ? outgoing.statusCode : 499
    deps.metrics.requests.labels(route, method, String(status)).observe(seconds)
    countBytes(deps, incoming.socket)
    logRequest(deps, bindings, { method, route, status, ms: Math.round(seconds * 1e5) / 100 })
  })
}

function countBytes({ metrics }: Deps, socket: Bindings['incoming']['socket']): void {
  const before = counted.get(socket) ?? { read: 0, written: 0 }
  const { bytesRead, bytesWritten } = socket
  metrics.received.inc(Math.max(0, bytesRead - before.read))
  metrics.sent.inc(Math.max(0, bytesWritten - before.written))
  before.read = bytesRead
  before.written = bytesWritten
  counted.set(socket, before)
}

type Line = { method: string; route: string; status: number; ms: number }

/** Reads that succeed are for the debug level: they are most of the traffic, and the metrics count them. */
function logRequest({ log }: Deps, bindings: Bindings, line: Line): void {
  const { error, incoming, principal } = bindings
  const level = levelOf(line, error)
  if (!log.isLevelEnabled(level)) return
  const [path] = (incoming.url ?? '').split('?', 1)
  const about = { id: requestId(bindings), path, from: incoming.socket.remoteAddress, by: principal?.name }
  log[level]({ ...line, ...about, ...(error === undefined ? {} : problem(error)) }, 'request')
}

function levelOf({ method, status }: Line, error: unknown): 'debug' | 'info' | 'warn' | 'error' {
  if (status >= 500) return error instanceof Failure ? 'warn' : 'error'
  return method === 'GET' || method === 'HEAD' ? 'debug' : 'info'
}

function problem(error: RequestFacts['error']): Record<string, unknown> {
  if (!(error instanceof Failure)) return { error }
  const told = { failure: error.key, detail: error.detail }
  return failures[error.key].status >= 500 ? { ...told, error } : told
}
