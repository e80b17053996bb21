import http, { type ClientRequest, type IncomingMessage } from 'node:http'
import https from 'node:https'
import { Failure } from '../errors.ts'
import { guardedLookup } from './egress.ts'
import { paced, steady } from './pace.ts'
import type { Remote } from './remote.ts'

/** A body that can be sent again. `length` in bytes: it is announced, and must hold. */
export type Body = { length: number; open(): AsyncIterable<Uint8Array> | Iterable<Uint8Array> }

export type Message = {
  method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  headers: Record<string, string>
  body?: Body | undefined
  signal?: AbortSignal | undefined
}

/** Failures of TLS that a second try will not cure. */
const untrusted = /CERT|SELF_SIGNED|UNABLE_TO_|ERR_TLS|ERR_SSL|EPROTO/

/**
 * One request and its answer, whose body is unread: whoever gets it reads or destroys it. Throws ADDRESS_REFUSED,
 * REMOTE_UNREACHABLE (it may pass), REMOTE_DENIED where its certificate is not trusted, REMOTE_INVALID where what comes
 * is never an answer: header by header, or one that is only an interim one after the other.
 */
export function exchange(
  remote: Remote,
  url: URL,
  { method, headers, body, signal }: Message,
): Promise<IncomingMessage> {
  signal?.throwIfAborted()
  const secure = url.protocol === 'https:'
  const options = {
    method,
    headers: {
      'user-agent': 'packs-registry',
      // What is hashed is what was stored, not a compressed form of it.
      'accept-encoding': 'identity',
      ...(body
        ? { 'content-length': String(body.length) }
        : method === 'GET' || method === 'HEAD'
          ? {}
          : { 'content-length': '0' }),
      ...headers,
    },
    timeout: remote.idleTimeoutMs,
    lookup: guardedLookup(remote.egress, url),
  }
  remote.counts.requests++
  return new Promise((resolve, reject) => {
    const request = secure
      ? https.request(url, { ...options, agent: remote.agents.https })
      : http.request(url, { ...options, agent: remote.agents.http })
    let answer: IncomingMessage | undefined
    const stop = (error: Error) => {
      reject(error)
      // To destroy the request would end a body under way as if it were whole.
      if (answer) answer.destroy(error)
      else request.destroy(error)
    }
    const onAbort = () => stop(signal?.reason as Error)
    signal?.addEventListener('abort', onAbort, { once: true })
    let late: NodeJS.Timeout | undefined
    request.on('close', () => {
      clearTimeout(late)
      signal?.removeEventListener('abort', onAbort)
    })
    request.on('finish', () => {
      if (!answer) late = setTimeout(() => stop(neverAnswers(remote, url)), remote.headMs)
    })
    request.on('timeout', () => stop(unreachable(url, new Error(`silent for ${remote.idleTimeoutMs} ms`))))
    request.on('error', (error) => reject(signal?.aborted ? signal.reason : unreachable(url, error)))
    request.on('response', (response) => {
      answer = response
      clearTimeout(late)
      // Whoever reads it is told; without a listener in between, it would end the process.
      response.on('error', () => undefined)
      // An answer may come before the body is sent: there is no use in the rest of it, nor of the connection.
      response.on('close', () => request.writableFinished || request.destroy())
      resolve(response)
    })
    if (body) write(remote, request, url, body, signal, () => answer !== undefined).catch(stop)
    else request.end()
  })
}

function neverAnswers({ headMs }: Remote, { host, pathname }: URL): Failure {
  return new Failure('REMOTE_INVALID', {
    detail: `${host} does not begin to answer ${pathname} within ${headMs / 1000} seconds`,
  })
}

/**
 * Sends the body as fast as it is taken and the pace allows; stops where the answer has come already. Throws
 * REMOTE_INVALID where it is taken too slowly.
 */
async function write(
  remote: Remote,
  request: ClientRequest,
  url: URL,
  body: Body,
  signal: AbortSignal | undefined,
  answered: () => boolean,
): Promise<void> {
  for await (const piece of paced(remote.pace, body.open(), signal)) {
    if (request.destroyed || answered()) return
    remote.counts.sent += piece.length
    if (!request.write(piece)) await taken(remote, request, url)
  }
  request.end()
  await taken(remote, request, url)
}

/** Until what was written is on its way, or is wanted no more. */
function taken({ slowest }: Remote, request: ClientRequest, { host, pathname }: URL): Promise<void> {
  const { bytesPerSecond, waitedMs } = slowest
  return new Promise((resolve, reject) => {
    const events = ['drain', 'finish', 'close', 'response']
    const tooSlow = () => {
      const detail = `${host} takes what is sent to ${pathname} too slowly: less than ${bytesPerSecond} bytes a second`
      reject(new Failure('REMOTE_INVALID', { detail }))
    }
    const late = setTimeout(tooSlow, waitedMs + (request.writableLength / bytesPerSecond) * 1000)
    const done = () => {
      clearTimeout(late)
      for (const event of events) request.off(event, done)
      resolve()
    }
    for (const event of events) request.on(event, done)
    if (request.destroyed || request.writableFinished) done()
  })
}

/** What went wrong on the way, in words; a bad certificate will not pass. */
export function unreachable(url: URL, error: unknown): Error {
  if (error instanceof Failure) return error
  const { code = '', message } = error as NodeJS.ErrnoException
  if (untrusted.test(code))
    return new Failure('REMOTE_DENIED', {
      detail: `the certificate of ${url.host} is not trusted: ${message || code}. Start with NODE_EXTRA_CA_CERTS where it is from an authority of yours`,
      cause: error,
    })
  return new Failure('REMOTE_UNREACHABLE', {
    detail: `${url.host} cannot be reached: ${message || code}`,
    cause: error,
  })
}

/**
 * The body of an answer as it comes. Throws REMOTE_INVALID where it comes too slowly: that is about this answer, and to
 * ask for it again would hold whoever waits for it as long once more.
 */
export function bodyOf({ slowest }: Remote, answer: IncomingMessage, url: URL): AsyncIterable<Buffer> {
  const { bytesPerSecond, waitedMs } = slowest
  return steady(
    answer as AsyncIterable<Buffer>,
    slowest,
    () =>
      new Failure('REMOTE_INVALID', {
        detail: `${url.host} sends ${url.pathname} too slowly: less than ${bytesPerSecond} bytes a second for ${waitedMs / 1000} seconds`,
      }),
  )
}

/** All of an answer's body. Throws REMOTE_INVALID where it is longer than `most` bytes, or comes too slowly. */
export async function readAll(remote: Remote, answer: IncomingMessage, url: URL, most: number): Promise<Buffer> {
  const pieces: Buffer[] = []
  let size = 0
  try {
    for await (const piece of bodyOf(remote, answer, url)) {
      size += piece.length
      remote.counts.received += piece.length
      if (size > most)
        throw new Failure('REMOTE_INVALID', {
          detail: `${url.host} answers ${url.pathname} with more than ${most} bytes`,
        })
      await remote.pace.take(piece.length)
      pieces.push(piece)
    }
  } catch (error) {
    throw unreachable(url, error)
  }
  return Buffer.concat(pieces)
}

/** How long the rest of a body that nobody needs may take to come. */
const discardMs = 10_000

/** Lets a body go by that nobody needs, so that its connection can be used again; a long one, and a slow one, is cut. */
export function discard(answer: IncomingMessage, withinMs = discardMs): void {
  // An answer to HEAD is whole already, whatever length it tells of.
  if (!answer.complete && Number(answer.headers['content-length'] ?? Number.POSITIVE_INFINITY) > 64 * 1024) {
    answer.destroy()
    return
  }
  const late = setTimeout(() => answer.destroy(), withinMs).unref()
  answer.once('close', () => clearTimeout(late))
  answer.resume()
}
