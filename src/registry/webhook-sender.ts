import type { IncomingMessage } from 'node:http'
import { LRUCache } from 'lru-cache'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import { discard, exchange } from '../remote/exchange.ts'
import { openRemote, type Remote } from '../remote/remote.ts'
import { cloudEventType, signed } from './cloud-event.ts'
import { unseal } from './sealed.ts'

/** How a webhook is treated. */
export type WebhookOptions = {
  /** Whether its host may have a private or loopback address. */
  allowPrivate?: boolean | undefined
  /** Whether it may be `http:`, which everybody on the way can read. */
  allowHttp?: boolean | undefined
  /** How often a delivery is tried. */
  tries?: number | undefined
}

export type Target = { id: string; url: string; secret: Buffer; options: WebhookOptions }

/** What came of sending: a status, or a word for why there is none. */
export type Sent = {
  at: Date
  status: number | null
  error: string | null
  durationMs: number
  /** What the receiver asked for. */
  retryAfterSeconds?: number | undefined
}

/** Sends to webhooks, each over connections of its own: what one of them may reach is no way for another. */
export type Sender = {
  /** Sends once, and waits for the head of the answer. Throws only the reason of `signal`. */
  post(target: Target, message: { id: string; text: string }, signal?: AbortSignal): Promise<Sent>
  close(): void
}

export const secretPurpose = 'webhook secret'
/** Receivers must answer within this time, in milliseconds: they are to take an event, and not to work it off. */
export const answerMs = 15_000
/** Connections to one webhook at a time. */
export const connectionsEach = 8
const mostRemotes = 500

export function openSender(deps: Deps, { timeoutMs = answerMs } = {}): Sender {
  const remotes = new LRUCache<string, Remote>({ max: mostRemotes, dispose: (remote) => remote.close() })
  const remoteOf = ({ id, url, options: { allowPrivate } }: Target) => {
    const { origin } = new URL(url)
    const place = `${id} ${origin} ${allowPrivate}`
    const remote = remotes.get(place) ?? openRemote({ url: origin, allowPrivate, concurrency: connectionsEach })
    remotes.set(place, remote)
    return remote
  }
  return {
    async post(target, { id, text }, signal) {
      const [at, started] = [new Date(), performance.now()]
      const end = (facts: Pick<Sent, 'status' | 'error' | 'retryAfterSeconds'>): Sent => {
        return { at, durationMs: Math.round(performance.now() - started), ...facts }
      }
      const secret = unseal(deps.uploadSecret, secretPurpose, target.secret)
      if (secret === undefined) return end({ status: null, error: 'secret cannot be read' })
      const body = Buffer.from(text)
      const headers = { 'content-type': cloudEventType, ...signed(secret, id, body, at) }
      try {
        const answer = await inTime(timeoutMs, signal, (ending) =>
          exchange(remoteOf(target), new URL(target.url), {
            ...{ method: 'POST', headers, signal: ending },
            body: { length: body.length, open: () => [body] },
          }),
        )
        return end(outcomeOf(answer))
      } catch (error) {
        if (signal?.aborted) throw signal.reason
        return end({ status: null, error: wordOf(error) })
      }
    },
    close: () => remotes.clear(),
  }
}

/** Redirects are not followed: where a webhook goes is what its owner wrote down. */
function outcomeOf(answer: IncomingMessage): Pick<Sent, 'status' | 'error' | 'retryAfterSeconds'> {
  const status = answer.statusCode ?? 0
  const asked = status === 429 || status === 503 ? secondsOf(answer.headers['retry-after']) : undefined
  discard(answer)
  const error = status >= 200 && status < 300 ? null : status >= 300 && status < 400 ? 'redirect' : 'refused'
  return { status, error, ...(asked === undefined ? {} : { retryAfterSeconds: asked }) }
}

/** Source: RFC 9110, section 10.2.3. */
function secondsOf(header: string | undefined): number | undefined {
  if (header === undefined) return undefined
  const seconds = /^\d{1,9}$/.test(header) ? Number(header) : Math.ceil((Date.parse(header) - Date.now()) / 1000)
  return Number.isNaN(seconds) ? undefined : Math.max(0, seconds)
}

class TooLate extends Error {
  override name = 'TooLate'
}

/** Until there is the head of an answer; what is left of its body is cut when the time is over. */
async function inTime(
  ms: number,
  signal: AbortSignal | undefined,
  send: (ending: AbortSignal) => Promise<IncomingMessage>,
): Promise<IncomingMessage> {
  const ending = new AbortController()
  const stop = () => ending.abort(signal?.reason)
  const timer = setTimeout(() => ending.abort(new TooLate()), ms)
  signal?.addEventListener('abort', stop, { once: true })
  const over = () => {
    clearTimeout(timer)
    signal?.removeEventListener('abort', stop)
  }
  try {
    const answer = await send(ending.signal)
    answer.once('close', over)
    return answer
  } catch (error) {
    over()
    throw error
  }
}

/** One word or a few, and nothing that the receiver wrote. */
function wordOf(error: unknown): string {
  if (error instanceof TooLate) return 'timeout'
  if (!(error instanceof Failure)) return 'error'
  if (error.key === 'ADDRESS_REFUSED') return 'address refused'
  if (error.key === 'REMOTE_DENIED') return 'certificate not trusted'
  const { code } = (error.cause ?? {}) as { code?: string }
  return code && /^[A-Z][A-Z_]{2,40}$/.test(code) ? code : 'unreachable'
}
