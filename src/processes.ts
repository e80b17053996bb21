import cluster, { type Worker } from 'node:cluster'
import { AggregatorRegistry } from 'prom-client'
import { RateLimiterClusterMaster } from 'rate-limiter-flexible'
import type { Log } from './log.ts'

// Several serving processes behind one address (node:cluster). The first process starts the others, hands each the
// connections in turn, replaces one that ends, joins their metrics, and counts requests against limits for all of them
// (http/limits.ts; the messages for that are the library's); it serves nothing itself.
//
//   worker → first   { ask: 'metrics', id }      a client asked this worker for /metrics
//   first → worker   { metrics: text, id }       the figures of all workers
// SIGTERM tells a worker to drain and end; one that has not got so far as to listen for it just ends.

type ToFirst = { ask: 'metrics'; id: number }
type ToWorker = { metrics: string; id: number }

type Aggregator = Pick<InstanceType<typeof AggregatorRegistry>, 'clusterMetrics'>

export type Workers = {
  /** Resolves with the port when one is listening (the others follow); rejects when every one ended before that. */
  readonly listening: Promise<number>
  stop(): Promise<void>
}

/** A worker that ends at once after its start is not replaced at full speed. */
const restartDelayMs = 1_000

/**
 * Starts `count` copies of this program as workers, each with its own `environmentOf` its number, from 0, over this
 * process's environment. One that replaces another has its number.
 */
export function startWorkers(
  count: number,
  environmentOf: (index: number) => Record<string, string>,
  log: Log,
): Workers {
  const aggregator = new AggregatorRegistry()
  new RateLimiterClusterMaster()
  let stopping = false
  const fork = (index: number) => {
    const worker = cluster.fork(environmentOf(index))
    worker.on('message', (message: ToFirst) => {
      if (message.ask === 'metrics') answerMetrics(aggregator, worker, message.id, log)
    })
    worker.on('exit', (code, signal) => {
      if (stopping) return
      log.error({ worker: worker.process.pid, code, signal }, 'a serving process ended; starting another')
      setTimeout(() => stopping || fork(index), restartDelayMs)
    })
    return worker
  }
  const listening = Promise.any(Array.from({ length: count }, (_, index) => fork(index)).map(whenListening)).catch(
    (cause) => {
      throw new Error('no serving process could start; what each said stands above', { cause })
    },
  )
  return {
    listening,
    async stop() {
      stopping = true
      const workers = Object.values(cluster.workers ?? {}).filter((worker) => worker !== undefined)
      await Promise.all(
        workers.map((worker) => {
          const ended = new Promise<void>((resolve) => worker.once('exit', () => resolve()))
          if (worker.isDead()) return undefined
          worker.process.kill('SIGTERM')
          return ended
        }),
      )
    },
  }
}

function whenListening(worker: Worker): Promise<number> {
  return new Promise((resolve, reject) => {
    worker.once('listening', ({ port }) => resolve(port))
    worker.once('exit', (code) => reject(new Error(`a serving process ended with code ${code} while starting`)))
  })
}

function answerMetrics(aggregator: Aggregator, worker: Worker, id: number, log: Log): void {
  aggregator.clusterMetrics().then(
    (metrics) => worker.isConnected() && worker.send({ metrics, id } satisfies ToWorker),
    (error) => log.warn({ error }, 'could not join the metrics of all processes'),
  )
}

/** In a worker: asks the first process for the metrics of all. */
export function askForMetrics(): () => Promise<string> {
  const waiting = new Map<number, (text: string) => void>()
  let next = 0
  process.on('message', (message: ToWorker) => {
    waiting.get(message.id)?.(message.metrics)
    waiting.delete(message.id)
  })
  return () =>
    new Promise((resolve) => {
      const id = next++
      waiting.set(id, resolve)
      process.send?.({ ask: 'metrics', id } satisfies ToFirst)
    })
}
