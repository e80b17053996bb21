import type { ServerResponse } from 'node:http'

/**
 * What browsers and caches are told of every answer: it is what its type says, runs nothing, stands in no other page, and
 * is for whoever asked alone; who has it asks whether it still is so. There are proxies that give one person's answer to
 * the next one unless they are told.
 */
export const safe = [
  ...['cache-control', 'private, no-cache'],
  ...['x-content-type-options', 'nosniff'],
  ...['content-security-policy', "default-src 'none'; frame-ancestors 'none'"],
]

/** A year, in seconds. */
const secureFor = 31_536_000

/** Sets these for an answer; a route's own take their place. `secure`: this is served over TLS, and is to stay so. */
export function setSafe(outgoing: ServerResponse, secure: boolean): void {
  for (let i = 0; i < safe.length; i += 2) outgoing.setHeader(safe[i] as string, safe[i + 1] as string)
  if (secure) outgoing.setHeader('strict-transport-security', `max-age=${secureFor}`)
}
