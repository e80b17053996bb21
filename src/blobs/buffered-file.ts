import fs from 'node:fs'
import { promisify } from 'node:util'
import { Pieces } from './intake.ts'
import { writeAll } from './write-all.ts'

const fdatasync = promisify(fs.fdatasync)

const MiB = 1024 * 1024
/** The most and the least that is written at once. */
const blockBytes = { most: MiB, least: 128 * 1024 }
/** How many blocks may wait behind the write under way, which has as many, before the source has to. */
const heldBlocks = 2
/** What all files of a process hold together, as far as the least block allows: with many, each writes less at once. */
const heldTogether = 64 * MiB
/**
 * A file is synced in the background every so often, so that the disk works while bytes still arrive. Measured with
 * 64 MiB bodies hashed on the way, one at a time / four at once: one sync at the end 510 / 665 MiB/s, every 8 MiB
 * 666 / 983, every 32 MiB 660 / 866 (hashing alone: 1,080). Reserving the length ahead (ftruncate) changes nothing.
 */
const flushEveryBytes = 8 * MiB
/** A sync of a large file keeps a thread of the pool (4 by default) for long; the others serve reads and small files. */
const backgroundFlushes = 2

/** What those of one store share. */
export type Shared = { open: number; flushes: number }

/**
 * One file, new, that is written through the page cache. One write is under way at a time; what arrives meanwhile goes
 * out together in the next.
 */
export class BufferedFile {
  #fd: number
  #shared: Shared
  #pieces = new Pieces()
  #written = 0
  #unflushed = 0
  #writing: Promise<void> | undefined
  #flushing: Promise<void> | undefined
  #failure: { error: unknown } | undefined

  /** Makes the file. Throws what the system says. */
  constructor(path: string, shared: Shared) {
    this.#fd = fs.openSync(path, 'wx')
    this.#shared = shared
    shared.open++
  }

  /** Takes a piece; the promise, if any, resolves when there is room for more. */
  add(piece: Buffer): Promise<void> | undefined {
    this.#throwFailure()
    this.#pieces.add(piece)
    const block = this.#blockBytes
    if (this.#pieces.bytes >= block) this.#write()
    return this.#pieces.bytes >= heldBlocks * block ? this.#writing : undefined
  }

  /** Writes the rest, makes it durable, and closes the file. */
  async finish(): Promise<void> {
    while (this.#writing || this.#pieces.bytes > 0) {
      this.#throwFailure()
      this.#write()
      await this.#writing
    }
    await this.#flushing
    this.#throwFailure()
    await fdatasync(this.#fd)
    this.#close()
  }

  /** Closes the file as it is; safe at any point. */
  async discard(): Promise<void> {
    // With nothing queued no write starts after the one under way: a descriptor must not be closed under a write.
    this.#pieces.take()
    await this.#writing
    await this.#flushing
    this.#close()
  }

  /** What is written at once now. */
  get #blockBytes(): number {
    const share = heldTogether / (2 * heldBlocks * this.#shared.open)
    return Math.max(blockBytes.least, Math.min(blockBytes.most, share))
  }

  #write(): void {
    if (this.#writing) return
    const size = this.#pieces.bytes
    const buffers = this.#pieces.take()
    this.#writing = writeAll(this.#fd, buffers, this.#written).then(
      () => {
        this.#writing = undefined
        this.#written += size
        this.#flushEarly(size)
        if (this.#pieces.bytes >= this.#blockBytes) this.#write()
      },
      (error) => {
        this.#writing = undefined
        this.#failure ??= { error }
      },
    )
  }

  #flushEarly(size: number): void {
    this.#unflushed += size
    const busy = this.#flushing !== undefined || this.#shared.flushes >= backgroundFlushes
    if (this.#unflushed < flushEveryBytes || busy) return
    this.#unflushed = 0
    this.#shared.flushes++
    this.#flushing = fdatasync(this.#fd)
      // Linux reports a failed write-back once: swallowed here, the last sync would claim success.
      .catch((error) => {
        this.#failure ??= { error }
      })
      .finally(() => {
        this.#shared.flushes--
        this.#flushing = undefined
      })
  }

  #throwFailure(): void {
    if (this.#failure) throw this.#failure.error
  }

  #close(): void {
    if (this.#fd < 0) return
    fs.closeSync(this.#fd)
    this.#fd = -1
    this.#shared.open--
  }
}
