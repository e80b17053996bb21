import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  verify as verifySignature,
} from 'node:crypto'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { PassThrough, Readable } from 'node:stream'
import { after, describe, it } from 'node:test'
import { gzipSync } from 'node:zlib'
import { Failure } from '../errors.ts'
import { type Digest, digestOf } from '../oci/digest.ts'
import { pathOf, type SampleOptions, sampleBundle, type TarEntry, tarOf } from '../testing/bundle.ts'
import { parseIndex } from './contents.ts'
import { parseEnvelope, preAuthEncoding, signEnvelope, signersOf } from './dsse.ts'
import { generateKey, keyIdOf, type PublicKey, publicKeyOf, publicPem, readPublicKey, type SigningKey } from './keys.ts'
import { type Layout, type LayoutReader, type Limits, readLayout } from './read.ts'
import { checkSignature, decideVerification, type SignatureOutcome } from './signature.ts'
import { survey } from './survey.ts'
import { verify } from './verify.ts'

const folder = mkdtempSync(join(tmpdir(), 'packs-bundles-'))
after(() => rmSync(folder, { recursive: true, force: true }))

function newKey(): SigningKey & { public: PublicKey } {
  const { keyid, spki, pkcs8 } = generateKey()
  const privateKey = createPrivateKey({ key: pkcs8, type: 'pkcs8', format: 'der' })
  return { keyid, privateKey, public: publicKeyOf(spki) }
}
const [sender, stranger] = [newKey(), newKey()]
const now = new Date('2026-06-01T00:00:00Z')

const failsWith = (key: string, words: RegExp) => (error: unknown) => {
  assert.ok(error instanceof Failure, String(error))
  assert.match(`${error.key}: ${error.detail}`, new RegExp(`^${key}: .*${words.source}`, 's'))
  return true
}

let files = 0
function fileOf(bytes: Buffer): string {
  const path = join(folder, `${files++}.tar`)
  writeFileSync(path, bytes)
  return path
}

async function verifyBytes(bytes: Buffer, keys: readonly PublicKey[] = []) {
  const read = await survey(fileOf(bytes))
  return { read, ...verify(read, { keys, policy: undefined, now }) }
}

/** Reads bytes in pieces of a size; answers what was told, in order. */
async function read(
  bytes: Buffer,
  { piece = 1 << 20, limits = {} as Partial<Limits>, reader = {} as LayoutReader } = {},
) {
  const told: string[] = []
  const pieces = function* () {
    for (let at = 0; at < bytes.length; at += piece) yield bytes.subarray(at, at + piece)
  }
  const layout: Layout = await readLayout(
    Readable.from(pieces(), { objectMode: false }),
    {
      onIndex: () => void told.push('index'),
      onEnvelope: () => void told.push('envelope'),
      onBlob: ({ digest }) => void told.push(digest),
      ...reader,
    },
    limits,
  )
  return { layout, told }
}

describe('keys', () => {
  it('go through PEM, and are named by what they are', () => {
    const pem = publicPem(sender.public)
    assert.match(pem, /^-----BEGIN PUBLIC KEY-----\n/)
    const again = readPublicKey(`a comment\n${pem}`)
    assert.equal(again.keyid, sender.keyid)
    assert.equal(keyIdOf(again.key.export({ type: 'spki', format: 'der' })), sender.keyid)
  })
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const pemOf = (key: KeyObject) =>
    (key.type === 'private'
      ? key.export({ type: 'pkcs8', format: 'pem' })
      : key.export({ type: 'spki', format: 'pem' })
    ).toString()
  const pem = publicPem(sender.public)
  const table: [name: string, pem: string, words: RegExp][] = [
    ['nothing', '', /no PEM/],
    ['two keys', pem + publicPem(stranger.public), /2 keys/],
    ['a private key', pemOf(sender.privateKey), /private key/],
    ['a certificate', '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----', /a certificate/],
    ['RSA', pemOf(rsa.publicKey), /kind rsa/],
    ['half a key', pem.replace(/A/, ''), /cannot be used|can be read/],
    ['a novel', ' '.repeat(20_000) + pem, /20\d\d\d/],
  ]
  for (const [name, text, words] of table)
    it(`are not ${name}`, () => assert.throws(() => readPublicKey(text), failsWith('KEY_INVALID', words)))
})

describe('envelopes', () => {
  it('encode what is signed as the specification has it', () =>
    assert.equal(
      preAuthEncoding('http://example.com/HelloWorld', Buffer.from('hello world')).toString(),
      'DSSEv1 29 http://example.com/HelloWorld 11 hello world',
    ))
  it('are the same bytes for the same keys and payload', () => {
    const payload = Buffer.from('{}')
    const one = signEnvelope('t', payload, [sender, stranger])
    assert.deepEqual(one, signEnvelope('t', payload, [stranger, sender]))
    const both = [sender.public, stranger.public]
    assert.deepEqual(signersOf(parseEnvelope(one), both), both)
  })
  it('take the keyid for a hint only', () => {
    const bytes = signEnvelope('t', Buffer.from('{}'), [sender])
    for (const keyid of [undefined, null, '', 'somebody', stranger.keyid]) {
      const envelope = JSON.parse(bytes.toString())
      envelope.signatures[0].keyid = keyid
      const parsed = parseEnvelope(Buffer.from(JSON.stringify(envelope)))
      assert.deepEqual(signersOf(parsed, [stranger.public, sender.public]), [sender.public])
    }
  })
  it('may be written in the alphabet of URLs', () => {
    const envelope = JSON.parse(signEnvelope('t', Buffer.from('{"a":"??>>~~"}'), [sender]).toString())
    const url = (text: string) => Buffer.from(text, 'base64').toString('base64url')
    const signatures = [{ sig: url(envelope.signatures[0].sig) }]
    const bytes = Buffer.from(JSON.stringify({ ...envelope, payload: url(envelope.payload), signatures }))
    assert.deepEqual(signersOf(parseEnvelope(bytes), [sender.public]), [sender.public])
  })
  const sig = Buffer.alloc(64).toString('base64')
  const good = { payloadType: 't', payload: 'e30=', signatures: [{ sig }] }
  const table: [name: string, value: unknown, words: RegExp][] = [
    ['text', 'text', /not a JSON object/],
    ['a list', [], /not a JSON object/],
    ['no type', { ...good, payloadType: 1 }, /payloadType/],
    ['no base64', { ...good, payload: 'e3 0=' }, /payload must/],
    ['no signatures', { ...good, signatures: [] }, /no signatures/],
    ['many signatures', { ...good, signatures: Array(17).fill({ sig }) }, /more than 16/],
    ['a short signature', { ...good, signatures: [{ sig: 'AAAA' }] }, /64 bytes/],
    ['a null signature', { ...good, signatures: [null] }, /64 bytes/],
    ['a keyid that is a number', { ...good, signatures: [{ keyid: 1, sig }] }, /keyid/],
  ]
  for (const [name, value, words] of table)
    it(`are refused with ${name}`, () =>
      assert.throws(() => parseEnvelope(Buffer.from(JSON.stringify(value))), failsWith('SIGNATURE_INVALID', words)))
  it('are refused when they are large or no UTF-8', () => {
    assert.throws(() => parseEnvelope(Buffer.alloc(2 ** 20 + 1)), failsWith('SIGNATURE_INVALID', /1048576/))
    assert.throws(() => parseEnvelope(Buffer.from([0x22, 0xff, 0x22])), failsWith('SIGNATURE_INVALID', /UTF-8/))
  })
})

describe('the policy', () => {
  const missing: SignatureOutcome = { kind: 'missing' }
  const refused: SignatureOutcome = { kind: 'refused', reason: 'r' }
  const verified: SignatureOutcome = { kind: 'verified', by: [], predicate: { packs: 0, blobs: 0, size: 0 } }
  const table: [Parameters<typeof decideVerification>[0], boolean, SignatureOutcome, string | undefined][] = [
    [undefined, false, missing, undefined],
    [undefined, false, refused, 'SIGNATURE_INVALID'],
    [undefined, true, missing, 'SIGNATURE_MISSING'],
    [undefined, true, refused, 'SIGNATURE_INVALID'],
    [undefined, true, verified, undefined],
    ['always', false, missing, 'SIGNATURE_MISSING'],
    ['always', true, refused, 'SIGNATURE_INVALID'],
    ['always', true, verified, undefined],
    ['if-present', true, missing, undefined],
    ['if-present', true, refused, 'SIGNATURE_INVALID'],
    ['if-present', true, verified, undefined],
    ['never', true, missing, undefined],
    ['never', true, refused, undefined],
  ]
  for (const [policy, keys, outcome, key] of table)
    it(`${policy ?? 'unset'}, ${keys ? 'trusted keys' : 'no keys'}, ${outcome.kind}: ${key ?? 'taken'}`, () =>
      assert.equal(decideVerification(policy, keys, outcome)?.key, key))
})

describe('a key that takes signatures which anybody can make', () => {
  const prefix = Buffer.from('302a300506032b6570032100', 'hex')
  const zeros = Buffer.alloc(32)
  const one = Buffer.from('01'.padEnd(64, '0'), 'hex')
  const ff = (first: string, last: string) => Buffer.from(`${first}${'ff'.repeat(30)}${last}`, 'hex')
  const order8 = ['26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05'].map((hex) =>
    Buffer.from(hex, 'hex'),
  )
  for (const point of [zeros, one, ff('ec', '7f'), ff('ed', 'ff'), ff('ee', 'ff'), ...order8])
    it(`is not trusted: ${point.toString('hex').slice(0, 8)}…`, () => {
      const key = createPublicKey({ key: Buffer.concat([prefix, point]), type: 'spki', format: 'der' })
      const forged = [zeros, one, ff('ec', '7f'), ...order8].map((r) => Buffer.concat([r, zeros]))
      const messages = Array.from({ length: 64 }, (_, i) => Buffer.from(`message ${i}`))
      assert.ok(messages.some((message) => forged.some((sig) => verifySignature(null, message, key, sig))))
      const pem = key.export({ type: 'spki', format: 'pem' }).toString()
      assert.throws(() => readPublicKey(pem), failsWith('KEY_INVALID', /belongs to nobody/))
    })
})

describe('a bundle', () => {
  it('is read, whole and in order, whatever the pieces it comes in', async () => {
    const { bytes } = sampleBundle({ keys: [sender] })
    for (const piece of [1, 7, 511, 512, 513, 4096, 1 << 20]) {
      const { layout, told } = await read(bytes, { piece })
      assert.deepEqual(told.slice(0, 2), ['index', 'envelope'])
      assert.deepEqual(told.slice(2), told.slice(2).sort())
      assert.equal(layout.blobs, told.length - 2)
      assert.ok(parseIndex(layout.index).isBundle)
    }
  })
  it('verifies: its signers, and what it holds', async () => {
    const { bytes } = sampleBundle({ keys: [sender, stranger] })
    const verified = await verifyBytes(bytes, [sender.public])
    assert.equal(verified.signature.kind, 'verified')
    assert.deepEqual(verified.unnamed, [])
    const kinds = verified.read.contents.entries.map(({ kind }) => kind)
    assert.deepEqual(kinds, ['pack', 'pack', 'channel', 'referrer', 'lock'])
    assert.deepEqual(
      verified.read.lock?.lock.packs.map(({ packId, version }) => `${packId}@${version}`),
      ['alpha@1.0.0', 'beta@2.1.0+build.7'],
    )
  })
  it('is the same bytes when it is signed again', () =>
    assert.deepEqual(sampleBundle({ keys: [sender] }).bytes, sampleBundle({ keys: [sender] }).bytes))
  it('knows what belongs to a manifest by its tag, and misses that manifest', async () => {
    const taggedAs = (channel: string) => sampleBundle({ channels: [{ packId: 'alpha', channel }] })
    const alpha = String(sampleBundle().digests.alpha).replace(':', '-')
    const { read } = await verifyBytes(taggedAs(`${alpha}.sig`).bytes)
    assert.deepEqual(
      read.contents.entries.flatMap((entry) => (entry.kind === 'attachment' ? [entry.packId, entry.tag] : [])),
      ['alpha', `${alpha}.sig`],
    )
    const nothing = taggedAs(`sha256-${'0'.repeat(64)}.sig`)
    await assert.rejects(
      verifyBytes(nothing.bytes),
      failsWith('BUNDLE_INVALID', /sha256:0{64}, on which .* is not in it/),
    )
  })
  it('may leave out what its receiver has, and says so', async () => {
    const { digests } = sampleBundle()
    const { bytes } = sampleBundle({ keys: [sender], leaveOut: (digest) => digest === digests['alpha content'] })
    const { read } = await verifyBytes(bytes, [sender.public])
    assert.deepEqual(read.leftOut, [{ digest: digests['alpha content'], size: 20 }])
    assert.ok(read.contents.base)
    assert.ok(!read.blobs.has(digests['alpha content'] as Digest))
  })
  it('may have a member that nothing names', async () => {
    const extra = Buffer.from('extra')
    const { entries } = sampleBundle()
    const { unnamed } = await verifyBytes(tarOf([...entries, { name: pathOf(digestOf(extra)), bytes: extra }]))
    assert.deepEqual(unnamed, [digestOf(extra)])
  })

  const flipped = (bytes: Buffer, at: number) => {
    const copy = Buffer.from(bytes)
    copy[at] = (copy[at] as number) ^ 0x01
    return copy
  }
  const sample = (options: SampleOptions = {}) => sampleBundle({ keys: [sender], ...options })
  const { bytes: whole, entries, digests } = sample()
  /** Where the content of an entry begins. */
  const place = (name: string) => {
    let at = 0
    for (const { name: found, bytes = Buffer.alloc(0) } of entries) {
      if (found === name) return at + 512
      at += 512 + Math.ceil(bytes.length / 512) * 512
    }
    return assert.fail(name)
  }
  const replaced = (name: string, change: (bytes: Buffer) => Buffer) =>
    tarOf(entries.map((entry) => (entry.name === name ? { ...entry, bytes: change(entry.bytes as Buffer) } : entry)))
  const without = (name: string) => tarOf(entries.filter((entry) => entry.name !== name))
  const alpha = digests.alpha as Digest
  const index = entries[1]?.bytes?.toString() ?? ''
  const damages: [name: string, bytes: () => Buffer, key: string, words: RegExp][] = [
    ['nothing at all', () => Buffer.alloc(0), 'BUNDLE_INVALID', /cut off/],
    ['text', () => Buffer.from('hello'.repeat(1000)), 'BUNDLE_INVALID', /no tar/],
    ['only zeros', () => Buffer.alloc(4096), 'BUNDLE_INVALID', /no index\.json/],
    ['cut within a header', () => whole.subarray(0, place(pathOf(alpha)) - 300), 'BUNDLE_INVALID', /cut off/],
    ['cut within a blob', () => whole.subarray(0, place(pathOf(alpha)) + 10), 'BUNDLE_INVALID', /cut off/],
    ['cut between two entries', () => whole.subarray(0, place(pathOf(alpha)) - 512), 'BUNDLE_INVALID', /cut off/],
    ['cut before its end mark', () => tarOf(entries, { end: false }), 'BUNDLE_INVALID', /cut off/],
    ['a bit of a header', () => flipped(whole, place(pathOf(alpha)) - 500), 'BUNDLE_INVALID', /damaged/],
    ['a bit of a size', () => flipped(whole, place(pathOf(alpha)) - 512 + 134), 'BUNDLE_INVALID', /damaged/],
    [
      'a bit of a manifest',
      () => flipped(whole, place(pathOf(alpha)) + 40),
      'DIGEST_INVALID',
      new RegExp(alpha.slice(7)),
    ],
    [
      'a bit of a content',
      () => flipped(whole, place(pathOf(digests['beta content']))),
      'DIGEST_INVALID',
      /bytes have/,
    ],
    ['a bit of the lock', () => flipped(whole, place(pathOf(digests.lock)) + 30), 'DIGEST_INVALID', /bytes have/],
    [
      'a bit of the index',
      () => flipped(whole, place('index.json') + index.indexOf('1.0.0')),
      '(?:SIGNATURE|BUNDLE)_INVALID',
      /index\.json/,
    ],
    [
      'a bit of a digest in the index',
      () => flipped(whole, place('index.json') + index.indexOf('sha256:') + 20),
      'SIGNATURE_INVALID',
      /index\.json/,
    ],
    [
      'a bit of the signature',
      () => flipped(whole, place('bundle.dsse.json') + (entries[2]?.bytes?.length ?? 0) - 20),
      'SIGNATURE_INVALID',
      /did not sign|64 bytes/,
    ],
    [
      'a bit of what is signed',
      () => flipped(whole, place('bundle.dsse.json') + 80),
      'SIGNATURE_INVALID',
      /did not sign|base64/,
    ],
    ['no index', () => without('index.json'), 'BUNDLE_INVALID', /no index\.json/],
    ['no manifest', () => without(pathOf(alpha)), 'SIGNATURE_INVALID', /made for 2 packs/],
    ['no signature', () => without('bundle.dsse.json'), 'SIGNATURE_MISSING', /not signed/],
    ['no lock', () => without(pathOf(digests.lock)), 'BUNDLE_INVALID', /the lock .* is not in it/],
    ['an index that is none', () => replaced('index.json', () => Buffer.from('[]')), 'BUNDLE_INVALID', /JSON object/],
    [
      'an index of very many parts',
      () => replaced('index.json', () => Buffer.from(`{"manifests":[${'{},'.repeat(1_600_000)}{}]}`)),
      'BUNDLE_INVALID',
      /more than 3000000 objects/,
    ],
    [
      'an index of another time',
      () => replaced('index.json', (bytes) => Buffer.from(bytes.toString().replace('"1"', '"2"'))),
      'BUNDLE_INVALID',
      /version "2"/,
    ],
    [
      'a layout of another time',
      () => replaced('oci-layout', () => Buffer.from('{"imageLayoutVersion":"2.0.0"}')),
      'BUNDLE_INVALID',
      /1\.0\.0/,
    ],
    [
      'a lock that names another manifest',
      () => sample({ lie: (pack) => ({ ...pack, manifestDigest: digestOf(Buffer.from('x')) }) }).bytes,
      'BUNDLE_INVALID',
      /the lock says that alpha@1\.0\.0/,
    ],
    [
      'a lock that names another content',
      () => sample({ lie: (pack) => ({ ...pack, digest: digestOf(Buffer.from('x')) }) }).bytes,
      'BUNDLE_INVALID',
      /its manifest does not/,
    ],
    [
      'a lock that names another size',
      () => sample({ lie: (pack) => ({ ...pack, size: 7 }) }).bytes,
      'BUNDLE_INVALID',
      /its manifest does not/,
    ],
    [
      'a lock that names another version',
      () => sample({ lie: (pack) => ({ ...pack, version: '9.9.9' as typeof pack.version }) }).bytes,
      'BUNDLE_INVALID',
      /alpha@9\.9\.9, which is not in it/,
    ],
  ]
  for (const [name, damaged, key, words] of damages)
    it(`is refused with ${name}`, () => assert.rejects(verifyBytes(damaged(), [sender.public]), failsWith(key, words)))
  it('is refused without a manifest that its index names', () => {
    const unsigned = sampleBundle()
    const bytes = tarOf(unsigned.entries.filter(({ name }) => name !== pathOf(alpha)))
    return assert.rejects(verifyBytes(bytes), failsWith('BUNDLE_INVALID', /which index\.json names, is not in it/))
  })
  it('is refused without a content that a manifest names', () => {
    const unsigned = sampleBundle()
    const bytes = tarOf(unsigned.entries.filter(({ name }) => name !== pathOf(digests['beta content'])))
    return assert.rejects(verifyBytes(bytes), failsWith('BUNDLE_INVALID', /is not in it/))
  })
  it('is refused when it was cut off anywhere', async () => {
    for (let at = 0; at < whole.length; at += 509)
      await assert.rejects(verifyBytes(whole.subarray(0, at), [sender.public]), (error) => error instanceof Failure)
  })
  it('is refused with any bit flipped, but for what says nothing: times, owners and padding', async () => {
    for (let at = 0; at < whole.length; at += 331) {
      const outcome = await verifyBytes(flipped(whole, at), [sender.public]).then(
        () => 'taken',
        (error) => (error instanceof Failure ? 'refused' : error),
      )
      if (outcome === 'taken') assert.equal(whole[at], 0, `byte ${at} was changed`)
      else assert.equal(outcome, 'refused')
    }
  })
})

describe('a signature', () => {
  const signed = sampleBundle({ keys: [sender] })
  const index = signed.entries[1]?.bytes as Buffer
  const envelope = signed.entries[2]?.bytes as Buffer
  const of = { index, lock: signed.digests.lock as Digest }
  const table: [name: string, outcome: () => SignatureOutcome, words: RegExp][] = [
    ['by nobody that is trusted', () => checkSignature(envelope, of, [stranger.public], now), /trust that public key/],
    [
      'by a key that is distrusted',
      () => {
        const fallen = { keyid: sender.keyid, name: 'fallen', distrustedAt: now }
        return checkSignature(envelope, of, [stranger.public], now, [fallen])
      },
      /fallen .* was distrusted here on 2026-06-01; ask the sender to sign with another/,
    ],
    ['when nobody is trusted', () => checkSignature(envelope, of, [], now), /trust that public key/],
    [
      'by a key that expired',
      () => checkSignature(envelope, of, [{ ...sender.public, name: 'old', expiresAt: now }], now),
      /old .* expired at 2026-06-01/,
    ],
    [
      'of another lock',
      () => checkSignature(envelope, { ...of, lock: digestOf(index) }, [sender.public], now),
      /lock is not/,
    ],
    [
      'of a lock where none is',
      () => checkSignature(envelope, { ...of, lock: undefined }, [sender.public], now),
      /has none/,
    ],
    [
      'of another index',
      () => checkSignature(envelope, { ...of, index: Buffer.from('{}') }, [sender.public], now),
      /index\.json is not/,
    ],
    [
      'of something else',
      () => checkSignature(signEnvelope('text/plain', index, [sender]), of, [sender.public], now),
      /text\/plain/,
    ],
    [
      'of another statement',
      () =>
        checkSignature(
          signEnvelope('application/vnd.in-toto+json', Buffer.from('{}'), [sender]),
          of,
          [sender.public],
          now,
        ),
      /in-toto statement/,
    ],
  ]
  for (const [name, outcome, words] of table)
    it(`does not hold ${name}`, () => {
      const found = outcome()
      assert.equal(found.kind, 'refused')
      assert.match(found.kind === 'refused' ? found.reason : '', words)
    })
  it('holds while one of its keys is good', () => {
    const both = sampleBundle({ keys: [sender, stranger] }).entries[2]?.bytes
    const keys = [{ ...sender.public, expiresAt: new Date(0) }, stranger.public]
    assert.equal(checkSignature(both, of, keys, now).kind, 'verified')
  })
})

describe('the reader', () => {
  const { entries } = sampleBundle()
  const content = Buffer.from('x')
  const hostile: [name: string, entry: TarEntry, words: RegExp][] = [
    ['an absolute path', { name: '/etc/passwd', bytes: content }, /leads out/],
    ['a path upwards', { name: 'blobs/../../x', bytes: content }, /leads out/],
    ['a path upwards at the start', { name: '../x', bytes: content }, /leads out/],
    ['a path with a dot', { name: 'blobs/./x', bytes: content }, /leads out/],
    ['a path with a backslash', { name: 'blobs\\x', bytes: content }, /leads out/],
    ['a path with two slashes', { name: 'blobs//x', bytes: content }, /leads out/],
    ['a line feed in a path', { name: 'a\nb', bytes: content }, /leads out/],
    ['no name', { name: '', bytes: content }, /leads out/],
    ['a symbolic link', { name: 'blobs/sha256/x', type: '2', link: '/etc/passwd' }, /symbolic link/],
    ['a hard link', { name: 'x', type: '1', link: 'index.json' }, /hard link/],
    ['a device', { name: 'x', type: '3' }, /device/],
    ['a pipe', { name: 'x', type: '6' }, /pipe/],
    ['an unknown kind', { name: 'x', type: 'Z' }, /something else/],
    ['a folder with content', { name: 'x/', type: '5', bytes: content }, /size/],
    ['index.json twice', { name: 'index.json', bytes: content }, /twice/],
    ['index.json twice, the second under another name', { name: './index.json', bytes: content }, /twice/],
    ['a blob twice', entries.at(-1) as TarEntry, /twice/],
    ['a blob that is named wrongly', { name: 'blobs/sha256/abc', bytes: content }, /64 hex/],
    ['a blob of an unknown algorithm', { name: `blobs/md5/${'0'.repeat(32)}`, bytes: content }, /64 hex/],
    [
      'a long name',
      { name: 'x', type: 'L', bytes: Buffer.from(`${'n'.repeat(600)}\0`) },
      /512 characters|no tar|twice|damaged/,
    ],
  ]
  for (const [name, entry, words] of hostile)
    it(`refuses ${name}`, async () => {
      const after = entry.type === 'L' ? [{ name: 'y', bytes: content }] : []
      await assert.rejects(read(tarOf([...entries, entry, ...after])), failsWith('BUNDLE_INVALID', words))
    })
  it('refuses a header that says it is huge', () =>
    assert.rejects(
      read(tarOf([{ name: 'x', type: 'x', size: 2 ** 32 }, ...entries])),
      failsWith('BUNDLE_INVALID', /max size/),
    ))
  const records = (count: number) => {
    const keys = Array.from({ length: count }, (_, i) => `10 k${String(i).padStart(4, '0')}=\n`)
    return Buffer.from(keys.join(''))
  }
  const extended: [name: string, header: TarEntry, words: RegExp][] = [
    ['more of one than any writer makes', { name: 'x', type: 'x', bytes: records(900) }, /max size/],
    ['more of one for all entries', { name: 'x', type: 'g', bytes: records(900) }, /max size/],
    ['a name of 9,000 letters', { name: 'x', type: 'L', bytes: Buffer.alloc(9000, 'n') }, /max size/],
    ['an empty one', { name: 'x', type: 'x' }, /0 bytes/],
    ['a size for all entries', { name: 'x', type: 'g', bytes: Buffer.from('9 size=1\n') }, /all of the archive/],
    ['a size below zero', { name: 'x', type: 'x', bytes: Buffer.from('11 size=-1\n') }, /size that cannot be/],
    ['a record longer than itself', { name: 'x', type: 'x', bytes: Buffer.from('99 size=1\n') }, /damaged/],
    ['a record of a length below zero', { name: 'x', type: 'x', bytes: Buffer.from('-9 size=1\n') }, /damaged/],
  ]
  for (const [name, header, words] of extended)
    it(`refuses in an extended header ${name}`, () =>
      assert.rejects(read(tarOf([header, ...entries])), failsWith('BUNDLE_INVALID', words)))
  it('refuses a header that has a size in letters', async () => {
    const bytes = tarOf(entries)
    bytes.write('0000000000z\0', 124)
    bytes.write('        ', 148)
    const sum = bytes.subarray(0, 512).reduce((total, byte) => total + byte, 0)
    bytes.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
    await assert.rejects(read(bytes), failsWith('BUNDLE_INVALID', /size that cannot be/))
  })
  it('refuses what is beyond its limits', async () => {
    const { bytes } = sampleBundle()
    await assert.rejects(read(bytes, { limits: { entries: 5 } }), failsWith('BUNDLE_INVALID', /more than 5 entries/))
    await assert.rejects(read(bytes, { limits: { bytes: 4096 } }), failsWith('BUNDLE_INVALID', /more than 4096 bytes/))
    await assert.rejects(read(bytes, { limits: { indexBytes: 10 } }), failsWith('BUNDLE_INVALID', /at most 10/))
  })
  it('refuses a bomb, by what it becomes, before it has become it', async () => {
    const zeros = Buffer.alloc(100 * 1024 * 1024)
    const bomb = gzipSync(tarOf([{ name: 'zeros', bytes: zeros }, ...entries]), { level: 1 })
    await assert.rejects(read(bomb), failsWith('BUNDLE_INVALID', /200 to 1/))
  })
  it('reads gzip and zstd, and says where they are cut off or damaged', async () => {
    const { bytes } = sampleBundle({
      packs: [{ packId: 'a', version: '1.0.0', content: Buffer.alloc(3_000_000, 'abc') }],
      channels: [],
      referrer: false,
    })
    for (const packed of [gzipSync(bytes), execFileSync('zstd', ['-c', '-q'], { input: bytes, maxBuffer: 1 << 26 })]) {
      for (const piece of [1000, 1 << 20]) assert.equal((await read(packed, { piece })).layout.blobs, 6)
      await assert.rejects(read(packed.subarray(0, packed.length - 20)), failsWith('BUNDLE_INVALID', /cut off|damaged/))
      const damaged = Buffer.from(packed)
      damaged.fill(0x55, 200, 300)
      await assert.rejects(read(damaged), failsWith('(?:BUNDLE|DIGEST)_INVALID', /cut off|damaged/))
    }
  })
  it('reads ./ in front, folders, PAX headers, other files, and an index at the end', async () => {
    const pax = Buffer.from('30 mtime=1750000000.123456789\n')
    const [layout, index, ...blobs] = entries
    const others: TarEntry[] = [
      { name: 'pax_global_header', type: 'g', bytes: Buffer.from('19 comment=nothing\n') },
      { name: './', type: '5' },
      { name: './blobs/', type: '5' },
      { name: './blobs/sha256/', type: '5' },
      ...blobs.reverse().flatMap((entry) => [
        { name: 'PaxHeaders/x', type: 'x', bytes: pax },
        { ...entry, name: `./${entry.name}` },
      ]),
      { name: 'manifest.json', bytes: Buffer.from('[]') },
      { ...(layout as TarEntry), name: './oci-layout' },
      { ...(index as TarEntry), name: './index.json' },
    ]
    const { told, layout: found } = await read(tarOf(others))
    assert.equal(told.at(-1), 'index')
    assert.equal(found.blobs, blobs.length)
  })
  it('hands content on as a stream that fails instead of ending where it is not what its name says', async () => {
    const bytes = Buffer.alloc(300_000, 'a')
    const name = pathOf(digestOf(Buffer.from('something else')))
    let seen: unknown
    const onBlob = async (_: unknown, content: Readable) => {
      const through = content.pipe(new PassThrough())
      content.on('error', (error) => {
        seen = error
        through.destroy(error)
      })
      for await (const _ of through);
    }
    await assert.rejects(
      read(tarOf([...entries, { name, bytes }]), { reader: { onBlob } }),
      failsWith('DIGEST_INVALID', /something|bytes have/),
    )
    assert.ok(seen instanceof Failure)
  })
  it('ends with what its reader throws, and with the error of its source', async () => {
    const onBlob = () => Promise.reject(new Error('the disk is full'))
    await assert.rejects(read(sampleBundle().bytes, { reader: { onBlob } }), /the disk is full/)
    const broken = new PassThrough()
    broken.write(sampleBundle().bytes.subarray(0, 3000))
    setImmediate(() => broken.destroy(new Error('the line went dead')))
    await assert.rejects(readLayout(broken, {}), /the line went dead/)
    const closed = new PassThrough()
    closed.write(sampleBundle().bytes.subarray(0, 3000))
    setImmediate(() => closed.destroy())
    await assert.rejects(readLayout(closed, {}), /closed/)
  })
  it('reads a folder, and follows no link in it', async () => {
    const path = join(folder, 'layout')
    for (const { name, bytes = '' } of entries) {
      mkdirSync(dirname(join(path, name)), { recursive: true })
      writeFileSync(join(path, name), bytes)
    }
    const found = await survey(path)
    assert.equal(found.layout.blobs, entries.length - 2)
    verify(found, { keys: [], policy: undefined, now })
    symlinkSync('/etc/passwd', join(path, pathOf(digestOf(content))))
    await assert.rejects(survey(path), failsWith('BUNDLE_INVALID', /is not a file/))
  })
})
