import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import http, { type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, before, beforeEach, describe, it } from 'node:test'
import { type Client, openClient } from '../client/client.ts'
import { digestOf } from '../oci/digest.ts'
import { sampleBundle } from '../testing/bundle.ts'
import { openOutput } from './output.ts'
import { receiveBundle } from './receive.ts'
import type { Received } from './volumes.ts'

// A bundle file as it is received from a server that does not do as a registry does: there is no registry here.

const { bytes, entries } = sampleBundle()
const index = digestOf(entries[1]?.bytes ?? Buffer.alloc(0))
const sha256 = (some: Buffer) => createHash('sha256').update(some).digest('hex')

let folder: string
let server: http.Server
let client: Client
/** Sends what is left of the file from a byte on, or what this server makes of it. */
let answerWith: (answer: ServerResponse, from: number) => void
let asked = 0

before(async () => {
  server = http.createServer(({ headers }, answer) => {
    asked++
    answerWith(answer, Number(/\d+/.exec(headers.range ?? '')?.[0]))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  client = openClient({ url: `http://127.0.0.1:${port}`, attempts: 3, baseDelayMs: 1 })
})
after(() => {
  server?.close()
  server?.closeAllConnections()
})
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'packs-receive-'))
  asked = 0
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const send = (sent: Buffer) => (answer: ServerResponse, from: number) => {
  answer.writeHead(206, { 'content-range': `bytes ${from}-${bytes.length - 1}/${bytes.length}` })
  answer.end(sent.subarray(from))
}

/** Receives it as `packs.tar`. */
function receive({
  known = true,
  volumeBytes = undefined as number | undefined,
  id = sha256(bytes),
  size = bytes.length,
} = {}): Promise<Received> {
  const { signal } = new AbortController()
  const read = (from: number) => client.bundles.read({ id, size }, { from, signal })
  const at = { env: {}, flags: {}, output: openOutput({}, { quiet: true }), signal }
  const target = { output: join(folder, 'packs.tar'), id, size, volumeBytes }
  return receiveBundle(at, { index, sha256: known ? sha256(bytes) : undefined, read }, target, () => undefined)
}

it('takes nothing for the name of a file, or its size, that no registry gives it', async () => {
  answerWith = send(bytes)
  // As on systems where a path need not be there to lead out of it again.
  mkdirSync(join(folder, 'packs.tar.'))
  const bad = [{ id: '/../../outside.x' }, { id: '' }, { id: 7 as unknown as string }, { size: 0 }, { size: 1.5 }]
  for (const one of bad) await assert.rejects(receive(one), { code: 'ANSWER_INVALID' })
  assert.deepEqual(readdirSync(folder), ['packs.tar.'])
  assert.equal(asked, 0)
})

/** With a byte changed that no digest in the file covers: the mode of its first entry, and the sum of that header. */
function changed(): Buffer {
  const other = Buffer.from(bytes)
  other.write('0000645', 100)
  const header = other.subarray(0, 512)
  header.fill(' ', 148, 156)
  const sum = header.reduce((total, byte) => total + byte, 0)
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
  return other
}

/** Another bundle, as whole as the one that is asked for, and of its size. */
function another(): Buffer {
  const packs = [
    { packId: 'alpha', version: '1.0.0', content: 'the content of ALPHA' },
    { packId: 'beta', version: '2.1.0+build.7', content: 'the content of beta' },
  ]
  return sampleBundle({ packs }).bytes
}

describe('a bundle from a server that lies', () => {
  for (const volumeBytes of [undefined, 8192]) {
    const words = volumeBytes === undefined ? 'the file' : 'the volumes'
    it(`leaves ${words} of before as they were, where the sha256 is another`, async () => {
      answerWith = send(bytes)
      await receive({ volumeBytes })
      const names = readdirSync(folder)
      for (const name of names) writeFileSync(join(folder, name), 'of before')
      answerWith = send(changed())
      await assert.rejects(receive({ volumeBytes }), { code: 'DIGEST_MISMATCH', message: /sha256 is/ })
      assert.deepEqual(readdirSync(folder), names)
      for (const name of names) assert.equal(readFileSync(join(folder, name), 'utf8'), 'of before')
    })
    for (const known of [true, false])
      it(`keeps nothing of ${words} where more arrives than was announced, the sha256 ${known ? 'known' : 'not known'}`, async () => {
        answerWith = send(Buffer.concat([bytes, Buffer.alloc(4096, 'x')]))
        await assert.rejects(receive({ known, volumeBytes }), { code: 'SIZE_MISMATCH' })
        assert.deepEqual(readdirSync(folder), [])
      })
  }

  it('is not another bundle', async () => {
    assert.equal(another().length, bytes.length)
    answerWith = send(another())
    await assert.rejects(receive({ known: false }), { code: 'DIGEST_MISMATCH', message: /another bundle/ })
    assert.deepEqual(readdirSync(folder), [])
  })

  it('is given up where nothing arrives, and gone on with where something does', async () => {
    answerWith = send(Buffer.alloc(0))
    await assert.rejects(receive(), { code: 'UNREACHABLE', message: /sends nothing/ })
    assert.equal(asked, 3)
    answerWith = (answer, from) => send(bytes.subarray(0, from + 5000))(answer, from)
    assert.equal((await receive()).sha256, sha256(bytes))
  })
})

describe('a bundle that two commands write', () => {
  it('is written by one of them; the other says so', async () => {
    let go: () => void = () => undefined
    const waiting = new Promise<void>((resolve) => {
      answerWith = (answer, from) => {
        go = () => send(bytes)(answer, from)
        resolve()
      }
    })
    const first = receive({ volumeBytes: 8192 })
    await waiting
    await assert.rejects(receive({ volumeBytes: 8192 }), { code: 'USAGE', message: /another command is writing/ })
    await assert.rejects(receive(), { code: 'USAGE', message: /remove .*packs\.tar\.writing/ })
    go()
    const { volumes } = await first
    assert.equal(sha256(Buffer.concat(volumes.map((name) => readFileSync(name)))), sha256(bytes))
    assert.ok(!readdirSync(folder).includes('packs.tar.writing'))
  })

  it('is taken over from a command that was killed, and from no other file of that name', async () => {
    answerWith = send(bytes)
    const { pid } = spawnSync(process.execPath, ['--version'])
    const path = join(folder, 'packs.tar.writing')
    for (const dead of [pid, process.pid]) {
      writeFileSync(path, `packs ${hostname()} ${dead}\n`)
      await receive()
      assert.deepEqual(readdirSync(folder), ['packs.tar'])
    }
    for (const text of ['my own notes\n', `packs another-host ${pid}\n`]) {
      writeFileSync(path, text)
      await assert.rejects(receive(), { code: 'USAGE' })
      assert.equal(readFileSync(path, 'utf8'), text)
    }
  })

  it('is not written through a link that somebody put in its way', async () => {
    answerWith = send(bytes)
    const other = join(folder, 'other')
    // Empty: what is there already would be found to be damaged, and the link removed, before anything is written.
    writeFileSync(other, '')
    symlinkSync(other, join(folder, `packs.tar.${sha256(bytes).slice(0, 16)}.partial`))
    await receive()
    assert.equal(readFileSync(other, 'utf8'), '')
    assert.equal(sha256(readFileSync(join(folder, 'packs.tar'))), sha256(bytes))
  })
})
