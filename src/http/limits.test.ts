import assert from 'node:assert/strict'
import { it } from 'node:test'
import { networkOf, openLimits } from './limits.ts'

const addresses = [
  { address: '192.0.2.7', network: '192.0.2.7' },
  { address: '2001:db8:1:2:3:4:5:6', network: '2001:db8:1:2::/64' },
  { address: '2001:db8:1:2::9', network: '2001:db8:1:2::/64' },
  { address: '2001:0DB8:0001:2::9', network: '2001:db8:1:2::/64' },
  { address: '2001:db8::1', network: '2001:db8:0:0::/64' },
  { address: '::1', network: '0:0:0:0::/64' },
  { address: '1::', network: '1:0:0:0::/64' },
  { address: 'user alice', network: 'user alice' },
]
for (const { address, network } of addresses)
  it(`${address} counts as ${network}`, () => assert.equal(networkOf(address), network))

it('of many passwords that come at once, no more are looked at than one after the other', async () => {
  const limits = openLimits({ requestsAMinute: 0, shared: false })
  let looked = 0
  const guess = (address: string, holds: boolean) =>
    limits.inTurn(address, async () => {
      looked++
      return holds
    })
  const right = Array.from({ length: 50 }, () => guess('192.0.2.1', true))
  assert.deepEqual(new Set(await Promise.all(right)), new Set([true]), 'those that hold are no matter')
  looked = 0
  const guesses = await Promise.allSettled(Array.from({ length: 100 }, () => guess('192.0.2.1', false)))
  assert.equal(looked, 30)
  assert.equal(guesses.filter(({ status }) => status === 'rejected').length, 70)
  assert.equal(await guess('192.0.2.2', true), true, 'another address')
  await assert.rejects(guess('192.0.2.1', true), { key: 'TOOMANYREQUESTS' })
})

it('wrong credentials end an address, and no other', async () => {
  const limits = openLimits({ requestsAMinute: 0, shared: false })
  for (let i = 0; i < 40; i++) await limits.noteFailure(`2001:db8:1:2::${i}`)
  await assert.rejects(limits.requirePatience('2001:db8:1:2:ffff::'), { key: 'TOOMANYREQUESTS' })
  await limits.requirePatience('2001:db8:1:3::1')
})
