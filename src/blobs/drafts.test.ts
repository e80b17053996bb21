import assert from 'node:assert/strict'
import { createHash, randomBytes, randomInt } from 'node:crypto'
import { once } from 'node:events'
import fs from 'node:fs'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { test } from 'node:test'
import { BufferedFile } from './buffered-file.ts'
import { Blocks, blocksFor, DirectFile } from './direct-file.ts'
import { Drafts } from './drafts.ts'
import { consume, releaseOf } from './intake.ts'

const KiB = 1024
const MiB = 1024 * KiB

/** A folder on a disk: the one for temporary files can be in memory, where an older Linux writes nothing directly. */
function folderOnDisk(t: { after(undo: () => void): void }): string {
  const parent = blocksFor(tmpdir(), 1) ? tmpdir() : '.'
  const folder = fs.mkdtempSync(join(parent, '.drafts-'))
  t.after(() => fs.rmSync(folder, { recursive: true }))
  return folder
}

type Open = (path: string, copied: (piece: Buffer) => void) => DirectFile | BufferedFile
const blocks = new Blocks(1)
const opened: Record<string, Open> = {
  buffered: (path) => new BufferedFile(path, { open: 0, flushes: 0 }),
  direct: (path, copied) => DirectFile.open(path, blocks, copied) ?? assert.fail('the block was not given back'),
}
/** Where a system cannot write directly, what there is to hold is that large files are written all the same. */
const skip = (kind: string) => kind === 'direct' && !blocksFor('.', 1) && 'this system writes no file directly'

const sizes = [1, 4095, 4096, 4097, 512 * KiB - 1, 512 * KiB, 512 * KiB + 1, MiB, MiB + 1, 3 * MiB, 5 * MiB + 4321]

for (const [kind, open] of Object.entries(opened)) {
  test(`a ${kind} file holds what was added, whatever the pieces`, { skip: skip(kind) }, async (t) => {
    const folder = folderOnDisk(t)
    for (const size of sizes) {
      const bytes = randomBytes(size)
      for (const most of [64 * KiB, 700_001, 6 * MiB]) {
        const path = join(folder, `${size}-${most}`)
        const copied: number[] = []
        const added: number[] = []
        const file = open(path, (piece) => copied.push(piece.length))
        for (let at = 0; at < size; ) {
          const piece = bytes.subarray(at, at + randomInt(1, most + 1))
          at += piece.length
          added.push(piece.length)
          // A caller that does not wait loses nothing either.
          const room = file.add(piece)
          if (randomInt(2) === 1) await room
        }
        await file.finish()
        assert.ok(fs.readFileSync(path).equals(bytes), `${size} bytes in pieces of up to ${most}`)
        if (kind === 'direct') assert.deepEqual(copied, added)
      }
    }
  })

  test(`a ${kind} file that is given up in the middle leaves no descriptor`, { skip: skip(kind) }, async (t) => {
    const folder = folderOnDisk(t)
    for (let size = 0; size < 3 * MiB; size += 300_000) {
      const file = open(join(folder, `${size}`), () => undefined)
      if (size > 0) void file.add(randomBytes(size))
      await file.discard()
      await file.discard()
    }
    const held = fs.existsSync('/proc/self/fd') ? fs.readdirSync('/proc/self/fd') : []
    const targets = held.map((fd) => fs.existsSync(`/proc/self/fd/${fd}`) && fs.readlinkSync(`/proc/self/fd/${fd}`))
    assert.deepEqual(
      targets.filter((path) => path !== false && path.includes(basename(folder))),
      [],
    )
  })
}

test('more large files than there are blocks are written all the same', async (t) => {
  const folder = folderOnDisk(t)
  const drafts = new Drafts(folder)
  const bytes = Array.from({ length: 70 }, () => randomBytes(MiB + randomInt(9000)))
  const files = bytes.map(() => drafts.begin())
  await Promise.all(files.map((file, at) => file.add(bytes[at] as Buffer)))
  await Promise.all(files.map((file) => file.finish()))
  for (const [at, file] of files.entries()) assert.ok(fs.readFileSync(file.path).equals(bytes[at] as Buffer))
  await Promise.all(files.map((file) => file.discard()))
  assert.deepEqual(fs.readdirSync(folder), [])
})

test('the starts of many files at once hold no more than so much together', async (t) => {
  const folder = folderOnDisk(t)
  const drafts = new Drafts(folder)
  const start = randomBytes(512 * KiB)
  const files = Array.from({ length: 300 }, () => drafts.begin())
  for (const file of files) {
    void file.add(Buffer.alloc(0))
    await file.add(start)
  }
  const held = files.length - fs.readdirSync(folder).length
  assert.ok(held * start.length <= 64 * MiB, `${held} starts are in memory`)
  await Promise.all(files.map((file) => file.discard()))
  assert.equal(drafts.starting, 0)
  assert.deepEqual(fs.readdirSync(folder), [])
})

/** Stores a stream as the folder store does; answers the digest it went by with, and its pieces. */
async function storeIn(drafts: Drafts, source: Readable, expected: Buffer) {
  const draft = drafts.begin(releaseOf(source))
  const hash = createHash('sha256')
  const seen: Buffer[] = []
  await consume(source, (piece) => {
    seen.push(piece)
    hash.update(piece)
    return draft.add(piece)
  })
  await draft.finish()
  assert.ok(fs.readFileSync(draft.path).equals(expected))
  await draft.discard()
  return { digest: hash.digest('hex'), seen }
}

const body = randomBytes(16 * MiB)
const left = (seen: Buffer[]) => seen.reduce((sum, piece) => sum + piece.length, 0)

test('the memory of the pieces of a request is given back once they have been copied', {
  skip: skip('direct'),
}, async (t) => {
  const drafts = new Drafts(folderOnDisk(t))
  const server = http.createServer((incoming, outgoing) => {
    storeIn(drafts, incoming, body).then(
      ({ digest, seen }) => outgoing.end(JSON.stringify({ digest, left: left(seen) })),
      (error) => outgoing.destroy(error),
    )
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => server.close())
  const { port } = server.address() as AddressInfo
  const request = http.request({ port, host: '127.0.0.1', method: 'PUT' })
  const answer = once(request, 'response') as Promise<[http.IncomingMessage]>
  await Promise.all([pipeline(Readable.from([body.subarray(0, 5 * MiB), body.subarray(5 * MiB)]), request), answer])
  const [response] = await answer
  const said = JSON.parse(Buffer.concat((await response.toArray()) as Buffer[]).toString())
  assert.equal(said.digest, createHash('sha256').update(body).digest('hex'))
  assert.ok(said.left < 2 * MiB, `${said.left} bytes of ${body.length} are still there`)
})

test('the memory of the pieces of any other stream stays, for it may be others who need it', async (t) => {
  const drafts = new Drafts(folderOnDisk(t))
  const pieces = Array.from({ length: 256 }, (_, at) => Buffer.from(body.subarray(at * 64 * KiB, (at + 1) * 64 * KiB)))
  const { seen } = await storeIn(drafts, Readable.from(pieces), body)
  assert.equal(left(seen), body.length)
  assert.ok(Buffer.concat(pieces).equals(body))
})
