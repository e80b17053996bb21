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
  const peerOf = ({ socket }: IncomingMessage) => (socket.remoteAddress ?? '').replace(/^::ffff:/, '')
  return {
    addressOf(incoming) {
      const peer = peerOf(incoming)
      if (!isTrusted(peer)) return peer
      // Each proxy adds whom it heard it from at the end: the last that is no proxy of ours is the client.
      const path = String(incoming.headers['x-forwarded-for'] ?? '').split(',')
      const addresses = path.map((part) => part.trim()).filter((part) => isIP(part) !== 0)
      return addresses.findLast((address) => !isTrusted(address)) ?? addresses[0] ?? peer
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
