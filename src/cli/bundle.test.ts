import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { createPrivateKey } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { after, describe, it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { generateKey, publicKeyOf, publicPem } from '../bundles/keys.ts'
import { pathOf, sampleBundle, tarOf } from '../testing/bundle.ts'

const main = fileURLToPath(new URL('../main.ts', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'packs-bundle-'))
after(() => rmSync(folder, { recursive: true, force: true }))

/** Runs a command in a folder of its own, with nothing of this environment: no registry, no login. */
function packs(...args: string[]): Promise<{ code: number; out: string; said: string }> {
  const env = { PATH: process.env.PATH, HOME: folder, PACKS_REGISTRY: 'http://127.0.0.1:1' }
  return new Promise((resolve) => {
    const command = ['--import', import.meta.resolve('tsx'), main, ...args]
    execFile(process.execPath, command, { cwd: folder, env }, (error, out, said) =>
      resolve({ code: error ? Number(error.code) : 0, out, said }),
    )
  })
}

const { keyid, spki, pkcs8 } = generateKey()
const key = { keyid, privateKey: createPrivateKey({ key: pkcs8, type: 'pkcs8', format: 'der' }) }
const write = (name: string, bytes: Buffer | string) => writeFileSync(join(folder, name), bytes)
const signed = sampleBundle({ keys: [key] })
write('key.pem', publicPem(publicKeyOf(spki)))
write('other.pem', publicPem(publicKeyOf(generateKey().spki)))
write('signed.tar', signed.bytes)
write('unsigned.tar', sampleBundle().bytes)
write('cut.tar', signed.bytes.subarray(0, 4000))
const content = signed.entries.find(({ name }) => name === pathOf(signed.digests['beta content']))
write(
  'flipped.tar',
  tarOf(signed.entries.map((entry) => (entry === content ? { ...entry, bytes: Buffer.from('x') } : entry))),
)
const newer = [
  { packId: 'alpha', version: '1.0.0', content: 'another content of alpha' },
  { packId: 'gamma', version: '0.1.0', content: 'the content of gamma' },
]
write('newer.tar', sampleBundle({ packs: newer }).bytes)

describe('packs bundle', () => {
  const table: [name: string, args: string[], code: number, words: RegExp][] = [
    ['verifies by the right key', ['verify', 'signed.tar', '--key', 'key.pem'], 0, /good, by sha256:.*complete/s],
    ['verifies by any of the keys', ['verify', 'signed.tar', '--key', 'other.pem', '--key', 'key.pem'], 0, /good, by/],
    ['verifies what is not signed', ['verify', 'unsigned.tar'], 0, /nobody vouches/],
    ['looks at no signature when told so', ['verify', 'signed.tar', '--policy', 'never'], 0, /not looked at/],
    ['refuses the wrong key', ['verify', 'signed.tar', '--key', 'other.pem'], 5, /no trusted key signed it/],
    ['refuses a signature without a key', ['verify', 'signed.tar'], 5, /no trusted key signed it/],
    ['refuses no signature with a key', ['verify', 'unsigned.tar', '--key', 'key.pem'], 5, /not signed/],
    ['refuses other bytes', ['verify', 'flipped.tar', '--key', 'key.pem'], 2, /changed or damaged/],
    ['refuses a cut file', ['verify', 'cut.tar', '--key', 'key.pem'], 11, /cut off/],
    ['refuses a key that is none', ['verify', 'signed.tar', '--key', 'cut.tar'], 11, /cut\.tar: this is no PEM/],
    ['finds no file', ['verify', 'nothing.tar'], 1, /nothing\.tar does not exist/],
    ['finds no key', ['verify', 'signed.tar', '--key', 'nothing.pem'], 1, /nothing\.pem does not exist/],
    ['knows no other policy', ['verify', 'signed.tar', '--policy', 'maybe'], 1, /always, if-present, never/],
    [
      'shows what is in it',
      ['inspect', 'signed.tar'],
      0,
      /alpha +1\.0\.0 .*beta +2\.1\.0\+build\.7.*stable.*cyclonedx/s,
    ],
    ['shows whose signature it says it is', ['inspect', 'signed.tar'], 0, new RegExp(`${keyid}; not checked`)],
    ['shows differences', ['diff', 'unsigned.tar', 'newer.tar'], 0, /\+ +gamma@0\.1\.0.*- +beta@2.*~ +alpha@1/s],
    ['shows no difference', ['diff', 'signed.tar', 'unsigned.tar'], 0, /no difference/],
    ['lists what it holds', ['inventory', 'signed.tar'], 0, new RegExp(`${signed.digests['beta content']} 19\n`)],
  ]
  for (const [name, args, code, words] of table)
    it(name, async () => {
      const answer = await packs('bundle', ...args)
      assert.match(answer.out + answer.said, words)
      assert.equal(answer.code, code)
    })

  it('answers in JSON, failures too', async () => {
    const [inspected, verified, refused, inventory] = await Promise.all([
      packs('bundle', 'inspect', 'signed.tar', '--json'),
      packs('bundle', 'verify', 'signed.tar', '--key', 'key.pem', '--json'),
      packs('bundle', 'verify', 'signed.tar', '--json'),
      packs('bundle', 'inventory', 'signed.tar', '--json'),
    ])
    assert.deepEqual(JSON.parse(inspected.out).signedBy, [keyid])
    const { valid, signature, signedBy, lock } = JSON.parse(verified.out)
    assert.deepEqual(
      { valid, signature, signedBy, lock },
      {
        ...{ valid: true, signature: 'verified', lock: signed.digests.lock },
        signedBy: [{ keyid, file: 'key.pem' }],
      },
    )
    assert.equal(JSON.parse(refused.out).error.code, 'SIGNATURE_INVALID')
    const { digests } = JSON.parse(inventory.out)
    assert.deepEqual(
      digests,
      [...digests].sort((a: { digest: string }, b: { digest: string }) => (a.digest < b.digest ? -1 : 1)),
    )
    assert.equal(digests.length, signed.entries.length - 3)
  })
})

it('has written all of a long result when it ends, however late it is read', async () => {
  const many = Array.from({ length: 2000 }, (_, at) => ({
    packId: `many-${String(at).padStart(4, '0')}`,
    version: '1.0.0',
    content: `${at}`,
  }))
  write('many.tar', sampleBundle({ packs: many, channels: [] }).bytes)
  const args = ['--import', import.meta.resolve('tsx'), main, 'bundle', 'inventory', 'many.tar', '--json']
  const child = spawn(process.execPath, args, { cwd: folder, stdio: ['ignore', 'pipe', 'inherit'] })
  const exited = once(child, 'exit')
  await once(child.stdout, 'readable')
  // As long as nobody reads, it has not ended.
  await Promise.race([exited, sleep(500)])
  const { digests } = JSON.parse(await text(child.stdout)) as { digests: unknown[] }
  assert.ok(digests.length > 3 * many.length)
  assert.equal((await exited)[0], 0)
})
