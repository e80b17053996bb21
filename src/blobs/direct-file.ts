import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { writeAll } from './write-all.ts'

// Large files are written past the page cache (O_DIRECT): for them it is a detour. It costs a copy of every byte and,
// for every 4 KiB, a page that the system has to find and clear first; and what is in it still has to be written when
// the last byte has come. A direct write asks that its place in memory, its place in the file and its length are
// multiples of the disk's block. Figures and limits: decision 20.

const fdatasync = promisify(fs.fdatasync)
const ftruncate = promisify(fs.ftruncate)

/** No disk is known that asks for more, and less is of no use; `blocksFor` tries it. */
const alignment = 4096
const alignedUp = (bytes: number) => Math.ceil(bytes / alignment) * alignment

const { O_DIRECT, O_WRONLY, O_CREAT, O_EXCL } = fs.constants
const openDirect = (path: string) => fs.openSync(path, O_DIRECT | O_WRONLY | O_CREAT | O_EXCL)

/** While one half is written the other one is filled. */
type Block = readonly [Buffer, Buffer]
const halfBytes = 512 * 1024

/** Aligned memory for `count` files at a time. What has never been used takes none. */
export class Blocks {
  #free: Block[]

  constructor(count: number) {
    const memory = alignedMemory(2 * halfBytes * count)
    const half = (at: number) => memory.subarray(at * halfBytes, (at + 1) * halfBytes)
    this.#free = Array.from({ length: count }, (_, at) => [half(2 * at), half(2 * at + 1)] as const)
  }

  /** A block of one's own; undefined where all are taken. */
  take(): Block | undefined {
    return this.#free.pop()
  }

  give(block: Block): void {
    this.#free.push(block)
  }
}

/**
 * What files in `folder` are written directly from; undefined where that does not go: on macOS, in the memory of an
 * older Linux, without WebAssembly. A file is written to find out, and removed again.
 */
export function blocksFor(folder: string, count: number): Blocks | undefined {
  if (O_DIRECT === undefined) return undefined
  const path = join(folder, `probe-${process.pid}-${randomBytes(9).toString('base64url')}`)
  let fd: number | undefined
  try {
    const blocks = new Blocks(count)
    fd = openDirect(path)
    return fs.writeSync(fd, alignedMemory(alignment)) === alignment ? blocks : undefined
  } catch {
    // The reason does not matter: what else is wrong with the folder shows where it is written to as usual.
    return undefined
  } finally {
    if (fd !== undefined) fs.closeSync(fd)
    fs.rmSync(path, { force: true })
  }
}

/** One file, new, that is written directly from a block. Pieces are copied as they come, and handed to `copied`. */
export class DirectFile {
  #fd: number
  #blocks: Blocks
  #block: Block
  #copied: (piece: Buffer) => void
  /** The half that is being filled, and how far. */
  #half: 0 | 1 = 0
  #filled = 0
  /** Pieces for which there was no room; of the first of them `#taken` bytes are in the block already. */
  #waiting: Buffer[] = []
  #taken = 0
  #written = 0
  #writing: Promise<void> | undefined
  #failure: { error: unknown } | undefined

  private constructor(
    fd: number,
    { blocks, block }: { blocks: Blocks; block: Block },
    copied: (piece: Buffer) => void,
  ) {
    this.#fd = fd
    this.#blocks = blocks
    this.#block = block
    this.#copied = copied
  }

  /** Makes the file; undefined where there is no block left for it. Throws what the system says. */
  static open(path: string, blocks: Blocks, copied: (piece: Buffer) => void): DirectFile | undefined {
    const block = blocks.take()
    if (!block) return undefined
    try {
      return new DirectFile(openDirect(path), { blocks, block }, copied)
    } catch (error) {
      blocks.give(block)
      throw error
    }
  }

  /** Takes a piece; the promise, if any, resolves when there is room for more. */
  add(piece: Buffer): Promise<void> | undefined {
    this.#throwFailure()
    this.#waiting.push(piece)
    this.#fill()
    return this.#waiting.length > 0 ? this.#writing : undefined
  }

  /** Writes the rest, makes it durable, and closes the file. */
  async finish(): Promise<void> {
    while (this.#writing) await this.#writing
    this.#throwFailure()
    const size = this.#written + this.#filled
    if (this.#filled > 0) {
      this.#block[this.#half].fill(0, this.#filled, alignedUp(this.#filled))
      this.#write(alignedUp(this.#filled))
      await this.#writing
      this.#throwFailure()
    }
    if (size < this.#written) await ftruncate(this.#fd, size)
    await fdatasync(this.#fd)
    this.#close()
  }

  /** Closes the file as it is; safe at any point. */
  async discard(): Promise<void> {
    // With nothing waiting no write starts after the one under way: a descriptor must not be closed under a write.
    this.#waiting = []
    this.#filled = 0
    await this.#writing
    this.#close()
  }

  /** Copies what waits, as far as there is room. */
  #fill(): void {
    for (;;) {
      if (this.#filled === halfBytes) {
        if (this.#writing) return
        this.#write(halfBytes)
      }
      const [piece] = this.#waiting
      if (!piece) return
      const copied = piece.copy(this.#block[this.#half], this.#filled, this.#taken)
      this.#filled += copied
      this.#taken += copied
      if (this.#taken < piece.length) continue
      this.#waiting.shift()
      this.#taken = 0
      this.#copied(piece)
    }
  }

  /** Starts to write so much of the half that has been filled, and turns to the other one. */
  #write(bytes: number): void {
    const full = this.#block[this.#half].subarray(0, bytes)
    this.#half = this.#half === 0 ? 1 : 0
    this.#filled = 0
    this.#writing = writeAll(this.#fd, [full], this.#written).then(
      () => {
        this.#writing = undefined
        this.#written += bytes
        this.#fill()
      },
      (error) => {
        this.#writing = undefined
        this.#failure ??= { error }
      },
    )
  }

  #throwFailure(): void {
    if (this.#failure) throw this.#failure.error
  }

  #close(): void {
    if (this.#fd < 0) return
    fs.closeSync(this.#fd)
    this.#fd = -1
    this.#blocks.give(this.#block)
  }
}

// TypeScript has it among the things of browsers only.
declare const WebAssembly: { Memory: new (pages: { initial: number; maximum: number }) => { buffer: ArrayBuffer } }

const wasmPageBytes = 64 * 1024

/**
 * Memory that begins where a page begins. That of Buffers begins 16 bytes later; memory for WebAssembly is mapped by
 * itself, and taken from the system as it is touched.
 */
function alignedMemory(bytes: number): Buffer {
  const pages = Math.ceil(bytes / wasmPageBytes)
  return Buffer.from(new WebAssembly.Memory({ initial: pages, maximum: pages }).buffer, 0, bytes)
}
