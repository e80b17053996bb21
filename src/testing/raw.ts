import http from 'node:http'
import { connect } from 'node:net'
import type { TestRegistry } from './registry.ts'

export type RawClient = {
  /** Asks as the bytes say, without what fetch would tidy up in the path or the headers. Answers the status. */
  send(method: string, path: string, headers: Record<string, string>, body: Buffer): Promise<number>
  close(): void
}

/** A client that sends what no honest one would. */
export function openRaw({ url }: TestRegistry): RawClient {
  const { hostname: host, port } = new URL(url)
  const agent = new http.Agent({ keepAlive: true })
  return {
    send: (method, path, headers, body) =>
      new Promise((resolve, reject) => {
        const request = http.request({ port, host, method, path, headers, agent }, (answer) => {
          answer.resume()
          answer.on('end', () => resolve(answer.statusCode ?? 0))
          answer.on('error', reject)
        })
        request.on('error', reject)
        request.end(body)
      }),
    close: () => agent.destroy(),
  }
}

/** Says exactly this and answers all that comes back until the connection is closed. */
export function sayRaw({ url }: { url: string }, text: string): Promise<string> {
  const { hostname, port } = new URL(url)
  return new Promise((resolve, reject) => {
    const socket = connect(Number(port), hostname, () => socket.write(text))
    const said: Buffer[] = []
    socket.on('data', (piece) => said.push(piece))
    socket.on('error', reject)
    socket.on('close', () => resolve(Buffer.concat(said).toString()))
  })
}
