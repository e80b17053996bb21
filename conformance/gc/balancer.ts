import assert from 'node:assert/strict'
import type { OutgoingHttpHeaders } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Answer, call } from '../registry-client.ts'

type Request = { headers?: OutgoingHttpHeaders; body?: Buffer | string }

/** An answer. `interrupted`: an earlier try was not answered, so what was asked may have been done before. */
export type Balanced = Answer & { interrupted: boolean; from: string }

export type Balancer = {
  /** Asks one replica after the other, and comes back as real clients do. Throws where nobody answers for `patienceMs`. */
  ask(method: string, path: string, request?: Request & { of?: readonly string[] }): Promise<Balanced>
  /** What was met on the way: how many answers of each status, and connections that ended without one. */
  readonly met: Map<string, number>
}

/** `first`: the replica that is asked first. `onRetry` is told of every try that was in vain. */
type Options = { patienceMs?: number; first?: number; onRetry?: (said: string) => void }

const pauseMs = 100

/**
 * A client before several replicas. It holds them to what they owe it: while parts are down, the only errors are 503 with
 * a Retry-After, and connections that a killed process has dropped.
 */
export function openBalancer(
  urls: readonly string[],
  { patienceMs = 120_000, first = 0, onRetry }: Options = {},
): Balancer {
  const met = new Map<string, number>()
  const count = (what: string) => met.set(what, (met.get(what) ?? 0) + 1)
  let turn = first
  return {
    met,
    async ask(method, path, { of = urls, ...request } = {}) {
      const deadline = Date.now() + patienceMs
      let interrupted = false
      for (;;) {
        const base = of[turn++ % of.length] ?? ''
        const answer = await call(method, base + path, { ...request, follow: false }).catch((error: Error) => error)
        if (answer instanceof Error) {
          const { code = answer.message } = answer as NodeJS.ErrnoException
          assert.match(code, /^(ECONNREFUSED|ECONNRESET|EPIPE)$/, `${method} ${path}: ${answer.message}`)
          count(code)
          // Refused: nobody has read it.
          interrupted ||= code !== 'ECONNREFUSED'
          onRetry?.(`${code} for ${method} ${path}`)
        } else if (answer.status >= 500) {
          const said = `${answer.status} for ${method} ${path}: ${answer.body.subarray(0, 300)}`
          assert.equal(answer.status, 503, said)
          assert.match(answer.headers['retry-after'] ?? '', /^\d+$/, `Retry-After of ${said}`)
          count('503')
          interrupted = true
          onRetry?.(said)
        } else {
          count(String(answer.status))
          return { ...answer, interrupted, from: base }
        }
        if (Date.now() > deadline) throw new Error(`no replica answers ${method} ${path}`, { cause: answer })
        await sleep(pauseMs)
      }
    },
  }
}
