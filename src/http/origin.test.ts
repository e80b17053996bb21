import assert from 'node:assert/strict'
import type { IncomingMessage } from 'node:http'
import { describe, it } from 'node:test'
import { readConfig } from '../config.ts'
import { openOrigins } from './origin.ts'

const behind = { TRUSTED_PROXIES: '10.0.0.0/8, fd00::/8' }
const forwarded = {
  'x-forwarded-for': '203.0.113.9, 192.0.2.7',
  'x-forwarded-proto': 'https',
  'x-forwarded-host': 'r.example',
}

function asked(env: Record<string, string>, peer: string, headers: Record<string, string>) {
  const { addressOf, originOf } = openOrigins(readConfig(env).auth)
  const socket = { remoteAddress: peer, localAddress: '127.0.0.1', localPort: 5000 }
  const incoming = { headers, socket } as unknown as IncomingMessage
  return [addressOf(incoming), originOf(incoming)]
}

describe('who asks, and what they call us', () => {
  const cases: { name: string; env?: object; peer: string; headers: object; address: string; origin: string }[] = [
    {
      name: 'by themselves',
      peer: '192.0.2.1',
      headers: { host: 'r:5000' },
      address: '192.0.2.1',
      origin: 'http://r:5000',
    },
    {
      ...{ name: 'with forwarded fields of their own making', peer: '192.0.2.1' },
      headers: { host: 'r:5000', ...forwarded },
      ...{ address: '192.0.2.1', origin: 'http://r:5000' },
    },
    {
      ...{ name: 'by a trusted proxy', env: behind, peer: '10.1.2.3', headers: { host: 'inside', ...forwarded } },
      ...{ address: '192.0.2.7', origin: 'https://r.example' },
    },
    {
      ...{ name: 'by two trusted proxies', env: behind, peer: 'fd00::1' },
      headers: { host: 'inside', ...forwarded, 'x-forwarded-for': '203.0.113.9, 192.0.2.7, 10.9.9.9' },
      ...{ address: '192.0.2.7', origin: 'https://r.example' },
    },
    {
      ...{ name: 'by a proxy that is not trusted', env: behind, peer: '11.1.2.3' },
      headers: { host: 'r', ...forwarded },
      ...{ address: '11.1.2.3', origin: 'http://r' },
    },
    {
      ...{ name: 'as an address of version 4 in one of version 6', env: behind, peer: '::ffff:10.1.2.3' },
      headers: { host: 'inside', ...forwarded },
      ...{ address: '192.0.2.7', origin: 'https://r.example' },
    },
    {
      ...{ name: 'by a proxy that names a port too, behind what the client made up', env: behind, peer: '10.1.2.3' },
      headers: { host: 'r', 'x-forwarded-for': '203.0.113.9, 192.0.2.7:4711' },
      ...{ address: '192.0.2.7', origin: 'http://r' },
    },
    {
      ...{ name: 'the same by version 6', env: behind, peer: '10.1.2.3' },
      headers: { host: 'r', 'x-forwarded-for': '203.0.113.9, [2001:db8::7]:4711, [fd00::2]' },
      ...{ address: '2001:db8::7', origin: 'http://r' },
    },
    {
      ...{ name: 'by a proxy that does not know from whom', env: behind, peer: '10.1.2.3' },
      headers: { host: 'r', 'x-forwarded-for': '203.0.113.9, unknown, 10.9.9.9' },
      ...{ address: '10.9.9.9', origin: 'http://r' },
    },
    {
      ...{ name: 'by proxies that write version 4 as version 6', env: behind, peer: '10.1.2.3' },
      headers: { host: 'r', 'x-forwarded-for': '203.0.113.9, ::ffff:192.0.2.7, ::FFFF:10.9.9.9' },
      ...{ address: '192.0.2.7', origin: 'http://r' },
    },
    {
      ...{ name: 'by a name that would break out of a challenge', peer: '192.0.2.1', headers: { host: 'r",evil="x' } },
      ...{ address: '192.0.2.1', origin: 'http://127.0.0.1:5000' },
    },
    {
      ...{ name: 'where PUBLIC_URL says it', env: { PUBLIC_URL: 'https://packs.example/' }, peer: '192.0.2.1' },
      headers: { host: 'evil.example' },
      ...{ address: '192.0.2.1', origin: 'https://packs.example' },
    },
  ]
  for (const { name, env = {}, peer, headers, address, origin } of cases)
    it(name, () => {
      assert.deepEqual(asked(env as Record<string, string>, peer, headers as Record<string, string>), [address, origin])
    })
})
