import type { Readable } from 'node:stream'
import { type Extract, extract as extractTar, type Header } from 'tar-stream'
import { Failure } from '../errors.ts'
import { unpacked } from './compression.ts'
import { invalid } from './contents.ts'
import { openHeaders } from './tar-headers.ts'

/** A regular file of a layout. `name` has no `./` in front. Its content is read before the next file comes. */
export type LayoutFile = { name: string; size: number; content: AsyncIterable<Buffer> }

type TarLimits = { entries: number; bytes: number; ratio: number }

/** The longest name that is accepted. Ours are at most 142 characters long. */
const maxNameCharacters = 512
/** Small files may well be mostly zeros: the ratio is looked at from here on. */
const ratioFromBytes = 64 * 1024 * 1024
/** An archive ends in two blocks of zeros. Source: POSIX, pax, "ustar Interchange Format". */
const endBytes = 1024

/**
 * The regular files of a tar, in its order; plain or compressed. The source stays its owner's: afterwards, and after a
 * failure, it is paused, not destroyed.
 * Throws BUNDLE_INVALID for whatever has no place in a layout (paths that lead out of it, links, devices, a name twice),
 * and for an archive that is cut off, damaged or beyond the limits; and the source's own error.
 */
export async function* filesOfTar(source: Readable, limits: TarLimits): AsyncGenerator<LayoutFile> {
  const { pieces, isCompressed, close } = await unpacked(source)
  const extract = extractTar()
  const feeding = feed(extract, pieces, isCompressed ? source : undefined, limits)
  const seen = new Set<string>()
  let entries = 0
  try {
    for await (const entry of extract) {
      if (++entries > limits.entries) throw invalid(`it has more than ${limits.entries} entries`)
      const { name, size } = checkHeader(entry.header)
      if (seen.has(name)) throw invalid(`${name} is in it twice`)
      if (entry.header.type === 'directory') {
        entry.resume()
        continue
      }
      seen.add(name)
      yield { name, size, content: feeding.inWords(entry as unknown as AsyncIterable<Buffer>, name) }
    }
    if (!feeding.sawEnd()) throw invalid('it ends without the mark at the end of an archive: it was cut off')
  } catch (error) {
    throw feeding.reason(error)
  } finally {
    feeding.stop()
    close()
    extract.destroy()
  }
}

/**
 * Writes the pieces into the extractor, no faster than its entries are read, and counts. `packed`: where the bytes come
 * from before they are decompressed.
 */
function feed(extract: Extract, pieces: Readable, packed: Readable | undefined, limits: TarLimits) {
  let [packedBytes, bytes] = [0, 0]
  let tail: Buffer = Buffer.alloc(0)
  const headers = openHeaders(0, () => undefined)
  /** What ended it, where that was not the extractor itself. */
  let cause: Error | undefined
  const end = (error: Error) => {
    cause ??= error
    extract.destroy(error)
  }
  const onPacked = (piece: Buffer) => {
    packedBytes += piece.length
  }
  const onData = (piece: Buffer) => {
    bytes += piece.length
    if (bytes > limits.bytes) return end(invalid(`it has more than ${limits.bytes} bytes`))
    if (packed && bytes > ratioFromBytes && bytes > packedBytes * limits.ratio)
      return end(invalid(`its bytes are compressed more than ${limits.ratio} to 1, as no bundle is`))
    const wrong = headers.take(piece)
    if (wrong !== undefined) return end(invalid(`it is no tar, or damaged (${wrong})`))
    tail = piece.length >= endBytes ? piece.subarray(-endBytes) : Buffer.concat([tail, piece]).subarray(-endBytes)
    if (!extract.write(piece)) pieces.pause()
  }
  const onDrain = () => pieces.resume()
  const onEnd = () => extract.end(null)
  const onError = (error: Error) =>
    end(isDamage(error) ? invalid(`the compressed data is ${damage(error)}`, error) : error)
  const onClose = () => pieces.readableEnded || end(new Error('the source was closed before its end'))
  packed?.on('data', onPacked)
  extract.on('drain', onDrain)
  // A failure is told to whoever reads the entries; nobody else has to hear of it.
  extract.on('error', () => undefined)
  pieces.on('data', onData).on('end', onEnd).on('error', onError).on('close', onClose)
  // An empty source has ended already, when its first bytes were looked for.
  if (pieces.readableEnded) onEnd()
  const reason = (error: unknown) => cause ?? (error instanceof Failure ? error : invalid(tarDamage(error), error))
  return {
    reason,
    sawEnd: () => tail.length === endBytes && tail.every((byte) => byte === 0),
    stop() {
      packed?.off('data', onPacked)
      extract.off('drain', onDrain)
      pieces.off('data', onData).off('end', onEnd).off('close', onClose)
    },
    async *inWords(content: AsyncIterable<Buffer>, name: string): AsyncGenerator<Buffer> {
      try {
        yield* content
      } catch (error) {
        const why = reason(error)
        throw why instanceof Failure ? new Failure(why.key, { detail: `${name}: ${why.detail}`, cause: why }) : why
      }
    },
  }
}

/** Errors of zlib itself, gzip and zstd. */
function isDamage(error: Error): boolean {
  const { code } = error as { code?: string }
  return code !== undefined && /^(?:Z_|ZSTD_|ERR_ZLIB|ERR__ERROR_FORWARD)/.test(code)
}

function damage(error: Error): string {
  return /unexpected end/i.test(error.message) ? 'cut off' : `damaged (${error.message})`
}

function tarDamage(error: unknown): string {
  const { message } = error as Error
  if (message === 'Unexpected end of data') return 'it is cut off'
  return `it is no tar, or damaged (${message.replace(/\. Maybe .*$/, '').toLowerCase()})`
}

const kinds: Record<string, string> = {
  link: 'a hard link',
  symlink: 'a symbolic link',
  'character-device': 'a device',
  'block-device': 'a device',
  fifo: 'a named pipe',
}

/** The name and the size of an entry that has a place in a layout. Throws BUNDLE_INVALID for any other. */
function checkHeader({ name: written, size, type }: Header): { name: string; size: number } {
  const name = checkName(written, type === 'directory')
  if (type !== 'file' && type !== 'contiguous-file' && type !== 'directory')
    throw invalid(
      `${name} is ${kinds[type ?? ''] ?? 'something else than a file'}; a layout has files and folders only`,
    )
  if (!Number.isSafeInteger(size) || size < 0 || (type === 'directory' && size > 0))
    throw invalid(`${name} has a size that cannot be`)
  return { name, size }
}

function checkName(written: string, isDirectory: boolean): string {
  const shown = JSON.stringify(written.slice(0, 200))
  if (written.length > maxNameCharacters)
    throw invalid(`${shown}… is a name of more than ${maxNameCharacters} characters`)
  const name = (isDirectory ? written.replace(/\/$/, '') : written).replace(/^(?:\.\/)+/, '')
  // The folder itself, as `tar -C folder .` writes it.
  if (isDirectory && (name === '.' || name === '')) return '.'
  const parts = name.split('/')
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  if (parts.some((part) => part === '' || part === '.' || part === '..') || /[\\\x00-\x1f]/.test(name))
    throw invalid(`${shown} is a path that leads out of a layout, or none at all`)
  return name
}
