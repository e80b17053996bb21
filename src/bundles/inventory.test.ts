import assert from 'node:assert/strict'
import { createPrivateKey } from 'node:crypto'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { Failure } from '../errors.ts'
import { type Digest, digestOf, hexOf } from '../oci/digest.ts'
import type { PackId } from '../packs/pack.ts'
import type { Version } from '../packs/version.ts'
import { holds, type Inventory, inventoryBytes, inventoryOfList, inventoryType, readInventory } from './inventory.ts'
import { generateKey, publicKeyOf, type SigningKey } from './keys.ts'

const digest = (text: string, algorithm: 'sha256' | 'sha512' = 'sha256') => digestOf(Buffer.from(text), algorithm)

function inventoryOf(texts: readonly string[]): Inventory {
  const sorted = texts.map((text) => hexOf(digest(text))).sort()
  return {
    blobs: Buffer.from([...new Set(sorted)].join(''), 'hex'),
    otherBlobs: [digest('by another algorithm', 'sha512')],
    packs: [
      {
        packId: 'net' as PackId,
        versions: [
          { version: '1.0.0' as Version, manifestDigest: digest('one') },
          { version: '1.1.0' as Version, manifestDigest: digest('two', 'sha512') },
          { version: '2.0.0+build.7' as Version, manifestDigest: digest('three') },
        ],
      },
      { packId: 'none' as PackId, versions: [] },
    ],
  }
}

function newKey(): { signing: SigningKey; trusted: ReturnType<typeof publicKeyOf> } {
  const { keyid, spki, pkcs8 } = generateKey()
  const privateKey = createPrivateKey({ key: pkcs8, type: 'pkcs8', format: 'der' })
  return { signing: { keyid, privateKey }, trusted: publicKeyOf(spki) }
}

const document = (inventory: Inventory, keys: readonly SigningKey[] = []) =>
  JSON.parse(inventoryBytes(inventory, keys).toString())

describe('an inventory', () => {
  it('says the same when it is read again, and finds what is in it and nothing else', () => {
    fc.assert(
      fc.property(fc.array(fc.string(), { maxLength: 200 }), fc.array(fc.string()), (held, others) => {
        const inventory = inventoryOf(held)
        const read = readInventory(document(inventory), []).inventory
        assert.ok(read.blobs.equals(inventory.blobs))
        assert.deepEqual([read.packs, read.otherBlobs], [inventory.packs, inventory.otherBlobs])
        for (const text of held) assert.ok(holds(read, digest(text)))
        for (const text of others) assert.equal(holds(read, digest(text)), held.includes(text))
      }),
    )
    const { inventory } = readInventory(document(inventoryOf([])), [])
    assert.ok(holds(inventory, digest('by another algorithm', 'sha512')))
    assert.ok(!holds(inventory, digest('something else', 'sha512')))
  })

  it('has the same digest whoever signs it, and says who of those that are trusted did', () => {
    const [mine, other] = [newKey(), newKey()]
    const inventory = inventoryOf(['a', 'b'])
    const unsigned = readInventory(document(inventory), [mine.trusted])
    const signed = readInventory(document(inventory, [mine.signing, other.signing]), [mine.trusted])
    assert.equal(signed.digest, unsigned.digest)
    assert.deepEqual([unsigned.isSigned, unsigned.signedBy], [false, []])
    assert.deepEqual([signed.isSigned, signed.signedBy], [true, [mine.trusted]])
    const keys = [mine.signing, other.signing]
    assert.ok(inventoryBytes(inventory, keys).equals(inventoryBytes(inventory, keys.toReversed())))
  })

  it('is made of what a bundle file holds as well', () => {
    const digests = [{ digest: digest('b') }, { digest: digest('a') }, { digest: digest('c', 'sha512') }]
    const listed = inventoryOfList({ digests }) as Inventory
    const { inventory } = readInventory(document(listed), [])
    for (const entry of digests) assert.ok(holds(inventory, entry.digest))
    assert.equal(inventoryOfList(document(inventoryOf([]))), undefined)
    assert.throws(() => inventoryOfList({ digests: ['no digest'] }), Failure)
  })

  const sealed = (payload: Buffer | string) => ({
    payload: Buffer.from(payload).toString('base64'),
    payloadType: inventoryType,
    signatures: [],
  })
  const good = Buffer.from(document(inventoryOf(['a', 'b'])).payload, 'base64')
  const line = (facts: object, digests = Buffer.alloc(0)) =>
    sealed(
      Buffer.concat([
        Buffer.from(`${JSON.stringify({ inventoryVersion: 1, blobs: 0, packs: [], ...facts })}\n`),
        digests,
      ]),
    )
  const key = newKey()
  const signed = document(inventoryOf(['a']), [key.signing])
  const tampered = { ...signed, payload: sealed(good).payload }
  const twice = Buffer.from(hexOf(digest('a')).repeat(2), 'hex')
  const table: [name: string, value: unknown, words: RegExp][] = [
    ['nothing', undefined, /not of the type/],
    ['text', 'inventory', /not of the type/],
    ['another type', { ...sealed(good), payloadType: 'application/vnd.in-toto+json' }, /not of the type/],
    ['no base64', { ...sealed(good), payload: `${sealed(good).payload}!` }, /not base64/],
    ['no signatures', { ...sealed(good), signatures: undefined }, /lists no signatures/],
    ['a signature that is none', { ...sealed(good), signatures: [{ sig: 'AAAA' }] }, /must be an Ed25519 signature/],
    ['what a trusted key did not sign', tampered, /did not sign this/],
    ['no line', sealed(''), /line of JSON/],
    ['a line that is no JSON', sealed('{\n'), /line of JSON/],
    ['a list', sealed('[]\n'), /JSON object/],
    ['another version', line({ inventoryVersion: 2 }), /another version/],
    ['a count that is none', line({ blobs: -1 }), /must be a count/],
    ['a count beyond all', line({ blobs: 2 ** 53 }), /must be a count/],
    ['more digests than there are', line({ blobs: 3 }, twice), /ends before/],
    ['a digest twice', line({ blobs: 2 }, twice), /not in order/],
    ['digests that nothing counts', line({}, twice), /more digests/],
    ['a cut', sealed(good.subarray(0, -1)), /ends before/],
    ['a pack that is none', line({ packs: [['Net', []]] }), /must be \[id, versions\]/],
    ['a version that is none', line({ packs: [['net', ['one']]] }), /a version in it that is none/],
    ['a manifest without a digest', line({ packs: [['net', ['1.0.0']]] }), /ends before/],
    ['a digest that is none', line({ packs: [['net', [['1.0.0', 'sha256:1']]]] }), /is not a digest/],
    ['another digest that is none', line({ otherBlobs: [7] }), /is not a digest/],
  ]
  for (const [name, value, words] of table)
    it(`is not ${name}`, () => {
      assert.throws(
        () => readInventory(value, [key.trusted]),
        (error) => error instanceof Failure && error.key === 'INVENTORY_INVALID' && words.test(String(error.detail)),
      )
    })

  it('is refused, never misread, whatever the bytes', () => {
    fc.assert(
      fc.property(fc.nat(good.length - 1), fc.integer({ min: 1, max: 255 }), (at, by) => {
        const flipped = Buffer.from(good)
        flipped[at] = (flipped[at] ?? 0) ^ by
        try {
          const { digest: read } = readInventory(sealed(flipped), [])
          assert.notEqual(read, digestOf(good) satisfies Digest)
        } catch (error) {
          assert.ok(error instanceof Failure, String(error))
        }
      }),
    )
  })
})
