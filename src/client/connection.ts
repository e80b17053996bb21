import http, { type ClientRequest, type IncomingMessage } from 'node:http'
import https from 'node:https'
import { cancelled, PacksError, unlessCancelled } from './failure.ts'
import { Passing, type Patience, persist, retryAfterMs } from './retry.ts'

/** How a registry is reached. */
export type Connection = Patience & {
  /** The registry's address without a slash at its end. */
  readonly base: string
  readonly authorization: string | undefined
  readonly userAgent: string
  readonly idleTimeoutMs: number
  readonly agents: { http: http.Agent; https: https.Agent }
}

/** A body that can be sent again. `length` in bytes: it is announced, and must hold. */
export type Body = { type: string; length: number; open(): AsyncIterable<Uint8Array> | Iterable<Uint8Array> }

export type Call = {
  method?: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  /** Behind the registry's address, with its query. */
  path: string
  headers?: Record<string, string>
  body?: Body | undefined
  /** The answer is checked against a digest, so it may come from another host: an S3 behind the registry. */
  anywhere?: boolean
  signal?: AbortSignal | undefined
}

const mostRedirects = 5
const redirects = new Set([301, 302, 303, 307, 308])

/**
 * Asks once. The answer's status is 2xx or 304, its body unread: whoever gets it reads or destroys it. Credentials and
 * what else is meant for the registry never go to another origin. Throws Passing, PacksError.
 */
export async function send(connection: Connection, call: Call): Promise<IncomingMessage> {
  const home = new URL(connection.base + call.path)
  let url = home
  for (let hop = 0; hop <= mostRedirects; hop++) {
    const answer = await exchange(connection, url, call, url.origin === home.origin)
    const status = answer.statusCode ?? 0
    if ((status >= 200 && status < 300) || status === 304) return answer
    if (!redirects.has(status)) throw await failureOf(answer, url)
    // A short body is let go by, for the connection can be used again.
    if (Number(answer.headers['content-length'] ?? Infinity) <= 64 * 1024) answer.resume()
    else answer.destroy()
    url = next(url, answer, home, call)
  }
  throw new PacksError('ANSWER_INVALID', `${connection.base} redirects in circles`)
}

function next(url: URL, answer: IncomingMessage, home: URL, { method = 'GET', anywhere }: Call): URL {
  const { location = '' } = answer.headers
  const target = URL.canParse(location, url.href) ? new URL(location, url) : undefined
  if (!target || !/^https?:$/.test(target.protocol))
    throw new PacksError(
      'ANSWER_INVALID',
      `${url.origin} redirects to ${JSON.stringify(location)}, which is no address`,
    )
  // A digest proves what content is, and hides neither it nor the address that lets whoever has it in.
  if (url.protocol === 'https:' && target.protocol === 'http:')
    throw new PacksError(
      'REDIRECTED',
      `${url.origin} sends this call on to ${target.origin}, without encryption. Whoever runs it has to give it an S3 endpoint with https, or to set BLOB_REDIRECT=false`,
    )
  // Answers that no digest proves are taken from the registry only.
  if ((target.origin === home.origin && (method === 'GET' || Number(answer.statusCode) >= 307)) || anywhere)
    return target
  throw new PacksError(
    'REDIRECTED',
    `${home.origin} sends this call on to ${target.origin}${target.pathname}. If that is the registry, use its address as url`,
  )
}

function exchange(connection: Connection, url: URL, call: Call, atHome: boolean): Promise<IncomingMessage> {
  const { signal, body, method = 'GET' } = call
  const { idleTimeoutMs, agents } = connection
  unlessCancelled(signal)
  return new Promise((resolve, reject) => {
    const secure = url.protocol === 'https:'
    const options = { method, headers: headersOf(connection, call, atHome), timeout: idleTimeoutMs }
    const request = secure
      ? https.request(url, { ...options, agent: agents.https })
      : http.request(url, { ...options, agent: agents.http })
    let answer: IncomingMessage | undefined
    const stop = (error: Error) => {
      reject(error)
      // To destroy the request would end a body under way as if it were whole.
      if (answer) answer.destroy(error)
      else request.destroy(error)
    }
    const onAbort = () => stop(cancelled(signal as AbortSignal))
    signal?.addEventListener('abort', onAbort, { once: true })
    request.on('close', () => signal?.removeEventListener('abort', onAbort))
    request.on('timeout', () => stop(unreachable(url, new Error(`silent for ${idleTimeoutMs} ms`))))
    request.on('error', (error) => reject(unreachable(url, error)))
    request.on('response', (response) => {
      answer = response
      // Whoever reads it is told; without a listener in between, it would end the process.
      response.on('error', () => undefined)
      // An answer may come before the body is sent: there is no use in the rest of it, and no way to use the connection.
      response.on('close', () => request.writableFinished || request.destroy())
      resolve(response)
    })
    if (body) write(request, body, () => answer !== undefined).catch(stop)
    else request.end()
  })
}

function headersOf({ authorization, userAgent }: Connection, call: Call, atHome: boolean): Record<string, string> {
  const { range, ...own } = call.headers ?? {}
  return {
    'user-agent': userAgent,
    // What is hashed is what was stored, not a compressed form of it.
    'accept-encoding': 'identity',
    ...(range === undefined ? {} : { range }),
    ...(call.body ? { 'content-type': call.body.type, 'content-length': String(call.body.length) } : {}),
    ...(atHome ? own : {}),
    ...(atHome && authorization !== undefined ? { authorization } : {}),
  }
}

/** Sends the body as fast as it is taken; stops where the answer has come already. */
async function write(request: ClientRequest, body: Body, answered: () => boolean): Promise<void> {
  for await (const piece of body.open()) {
    if (request.destroyed || answered()) return
    if (!request.write(piece)) await drained(request)
  }
  request.end()
}

function drained(request: ClientRequest): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      for (const event of ['drain', 'close', 'response']) request.off(event, done)
      resolve()
    }
    for (const event of ['drain', 'close', 'response']) request.on(event, done)
    if (request.destroyed) done()
  })
}

/** Failures of TLS that a second try will not cure. */
const untrusted = /CERT|SELF_SIGNED|UNABLE_TO_|ERR_TLS|ERR_SSL|EPROTO/

/** What went wrong on the way, as a failure that may pass; a bad certificate will not. */
export function unreachable(url: URL, error: unknown): Error {
  if (error instanceof PacksError || error instanceof Passing) return error
  const { code = '', message } = error as NodeJS.ErrnoException
  // What OpenSSL says of it is three lines long.
  const words = /wrong version number/.test(message) ? 'it does not speak TLS there; is it http://?' : message || code
  const failure = new PacksError('UNREACHABLE', `${url.origin} cannot be reached: ${words}`, { cause: error })
  return untrusted.test(code) ? failure : new Passing(failure)
}

/** The server's answer as a failure. */
async function failureOf(answer: IncomingMessage, url: URL): Promise<Error> {
  const status = answer.statusCode ?? 0
  const text = (await readAll(answer, url, 64 * 1024).catch(() => Buffer.alloc(0))).toString()
  const { code, message, about } = told(text)
  const failure = new PacksError(
    code ?? (status === 401 ? 'UNAUTHORIZED' : status === 403 ? 'DENIED' : 'ANSWER_INVALID'),
    message ?? `${url.origin} answers ${status} ${answer.statusMessage ?? ''}`.trim(),
    { status, ...(about ? { about } : {}) },
  )
  const passes = status === 408 || status === 429 || (status >= 500 && status !== 501 && status !== 505)
  return passes ? new Passing(failure, { retryAfterMs: retryAfterMs(answer.headers['retry-after']) }) : failure
}

type Told = { code?: string; message?: string; about?: Record<string, unknown> }

/** The problem (RFC 9457) or the error document (OCI distribution-spec) in an answer, if it is one. */
function told(text: string): Told {
  try {
    const { type, title, detail, about, errors } = JSON.parse(text)
    if (Array.isArray(errors)) {
      const { code, message, detail: more } = errors[0]
      return { code: String(code), message: `${message}${more ? `: ${inWords(more)}` : ''}` }
    }
    const key = /^urn:packs-registry:(\w+)$/.exec(type)?.[1]
    if (key === undefined) return {}
    return { code: key, message: String(detail ?? title), ...(about ? { about } : {}) }
  } catch {
    return {}
  }
}

function inWords(detail: unknown): string {
  return typeof detail === 'string' ? detail : JSON.stringify(detail)
}

/** The largest answer that is read into memory, in bytes. */
const mostBytes = 64 * 1024 * 1024

/** All of an answer. Throws Passing where it breaks off, ANSWER_INVALID where it is too large. */
async function readAll(answer: IncomingMessage, url: URL, most = mostBytes): Promise<Buffer> {
  const pieces: Buffer[] = []
  let size = 0
  try {
    for await (const piece of answer as AsyncIterable<Buffer>) {
      size += piece.length
      if (size > most) throw new PacksError('ANSWER_INVALID', `${url.origin} answers with more than ${most} bytes`)
      pieces.push(piece)
    }
  } catch (error) {
    throw unreachable(url, error)
  }
  return Buffer.concat(pieces)
}

/** A whole answer. */
export type Answer = { status: number; headers: http.IncomingHttpHeaders; bytes: Buffer }

/** Asks until there is an answer. Throws PacksError. */
export function ask(connection: Connection, call: Call): Promise<Answer> {
  const writes = (call.method ?? 'GET') !== 'GET'
  let unsure = false
  return persist(connection, call.signal, async () => {
    try {
      const answer = await send(connection, call)
      const bytes = await readAll(answer, new URL(connection.base))
      return { status: answer.statusCode ?? 0, headers: answer.headers, bytes }
    } catch (error) {
      if (error instanceof Passing) unsure ||= writes && mayHaveArrived(error.failure)
      throw unsure && error instanceof PacksError ? doubtful(error) : error
    }
  })
}

/** Whether a call that failed may have done its work all the same. */
function mayHaveArrived({ status, cause }: PacksError): boolean {
  if (status !== undefined) return status >= 500
  return !/^(?:ECONNREFUSED|ENOTFOUND|EAI_AGAIN|E(?:HOST|NET)UNREACH)$/.test(
    (cause as NodeJS.ErrnoException)?.code ?? '',
  )
}

/** A refusal because of how things are, which may be what an earlier try of the same call has made of them. */
function doubtful(failure: PacksError): PacksError {
  const { code, message, status, about } = failure
  if (status !== 404 && status !== 409 && status !== 410) return failure
  return new PacksError(
    code,
    `${message}. An earlier try of this call got no answer, and may have done it: look first`,
    {
      status,
      cause: failure,
      ...(about ? { about } : {}),
    },
  )
}

/** A value as a JSON body. */
export function jsonBody(value: unknown): Body {
  const bytes = Buffer.from(JSON.stringify(value))
  return { type: 'application/json', length: bytes.length, open: () => [bytes] }
}

/** Those fields that have a value, as a query. */
export function queryOf(fields: Record<string, string | undefined>): string {
  const query = new URLSearchParams(Object.entries(fields).filter((entry): entry is [string, string] => !!entry[1]))
  return query.size > 0 ? `?${query}` : ''
}
