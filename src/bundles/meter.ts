import { type Readable, Transform, type TransformCallback } from 'node:stream'

// Where in an archive each entry ends: what a sender has to know to go on after a cut. The reader of archives does not
// say, so the headers are read a second time here, on their way to it.
// Source: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Header Block"; GNU tar, "Basic Tar Format".

const block = 512
/** The largest extended header that is read, in bytes; ours have less than 200. */
const mostExtended = 64 * 1024

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
  const headers = readHeaders(start)
  const through = new Transform({
    highWaterMark: 1024 * 1024,
    transform(piece: Buffer, _: BufferEncoding, done: TransformCallback) {
      received += piece.length
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
    endOf: headers.endOf,
    stop() {
      source.unpipe(through)
      source.off('close', onClose).pause()
      through.destroy()
    },
  }
}

/** Reads the headers of an archive as its bytes go by. */
function readHeaders(start: number) {
  const ends = new Map<string, number>()
  let position = start
  /** Where the next header begins; undefined where there is none to be found. */
  let next: number | undefined = start
  let pieces: Buffer[] = []
  let wanted = block
  let extended: { path?: string; size?: number } = {}
  let isExtended = false

  const onBytes = (bytes: Buffer) => {
    if (isExtended) {
      extended = { ...extended, ...recordsOf(bytes) }
      isExtended = false
      wanted = block
      return
    }
    const header = headerOf(bytes)
    if (!header) {
      next = undefined
      return
    }
    const size = extended.size ?? header.size
    const after = position + padded(size)
    if (header.kind === 'x' && size <= mostExtended && size > 0) {
      isExtended = true
      wanted = padded(size)
      next = position
      return
    }
    if (!'xgLK'.includes(header.kind)) {
      ends.set((extended.path ?? header.name).replace(/^(?:\.\/)+/, ''), after)
      extended = {}
    }
    next = after
  }

  return {
    endOf(name: string) {
      const end = ends.get(name)
      ends.delete(name)
      return end
    },
    take(piece: Buffer): void {
      let rest = piece
      while (rest.length > 0) {
        if (next === undefined) return
        if (position < next) {
          const skipped = Math.min(rest.length, next - position)
          position += skipped
          rest = rest.subarray(skipped)
          continue
        }
        const have = pieces.reduce((sum, { length }) => sum + length, 0)
        const part = rest.subarray(0, wanted - have)
        pieces.push(part)
        position += part.length
        next += part.length
        rest = rest.subarray(part.length)
        if (have + part.length < wanted) return
        const bytes = Buffer.concat(pieces)
        pieces = []
        onBytes(bytes)
      }
    },
  }
}

function padded(size: number): number {
  return Math.ceil(size / block) * block
}

/** Undefined at the end of an archive, and where this is no header. */
function headerOf(bytes: Buffer): { name: string; size: number; kind: string } | undefined {
  const text = (from: number, length: number) => bytes.toString('latin1', from, from + length).replace(/\0[\s\S]*$/, '')
  const sum = bytes.reduce((total, byte, i) => total + (i >= 148 && i < 156 ? 0x20 : byte), 0)
  if (Number.parseInt(text(148, 8), 8) !== sum) return undefined
  const written = bytes[124] ?? 0
  const size = written >= 0x80 ? Number(bytes.readBigUInt64BE(128)) : Number.parseInt(text(124, 12).trim() || '0', 8)
  if (!Number.isSafeInteger(size)) return undefined
  const prefix = text(257, 6).startsWith('ustar') && bytes[263] === 0x30 ? text(345, 155) : ''
  const kind = text(156, 1) || '0'
  // Folders, links and devices have no content, whatever their size says.
  const hasContent = !'123456'.includes(kind)
  return { name: prefix ? `${prefix}/${text(0, 100)}` : text(0, 100), size: hasContent ? size : 0, kind }
}

/** Path and size out of a pax header: records `<length> <key>=<value>\n`. */
function recordsOf(bytes: Buffer): { path?: string; size?: number } {
  const found: { path?: string; size?: number } = {}
  for (let at = 0; at < bytes.length && bytes[at] !== 0; ) {
    const length = Number.parseInt(bytes.toString('latin1', at, at + 20), 10)
    if (!(length > 0)) break
    const [, key, value = ''] = /^\d+ ([^=]+)=([\s\S]*)\n$/.exec(bytes.toString('utf8', at, at + length)) ?? []
    if (key === 'path') found.path = value
    if (key === 'size' && /^\d+$/.test(value)) found.size = Number(value)
    at += length
  }
  return found
}
