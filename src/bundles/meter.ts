import { type Readable, Transform, type TransformCallback } from 'node:stream'
import { openHeaders } from './tar-headers.ts'

// Where in an archive each entry ends: what a sender has to know to go on after a cut. The reader of archives does not
// say, so the headers are read a second time here, on their way to it.

export type Meter = {
  /** The bytes, as they came. It ends, or fails, as the source does; the source itself stays its owner's. */
  readonly through: Readable
  /** Bytes so far, those before the start among them. */
  received(): number
  /** Where the entry of this name ends, as a place in the whole file; told once. Undefined where that is not known. */
  endOf(name: string): number | undefined
  /** Lets go of the source. */
  stop(): void
}

/**
 * Measures an archive that begins at byte `start` of the whole file. Of what is no plain archive (a compressed one, say)
 * only the bytes are counted.
 */
export function openMeter(source: Readable, start: number): Meter {
  let received = start
  const ends = new Map<string, number>()
  const headers = openHeaders(start, (name, end) => ends.set(name.replace(/^(?:\.\/)+/, ''), end))
  const through = new Transform({
    highWaterMark: 1024 * 1024,
    transform(piece: Buffer, _: BufferEncoding, done: TransformCallback) {
      received += piece.length
      // What is wrong with them is told where the archive is read; a compressed one has none.
      headers.take(piece)
      done(null, piece)
    },
  })
  const onError = (error: Error) => through.destroy(error)
  const onClose = () => source.readableEnded || through.destroy(new Error('the source was closed before its end'))
  source.on('error', onError).on('close', onClose)
  // Who reads it is told; without a listener in between, an error would end the process.
  through.on('error', () => undefined)
  source.pipe(through)
  return {
    through,
    received: () => received,
    endOf(name) {
      const end = ends.get(name)
      ends.delete(name)
      return end
    },
    stop() {
      source.unpipe(through)
      source.off('close', onClose).pause()
      through.destroy()
    },
  }
}
