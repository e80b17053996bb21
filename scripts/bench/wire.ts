import { once } from 'node:events'
import { connect, type Socket } from 'node:net'

export type Answer = { readonly status: number; readonly head: string; readonly body: Buffer }
export type Body = Buffer | { readonly slices: Iterable<Buffer> }

const headEnd = Buffer.from('\r\n\r\n')
const nothing = Buffer.alloc(0)

/**
 * One keep-alive connection, one request at a time. Written on the bare socket because the load generator shares the
 * machine's cores with what it measures: node:http takes about three times the CPU for a small request.
 */
export class Wire {
  readonly #host: string
  readonly #port: number
  #socket: Socket | undefined
  #pieces: Buffer[] = []
  #wake: (() => void) | undefined

  constructor(origin: string) {
    const url = new URL(origin)
    this.#host = url.hostname
    this.#port = Number(url.port)
  }

  /** A body of `slices` travels chunked, as docker and podman send it; a Buffer with its length. */
  async request(method: string, path: string, headers: string[] = [], body: Body = nothing): Promise<Answer> {
    const socket = await this.#open()
    const length = Buffer.isBuffer(body) ? `content-length: ${body.length}` : 'transfer-encoding: chunked'
    const lines = [`${method} ${path} HTTP/1.1`, `host: ${this.#host}:${this.#port}`, ...headers]
    if (method !== 'GET' && method !== 'HEAD') lines.push(length)
    const head = Buffer.from(`${lines.join('\r\n')}\r\n\r\n`)
    const answer = this.#answer(method === 'HEAD')
    answer.catch(() => undefined) // Seen below, or after a body that could not be sent.
    if (Buffer.isBuffer(body)) {
      socket.cork()
      socket.write(head)
      if (body.length > 0) socket.write(body)
      socket.uncork()
    } else {
      socket.write(head)
      await sendChunks(socket, body.slices)
    }
    const received = await answer
    if (/^connection: close/im.test(received.head)) this.close()
    return received
  }

  close(): void {
    this.#socket?.destroy()
    this.#socket = undefined
  }

  async #open(): Promise<Socket> {
    if (this.#socket && !this.#socket.destroyed) return this.#socket
    const socket = connect({ host: this.#host, port: this.#port, noDelay: true })
    this.#pieces = []
    this.#socket = socket
    await once(socket, 'connect')
    const wake = () => this.#wake?.()
    socket.on('data', (piece: Buffer) => {
      this.#pieces.push(piece)
      wake()
    })
    socket.on('close', wake)
    socket.on('error', wake)
    return socket
  }

  async #more(): Promise<Buffer> {
    while (this.#pieces.length === 0) {
      if (!this.#socket || this.#socket.destroyed || this.#socket.readableEnded)
        fail('the server closed the connection')
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
    const all = this.#pieces.length === 1 ? (this.#pieces[0] ?? nothing) : Buffer.concat(this.#pieces)
    this.#pieces = []
    return all
  }

  async #answer(headOnly: boolean): Promise<Answer> {
    let bytes = await this.#more()
    let end = bytes.indexOf(headEnd)
    while (end < 0) {
      bytes = Buffer.concat([bytes, await this.#more()])
      end = bytes.indexOf(headEnd)
    }
    const head = bytes.toString('latin1', 0, end + 2)
    const status = Number(head.slice(9, 12))
    const rest = bytes.subarray(end + headEnd.length)
    if (headOnly || status === 204 || status === 304) return { status, head, body: nothing }
    const length = header(head, 'content-length')
    return {
      status,
      head,
      body: length === undefined ? await this.#chunked(rest) : await this.#sized(rest, Number(length)),
    }
  }

  async #sized(first: Buffer, length: number): Promise<Buffer> {
    const pieces = [first]
    for (let have = first.length; have < length; have += pieces.at(-1)?.length ?? 0) pieces.push(await this.#more())
    return pieces.length === 1 ? first : Buffer.concat(pieces)
  }

  async #chunked(first: Buffer): Promise<Buffer> {
    let bytes = first
    while (!bytes.subarray(-7).toString('latin1').endsWith('0\r\n\r\n'))
      bytes = Buffer.concat([bytes, await this.#more()])
    const parts: Buffer[] = []
    for (let at = 0; ; ) {
      const lineEnd = bytes.indexOf('\r\n', at)
      const size = Number.parseInt(bytes.toString('latin1', at, lineEnd), 16)
      if (!(size > 0)) return Buffer.concat(parts)
      parts.push(bytes.subarray(lineEnd + 2, lineEnd + 2 + size))
      at = lineEnd + 2 + size + 2
    }
  }
}

async function sendChunks(socket: Socket, slices: Iterable<Buffer>): Promise<void> {
  for (const slice of slices) {
    if (socket.destroyed) fail('the server closed the connection during the upload')
    socket.cork()
    socket.write(`${slice.length.toString(16)}\r\n`)
    socket.write(slice)
    const roomLeft = socket.write('\r\n')
    socket.uncork()
    if (!roomLeft) await roomIn(socket)
  }
  socket.write('0\r\n\r\n')
}

function roomIn(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    const go = () => {
      socket.off('drain', go).off('close', go)
      resolve()
    }
    socket.on('drain', go).on('close', go)
  })
}

export function header(head: string, name: string): string | undefined {
  return new RegExp(`\\r\\n${name}: *([^\\r]*)`, 'i').exec(head)?.[1]
}

/** The answer, when it has the status that was hoped for. */
export function expectStatus(answer: Answer, status: number, what: string): Answer {
  if (answer.status === status) return answer
  throw new Error(`${what}: ${answer.status} instead of ${status}: ${answer.body.toString('utf8', 0, 300)}`)
}

function fail(message: string): never {
  throw new Error(message)
}
