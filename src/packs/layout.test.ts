import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, rmSync, truncateSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { extract } from 'tar-stream'
import { type Digest, digestOf } from '../oci/digest.ts'
import { cut, layoutIndex, layoutPieces, type Piece, sizeOf } from './layout.ts'

const contents = new Map<Digest, Buffer>()
function blobOf(bytes: Buffer, algorithm: 'sha256' | 'sha512' = 'sha256') {
  const digest = digestOf(bytes, algorithm)
  contents.set(digest, bytes)
  return { digest, size: bytes.length }
}
const bytesOf = (piece: Piece) => ('make' in piece ? piece.make() : (contents.get(piece.digest) ?? Buffer.alloc(0)))
const whole = (pieces: readonly Piece[]) => Buffer.concat(pieces.map(bytesOf))

/** Names and contents by another reader than the one under test. */
async function readTar(tar: Buffer): Promise<[string, number, Buffer][]> {
  const files: [string, number, Buffer][] = []
  for await (const entry of Readable.from([tar]).pipe(extract())) {
    const pieces: Buffer[] = []
    for await (const piece of entry) pieces.push(piece as Buffer)
    files.push([entry.header.name, entry.header.size ?? 0, Buffer.concat(pieces)])
  }
  return files
}

describe('an OCI layout as a tar', () => {
  const lengths = [0, 1, 511, 512, 513, 70_000]
  const blobs = lengths.map((length) => blobOf(Buffer.alloc(length, length % 251)))
  const long = blobOf(Buffer.from('by another algorithm'), 'sha512')
  const pieces = layoutPieces(layoutIndex([]), [long, ...blobs])

  it('is what tar readers read, names of 140 characters too', async () => {
    const files = await readTar(whole(pieces))
    assert.deepEqual(
      files.slice(0, 2).map(([name]) => name),
      ['oci-layout', 'index.json'],
    )
    assert.equal(
      files[1]?.[2].toString(),
      '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}',
    )
    const rest = files.slice(2)
    const names = [...blobs, long].map(({ digest }) => `blobs/${digest.replace(':', '/')}`)
    assert.deepEqual(
      rest.map(([name]) => name),
      names.sort(),
    )
    for (const [name, size, bytes] of rest) {
      const [, algorithm, hex] = name.split('/')
      assert.equal(size, bytes.length)
      assert.equal(digestOf(bytes, algorithm as 'sha256'), `${algorithm}:${hex}`)
    }
    const listed = execFileSync('tar', ['tvf', '-'], {
      input: whole(pieces),
      encoding: 'utf8',
      env: { ...process.env, TZ: 'UTC' },
    })
    for (const line of listed.trim().split('\n')) assert.match(line, /^-rw-r--r-- 0\/0 +\d+ 1970-01-01 00:00 /)
  })

  it('does not depend on the order in which its blobs are named', () => {
    assert.ok(whole(layoutPieces(layoutIndex([]), [...blobs, long].reverse())).equals(whole(pieces)))
  })

  it('knows its size, and gives any part of it', () => {
    const tar = whole(pieces)
    assert.equal(sizeOf(pieces), tar.length)
    assert.equal(tar.length % 512, 0)
    const place = fc.nat(tar.length - 1)
    fc.assert(
      fc.property(place, place, (a, b) => {
        const [first, last] = [Math.min(a, b), Math.max(a, b)]
        const parts = [...cut(pieces, { first, last })].map(({ piece, first, last }) =>
          bytesOf(piece).subarray(first, last + 1),
        )
        assert.ok(Buffer.concat(parts).equals(tar.subarray(first, last + 1)))
      }),
    )
  })

  it('says sizes of 8 GiB and more', () => {
    const size = 8 ** 11 + 12_345
    const digest = `sha256:${'f'.repeat(64)}` as Digest
    const folder = mkdtempSync(join(tmpdir(), 'packs-layout-'))
    try {
      // A sparse file: the blob itself takes no room.
      const path = join(folder, 'large.tar')
      const file = openSync(path, 'w')
      let position = 0
      for (const piece of layoutPieces(layoutIndex([]), [{ digest, size }])) {
        if ('make' in piece) writeSync(file, piece.make(), 0, piece.size, position)
        position += piece.size
      }
      closeSync(file)
      truncateSync(path, position)
      const listed = execFileSync('tar', ['tvf', path], { encoding: 'utf8' })
      assert.match(listed, new RegExp(` ${size} .*blobs/sha256/${'f'.repeat(64)}\n$`))
    } finally {
      rmSync(folder, { recursive: true })
    }
  })
})
