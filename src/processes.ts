import cluster, { type Worker } from 'node:cluster'
import { AggregatorRegistry, type Registry } from 'prom-client'
import { RateLimiterClusterMaster } from 'rate-limiter-flexible'
import type { Log } from './log.ts'

// Several serving processes behind one address (node:cluster). The first process starts the others, hands each the
// connections in turn, replaces one that ends, joins their metrics, and counts requests against limits for all of them
// (http/limits.ts; the messages for that are the library's); it serves nothing itself.
//
//   worker → first   { ask: 'metrics', id }      a client asked this worker for /metrics
//   first → workers  { tell: 'figures', id }     to each that listens
//   worker → first   { figures, id }
//   first → worker   { metrics: text, id }       the figures of all that have told theirs in time, added up
// SIGTERM tells a worker to drain and end; one that has not got so far as to listen for it just ends.
//
//   worker → first   { closed }                  it takes no new connections any more
//   first → workers  { tell: 'closed' }          once that is so of all: whatever was handed to them is with them now
//   worker → first   { closed }                  so the first one closes what none of them has taken

type Figures = Awaited<ReturnType<Registry['getMetricsAsJSON']>>
type ToFirst = { ask: 'metrics'; id: number } | { figures: Figures; id: number } | { closed: true }
type ToWorker = { tell: 'figures'; id: number } | { tell: 'closed' } | { metrics: string; id: number }

/** A worker that has not told its figures by then, because it is too busy or about to end, is left out of them. */
const tellMs = 3_000

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
  const figures = openFigures(log)
  const handed: Handed = new Map()
  new RateLimiterClusterMaster()
  let stopping = false
  const fork = (index: number) => {
    const worker = cluster.fork(environmentOf(index))
    watchHanded(worker, handed)
    worker.on('message', (message: ToFirst) => figures.hear(worker, message))
    worker.on('listening', () => figures.add(worker))
    const replace = (why: object) => {
      figures.remove(worker)
      if (stopping) return
      // A connection that it has not taken, nobody else is given any more.
      handed.get(worker)?.close()
      handed.delete(worker)
      log.error({ worker: worker.process.pid, ...why }, 'a serving process ended; starting another')
      setTimeout(() => stopping || fork(index), restartDelayMs)
    }
    worker.on('exit', (code, signal) => replace({ code, signal }))
    worker.on('error', (error) => {
      // One that cannot even be started tells nothing else. Any other has ended in this moment; its 'exit' is to come.
      if (worker.process.pid === undefined) replace({ error })
      else log.warn({ worker: worker.process.pid, error }, 'a serving process was told something and did not hear it')
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
      const untaken = closeUntaken(workers, handed)
      await Promise.all(
        workers.map((worker) => {
          const ended = new Promise<void>((resolve) => worker.once('exit', () => resolve()))
          if (worker.isDead()) return undefined
          worker.process.kill('SIGTERM')
          return ended
        }),
      )
      await untaken
    },
  }
}

function whenListening(worker: Worker): Promise<number> {
  return new Promise((resolve, reject) => {
    worker.once('listening', ({ port }) => resolve(port))
    worker.once('exit', (code) => reject(new Error(`a serving process ended with code ${code} while starting`)))
    worker.once('error', reject)
  })
}

type Handed = Map<Worker, { close(): void }>

/** In the first process: keeps the connection that the worker is handed last; it has at most one that it has not taken. */
function watchHanded(worker: Worker, handed: Handed): void {
  const { process: child } = worker
  const send = child.send.bind(child) as (...given: unknown[]) => boolean
  child.send = (...given: unknown[]) => {
    const [, connection] = given
    if (typeof connection === 'object' && connection && 'close' in connection)
      handed.set(worker, connection as { close(): void })
    return send(...given)
  }
}

/**
 * In the first process, once its workers were told to end: closes the connections that none of them has taken. Node's
 * cluster gets back what comes to a worker that has just closed, to give it to another; where all have closed it would
 * keep it, open and without an answer, until this process ends (distribute() in its lib/internal/cluster/
 * round_robin_handle.js). Of those that were taken its own copy is closed already, and closing it again does nothing.
 */
async function closeUntaken(workers: Worker[], handed: Handed): Promise<void> {
  await Promise.all(workers.map(saysClosed))
  // Nothing is handed out any more. What is still on its way to a worker comes before this, and its answer is before that.
  const again = Promise.all(workers.map(saysClosed))
  for (const worker of workers) if (worker.isConnected()) worker.send({ tell: 'closed' } satisfies ToWorker)
  await again
  for (const connection of handed.values()) connection.close()
}

function saysClosed(worker: Worker): Promise<void> {
  return new Promise((resolve) => {
    if (!worker.isConnected()) resolve()
    worker.once('disconnect', () => resolve())
    worker.on('message', (message: ToFirst) => {
      if ('closed' in message) resolve()
    })
  })
}

/** In a worker, as soon as it takes no new connections: has those closed that came too late, see `closeUntaken`. */
export function sayClosed(): void {
  const say = () => void process.send?.({ closed: true } satisfies ToFirst)
  process.on('message', (message: ToWorker) => {
    if ('tell' in message && message.tell === 'closed') say()
  })
  say()
}

/** In the first process: joins the figures of the workers that listen. */
function openFigures(log: Log) {
  const listening = new Set<Worker>()
  const asked = new Map<number, (from: Worker, figures: Figures) => void>()
  let next = 0
  const collect = (): Promise<Figures[]> => {
    const id = next++
    const told = new Map<Worker, Figures>()
    const workers = [...listening].filter((worker) => worker.isConnected())
    return new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer)
        asked.delete(id)
        if (told.size < workers.length)
          log.warn({ missing: workers.length - told.size }, 'metrics without those of all')
        resolve([...told.values()])
      }
      const timer = setTimeout(end, tellMs)
      asked.set(id, (from, figures) => {
        told.set(from, figures)
        if (told.size >= workers.length) end()
      })
      for (const worker of workers) worker.send({ tell: 'figures', id } satisfies ToWorker)
    })
  }
  const answer = async (worker: Worker, id: number) => {
    const metrics = await AggregatorRegistry.aggregate(await collect()).metrics()
    if (worker.isConnected()) worker.send({ metrics, id } satisfies ToWorker)
  }
  return {
    add: (worker: Worker) => void listening.add(worker),
    remove: (worker: Worker) => void listening.delete(worker),
    hear(worker: Worker, message: ToFirst) {
      if ('figures' in message) asked.get(message.id)?.(worker, message.figures)
      else if ('ask' in message)
        answer(worker, message.id).catch((error) => log.error({ error }, 'could not join the metrics of all processes'))
    },
  }
}

/** In a worker: tells its own figures when it is asked for them, and asks the first process for those of all. */
export function shareMetrics(register: Registry, log: Log): () => Promise<string> {
  const waiting = new Map<number, (text: string) => void>()
  let next = 0
  const say = (message: ToFirst) => void process.send?.(message)
  process.on('message', (message: ToWorker) => {
    if ('tell' in message) {
      if (message.tell !== 'figures') return
      const { id } = message
      register.getMetricsAsJSON().then(
        (figures) => say({ figures, id }),
        (error) => log.error({ error }, 'could not tell the metrics of this process'),
      )
      return
    }
    waiting.get(message.id)?.(message.metrics)
    waiting.delete(message.id)
  })
  return () =>
    new Promise((resolve) => {
      const id = next++
      waiting.set(id, resolve)
      say({ ask: 'metrics', id })
    })
}
