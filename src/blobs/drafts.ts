import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { Pieces } from './intake.ts'

const fdatasync = promisify(fs.fdatasync)
const writev = promisify(fs.writev)

const MiB = 1024 * 1024
const smallBytes = 64 * 1024
/** The most and the least that is written at once. */
const blockBytes = { most: MiB, least: 128 * 1024 }
/** How many blocks may wait behind the write under way, which has as many, before the source has to. */
const heldBlocks = 2
/** What all large drafts of a process hold together, as far as the least block allows: with many, each writes less at once. */
const heldTogether = 64 * MiB
/**
 * A large file is synced in the background every so often, so that the disk works while bytes still arrive. Measured
 * with 64 MiB bodies hashed on the way, one at a time / four at once: one sync at the end 510 / 665 MiB/s, every 8 MiB
 * 666 / 983, every 32 MiB 660 / 866 (hashing alone: 1,080). Reserving the length ahead (ftruncate) changes nothing.
 */
const flushEveryBytes = 8 * MiB
/** A sync of a large file keeps a thread of the pool (4 by default) for long; the others serve reads and small files. */
const backgroundFlushes = 2

/** Files under way, in a folder of their own on the file system of their targets: a rename makes them visible. */
export class Drafts {
  readonly folder: string
  flushes = 0
  /** Files that are open: large ones, and small ones for the moment of their sync. */
  open = 0

  constructor(folder: string) {
    this.folder = folder
  }

  begin(): Draft {
    return new Draft(this)
  }

  /** What is written at once now. */
  get blockBytes(): number {
    const share = heldTogether / (2 * heldBlocks * Math.max(1, this.open))
    return Math.max(blockBytes.least, Math.min(blockBytes.most, share))
  }
}

/**
 * One file that becomes whole or nothing: `add` pieces, then `finish` (written and synced) and give it its name, or
 * `discard`. One write is under way at a time; what arrives meanwhile goes out together in the next.
 */
export class Draft {
  readonly path: string
  #drafts: Drafts
  #pieces = new Pieces()
  #fd: number | undefined
  #written = 0
  #unflushed = 0
  #writing: Promise<void> | undefined
  #flushing: Promise<void> | undefined
  #failure: { error: unknown } | undefined

  constructor(drafts: Drafts) {
    this.#drafts = drafts
    this.path = join(drafts.folder, `${process.pid}-${randomBytes(9).toString('base64url')}`)
  }

  /** Takes a piece; the promise, if any, resolves when there is room for more. */
  add(piece: Buffer): Promise<void> | undefined {
    this.#throwFailure()
    this.#pieces.add(piece)
    const block = this.#drafts.blockBytes
    if (this.#pieces.bytes >= block) this.#write()
    return this.#pieces.bytes >= heldBlocks * block ? this.#writing : undefined
  }

  /**
   * Writes the rest and makes the bytes durable. Of a small file they are only handed to the system yet: the answer,
   * where there is one, is to be called when the file has its name, along with the sync of its folder. The file system
   * then commits bytes and name at once, not one after the other. Nobody has been told of that name until both are done.
   */
  async finish(): Promise<(() => Promise<void>) | undefined> {
    const isSmall = this.#fd === undefined && this.#pieces.bytes <= smallBytes
    if (isSmall) {
      // Into the page cache, which takes less time than a change of threads. The sync takes longer and goes through the
      // pool: the file system then commits several files at once (64 at a time, 4 threads: 6,300 files/s against 2,100
      // on this thread, for half the CPU; one at a time 1,650 against 1,840).
      writeAllSync(this.#open(), this.#pieces.take())
    } else {
      while (this.#writing || this.#pieces.bytes > 0) {
        this.#throwFailure()
        this.#write()
        await this.#writing
      }
      await this.#flushing
      this.#throwFailure()
    }
    const sync = async () => {
      if (this.#fd !== undefined) await fdatasync(this.#fd)
      this.#close()
    }
    if (isSmall) return sync
    await sync()
    return undefined
  }

  /** Leaves nothing behind; safe at any point, also after `finish`. */
  async discard(): Promise<void> {
    // With nothing queued no write starts after the one under way: a descriptor must not be closed under a write.
    this.#pieces.take()
    await this.#writing
    await this.#flushing
    this.#close()
    fs.rmSync(this.path, { force: true })
  }

  #write(): void {
    if (this.#writing) return
    const size = this.#pieces.bytes
    const buffers = this.#pieces.take()
    this.#writing = writeAll(this.#open(), buffers, this.#written).then(
      () => {
        this.#writing = undefined
        this.#written += size
        this.#flushEarly(size)
        if (this.#pieces.bytes >= this.#drafts.blockBytes) this.#write()
      },
      (error) => {
        this.#writing = undefined
        this.#failure ??= { error }
      },
    )
  }

  #flushEarly(size: number): void {
    this.#unflushed += size
    const busy = this.#flushing !== undefined || this.#drafts.flushes >= backgroundFlushes
    if (this.#fd === undefined || this.#unflushed < flushEveryBytes || busy) return
    this.#unflushed = 0
    this.#drafts.flushes++
    this.#flushing = fdatasync(this.#fd)
      // Linux reports a failed write-back once: swallowed here, the last sync would claim success.
      .catch((error) => {
        this.#failure ??= { error }
      })
      .finally(() => {
        this.#drafts.flushes--
        this.#flushing = undefined
      })
  }

  #throwFailure(): void {
    if (this.#failure) throw this.#failure.error
  }

  #open(): number {
    if (this.#fd === undefined) {
      this.#fd = fs.openSync(this.path, 'wx')
      this.#drafts.open++
    }
    return this.#fd
  }

  #close(): void {
    if (this.#fd === undefined) return
    fs.closeSync(this.#fd)
    this.#drafts.open--
    this.#fd = undefined
  }
}

function writeAllSync(fd: number, buffers: readonly Buffer[]): void {
  for (const buffer of buffers) {
    for (let done = 0; done < buffer.length; ) done += fs.writeSync(fd, buffer, done)
  }
}

// A nearly full disk takes a part and says so only in the count; the next write then fails.
async function writeAll(fd: number, buffers: readonly Buffer[], position: number): Promise<void> {
  let rest = buffers
  let at = position
  while (rest.length > 0) {
    const { bytesWritten } = await writev(fd, rest, at)
    at += bytesWritten
    rest = without(rest, bytesWritten)
  }
}

function without(buffers: readonly Buffer[], bytes: number): Buffer[] {
  let skip = bytes
  return buffers.flatMap((buffer) => {
    const from = Math.min(skip, buffer.length)
    skip -= from
    return from === buffer.length ? [] : [buffer.subarray(from)]
  })
}
