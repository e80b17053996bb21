import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

/**
 * The least that a client has to send of a body, and to take of an answer, on average. Each transfer holds something
 * that others wait for: memory for a part on its way to S3, a connection to S3. So a client that only keeps it from
 * counting as idle, with a byte now and then, is not served; one on a link of 10 KB/s is, with room to spare.
 *
 * `bodyMs`: as long as a connection may be idle, so that whoever pauses for less, and then goes on, is not meant.
 * `answerMs`: longer, for what is under way is known only when a write has ended, and one has up to 1 MiB.
 */
export const slowestPace = { bytesPerSecond: 1024, bodyMs: 120_000, answerMs: 300_000 }

export type Pace = typeof slowestPace

type Exchange = { incoming: IncomingMessage; outgoing: ServerResponse }
/** What was seen at a look. `waits`: it is the client that the rest waits for. */
type Look = { exchange: Exchange; waits: boolean; bytes: number }
type TooSlow = { from: string | undefined; path: string; doing: 'body' | 'answer' }
type Watched = { exchange?: Exchange; body?: Look; answer?: Look }

/** Looks at all connections now and then, and ends those on which a client is too slow between two looks. */
export class PaceWatch {
  readonly #pace: Pace
  readonly #onSlow: (facts: TooSlow) => void
  readonly #open = new Map<Socket, Watched>()
  readonly #timers: NodeJS.Timeout[]

  constructor(pace: Pace, onSlow: (facts: TooSlow) => void) {
    this.#pace = pace
    this.#onSlow = onSlow
    this.#timers = [
      setInterval(() => this.#each('body', bodyNow, pace.bodyMs, tooSlowToSend), pace.bodyMs).unref(),
      setInterval(
        () => this.#each('answer', answerNow, pace.answerMs, (socket) => socket.destroy()),
        pace.answerMs,
      ).unref(),
    ]
  }

  /** To be told of every connection. */
  watch(socket: Socket): void {
    this.#open.set(socket, {})
    socket.once('close', () => this.#open.delete(socket))
  }

  /** To be told of every request: no more than a look-up, for most are over before anybody looks. */
  begin(incoming: IncomingMessage, outgoing: ServerResponse): void {
    const watched = this.#open.get(incoming.socket)
    if (watched) watched.exchange = { incoming, outgoing }
  }

  /** The last answer of every open connection, given or still to be given. */
  *answers(): Iterable<ServerResponse> {
    for (const { exchange } of this.#open.values()) if (exchange) yield exchange.outgoing
  }

  close(): void {
    for (const timer of this.#timers) clearInterval(timer)
  }

  #each(
    doing: 'body' | 'answer',
    lookAt: (exchange: Exchange, socket: Socket) => Omit<Look, 'exchange'>,
    windowMs: number,
    end: (socket: Socket, exchange: Exchange, pace: Pace) => void,
  ): void {
    const least = (this.#pace.bytesPerSecond * windowMs) / 1000
    for (const [socket, watched] of this.#open) {
      const { exchange } = watched
      if (!exchange) continue
      const before = watched[doing]
      const now = { exchange, ...lookAt(exchange, socket) }
      watched[doing] = now
      if (!now.waits || !before?.waits || before.exchange !== exchange || now.bytes - before.bytes >= least) continue
      const [path = ''] = (exchange.incoming.url ?? '').split('?', 1)
      this.#onSlow({ from: socket.remoteAddress, path, doing })
      end(socket, exchange, this.#pace)
    }
  }
}

/** Where something is buffered it is we who do not read. */
function bodyNow({ incoming }: Exchange, socket: Socket): Omit<Look, 'exchange'> {
  return { waits: !incoming.complete && incoming.readableLength === 0, bytes: socket.bytesRead }
}

/** Where nothing is buffered it is we who have nothing to send. */
function answerNow({ outgoing }: Exchange, socket: Socket): Omit<Look, 'exchange'> {
  const waits = !outgoing.writableFinished && (outgoing.writableLength > 0 || socket.writableLength > 0)
  return { waits, bytes: socket.bytesWritten - socket.writableLength }
}

/** Answers as Node does to a head that comes too slowly; the handler sees a client that has gone away. */
function tooSlowToSend(socket: Socket, { outgoing }: Exchange, { bytesPerSecond, bodyMs }: Pace): void {
  if (outgoing.headersSent) {
    socket.destroy()
    return
  }
  const words = `the body came with less than ${bytesPerSecond} bytes a second for ${bodyMs / 1000} seconds; send it again, faster\n`
  const head = ['HTTP/1.1 408 Request Timeout', 'Connection: close', 'Content-Type: text/plain; charset=utf-8']
  socket.end([...head, `Content-Length: ${words.length}`, '', words].join('\r\n'), () => socket.destroy())
}
