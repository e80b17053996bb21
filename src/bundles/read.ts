import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'
import { Failure } from '../errors.ts'
import { algorithmOf, type Digest, hexOf, parseDigest } from '../oci/digest.ts'
import { envelopeFile, indexFile, invalid, layoutFile } from './contents.ts'
import { maxEnvelopeBytes } from './dsse.ts'
import { filesOfTar, type LayoutFile } from './tar.ts'

// Reads an OCI image layout, ours or another tool's, in one pass and bounded memory. Nothing is believed: not names, not
// sizes, not digests. What the file says of itself is checked while it passes by; whether it is complete, and who signed
// it, can be known only at the end.

/** What a file may cost its reader. A file beyond one of these is refused in the middle, with the limit in words. */
export type Limits = {
  /** Entries of the archive, directories and all. Each is remembered, to see a second one of the same name. */
  entries: number
  /** Bytes after decompression. */
  bytes: number
  /** Decompressed bytes for one compressed byte, looked at after the first 64 MiB. gzip cannot do 1,040. */
  ratio: number
  /** Bytes of index.json, which is kept in memory. */
  indexBytes: number
}

export const defaultLimits: Limits = {
  entries: 300_000,
  bytes: 1024 ** 4,
  ratio: 200,
  indexBytes: 64 * 1024 * 1024,
}

/**
 * What is told while the file is read. Ours has index.json second and the signature third; other tools have them
 * anywhere, even last, so blobs may come before anything is known about them.
 *
 * `onBlob` gets the content as a stream that fails with DIGEST_INVALID instead of ending where the bytes are not what
 * the name says: whoever stores it as it comes sees the error before the end. Content that is not read to its end is
 * read and checked all the same. The next entry is not begun before the returned promise has settled.
 */
export type LayoutReader = {
  onIndex?: (bytes: Buffer) => void | Promise<void>
  onEnvelope?: (bytes: Buffer) => void | Promise<void>
  onBlob?: (blob: { digest: Digest; size: number }, content: Readable) => void | Promise<void>
}

/** `envelope`: the signature, where there is one. `blobs`, `size`: files under blobs/ and the sum of their bytes. */
export type Layout = { index: Buffer; envelope: Buffer | undefined; blobs: number; size: number }

/**
 * Reads a layout as a tar, plain or compressed by gzip or zstd. The source stays its owner's: after a failure it is paused, not destroyed.
 * Throws BUNDLE_INVALID where it is not such a file, is cut off or breaks a limit, DIGEST_INVALID where a blob is not
 * what its name says, and what the reader throws. Every failure names the entry.
 */
export async function readLayout(
  source: Readable,
  reader: LayoutReader,
  limits: Partial<Limits> = {},
): Promise<Layout> {
  const effective = { ...defaultLimits, ...limits }
  return readFiles(filesOfTar(source, effective), reader, effective)
}

/** The same of files that come one after the other, from wherever. */
export async function readFiles(
  files: AsyncIterable<LayoutFile>,
  { onIndex, onEnvelope, onBlob }: LayoutReader,
  { indexBytes }: Limits,
): Promise<Layout> {
  let index: Buffer | undefined
  let envelope: Buffer | undefined
  let layout: Buffer | undefined
  let [blobs, size] = [0, 0]
  for await (const file of files) {
    if (file.name === indexFile) {
      index = await whole(file, indexBytes)
      await onIndex?.(index)
    } else if (file.name === envelopeFile) {
      envelope = await whole(file, maxEnvelopeBytes)
      await onEnvelope?.(envelope)
    } else if (file.name === layoutFile) layout = await whole(file, 4096)
    else if (file.name.startsWith('blobs/')) {
      await readBlob(file, digestOfPath(file.name), onBlob)
      blobs++
      size += file.size
    } else await drain(file.content)
  }
  if (!index) throw invalid(`there is no ${indexFile} in it: it is not an OCI image layout`)
  // Some tools leave it out of their archives; where it is there, it has to be one that is known.
  if (layout) requireVersion(layout)
  return { index, envelope, blobs, size }
}

function digestOfPath(name: string): Digest {
  const [, algorithm = '', hex = '', ...more] = name.split('/')
  const digest = more.length === 0 ? parseDigest(`${algorithm}:${hex}`) : undefined
  if (digest) return digest
  throw invalid(`${name}: the name is not blobs/sha256/<64 hex> or blobs/sha512/<128 hex>`)
}

async function readBlob(file: LayoutFile, digest: Digest, onBlob: LayoutReader['onBlob']): Promise<void> {
  const checked = verified(file, digest)
  if (!onBlob) return drain(checked)
  const content = Readable.from(checked, { objectMode: false, highWaterMark: 1024 * 1024 })
  // Until somebody reads, an error has nowhere to go; it is thrown from here in the end.
  let failed: Error | undefined
  content.on('error', (error) => {
    failed ??= error
  })
  try {
    await onBlob({ digest, size: file.size }, content)
  } catch (error) {
    content.destroy()
    // What the stream failed with is the reason; what its consumer made of that is not.
    throw failed ?? error
  }
  if (failed) throw failed
  if (content.readableEnded) return
  if (content.destroyed) throw new Error(`the content of ${file.name} was thrown away by its reader`)
  await drain(content)
}

/** The content as it comes; fails after its last byte where it is not what the name says. */
async function* verified(file: LayoutFile, digest: Digest): AsyncGenerator<Buffer> {
  const hash = createHash(algorithmOf(digest))
  let size = 0
  for await (const piece of file.content) {
    hash.update(piece)
    size += piece.length
    yield piece
  }
  if (size !== file.size) throw invalid(`${file.name}: it ends after ${size} of ${file.size} bytes`)
  const actual = hash.digest('hex')
  if (actual !== hexOf(digest))
    throw new Failure('DIGEST_INVALID', {
      detail: `${file.name}: its bytes have the ${algorithmOf(digest)} ${actual}; the file was changed or damaged`,
    })
}

/** A file that is kept in memory, whole. */
async function whole({ name, size, content }: LayoutFile, limit: number): Promise<Buffer> {
  if (size > limit) throw invalid(`${name} has ${size} bytes, and at most ${limit} are read`)
  const pieces: Buffer[] = []
  let read = 0
  for await (const piece of content) {
    read += piece.length
    if (read > limit) throw invalid(`${name} has more than ${limit} bytes`)
    pieces.push(Buffer.from(piece))
  }
  return Buffer.concat(pieces)
}

async function drain(content: AsyncIterable<Buffer>): Promise<void> {
  for await (const _ of content);
}

function requireVersion(bytes: Buffer): void {
  const match = /"imageLayoutVersion"\s*:\s*"(\d+)\.\d+\.\d+[^"]*"/.exec(bytes.toString('utf8'))
  if (match?.[1] !== '1') throw invalid(`${layoutFile} does not say imageLayoutVersion 1.0.0`)
}
