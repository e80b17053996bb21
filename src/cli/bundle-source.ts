import { createHash } from 'node:crypto'
import { createReadStream, createWriteStream } from 'node:fs'
import { lstat, readdir, readFile, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import type { ImportSource } from '../client/client.ts'
import { ignoreMissing } from '../client/content.ts'
import { PacksError } from '../client/failure.ts'
import { type Digest, parseDigest } from '../oci/digest.ts'
import { cut, layoutPieces, type Piece, sizeOf } from '../packs/layout.ts'
import type { Run } from './run.ts'
import { withTemporary } from './temporary.ts'

/** A bundle as it lies here, to be sent as one file. */
export type Source = ImportSource & { name: string }

const pieceBytes = 1024 * 1024

/**
 * Works with a bundle at a path: a file; `packs.tar` of which only the volumes are here, or the first of them; a layout
 * that is a folder; `-`, standard input. Throws DIGEST_MISMATCH where a volume is not what its checksum file says.
 */
export async function withSource<T>(at: Run, path: string, work: (source: Source) => Promise<T>): Promise<T> {
  if (path === '-') return withTemporary((folder) => fromInput(at, join(folder, 'bundle'), work))
  const found = await stat(path).catch(() => undefined)
  if (found?.isDirectory()) return work(await ofFolder(path))
  const [, joined] = /^(.+)\.\d{3}$/.exec(path) ?? []
  const volumes = await volumesOf(joined ?? path)
  if (volumes.length > 0 && (joined !== undefined || !found)) return work(await ofVolumes(at, joined ?? path, volumes))
  const { size } = found ?? (await stat(path))
  return work({ name: basename(path), size, open: (from) => bytesOf([{ path, size }], from) })
}

/** It is kept for the time: what is lost on the way has to be sent again. */
async function fromInput<T>(at: Run, path: string, work: (source: Source) => Promise<T>): Promise<T> {
  await pipeline(process.stdin, createWriteStream(path, { mode: 0o600 }), { signal: at.signal })
  const { size } = await stat(path)
  return work({ name: 'standard input', size, open: (from) => bytesOf([{ path, size }], from) })
}

type Part = { path: string; size: number }

/** Files one after the other, from a byte on. */
async function* bytesOf(parts: readonly Part[], from: number): AsyncGenerator<Uint8Array> {
  let start = from
  for (const { path, size } of parts) {
    if (start < size) yield* createReadStream(path, { start, highWaterMark: pieceBytes }) as AsyncIterable<Buffer>
    start = Math.max(0, start - size)
  }
}

/** `packs.tar.001`, `packs.tar.002` and so on, with none left out. */
async function volumesOf(joined: string): Promise<Part[]> {
  const names = new Set(await readdir(dirname(joined)).catch(() => []))
  const parts: Part[] = []
  for (let number = 1; ; number++) {
    const name = `${basename(joined)}.${String(number).padStart(3, '0')}`
    if (!names.has(name)) return parts
    const path = join(dirname(joined), name)
    parts.push({ path, size: (await stat(path)).size })
  }
}

async function ofVolumes(at: Run, joined: string, parts: readonly Part[]): Promise<Source> {
  const sums = await readFile(`${joined}.sha256sums`, 'utf8').catch(ignoreMissing)
  if (sums !== undefined) await checkVolumes(at, joined, parts, sums)
  const size = parts.reduce((total, part) => total + part.size, 0)
  return { name: basename(joined), size, open: (from) => bytesOf(parts, from) }
}

/** Which volume is missing or damaged is worth knowing before an hour of sending. */
async function checkVolumes(at: Run, joined: string, parts: readonly Part[], sums: string): Promise<void> {
  const here = new Map(parts.map((part) => [basename(part.path), part.path]))
  const listed = sums.split('\n').flatMap((line) => {
    const [, sum, name] = /^([0-9a-f]{64}) [ *](.+?)\r?$/.exec(line) ?? []
    return sum === undefined || name === undefined || name === basename(joined) ? [] : [{ sum, name }]
  })
  const extra = parts.find(({ path }) => !listed.some(({ name }) => name === basename(path)))
  if (extra)
    throw new PacksError(
      'DIGEST_MISMATCH',
      `${extra.path} is none of the volumes that ${joined}.sha256sums lists: it is of another bundle. Move it away, or copy the list again`,
    )
  for (const { sum, name } of listed) {
    const path = here.get(name)
    if (!path) throw new PacksError('DIGEST_MISMATCH', `the volume ${name} is missing; copy it to ${dirname(joined)}`)
    at.output.note(`checking ${name}`)
    const hash = createHash('sha256')
    for await (const piece of createReadStream(path, { highWaterMark: pieceBytes, signal: at.signal }))
      hash.update(piece as Buffer)
    if (hash.digest('hex') !== sum)
      throw new PacksError(
        'DIGEST_MISMATCH',
        `${path} is damaged: it is not what ${joined}.sha256sums says; copy it again`,
      )
  }
}

/** A layout that is a folder, as the tar that it would be. What else stands in the folder is not sent. */
async function ofFolder(folder: string): Promise<Source> {
  const index = await readFile(join(folder, 'index.json'))
  const envelope = await readFile(join(folder, 'bundle.dsse.json')).catch(ignoreMissing)
  const blobs: { digest: Digest; size: number }[] = []
  for (const algorithm of ['sha256', 'sha512'])
    for (const hex of await readdir(join(folder, 'blobs', algorithm)).catch(() => [])) {
      const digest = parseDigest(`${algorithm}:${hex}`)
      const found = await lstat(join(folder, 'blobs', algorithm, hex))
      if (digest && found.isFile()) blobs.push({ digest, size: found.size })
    }
  const pieces = layoutPieces(index, blobs, envelope && { name: 'bundle.dsse.json', bytes: envelope })
  const size = sizeOf(pieces)
  return { name: basename(folder), size, open: (from) => bytesOfPieces(folder, pieces, from, size - 1) }
}

async function* bytesOfPieces(
  folder: string,
  pieces: readonly Piece[],
  from: number,
  to: number,
): AsyncGenerator<Uint8Array> {
  for (const { piece, first, last } of cut(pieces, { first: from, last: to })) {
    if ('make' in piece) yield piece.make().subarray(first, last + 1)
    else {
      const path = join(folder, 'blobs', ...piece.digest.split(':'))
      yield* createReadStream(path, { start: first, end: last, highWaterMark: pieceBytes }) as AsyncIterable<Buffer>
    }
  }
}
