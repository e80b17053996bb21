import type { ServerResponse } from 'node:http'

/** What a browser is told of every answer: it is what its type says, runs nothing, and stands in no other page. */
export const safe = [
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
