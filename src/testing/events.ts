import http from 'node:http'
import { waitFor } from './wait.ts'

export type StreamedEvent = { id: string; event: string; data: Record<string, unknown> & { subject: string } }

/** A stream of events that is read as it comes. */
export type EventStream = {
  readonly events: readonly StreamedEvent[]
  /** The id that a client would come back with. */
  readonly lastId: string
  /** Resolves when there are so many; rejects when the stream ends before. */
  until(count: number): Promise<readonly StreamedEvent[]>
  /** Resolves when it has ended: whole, or cut. */
  readonly ended: Promise<'whole' | 'cut'>
  /** Takes nothing from the connection until `resume`. */
  pause(): void
  resume(): void
  /** Leaves, as a client does whose network is gone. */
  cut(): void
}

/** Follows a stream. Throws an Error where the answer is none. */
export async function openEvents(
  url: string,
  path = '/events',
  headers: Record<string, string> = {},
): Promise<EventStream> {
  const answer = await new Promise<http.IncomingMessage>((resolve, reject) => {
    const request = http.get(url + path, { headers: { accept: 'text/event-stream', ...headers }, agent: false })
    request.on('response', resolve).on('error', reject)
  })
  if (answer.statusCode !== 200) throw new Error(`${path}: ${answer.statusCode}`)
  const events: StreamedEvent[] = []
  let lastId = ''
  let text = ''
  answer.setEncoding('utf8').on('data', (piece: string) => {
    text += piece
    const blocks = text.split('\n\n')
    text = blocks.pop() ?? ''
    for (const block of blocks) {
      const fields = new Map(
        block.split('\n').map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1).trim()]),
      )
      lastId = fields.get('id') ?? lastId
      const data = fields.get('data')
      if (data !== undefined) events.push({ id: lastId, event: fields.get('event') ?? '', data: JSON.parse(data) })
    }
  })
  let end: 'whole' | 'cut' | undefined
  const ended = new Promise<'whole' | 'cut'>((resolve) => {
    answer
      .on('error', () => undefined)
      .on('close', () => {
        end = answer.complete ? 'whole' : 'cut'
        resolve(end)
      })
  })
  return {
    events,
    get lastId() {
      return lastId
    },
    ended,
    async until(count) {
      const holds = () => events.length >= count
      await waitFor(`${count} events of ${path}`, () => holds() || end !== undefined, { everyMs: 5 })
      if (!holds()) throw new Error(`the stream ended (${end}) after ${events.length} events`)
      return events
    },
    pause: () => void answer.pause(),
    resume: () => void answer.resume(),
    cut: () => answer.destroy(),
  }
}
