import type { IncomingMessage } from 'node:http'
import { BlockList, isIP } from 'node:net'
import type { TLSSocket } from 'node:tls'
import type { Deps } from '../deps.ts'

/** Where requests come from and what they call us, with what proxies say of it where they are trusted. */
export type Origins = {
  /** The address of the client. */
  addressOf(incoming: IncomingMessage): string
  /** `https://host[:port]`, as the client knows this registry. */
  originOf(incoming: IncomingMessage): string
}

const host = /^(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?$/

export function openOrigins({ publicUrl, trustedProxies }: Deps['config']['auth']): Origins {
  const trusted = new BlockList()
  for (const network of trustedProxies) {
    const [address = '', bits] = network.split('/')
    const family = isIP(address) === 6 ? 'ipv6' : 'ipv4'
    trusted.addSubnet(address, Number(bits ?? (family === 'ipv6' ? 128 : 32)), family)
  }
  const isTrusted = (address: string) =>
    trustedProxies.length > 0 && isIP(address) !== 0 && trusted.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4')
  const peerOf = ({ socket }: IncomingMessage) => plain(socket.remoteAddress ?? '')
  return {
    addressOf(incoming) {
      // Each proxy adds whom it heard it from at the end: the last that is no proxy of ours is the client. Where one adds
      // something else, it is not looked further: what stands before that may be of the client's own making.
      const path = String(incoming.headers['x-forwarded-for'] ?? '').split(',')
      let client = peerOf(incoming)
      while (isTrusted(client)) {
        const before = addressIn(path.pop() ?? '')
        if (before === undefined) break
        client = before
      }
      return client
    },
    originOf(incoming) {
      if (publicUrl !== undefined) return publicUrl
      const { headers, socket } = incoming
      const believed = isTrusted(peerOf(incoming))
      const said = (name: string) =>
        believed
          ? String(headers[name] ?? '')
              .split(',')
              .at(-1)
              ?.trim()
          : undefined
      const secure = (said('x-forwarded-proto') || undefined) ?? ((socket as TLSSocket).encrypted ? 'https' : 'http')
      const name = [said('x-forwarded-host'), headers.host].find((text) => text !== undefined && host.test(text))
      const own = socket.localAddress?.includes(':') ? `[${socket.localAddress}]` : socket.localAddress
      return `${secure === 'https' ? 'https' : 'http'}://${name ?? `${own}:${socket.localPort}`}`
    },
  }
}

/** An address of version 4 that is written as one of version 6, as itself. */
function plain(address: string): string {
  return address.replace(/^::ffff:(?=[\d.]+$)/i, '')
}

/** The address in a part of X-Forwarded-For, where some proxies write the port too. */
function addressIn(part: string): string | undefined {
  const [, bracketed, before] = /^(?:\[([^\]]*)\]|([\d.]+))(?::\d+)?$/.exec(part.trim()) ?? []
  const address = plain(bracketed ?? before ?? part.trim())
  return isIP(address) === 0 ? undefined : address
}
