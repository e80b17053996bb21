import { unavailable } from '../errors.ts'

/**
 * The longest wait for room, in milliseconds: a client that waits with its upload is better told to come back, and well
 * before its connection counts as idle. Who holds the room sends slowly, or S3 takes slowly.
 */
const longestWaitMs = 60_000
/** When it may be worth coming back. */
const retryAfterSeconds = 15

type Waiting = { bytes: number; admit: () => void }

/**
 * The memory all uploads of this process may fill with parts on their way to S3. S3 takes parts of at least 5 MiB, so
 * an upload that is being received needs that much; what many uploads need together has to be bounded here.
 *
 * First come, first served. Who waits holds no part being filled, only parts being sent, and those are released by
 * S3 answering: nobody waits for someone who waits.
 */
export class PartBudget {
  #limit: number
  #used = 0
  #longestWaitMs: number
  #waiting: Waiting[] = []
  #spare: Buffer[] = []

  constructor(limitBytes: number, waitMs = longestWaitMs) {
    this.#limit = limitBytes
    this.#longestWaitMs = waitMs
  }

  /** A buffer to fill, once there is room. Its content is arbitrary. Throws UNAVAILABLE where there is none in time. */
  async take(bytes: number): Promise<Buffer> {
    if (this.#waiting.length > 0 || !this.#fits(bytes)) {
      await this.#turn(bytes)
    } else {
      this.#used += bytes
    }
    // Fresh memory costs a page fault for every 4 KiB, so a buffer of the right length is used again.
    const spare = this.#spare.findIndex((buffer) => buffer.length === bytes)
    if (spare >= 0) return this.#spare.splice(spare, 1)[0] as Buffer
    const held = () => this.#spare.reduce((sum, { length }) => sum + length, this.#used)
    while (this.#spare.length > 0 && held() > this.#limit) this.#spare.shift()
    return Buffer.allocUnsafeSlow(bytes)
  }

  /** Gives a buffer back. `reuse`: nobody can still be sending from it. */
  release(buffer: Buffer, { reuse }: { reuse: boolean }): void {
    this.#used -= buffer.length
    if (reuse) this.#spare.push(buffer)
    this.#admit()
    // Kept while anyone uploads: freed and allocated in turn, they leave holes in the heap that only grow.
    if (this.#used === 0) this.#spare = []
  }

  /** Waits until there is room, and takes it. */
  #turn(bytes: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const waiting: Waiting = {
        bytes,
        admit() {
          clearTimeout(late)
          resolve()
        },
      }
      const late = setTimeout(() => {
        this.#waiting = this.#waiting.filter((other) => other !== waiting)
        // What is smaller and stood behind it may fit.
        this.#admit()
        const words = `no room for a part of ${bytes} bytes in ${this.#longestWaitMs} ms: too many uploads are under way`
        reject(unavailable('blob store', new Error(words), retryAfterSeconds))
      }, this.#longestWaitMs)
      this.#waiting.push(waiting)
    })
  }

  #admit(): void {
    for (let next = this.#waiting[0]; next && this.#fits(next.bytes); next = this.#waiting[0]) {
      this.#waiting.shift()
      this.#used += next.bytes
      next.admit()
    }
  }

  // A part larger than the limit goes alone rather than never.
  #fits(bytes: number): boolean {
    return this.#used === 0 || this.#used + bytes <= this.#limit
  }
}
