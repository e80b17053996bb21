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
  #waiting: { bytes: number; admit: () => void }[] = []
  #spare: Buffer[] = []

  constructor(limitBytes: number) {
    this.#limit = limitBytes
  }

  /** A buffer to fill, once there is room. Its content is arbitrary. */
  async take(bytes: number): Promise<Buffer> {
    if (this.#waiting.length > 0 || !this.#fits(bytes)) {
      await new Promise<void>((admit) => this.#waiting.push({ bytes, admit }))
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
    for (let next = this.#waiting[0]; next && this.#fits(next.bytes); next = this.#waiting[0]) {
      this.#waiting.shift()
      this.#used += next.bytes
      next.admit()
    }
    // Kept while anyone uploads: freed and allocated in turn, they leave holes in the heap that only grow.
    if (this.#used === 0) this.#spare = []
  }

  // A part larger than the limit goes alone rather than never.
  #fits(bytes: number): boolean {
    return this.#used === 0 || this.#used + bytes <= this.#limit
  }
}
