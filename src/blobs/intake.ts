import { IncomingMessage } from 'node:http'
import { finished, type Readable } from 'node:stream'
import { MessageChannel } from 'node:worker_threads'

/**
 * Hands every piece of `source` to `take`, in order; where `take` returns a promise the source is paused until it
 * settles. Resolves after the last piece, rejects with the source's error, with what `take` threw, or with
 * ERR_STREAM_PREMATURE_CLOSE; never before the promise `take` last returned has settled.
 *
 * Events rather than `for await`: an iterator reads whatever is buffered as one chunk, which copies it.
 * The source stays its owner's: on failure it is left paused, not destroyed, because destroying a request also cuts the
 * connection its answer has to travel on.
 */
export function consume(source: Readable, take: (piece: Buffer) => Promise<void> | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    let settled = false
    let taking: Promise<void> = Promise.resolve()
    const stop = (error?: unknown) => {
      if (settled) return
      settled = true
      source.off('data', onData)
      source.pause()
      stopWatching()
      // Once nobody watches, an error of the source would end the process.
      source.on('error', () => {})
      taking.then(() => (error === undefined ? resolve() : reject(error)), reject)
    }
    const onData = (piece: Buffer) => {
      try {
        const wait = take(piece)
        if (!wait) return
        source.pause()
        taking = wait
        wait.then(() => settled || source.resume(), stop)
      } catch (error) {
        stop(error)
      }
    }
    const stopWatching = finished(source, { writable: false }, (error) => stop(error ?? undefined))
    source.on('data', onData)
    source.resume()
  })
}

const smallPiece = 4096
const trayBytes = 64 * 1024

/**
 * Pieces waiting to be written together, without copying, except for small ones: those are gathered in a tray, since a
 * body of one-byte chunks would otherwise cost a hundred times its size in Buffers.
 */
export class Pieces {
  bytes = 0
  #whole: Buffer[] = []
  #tray = Buffer.alloc(0)
  #start = 0
  #end = 0

  add(piece: Buffer): void {
    this.bytes += piece.length
    if (piece.length >= smallPiece) {
      this.#closeTray()
      this.#whole.push(piece)
      return
    }
    if (this.#end + piece.length > this.#tray.length) {
      this.#closeTray()
      this.#tray = Buffer.allocUnsafeSlow(trayBytes)
      this.#start = this.#end = 0
    }
    this.#end += piece.copy(this.#tray, this.#end)
  }

  /** Everything added since the last take, in order. */
  take(): Buffer[] {
    this.#closeTray()
    const all = this.#whole
    this.#whole = []
    this.bytes = 0
    return all
  }

  #closeTray(): void {
    if (this.#end > this.#start) this.#whole.push(this.#tray.subarray(this.#start, this.#end))
    this.#start = this.#end
  }
}

/** For less than this it is not worth it. */
const releasedBytes = 16 * 1024

/**
 * Gives back the memory of pieces that nobody needs any more, at once. Left to the garbage collector, every 64 MiB of a
 * body that goes by makes V8 go through the whole heap, and each piece is memory that no cache of the processor has:
 * bodies of 64 MiB, four at once, took 1.7 times as much processor time.
 * Only of a message's body: its pieces are made for its one reader. A piece goes when the next one has come, so that
 * whoever handed it over is done with it too.
 */
export function releaseOf(source: Readable): (piece: Buffer) => void {
  if (!(source instanceof IncomingMessage)) return () => undefined
  let last: ArrayBuffer | undefined
  return ({ buffer, byteLength }) => {
    if (last) release(last)
    last =
      buffer instanceof ArrayBuffer && buffer.byteLength === byteLength && byteLength >= releasedBytes
        ? buffer
        : undefined
  }
}

type Transferable = ArrayBuffer & { transfer?(length: number): ArrayBuffer }

const nowhere = new MessageChannel().port1
nowhere.close()

/** Node 20 has no `transfer`; a message to a port that is closed takes its memory along as well. */
function release(memory: Transferable): void {
  if (memory.transfer) memory.transfer(0)
  else nowhere.postMessage(undefined, [memory])
}
