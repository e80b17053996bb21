import type { IncomingMessage } from 'node:http'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import type { Origins } from './origin.ts'

// Where nobody has to show who they are, a web page could ask in the place of whoever looks at it: their browser reaches
// what listens on their machine only. It can write from its own origin (no question comes before a form or plain text),
// and it can have its own name mean 127.0.0.1, and then read as well. A browser says of the first where it comes from
// (Origin, which programs do not send), and of the second by what name it asked (Host). With a login there is nothing to
// be had in this way: no browser keeps one for us.

type Config = Deps['config']

const localName = /^(?:(?:[a-z0-9-]+\.)*localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d{1,5})?$/i

/** Whether it may be asked by this name (the Host field): by any, unless it is there for this machine only. */
export function isAskedByName({ host, auth }: Pick<Config, 'host' | 'auth'>, name: string | undefined): boolean {
  if (auth.mode !== 'none' || name === undefined || localName.test(name)) return true
  // A proxy before it may call it what it likes.
  if (auth.trustedProxies.length > 0 || !localName.test(host.includes(':') ? `[${host}]` : host)) return true
  return auth.publicUrl !== undefined && new URL(auth.publicUrl).host === name
}

/** Throws DENIED where a page of somebody else asks. */
export function refuseForeignPages(config: Config, { originOf }: Origins, incoming: IncomingMessage): void {
  if (config.auth.mode !== 'none') return
  const { host, origin } = incoming.headers
  if (!isAskedByName(config, host))
    throw new Failure('DENIED', {
      detail: `this registry is there for this machine only, which ${JSON.stringify(host?.slice(0, 200))} is no name of. Ask for localhost, set PUBLIC_URL to the address that it has elsewhere, or set AUTH`,
    })
  if (origin !== undefined && !isOf(origin, originOf(incoming)))
    throw new Failure('DENIED', {
      detail: `a page of ${JSON.stringify(origin.slice(0, 200))} may not ask this registry, where nobody has to log in`,
    })
}

function isOf(origin: string, own: string): boolean {
  return URL.canParse(origin) && new URL(origin).host === new URL(own).host
}
