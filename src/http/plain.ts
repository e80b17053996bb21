import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Principal } from '../auth/access.ts'
import type { Deps } from '../deps.ts'
import { isAskedByName } from './foreign-pages.ts'
import { remembered, used } from './identify.ts'

// The gate of what is answered without the router: only for who is known already, and only for the plainest requests.
// Whoever is not is no matter of theirs: the routes ask who it is, and have the last word.

/** Fields that make a read conditional or partial, or that of a web page. */
const unusual = new Set(['range', 'if-none-match', 'if-range', 'if-match', 'origin'])

/** Who asks for the whole of something, whatever it is; undefined: a matter of the routes. */
export function plainAsker(deps: Deps, { rawHeaders }: IncomingMessage): Principal | undefined {
  const { auth, config } = deps
  let authorization: string | undefined
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const field = (rawHeaders[i] as string).toLowerCase()
    if (unusual.has(field)) return undefined
    // Node takes the first of several, and so do we.
    if (field === 'authorization') authorization ??= rawHeaders[i + 1]
    else if (field === 'host' && !isAskedByName(config, rawHeaders[i + 1])) return undefined
  }
  // Requests that are counted go by the gate that counts them.
  if (config.rateLimit > 0) return undefined
  return auth.mode === 'none' || authorization === undefined ? auth.anonymous : remembered(deps, authorization)
}

/**
 * Asks whether the API token behind a principal still holds, beside what is asked for: at the same moment, not before it.
 * The answer goes through what this returns, which holds it back until that is known, and is at once where there is no
 * token; where it holds no more, `otherwise` is called in the answer's place.
 */
export function whileLive(
  deps: Deps,
  { tokenId: id }: Principal,
  outgoing: ServerResponse,
  otherwise: () => void,
): (answer: () => void) => void {
  if (id === undefined) return (answer) => answer()
  let isLive: boolean | undefined
  let waiting: (() => void) | undefined
  const settle = () => {
    if (!waiting || isLive === undefined) return
    if (isLive && !outgoing.destroyed) waiting()
    else otherwise()
  }
  deps.together.apiToken.ask({ id }, (_error, live) => {
    isLive = live !== undefined
    if (live) used(deps, live)
    settle()
  })
  return (answer) => {
    waiting = answer
    settle()
  }
}
