import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { describe, it } from 'node:test'
import { gzipSync } from 'node:zlib'
import fc from 'fast-check'
import { pack } from 'tar-stream'
import { sampleBundle, tarOf } from '../testing/bundle.ts'
import { openMeter } from './meter.ts'

async function whole(stream: AsyncIterable<Buffer>): Promise<Buffer> {
  const pieces: Buffer[] = []
  for await (const piece of stream) pieces.push(piece)
  return Buffer.concat(pieces)
}

/** The bytes in pieces of these lengths, over and over. */
function inPieces(bytes: Buffer, lengths: readonly number[]): Readable {
  function* cut() {
    for (let at = 0, i = 0; at < bytes.length; i++) {
      const length = lengths[i % lengths.length] ?? 1
      yield bytes.subarray(at, at + length)
      at += length
    }
  }
  return Readable.from(cut(), { objectMode: false })
}

describe('where the entries of an archive end', () => {
  it('is known, however its bytes come', () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(fc.nat(2000), { minLength: 1, maxLength: 12 }),
        fc.array(fc.integer({ min: 1, max: 1500 }), { minLength: 1, maxLength: 4 }),
        fc.boolean(),
        async (sizes, lengths, areLong) => {
          const names = sizes.map((_, i) => (areLong ? `blobs/sha512/${String(i).padStart(128, 'a')}` : `blobs/${i}`))
          const archive = pack()
          for (const [i, size] of sizes.entries()) archive.entry({ name: names[i] ?? '' }, Buffer.alloc(size, 7))
          archive.finalize()
          const bytes = await whole(archive as unknown as AsyncIterable<Buffer>)
          const meter = openMeter(inPieces(bytes, lengths), 0)
          assert.deepEqual(await whole(meter.through), bytes)
          const ends = names.map((name) => meter.endOf(name) ?? -1)
          // From each end on, the rest is an archive by itself; the last ends where the mark of the end begins.
          assert.equal(ends.at(-1), bytes.length - 1024)
          assert.deepEqual(
            ends,
            [...ends].sort((a, b) => a - b),
          )
          for (const [i, end] of ends.slice(0, -1).entries()) {
            const rest = openMeter(inPieces(bytes.subarray(end), [700]), end)
            await whole(rest.through)
            assert.equal(rest.endOf(names[i + 1] ?? ''), ends[i + 1])
          }
        },
      ),
      { numRuns: 50 },
    ))

  it('is told once, by the plain name', async () => {
    const meter = openMeter(Readable.from([tarOf([{ name: './a', bytes: Buffer.from('a') }])]), 0)
    await whole(meter.through)
    assert.equal(meter.endOf('a'), 1024)
    assert.equal(meter.endOf('a'), undefined)
  })

  it('is not known of what is no plain archive; its bytes are counted', async () => {
    const bytes = gzipSync(sampleBundle().bytes)
    const meter = openMeter(Readable.from([bytes]), 0)
    await whole(meter.through)
    assert.deepEqual([meter.endOf('index.json'), meter.received()], [undefined, bytes.length])
  })

  it('fails as its source does', async () => {
    const source = new Readable({ read() {} })
    const meter = openMeter(source, 0)
    source.destroy(new Error('the line broke'))
    await assert.rejects(whole(meter.through), /the line broke/)
  })
})
