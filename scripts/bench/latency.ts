import { setTimeout as sleep } from 'node:timers/promises'
import { expectStatus, Wire } from './wire.ts'

/** Milliseconds. */
export type Latency = { readonly p50: number; readonly p99: number; readonly count: number }

export function latencyOf(milliseconds: readonly number[]): Latency {
  const sorted = milliseconds.toSorted((a, b) => a - b)
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
  return { p50: at(0.5), p99: at(0.99), count: sorted.length }
}

/**
 * GETs at a steady pace over connections of their own, until `done`. Each counts from when it was due, not from when
 * there was a connection for it: a server that stops for a moment is late for all that would have come in it.
 */
export async function latencyUntil(
  done: Promise<unknown>,
  url: string,
  { perSecond = 400, connections = 8, accept = '*/*' } = {},
): Promise<Latency> {
  const { origin, pathname } = new URL(url)
  let running = true
  const stop = () => {
    running = false
  }
  done.then(stop, stop)
  const milliseconds: number[] = []
  const started = performance.now()
  let next = 0
  const work = async () => {
    const wire = new Wire(origin)
    while (running) {
      const due = started + (next++ * 1000) / perSecond
      const wait = due - performance.now()
      if (wait > 0) await sleep(wait)
      // A timer is up to a millisecond late by itself, which is not the server's doing.
      const from = wait > 0 ? performance.now() : due
      expectStatus(await wire.request('GET', pathname, [`accept: ${accept}`]), 200, `GET ${pathname}`)
      milliseconds.push(performance.now() - from)
    }
    wire.close()
  }
  await Promise.all(Array.from({ length: connections }, work))
  await done
  return latencyOf(milliseconds)
}
