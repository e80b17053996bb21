import { lookup } from 'node:dns'
import { BlockList, isIP, isIPv4, type LookupFunction } from 'node:net'
import { Failure } from '../errors.ts'

/**
 * Where a remote may lead us. Its own host and those named in `hosts` are known: they may ask for credentials, and may
 * have private addresses where `allowPrivate` says so. Everything else may only be redirected to, in public.
 */
export type Egress = {
  /** The remote's own host, with its port where that is not the usual one. */
  readonly home: string
  /** Further hosts of the remote's, such as its token service, with or without a port. */
  readonly hosts: readonly string[]
  readonly allowPrivate: boolean
}

// Two lists, for one that knows mapped addresses takes every IPv4 address for one of them.
const inside = { ipv4: new BlockList(), ipv6: new BlockList() }
const networks = [
  ...['0.0.0.0/8', '10.0.0.0/8', '100.64.0.0/10', '127.0.0.0/8', '169.254.0.0/16', '172.16.0.0/12', '192.0.0.0/24'],
  ...['192.168.0.0/16', '198.18.0.0/15', '224.0.0.0/4', '240.0.0.0/4'],
  // With those that have an IPv4 address in them: mapped, translated (NAT64) and tunnelled (6to4, Teredo).
  ...['::/96', '::ffff:0:0/96', '64:ff9b::/96', '64:ff9b:1::/48', '2002::/16', '2001::/32'],
  ...['fc00::/7', 'fe80::/10', 'fec0::/10', 'ff00::/8'],
]
for (const network of networks) {
  const [address = '', bits] = network.split('/')
  inside[familyOf(address)].addSubnet(address, Number(bits), familyOf(address))
}

function familyOf(address: string): 'ipv4' | 'ipv6' {
  return isIPv4(address) ? 'ipv4' : 'ipv6'
}

/** Whether an address is one of no use on the Internet. Source: IANA, special-purpose address registries. */
export function isPrivate(address: string): boolean {
  return inside[familyOf(address)].check(address, familyOf(address))
}

/** Whether an address belongs to the remote. */
export function isKnown({ home, hosts }: Egress, url: URL): boolean {
  return url.host === home || hosts.includes(url.host) || hosts.includes(url.hostname)
}

/**
 * How a host is looked up: once for a connection, which goes to the very address that was checked, whatever the name
 * says a moment later. Throws ADDRESS_REFUSED where the address stands in the URL itself and may not be used.
 */
export function guardedLookup(egress: Egress, url: URL): LookupFunction {
  const free = egress.allowPrivate && isKnown(egress, url)
  const literal = url.hostname.replace(/^\[|\]$/g, '')
  if (!free && isIP(literal) !== 0 && isPrivate(literal)) throw refused(egress, url, literal)
  return (hostname, options, callback) => {
    lookup(hostname, { ...options, all: true }, (error, found) => {
      if (error) return callback(error, '')
      const usable = free ? found : found.filter(({ address }) => !isPrivate(address))
      const [first] = usable
      if (!first) return callback(refused(egress, url, found[0]?.address), '')
      if (options.all) callback(null, usable)
      else callback(null, first.address, first.family)
    })
  }
}

function refused({ home }: Egress, url: URL, address = 'no address'): Failure {
  const about =
    url.host === home
      ? 'Set allowPrivate if that is meant'
      : `Name ${url.host} in hosts, with allowPrivate, if that is meant`
  return new Failure('ADDRESS_REFUSED', {
    detail: `${url.host} has a private address (${address}), which ${home} may not lead to. ${about}`,
  })
}
