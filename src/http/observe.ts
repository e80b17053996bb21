import type { Socket } from 'node:net'
import type { Deps } from '../deps.ts'
import { Failure, failures } from '../errors.ts'
import { randomHex } from '../random.ts'
import type { Env, RequestFacts } from './routes.ts'

type Bindings = Env['Bindings']

const wellFormed = /^[A-Za-z0-9._-]{8,128}$/

/** Names the request in the log and in errors: the name that a proxy gave it, else one of ours. */
export function requestId(bindings: Bindings): string {
  const given = bindings.incoming.headers['x-request-id']
  bindings.id ??= typeof given === 'string' && wellFormed.test(given) ? given : randomHex(8)
  return bindings.id
}

/** Counts a request and writes it to the log when its answer has ended, or its client has left. */
export function observe(deps: Deps, bindings: Bindings): void {
  const started = performance.now()
  const { incoming, outgoing } = bindings
  deps.metrics.inFlight.inc()
  outgoing.once('close', () => {
    deps.metrics.inFlight.dec()
    const route = bindings.route ?? 'none'
    const method = incoming.method ?? ''
    const status = outgoing.writableFinished ? outgoing.statusCode : 499
    const seconds = countRequest(deps, route, method, status, started)
    logRequest(deps, bindings, { method, route, status, ms: Math.round(seconds * 1e5) / 100 })
  })
}

/** Adds a finished request to the metrics; answers how long it took, in seconds. */
export function countRequest(
  { metrics }: Deps,
  route: string,
  method: string,
  status: number,
  started: number,
): number {
  const seconds = (performance.now() - started) / 1000
  metrics.timerOf(route, method, status).observe(seconds)
  return seconds
}

/** Counts the bytes of connections without a step for every request: what is open is added up when somebody asks. */
export class Traffic {
  readonly #open = new Set<Socket>()
  #read = 0
  #written = 0

  watch(socket: Socket): void {
    this.#open.add(socket)
    socket.once('close', () => {
      this.#open.delete(socket)
      this.#read += socket.bytesRead
      this.#written += socket.bytesWritten
    })
  }

  /** Bytes so far, over connections that are open or were. */
  total(): { read: number; written: number } {
    let [read, written] = [this.#read, this.#written]
    for (const socket of this.#open) {
      read += socket.bytesRead
      written += socket.bytesWritten
    }
    return { read, written }
  }
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
