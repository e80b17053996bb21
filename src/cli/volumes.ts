import { createHash, type Hash } from 'node:crypto'
import { constants, createReadStream } from 'node:fs'
import { type FileHandle, lstat, open, readdir, rename, rm, stat, truncate } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { PacksError } from '../client/failure.ts'
import { claimOutput } from './one-writer.ts'
import { replaceFile } from './temporary.ts'

// A file that is received into one file, or into volumes of a size that a medium takes. Until all of it is there, it has
// a name of its own, which says what it is a part of: `packs.tar.<16 hex of its id>.partial`. So whoever runs the same
// command again goes on where it was, and never with the beginning of another file.

/** `volumeBytes`: undefined for one file. */
export type Target = { output: string; id: string; size: number; volumeBytes: number | undefined }

/** A finished file. `volumes`: empty where it is one; `sums`: the file that `sha256sum -c` reads. */
export type Received = { sha256: string; volumes: string[]; sums: string | undefined }

export type Volumes = {
  /** What an earlier try left, in order. It is read to its end before anything is written. */
  begun(): AsyncGenerator<Buffer, void, undefined>
  /** How many bytes there are. */
  readonly received: number
  /** Pieces that follow each other. Throws SIZE_MISMATCH where they are more than the file has. */
  write(pieces: readonly Buffer[]): Promise<void>
  /**
   * Gives the file its name, or its volumes theirs. Throws DIGEST_MISMATCH where its sha256 is another than the one that
   * is wanted, and SIZE_MISMATCH, before anything has its name.
   */
  finish(wanted: string | undefined): Promise<Received>
  /** Keeps what was received for the next try. */
  close(): Promise<void>
  /** Closes, and forgets what was received. */
  discard(): Promise<void>
}

/** More volumes than these are a mistake in the size. */
const mostVolumes = 999

/**
 * Throws USAGE where the volumes would be too many, would be joined with those of an earlier export, or where another
 * process is writing them; ANSWER_INVALID where the registry names the file in a way that it never would.
 */
export async function openVolumes(target: Target): Promise<Volumes> {
  const count = countOf(target)
  if (target.volumeBytes !== undefined) await refuseOlder(target, count)
  const release = await claimed(target)
  const hashes = openHashes(target.volumeBytes)
  let file: FileHandle | undefined
  let [received, isRead, isClosed] = [0, false, false]
  const limit = target.volumeBytes ?? target.size
  const endVolume = async () => {
    await file?.close()
    file = undefined
  }
  // Whoever reads may fail while a piece is being written: nothing is begun after that.
  const end = async () => {
    isClosed = true
    await endVolume()
  }
  return {
    get received() {
      return received
    },
    async *begun() {
      for (let volume = 0; volume < count; volume++) {
        for await (const piece of leftOf(draftOf(target, volume), Math.min(limit, target.size - volume * limit))) {
          hashes.add([piece], volume)
          received += piece.length
          yield piece
        }
        if (received < (volume + 1) * limit) break
      }
      isRead = true
    },
    async write(pieces) {
      if (!isRead) throw new Error('what is there already was not read')
      if (received + bytesOf(pieces) > target.size) throw wrongSize(target, 'more arrived')
      for (let rest = pieces; rest.length > 0 && !isClosed; ) {
        const [volume, offset] = [Math.floor(received / limit), received % limit]
        if (offset === 0) await endVolume()
        file ??= await openAt(target, volume, offset)
        if (isClosed) return endVolume()
        const [fits, beyond] = parted(rest, limit - offset)
        const writing = writeAll(file, fits, offset)
        // Behind the hashes, which take about as long.
        writing.catch(() => undefined)
        hashes.add(fits, volume)
        await writing
        received += bytesOf(fits)
        rest = beyond
      }
    },
    async close() {
      await end()
      await release()
    },
    async discard() {
      await end()
      await removeDrafts(target, count)
      await release()
    },
    async finish(wanted) {
      await end()
      if (received < target.size) throw wrongSize(target, `${received} arrived`)
      const sha256 = hashes.whole()
      if (wanted !== undefined && wanted !== sha256)
        throw new PacksError(
          'DIGEST_MISMATCH',
          `the registry says that its sha256 is ${wanted}; here it is ${sha256}, so nothing of it was kept`,
        )
      const finished = await settle(target, sha256, count, hashes.parts())
      await release()
      return finished
    },
  }
}

/** How many files it will be. What a registry says becomes a part of their names: nothing but an id may. */
function countOf({ id, size, volumeBytes = size }: Target): number {
  if (typeof id !== 'string' || !/^[0-9a-f]{64}$/.test(id) || !Number.isSafeInteger(size) || size <= 0)
    throw new PacksError('ANSWER_INVALID', 'the registry describes the file in a way that no packs registry does')
  const count = Math.ceil(size / volumeBytes)
  if (count <= mostVolumes) return count
  throw new PacksError('USAGE', `that would be ${count} volumes; make them larger, for at most ${mostVolumes}`)
}

/** Makes this process the only one that writes it, and clears its way; answers what ends that. */
async function claimed(target: Target): Promise<() => Promise<void>> {
  const release = await claimOutput(target.output)
  try {
    await removeStale(target)
    return release
  } catch (error) {
    await release()
    throw error
  }
}

/** A volume's draft, to be written from a byte on. */
async function openAt(target: Target, volume: number, offset: number): Promise<FileHandle> {
  // The name is easy to guess: a link that somebody put there is not followed.
  const flags = constants.O_WRONLY | constants.O_CREAT | (constants.O_NOFOLLOW ?? 0)
  return open(draftOf(target, volume), offset === 0 ? flags | constants.O_TRUNC : flags)
}

async function removeDrafts(target: Target, count: number): Promise<void> {
  for (let volume = 0; volume < count; volume++) await rm(draftOf(target, volume), { force: true })
}

function wrongSize({ size }: Target, found: string): PacksError {
  return new PacksError('SIZE_MISMATCH', `the file has ${size} bytes, but ${found}; nothing of it was kept`)
}

/** Of the whole, and of volumes where there are any: of one file that would be the same again. */
function openHashes(volumeBytes: number | undefined) {
  const whole = createHash('sha256')
  const parts: Hash[] = []
  return {
    /** Pieces that follow each other in one volume. */
    add(pieces: readonly Buffer[], volume: number): void {
      for (const piece of pieces) whole.update(piece)
      if (volumeBytes === undefined) return
      parts[volume] ??= createHash('sha256')
      for (const piece of pieces) parts[volume].update(piece)
    },
    whole: () => whole.digest('hex'),
    parts: () => parts.map((part) => part.digest('hex')),
  }
}

/** What a draft has, of at most so many bytes; nothing where there is none. What is beyond them is cut off. */
async function* leftOf(draft: string, most: number): AsyncGenerator<Buffer, void, undefined> {
  const found = await lstat(draft).catch(() => undefined)
  if (!found || most <= 0) return
  if (!found.isFile()) return rm(draft, { recursive: true, force: true })
  if (found.size > most) await truncate(draft, most)
  yield* createReadStream(draft, { highWaterMark: 1024 * 1024 }) as AsyncIterable<Buffer>
}

async function writeAll(file: FileHandle, pieces: readonly Buffer[], position: number): Promise<void> {
  let at = position
  for (let rest = pieces; rest.length > 0; ) {
    const { bytesWritten } = await file.writev(rest, at)
    at += bytesWritten
    rest = parted(rest, bytesWritten)[1]
  }
}

function bytesOf(pieces: readonly Buffer[]): number {
  return pieces.reduce((sum, { length }) => sum + length, 0)
}

/** The first so many bytes, and those behind them. */
function parted(pieces: readonly Buffer[], bytes: number): [Buffer[], Buffer[]] {
  const [before, behind]: [Buffer[], Buffer[]] = [[], []]
  let room = bytes
  for (const piece of pieces) {
    const fits = piece.subarray(0, room)
    const beyond = piece.subarray(fits.length)
    if (fits.length > 0) before.push(fits)
    if (beyond.length > 0) behind.push(beyond)
    room -= fits.length
  }
  return [before, behind]
}

async function settle(target: Target, sha256: string, count: number, parts: string[]): Promise<Received> {
  const names = Array.from({ length: count }, (_, volume) => nameOf(target, volume))
  for (const [volume, name] of names.entries()) {
    const draft = draftOf(target, volume)
    const file = await open(draft, 'r+')
    try {
      // It may be carried away as soon as it has its name.
      await file.datasync()
    } finally {
      await file.close()
    }
    await rename(draft, name)
  }
  if (target.volumeBytes === undefined) return { sha256, volumes: [], sums: undefined }
  const sums = `${target.output}.sha256sums`
  const lines = [
    ...names.map((name, volume) => `${parts[volume]}  ${basename(name)}`),
    `${sha256}  ${basename(target.output)}`,
  ]
  await replaceFile(sums, Buffer.from(`${lines.join('\n')}\n`))
  return { sha256, volumes: names, sums }
}

/** `packs.tar`, or `packs.tar.001` and so on: of one length, so that a shell lists them in order. */
function nameOf({ output, volumeBytes }: Target, volume: number): string {
  return volumeBytes === undefined ? output : `${output}.${numberOf(volume)}`
}

function numberOf(volume: number): string {
  return String(volume + 1).padStart(3, '0')
}

function draftOf(target: Target, volume: number): string {
  return `${nameOf(target, volume)}.${target.id.slice(0, 16)}.partial`
}

/** Volumes of an earlier export that had more of them would be joined with these. */
async function refuseOlder(target: Target, count: number): Promise<void> {
  const next = nameOf(target, count)
  const found = await stat(next).catch(() => undefined)
  if (found)
    throw new PacksError('USAGE', `${next} is there, of an export with more volumes; remove it, or give another name`)
}

/** What was received of another file under this name is of no use any more. */
async function removeStale({ output, id }: Target): Promise<void> {
  const folder = dirname(output)
  const prefix = `${basename(output)}.`
  for (const name of await readdir(folder)) {
    const [, partOf] =
      (name.startsWith(prefix) && /^(?:\d{3}\.)?([0-9a-f]{16})\.partial$/.exec(name.slice(prefix.length))) || []
    if (partOf !== undefined && partOf !== id.slice(0, 16)) await rm(join(folder, name), { force: true })
  }
}
