import { algorithmOf, type Digest, hexOf } from '../oci/digest.ts'
import { mediaTypes } from '../oci/media-types.ts'
import type { ByteRange } from '../oci/range.ts'
import type { PackId } from './pack.ts'
import { tagOf, type Version } from './version.ts'

// A closure as one file: a plain tar of an OCI image layout. Its bytes follow from what is in it and from nothing else:
// entries are sorted, and every entry has the same time, owner and mode. So its size is known before the first byte is
// read, and any part of it can be made by itself.
// Source: image-spec, image-layout.md; POSIX.1-2017, pax, "ustar Interchange Format" and "pax Header Block".

/** Goes up when the same entries and blobs would give other bytes: a download must not go on across that. */
export const layoutFormat = 1

/** A piece of the file: bytes that are made when they are needed, or the content of a blob. Never empty. */
export type Piece = { size: number; make: () => Buffer } | { size: number; digest: Digest }

/** What index.json lists: the manifests that have a name, and what hangs on them. */
export type LayoutEntry = {
  mediaType: string
  digest: Digest
  size: number
  annotations?: Record<string, string>
  artifactType?: string
}

const refName = 'org.opencontainers.image.ref.name'
const block = 512

/** The name of a pack in a layout: `--` cannot occur in an id, so it is read from the left. */
export function layoutName(packId: PackId, version: Version): string {
  return `${packId}--${tagOf(version)}`
}

/** A manifest under its name. */
export function namedEntry(
  { mediaType, digest, size, artifactType }: Omit<LayoutEntry, 'annotations'>,
  name: string,
): LayoutEntry {
  return { mediaType, digest, size, annotations: { [refName]: name }, ...(artifactType ? { artifactType } : {}) }
}

/** The bytes of index.json. `annotations`: what it says of the whole file. */
export function layoutIndex(entries: readonly LayoutEntry[], annotations?: Record<string, string>): Buffer {
  const index = { schemaVersion: 2, mediaType: mediaTypes.index, manifests: entries }
  return Buffer.from(JSON.stringify({ ...index, ...(annotations ? { annotations } : {}) }))
}

/**
 * The pieces of the file, in order: `oci-layout`, `index.json`, then the blobs by their digests. `blobs`: every blob and
 * manifest that is in it, once each, in any order. `beside`: a file that stands right behind index.json.
 */
export function layoutPieces(
  index: Buffer,
  blobs: readonly { digest: Digest; size: number }[],
  beside?: { name: string; bytes: Buffer },
): Piece[] {
  const sorted = [...blobs].sort((a, b) => (a.digest < b.digest ? -1 : 1))
  return [
    ...fileOf('oci-layout', atHand(Buffer.from('{"imageLayoutVersion":"1.0.0"}'))),
    ...fileOf('index.json', atHand(index)),
    ...(beside ? fileOf(beside.name, atHand(beside.bytes)) : []),
    ...sorted.flatMap(({ digest, size }) => fileOf(`blobs/${algorithmOf(digest)}/${hexOf(digest)}`, { size, digest })),
    zeros(2 * block),
  ].filter((piece) => piece.size > 0)
}

export function sizeOf(pieces: readonly Piece[]): number {
  return pieces.reduce((total, piece) => total + piece.size, 0)
}

/** The part of the file from byte `first` to byte `last`, both included: pieces, each with the range of it. */
export function* cut(pieces: readonly Piece[], { first, last }: ByteRange): Generator<{ piece: Piece } & ByteRange> {
  let start = 0
  for (const piece of pieces) {
    const end = start + piece.size - 1
    if (end >= first && start <= last)
      yield { piece, first: Math.max(first - start, 0), last: Math.min(last, end) - start }
    start = end + 1
  }
}

function fileOf(name: string, content: Piece): Piece[] {
  return [...headerOf(name, content.size), content, zeros(padding(content.size))]
}

function atHand(bytes: Buffer): Piece {
  return { size: bytes.length, make: () => bytes }
}

function zeros(size: number): Piece {
  return { size, make: () => Buffer.alloc(size) }
}

function padding(size: number): number {
  return (block - (size % block)) % block
}

/** As much as a ustar header can say: names of 100 bytes, sizes of eleven octal digits (8 GiB). */
const mostName = 100
const mostSize = 8 ** 11 - 1

/** What stands before a file. What ustar cannot say goes in a pax header in front of it, which every reader knows. */
function headerOf(name: string, size: number): Piece[] {
  const extended = [
    ...(name.length > mostName ? [record('path', name)] : []),
    ...(size > mostSize ? [record('size', String(size))] : []),
  ].join('')
  const own = { size: block, make: () => ustar(name.slice(0, mostName), size > mostSize ? 0 : size, '0') }
  if (!extended) return [own]
  const { length } = extended
  return [
    { size: block, make: () => ustar('pax', length, 'x') },
    atHand(Buffer.from(extended + '\0'.repeat(padding(length)), 'ascii')),
    own,
  ]
}

/** A record of a pax header, `<length> <key>=<value>\n`: its length counts itself. */
function record(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`
  const length = rest.length + String(rest.length).length
  return String(length).length === String(rest.length).length ? `${length}${rest}` : `${length + 1}${rest}`
}

/** A header block: mode 0644, owner 0, time 0. The name is ASCII. `kind`: a file, or a pax header. */
function ustar(name: string, size: number, kind: '0' | 'x'): Buffer {
  const bytes = Buffer.alloc(block)
  const octal = (value: number, digits: number) => `${value.toString(8).padStart(digits, '0')}\0`
  bytes.write(name, 0, 'ascii')
  bytes.write(octal(0o644, 7) + octal(0, 7) + octal(0, 7), 100, 'ascii')
  bytes.write(octal(size, 11) + octal(0, 11), 124, 'ascii')
  bytes.write(kind, 156, 'ascii')
  bytes.write('ustar\0' + '00', 257, 'ascii')
  // The sum of all bytes, its own eight counted as spaces.
  const sum = bytes.reduce((total, byte) => total + byte, 8 * 0x20)
  bytes.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'ascii')
  return bytes
}
