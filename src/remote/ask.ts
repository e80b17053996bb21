import type { IncomingMessage } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { Failure } from '../errors.ts'
import { authorizationFor, authorize } from './authorize.ts'
import { type Body, discard, exchange, readAll } from './exchange.ts'
import type { Remote } from './remote.ts'

export type Call = {
  method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  /** A path at the remote, or a whole address that it gave (a Location). */
  at: string | URL
  headers?: Record<string, string>
  body?: Body | undefined
  /** What a token has to be good for: `repository:a/b:pull`. */
  scopes?: readonly string[]
  /** How often it is tried: that of the remote unless given. A chunk is sent once, for its half may have arrived. */
  attempts?: number
  signal?: AbortSignal | undefined
}

/** An answer with its body unread, and where it came from. */
export type Answer = { status: number; message: IncomingMessage; url: URL }

const mostRedirects = 5
const redirects = new Set([301, 302, 303, 307, 308])
/** A server that wants to be left alone for longer is given up; the job that asked comes back later. */
const longestPauseMs = 120_000

/** Asks until there is an answer that is not about the moment. Throws what `exchange` throws, and REMOTE_DENIED. */
export async function ask(remote: Remote, call: Call): Promise<Answer> {
  const { attempts = remote.attempts, signal } = call
  for (let attempt = 1; ; attempt++) {
    try {
      const answer = await follow(remote, call)
      if (!isMomentary(answer.status)) return answer
      throw busy(answer, call)
    } catch (error) {
      if (attempt >= attempts) throw error
      await pauseAfter(remote, error, attempt, signal)
    }
  }
}

function busy({ message, url, status }: Answer, { method }: Call): Failure {
  discard(message)
  const header = message.headers['retry-after']
  const asked = retryAfterSeconds(header)
  return new Failure('REMOTE_UNREACHABLE', {
    detail: `${url.host} answers ${status} to ${method} ${url.pathname}`,
    headers: asked === undefined ? {} : { 'retry-after': String(asked) },
  })
}

/**
 * Waits as long as the failure of a try says, or longer each time. Throws the failure where it is not one of the
 * moment, or is of a server that wants to be left alone for too long.
 */
export async function pauseAfter(
  { baseDelayMs }: Remote,
  error: unknown,
  attempt: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  if (!mayPass(error)) throw error
  const asked = (error as Failure).headers['retry-after']
  const grown = Math.min(baseDelayMs * 2 ** (attempt - 1), 30_000) * (0.5 + Math.random() / 2)
  const ms = asked === undefined ? grown : Number(asked) * 1000
  if (ms > longestPauseMs) throw error
  await sleep(ms, undefined, signal ? { signal } : {})
}

/** Whether a failure is one of the moment. */
export function mayPass(error: unknown): boolean {
  return error instanceof Failure && error.key === 'REMOTE_UNREACHABLE'
}

function isMomentary(status: number): boolean {
  return status === 408 || status === 429 || (status >= 500 && status !== 501 && status !== 505)
}

/** Source: RFC 9110, section 10.2.3. */
function retryAfterSeconds(header: string | undefined): number | undefined {
  if (header === undefined) return undefined
  const seconds = /^\d+$/.test(header) ? Number(header) : Math.ceil((Date.parse(header) - Date.now()) / 1000)
  return Number.isNaN(seconds) ? undefined : Math.max(0, seconds)
}

/** Follows redirects of reads, to wherever egress allows; credentials are for the remote's own host only. */
async function follow(remote: Remote, call: Call): Promise<Answer> {
  let url = new URL(call.at, remote.url)
  requireSecure(remote, url)
  let authorized = false
  for (let hop = 0; hop <= mostRedirects; ) {
    const atHome = url.origin === remote.url.origin
    const message = await exchange(remote, url, { ...call, headers: headersOf(remote, call, atHome) })
    const status = message.statusCode ?? 0
    if (status === 401 && atHome && !authorized) {
      discard(message)
      authorized = true
      if (await authorize(remote, message, call.scopes ?? [], call.signal)) continue
      throw denied(url, status)
    }
    if (!redirects.has(status)) return { status, message, url }
    discard(message)
    url = next(remote, url, message, call)
    hop++
  }
  throw new Failure('REMOTE_INVALID', { detail: `${remote.url.host} redirects in circles` })
}

function headersOf(remote: Remote, { headers = {}, scopes = [] }: Call, atHome: boolean): Record<string, string> {
  const authorization = atHome ? authorizationFor(remote, scopes) : undefined
  return { ...headers, ...(authorization === undefined ? {} : { authorization }) }
}

function next(remote: Remote, url: URL, message: IncomingMessage, { method }: Call): URL {
  const { location = '' } = message.headers
  const target = URL.canParse(location, url.href) ? new URL(location, url) : undefined
  if (!target || (target.protocol !== 'https:' && target.protocol !== 'http:'))
    throw new Failure('REMOTE_INVALID', {
      detail: `${url.host} redirects to ${JSON.stringify(location.slice(0, 200))}, which is no address`,
    })
  requireSecure(remote, target)
  if (method !== 'GET' && method !== 'HEAD' && target.origin !== remote.url.origin)
    throw new Failure('REMOTE_DENIED', {
      detail: `${url.host} sends what is written on to ${target.host}. If that is the registry, use its address as url`,
    })
  return target
}

function requireSecure(remote: Remote, url: URL): void {
  if (remote.url.protocol === 'https:' && url.protocol !== 'https:')
    throw new Failure('REMOTE_DENIED', { detail: `${remote.url.host} leads from https to ${url.origin}` })
}

/** A status that says no, as a failure. */
export function denied(url: URL, status: number): Failure {
  const words = status === 401 ? 'it wants credentials, or others than it was given' : 'the credentials may not do that'
  return new Failure('REMOTE_DENIED', { detail: `${url.host} answers ${status} to ${url.pathname}: ${words}` })
}

/** An answer that is none of those a caller can do something with, with the remote's own words where it has some. */
export async function unexpected(remote: Remote, { status, message, url }: Answer): Promise<Failure> {
  const bytes = await readAll(remote, message, url, 64 * 1024).catch(() => Buffer.alloc(0))
  const said = wordsIn(bytes)
  if (status === 401 || (status === 403 && !said)) return denied(url, status)
  return new Failure(status < 500 ? 'REMOTE_REFUSED' : 'REMOTE_INVALID', {
    detail: `${url.host} answers ${status} to ${url.pathname}${said ? `: ${said.words}` : ''}`,
    about: { status, ...(said ? { code: said.code } : {}) },
  })
}

/** The first error of an OCI error document. */
function wordsIn(bytes: Buffer): { code: string; words: string } | undefined {
  try {
    const { code, message, detail } = JSON.parse(bytes.toString()).errors[0]
    const more = detail === undefined ? '' : `, ${typeof detail === 'string' ? detail : JSON.stringify(detail)}`
    return { code: String(code), words: `${code}: ${message}${more}`.slice(0, 1000) }
  } catch {
    return undefined
  }
}

/** Asks, and asks again where the body breaks off. Undefined for 404; throws for every other status but 200. */
export async function askWhole(
  remote: Remote,
  call: Call,
  most: number,
): Promise<(Answer & { bytes: Buffer }) | undefined> {
  for (let attempt = 1; ; attempt++) {
    const answer = await ask(remote, call)
    if (answer.status === 404) {
      discard(answer.message)
      return undefined
    }
    if (answer.status !== 200) throw await unexpected(remote, answer)
    try {
      return { ...answer, bytes: await readAll(remote, answer.message, answer.url, most) }
    } catch (error) {
      if (!mayPass(error) || attempt >= remote.attempts) throw error
    }
  }
}
