import { algorithmOf, type Digest, digestOf, hexOf } from '../oci/digest.ts'
import { mediaTypes } from '../oci/media-types.ts'

// A bundle as one file: a plain tar of an OCI image layout. Its bytes follow from what is in it and from nothing else:
// entries are sorted, and every entry has the same time, owner and mode. So its size is known before the first byte is
// read, and any part of it can be made by itself.
// Source: image-spec, image-layout.md; POSIX ustar for the headers.

/** A piece of the file: bytes at hand, or the content of a blob. */
export type Piece = { bytes: Buffer } | { digest: Digest; size: number }

/** What index.json lists: the manifests that have a name, and what hangs on them. */
export type LayoutEntry = {
  mediaType: string
  digest: Digest
  size: number
  artifactType?: string
  annotations?: Record<string, string>
}

const block = 512

/**
 * The pieces of the file, in order: `oci-layout`, `index.json`, then the blobs by their digests. `blobs`: every blob and
 * manifest that is in it, once each.
 */
export function layoutPieces(
  entries: readonly LayoutEntry[],
  blobs: readonly { digest: Digest; size: number; bytes?: Buffer }[],
): Piece[] {
  const index = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.index, manifests: entries }))
  const sorted = [...blobs].sort((a, b) => (a.digest < b.digest ? -1 : 1))
  return [
    ...fileOf('oci-layout', Buffer.from(JSON.stringify({ imageLayoutVersion: '1.0.0' }))),
    ...fileOf('index.json', index),
    ...sorted.flatMap(({ digest, size, bytes }): Piece[] => [
      { bytes: header(`blobs/${algorithmOf(digest)}/${hexOf(digest)}`, size) },
      bytes ? { bytes } : { digest, size },
      { bytes: padding(size) },
    ]),
    { bytes: Buffer.alloc(2 * block) },
  ].filter((piece) => sizeOf(piece) > 0)
}

export function sizeOf(piece: Piece): number {
  return 'bytes' in piece ? piece.bytes.length : piece.size
}

/** The part of the file from byte `first` to byte `last`, both included: pieces, each with the range of it. */
export function* cut(
  pieces: readonly Piece[],
  { first, last }: { first: number; last: number },
): Generator<{ piece: Piece; first: number; last: number }> {
  let start = 0
  for (const piece of pieces) {
    const end = start + sizeOf(piece) - 1
    if (end >= first && start <= last)
      yield { piece, first: Math.max(first - start, 0), last: Math.min(last, end) - start }
    start = end + 1
  }
}

function fileOf(name: string, bytes: Buffer): Piece[] {
  return [{ bytes: header(name, bytes.length) }, { bytes }, { bytes: padding(bytes.length) }]
}

function padding(size: number): Buffer {
  return Buffer.alloc((block - (size % block)) % block)
}

/** The block before a file's own: mode 0644, owner 0, time 0. Names here are ASCII and at most 100 characters. */
function header(name: string, size: number): Buffer {
  const bytes = Buffer.alloc(block)
  const octal = (value: number, digits: number) => `${value.toString(8).padStart(digits, '0')}\0`
  bytes.write(name, 0, 'ascii')
  bytes.write(octal(0o644, 7) + octal(0, 7) + octal(0, 7), 100, 'ascii')
  writeSize(bytes, size)
  bytes.write(octal(0, 11), 136, 'ascii')
  bytes.write('0', 156, 'ascii')
  bytes.write('ustar\x0000', 257, 'ascii')
  // The sum of all bytes, its own eight counted as spaces.
  const sum = bytes.reduce((total, byte) => total + byte, 8 * 0x20)
  bytes.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'ascii')
  return bytes
}

/** Eleven octal digits; from 8 GiB on the binary form that GNU tar and everyone after it reads. */
function writeSize(bytes: Buffer, size: number): void {
  const text = size.toString(8)
  if (text.length <= 11) bytes.write(`${text.padStart(11, '0')}\0`, 124, 'ascii')
  else {
    bytes[124] = 0x80
    bytes.writeBigUInt64BE(BigInt(size), 128)
  }
}

/** The digest of a manifest at hand, as an entry of the file. */
export function manifestBlob(bytes: Buffer): { digest: Digest; size: number; bytes: Buffer } {
  return { digest: digestOf(bytes), size: bytes.length, bytes }
}
