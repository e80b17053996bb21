// The headers of an archive, looked at as its bytes go by. The reader of archives reads them too, but says neither where
// an entry ends nor bounds what a header may cost: one of 4 MiB takes it seconds, in which nothing else is done.
// What is not written exactly as the formats have it is wrong here, so that no two readers make different things of it.
// Source: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Header Block"; GNU tar, "Basic Tar Format".

const block = 512
/** The largest extended header, in bytes. Ours have less than 200; each costs time again with every entry behind it. */
const mostExtended = 8 * 1024

/** An entry with its name as it is written, and where it ends. */
type OnEntry = (name: string, end: number) => void

export type Headers = {
  /** Bytes that follow those before. Answers what is wrong with a header, in words; from then on nothing is looked at. */
  take(piece: Buffer): string | undefined
}

/** Looks at an archive, or the rest of one, that begins at byte `start` with a header. */
export function openHeaders(start: number, onEntry: OnEntry): Headers {
  let position = start
  /** Where the next header, or the content of an extended one, begins. */
  let next = start
  let wanted = block
  let pieces: Buffer[] = []
  let have = 0
  let extending: Header | undefined
  let extended: Extended = {}
  let wrong: string | undefined

  function onBytes(bytes: Buffer): string | undefined {
    if (extending) {
      const { kind, size } = extending
      extending = undefined
      wanted = block
      return onExtended(kind, bytes.subarray(0, size))
    }
    if (isEmpty(bytes)) return undefined
    const header = headerOf(bytes)
    if (typeof header === 'string') return header
    if (!'xgLKN'.includes(header.kind)) {
      const size = extended.size ?? header.size
      if (header.kind === '5' && size > 0) return 'a folder has a size'
      next = position + padded(size)
      onEntry(extended.path ?? header.name, next)
      extended = {}
      return undefined
    }
    if (header.size === 0 || header.size > mostExtended)
      return `an extended header has ${header.size} bytes; the max size is ${mostExtended}`
    extending = header
    wanted = padded(header.size)
    return undefined
  }

  function onExtended(kind: string, bytes: Buffer): string | undefined {
    if (kind !== 'x' && kind !== 'g') {
      if (kind !== 'K') extended.path = bytes.toString().replace(/\0[\s\S]*$/, '')
      return undefined
    }
    const found = recordsOf(bytes)
    if (typeof found === 'string') return found
    if (kind === 'x') extended = { ...extended, ...found }
    else if (Object.keys(found).length > 0)
      return 'a header for all of the archive has the name or the size of an entry'
    return undefined
  }

  return {
    take(piece) {
      let rest = piece
      while (rest.length > 0 && wrong === undefined) {
        if (position < next) {
          const skipped = Math.min(rest.length, next - position)
          position += skipped
          rest = rest.subarray(skipped)
          continue
        }
        const part = rest.subarray(0, wanted - have)
        pieces.push(part)
        have += part.length
        position += part.length
        next = position
        rest = rest.subarray(part.length)
        if (have < wanted) break
        const bytes = pieces.length === 1 ? part : Buffer.concat(pieces)
        pieces = []
        have = 0
        wrong = onBytes(bytes)
      }
      return wrong
    },
  }
}

type Header = { name: string; size: number; kind: string }
type Extended = { path?: string; size?: number }

function padded(size: number): number {
  return Math.ceil(size / block) * block
}

const sumAt = { from: 148, to: 156 }

/** A block of zeros, whatever stands where the sum would be. */
function isEmpty(bytes: Buffer): boolean {
  return bytes.every((byte, i) => byte === 0 || (i >= sumAt.from && i < sumAt.to))
}

function headerOf(bytes: Buffer): Header | string {
  const text = (from: number, length: number) => bytes.toString('utf8', from, from + length).replace(/\0[\s\S]*$/, '')
  const sum = bytes.reduce((total, byte, i) => total + (i >= sumAt.from && i < sumAt.to ? 0x20 : byte), 0)
  if (numberAt(bytes, sumAt.from, 8) !== sum) return 'invalid tar header'
  const size = numberAt(bytes, 124, 12)
  if (size === undefined) return 'a header has a size that cannot be'
  const hasPrefix = bytes.toString('latin1', 257, 263) === 'ustar\0' && bytes[345] !== 0
  const name = hasPrefix ? `${text(345, 155)}/${text(0, 100)}` : text(0, 100)
  return { name, size, kind: bytes[156] === 0 ? '0' : bytes.toString('latin1', 156, 157) }
}

/** Octal digits, or a binary number behind a byte of 0x80. Undefined where it is neither, or too large. */
function numberAt(bytes: Buffer, from: number, length: number): number | undefined {
  if (bytes[from] === 0x80) {
    const value = BigInt(`0x${bytes.toString('hex', from + 1, from + length)}`)
    return value <= Number.MAX_SAFE_INTEGER ? Number(value) : undefined
  }
  // NUL ends such a field, or a space.
  const [, digits] = /^ *\0*([0-7]*)[ \0]*$/.exec(bytes.toString('latin1', from, from + length)) ?? []
  return digits === undefined ? undefined : Number.parseInt(digits || '0', 8)
}

/** Path and size out of a pax header: records `<length> <key>=<value>\n`. Or what is wrong with it, in words. */
function recordsOf(bytes: Buffer): Extended | string {
  const found: Extended = {}
  for (let at = 0; at < bytes.length; ) {
    const length = Number(/^[1-9]\d{0,4}(?= )/.exec(bytes.toString('latin1', at, at + 6))?.[0] ?? 0)
    const record = bytes.toString('utf8', at, at + length)
    const [, key, value = ''] = /^\d+ ([^=]+)=([\s\S]*)\n$/.exec(record) ?? []
    if (key === undefined || at + length > bytes.length) return 'an extended header is damaged'
    if (key === 'path' && value) found.path = value
    if (key === 'size') {
      if (!/^\d{1,15}$/.test(value)) return 'an extended header has a size that cannot be'
      found.size = Number(value)
    }
    at += length
  }
  return found
}
