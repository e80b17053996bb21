import http from 'node:http'
import https from 'node:https'
import { Failure } from '../errors.ts'
import type { Egress } from './egress.ts'
import { openPace, type Pace, type SlowestPace, slowestPace } from './pace.ts'

/** `token`: sent as it is, as a bearer token. */
export type Credentials = { username: string; password: string } | { token: string }

/** Another registry, and how to behave towards it. */
export type RemoteOptions = {
  /** `https://registry.example`; `http:` where it says so. */
  url: string
  /** Sent to this registry, and to no other host but those in `hosts`. */
  credentials?: Credentials | undefined
  /** Whether it, or one of `hosts`, may have a private or loopback address. */
  allowPrivate?: boolean | undefined
  /** Further hosts that belong to it: its token service, the store it redirects to. */
  hosts?: readonly string[] | undefined
  /** Connections at a time. */
  concurrency?: number | undefined
  /** Both ways together; undefined: no bound. */
  bytesPerSecond?: number | undefined
  attempts?: number | undefined
  /** The first pause between tries in milliseconds, doubled each time. */
  baseDelayMs?: number | undefined
  /** How long no byte may move before a connection counts as dead. */
  idleTimeoutMs?: number | undefined
  /** How long the head of an answer may take, whatever comes of it meanwhile, in milliseconds. */
  headMs?: number | undefined
  /** The least that has to come of a body. There is no time-out but this and the two before. */
  slowest?: SlowestPace | undefined
}

/** A token of the remote's, by the scopes it is good for. `until`: on the clock of `performance`. */
export type Token = { header: string; until: number }

export type Remote = {
  readonly url: URL
  readonly egress: Egress
  readonly credentials: Credentials | undefined
  readonly agents: { http: http.Agent; https: https.Agent }
  readonly pace: Pace
  readonly attempts: number
  readonly baseDelayMs: number
  readonly idleTimeoutMs: number
  readonly headMs: number
  readonly slowest: SlowestPace
  /** What the remote has asked for so far: by scope, or under '' for whatever is asked. */
  readonly tokens: Map<string, Token>
  /** Requests sent, and bytes of bodies both ways, for reports. */
  readonly counts: { requests: number; sent: number; received: number }
  close(): void
}

/** Nothing is sent yet. Throws REQUEST_INVALID where the URL cannot be used. */
export function openRemote(options: RemoteOptions): Remote {
  const { attempts = 6, baseDelayMs = 500, concurrency = 4 } = options
  const { idleTimeoutMs = 60_000, headMs = 120_000, slowest = slowestPace } = options
  const url = originOf(options.url)
  const agents = {
    http: new http.Agent({ keepAlive: true, maxSockets: concurrency }),
    https: new https.Agent({ keepAlive: true, maxSockets: concurrency }),
  }
  return {
    url,
    egress: { home: url.host, hosts: options.hosts ?? [], allowPrivate: options.allowPrivate ?? false },
    credentials: options.credentials,
    agents,
    pace: openPace(options.bytesPerSecond),
    ...{ attempts, baseDelayMs, idleTimeoutMs, headMs, slowest },
    tokens: new Map(),
    counts: { requests: 0, sent: 0, received: 0 },
    close() {
      agents.http.destroy()
      agents.https.destroy()
    },
  }
}

/** The address of a registry: scheme, host and port, nothing else. Throws REQUEST_INVALID. */
export function originOf(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined
  const bad = (problem: string) =>
    new Failure('REQUEST_INVALID', { detail: `the url of a registry is like https://registry.example: ${problem}` })
  if (!url) throw bad('this is none')
  if (url.protocol !== 'https:' && url.protocol !== 'http:') throw bad(`${url.protocol} is not understood`)
  if (url.username || url.password) throw bad('put credentials into their own field, not into the url')
  if (url.pathname !== '/' || url.search || url.hash)
    throw bad('put what stands before the names of repositories into the prefix, not into the url')
  return url
}
