import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import { sharedMetrics } from './shared-metrics.ts'

const latencyBuckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300]

export type Metrics = ReturnType<typeof openMetrics>

/** Where figures come from that are looked up when somebody asks, rather than counted. Set by whoever has them. */
export type Sources = {
  pool?: () => { active: number; waiting: number; max: number }
  /** Bytes over all connections so far. */
  traffic?: () => { read: number; written: number }
  /** Jobs that run in this process, and how many may. */
  slots?: () => { busy: number; max: number }
  /** When the certificate that is served ends, in seconds since 1970. */
  certificateEnds?: () => number
}

/**
 * What `/metrics` shows. Names and units follow Prometheus' conventions (seconds, bytes). `register` has the figures of
 * this process; those of several processes that serve together are added up. `shared()` makes those of the whole
 * registry, which every process reads from the same database (http/figures.ts): new ones for each scrape, since only
 * whoever is asked looks, and they are never added up.
 */
export function openMetrics() {
  const register = new Registry()
  collectDefaultMetrics({ register })
  const sources: Sources = {}
  return {
    register,
    sources,
    ...requestMetrics([register], sources),
    ...partMetrics([register], sources),
    ...jobMetrics([register], sources),
    ...eventMetrics([register]),
    ...scrubMetrics([register]),
    shared: sharedMetrics,
  }
}

/**
 * Durations on their way into a histogram. They go there many at a time, and all of them before somebody looks: the same
 * work takes a fraction of the time while what it needs is at hand.
 */
class Timer {
  readonly #waiting = new Float64Array(256)
  #count = 0
  readonly #histogram: { observe(seconds: number): void }

  constructor(histogram: { observe(seconds: number): void }) {
    this.#histogram = histogram
  }

  observe(seconds: number): void {
    this.#waiting[this.#count++] = seconds
    if (this.#count === this.#waiting.length) this.settle()
  }

  settle(): void {
    for (const seconds of this.#waiting.subarray(0, this.#count)) this.#histogram.observe(seconds)
    this.#count = 0
  }
}

function requestMetrics(registers: Registry[], sources: Sources) {
  const timers = new Set<Timer>()
  const requests = new Histogram({
    name: 'packs_http_request_duration_seconds',
    help: 'Requests by route, method and status, from the head of the request to the end of the answer',
    labelNames: ['route', 'method', 'status'] as const,
    buckets: latencyBuckets,
    registers,
    collect() {
      for (const timer of timers) timer.settle()
    },
  })
  // Step by step: one text of the three would have to be made, and hashed, for every request.
  const byRoute = new Map<string, Map<string, Map<number, Timer>>>()
  return {
    /** The histogram of these labels, remembered: looking it up by its labels costs more than observing it. */
    timerOf(route: string, method: string, status: number): Timer {
      const known = byRoute.get(route)?.get(method)?.get(status)
      if (known) return known
      const timer = new Timer(requests.labels(route, method, String(status)))
      timers.add(timer)
      const byMethod = byRoute.get(route) ?? new Map<string, Map<number, Timer>>()
      const byStatus = byMethod.get(method) ?? new Map<number, Timer>()
      byRoute.set(route, byMethod.set(method, byStatus.set(status, timer)))
      return timer
    },
    inFlight: new Gauge({ name: 'packs_http_requests_in_flight', help: 'Requests being answered', registers }),
    received: new Counter({
      name: 'packs_http_received_bytes_total',
      help: 'Bytes received from clients',
      registers,
      collect() {
        this.reset()
        this.inc(sources.traffic?.().read ?? 0)
      },
    }),
    sent: new Counter({
      name: 'packs_http_sent_bytes_total',
      help: 'Bytes sent to clients',
      registers,
      collect() {
        this.reset()
        this.inc(sources.traffic?.().written ?? 0)
      },
    }),
  }
}

function partMetrics(registers: Registry[], sources: Sources) {
  const statements = new Histogram({
    name: 'packs_database_duration_seconds',
    help: 'Statements and transactions, without the wait for a connection',
    buckets: latencyBuckets,
    registers,
    collect() {
      database.settle()
    },
  })
  const database = new Timer(statements)
  return {
    database,
    pool: new Gauge({
      name: 'packs_database_connections',
      help: 'Database connections: in use, the most there may be, and statements that wait for one',
      labelNames: ['state'] as const,
      registers,
      collect() {
        for (const [state, count] of Object.entries(sources.pool?.() ?? {})) this.labels(state).set(count)
      },
    }),
    certificate: new Gauge({
      name: 'packs_tls_certificate_expiry_timestamp_seconds',
      help: 'When the certificate that is served ends, in seconds since 1970; absent without TLS here',
      labelNames: ['file'] as const,
      registers,
      aggregator: 'min',
      collect() {
        const ends = sources.certificateEnds?.()
        if (ends !== undefined) this.labels('TLS_CERT_FILE').set(ends)
      },
    }),
    ...collectionMetrics(registers),
    blobs: new Histogram({
      name: 'packs_blob_store_duration_seconds',
      help: 'Calls to the blob store',
      labelNames: ['operation', 'outcome'] as const,
      buckets: latencyBuckets,
      registers,
    }),
  }
}

function collectionMetrics(registers: Registry[]) {
  return {
    collected: new Counter({
      name: 'packs_gc_collected_total',
      help: 'What garbage collection has taken away in this process: links of repositories to blobs, blobs, objects of the store',
      labelNames: ['kind'] as const,
      registers,
    }),
    collectedBytes: new Counter({
      name: 'packs_gc_collected_bytes_total',
      help: 'Size of the blobs that garbage collection has taken away in this process',
      registers,
    }),
  }
}

function jobMetrics(registers: Registry[], sources: Sources) {
  return {
    slots: new Gauge({
      name: 'packs_worker_slots',
      help: 'Jobs that run in this process, and how many may at a time (WORKER_CONCURRENCY)',
      labelNames: ['state'] as const,
      registers,
      collect() {
        for (const [state, count] of Object.entries(sources.slots?.() ?? {})) this.labels(state).set(count)
      },
    }),
    jobs: new Histogram({
      name: 'packs_job_duration_seconds',
      help: 'Attempts at jobs by their outcome: completed, failed, cancelled, given back (the worker stopped), lost (to another worker)',
      labelNames: ['kind', 'outcome'] as const,
      buckets: [0.01, 0.1, 1, 10, 60, 300, 1800, 7200],
      registers,
    }),
    jobsDead: new Counter({
      name: 'packs_jobs_dead_total',
      help: 'Jobs that became dead letters: their tries are spent, or trying again is no use',
      labelNames: ['kind'] as const,
      registers,
    }),
  }
}

/** Of what scrubs read. */
function scrubMetrics(registers: Registry[]) {
  return {
    scrubbedObjects: new Counter({
      name: 'packs_scrub_objects_verified_total',
      help: 'Objects of the blob store that were read and hashed',
      registers,
    }),
    scrubbedBytes: new Counter({
      name: 'packs_scrub_bytes_verified_total',
      help: 'Bytes of the blob store that were read and hashed',
      registers,
    }),
  }
}

function eventMetrics(registers: Registry[]) {
  return {
    eventStreams: new Gauge({ name: 'packs_event_streams', help: 'Streams of events that are open', registers }),
    deliveries: new Histogram({
      name: 'packs_webhook_attempt_duration_seconds',
      help: 'Attempts to send an event to a webhook by their outcome: delivered, failed (it is tried again), dead (it is not)',
      labelNames: ['outcome'] as const,
      buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15],
      registers,
    }),
    deliveryLag: new Histogram({
      name: 'packs_webhook_lag_seconds',
      help: 'From what happened to the answer of the webhook, where the first attempt is delivered',
      buckets: [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300],
      registers,
    }),
  }
}
