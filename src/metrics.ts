import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'

const latencyBuckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300]

export type Metrics = ReturnType<typeof openMetrics>

/** What `/metrics` shows, one instance a process. Names and units follow Prometheus' conventions (seconds, bytes). */
export function openMetrics() {
  const register = new Registry()
  collectDefaultMetrics({ register })
  const registers = [register]
  const requests = new Histogram({
    name: 'packs_http_request_duration_seconds',
    help: 'Requests by route, method and status, from the head of the request to the end of the answer',
    labelNames: ['route', 'method', 'status'] as const,
    buckets: latencyBuckets,
    registers,
  })
  const timers = new Map<string, { observe(seconds: number): void }>()
  return {
    register,
    /** The histogram of these labels, remembered: looking it up by its labels costs more than observing it. */
    timerOf(route: string, method: string, status: number) {
      const place = `${status} ${method} ${route}`
      const timer = timers.get(place) ?? requests.labels(route, method, String(status))
      timers.set(place, timer)
      return timer
    },
    inFlight: new Gauge({ name: 'packs_http_requests_in_flight', help: 'Requests being answered', registers }),
    received: new Counter({ name: 'packs_http_received_bytes_total', help: 'Bytes received from clients', registers }),
    sent: new Counter({ name: 'packs_http_sent_bytes_total', help: 'Bytes sent to clients', registers }),
    uploadsOpen: new Gauge({
      name: 'packs_uploads_open',
      help: 'Upload sessions that are neither finished nor expired, in the whole registry',
      registers,
      aggregator: 'max',
    }),
    database: new Histogram({
      name: 'packs_database_duration_seconds',
      help: 'Statements and transactions, without the wait for a connection',
      buckets: latencyBuckets,
      registers,
    }),
    pool: new Gauge({
      name: 'packs_database_connections',
      help: 'Database connections: in use, the most there may be, and statements that wait for one',
      labelNames: ['state'] as const,
      registers,
    }),
    ...jobMetrics(registers),
    ...gcMetrics(registers),
    ...scrubMetrics(registers),
    blobs: new Histogram({
      name: 'packs_blob_store_duration_seconds',
      help: 'Calls to the blob store',
      labelNames: ['operation', 'outcome'] as const,
      buckets: latencyBuckets,
      registers,
    }),
  }
}

function jobMetrics(registers: Registry[]) {
  return {
    jobs: new Histogram({
      name: 'packs_job_duration_seconds',
      help: 'Attempts at jobs by their outcome: completed, failed, given back (the worker stopped), lost (to another worker)',
      labelNames: ['job', 'outcome'] as const,
      buckets: [0.01, 0.1, 1, 10, 60, 300, 1800, 7200],
      registers,
    }),
    jobsByState: new Gauge({
      name: 'packs_jobs',
      help: 'Jobs by queue and state, in the whole registry; finished ones as long as they are kept',
      labelNames: ['job', 'state'] as const,
      registers,
      aggregator: 'max',
    }),
    jobsWaited: new Gauge({
      name: 'packs_jobs_oldest_waiting_seconds',
      help: 'How long the oldest job that is due has waited for a worker',
      labelNames: ['job'] as const,
      registers,
      aggregator: 'max',
    }),
  }
}

function gcMetrics(registers: Registry[]) {
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
    backlog: new Gauge({
      name: 'packs_gc_backlog',
      help: 'In the whole registry, counted up to 100000: rows that are due for review (due), objects that are queued for deletion (queued)',
      labelNames: ['kind'] as const,
      registers,
      aggregator: 'max',
    }),
    backlogAge: new Gauge({
      name: 'packs_gc_oldest_due_seconds',
      help: 'How long the oldest row that is due for review has waited for it',
      registers,
      aggregator: 'max',
    }),
    collectedAt: new Gauge({
      name: 'packs_gc_last_completed_timestamp_seconds',
      help: 'When the job gc was last completed, by whichever worker; 0: not within the last week',
      registers,
      aggregator: 'max',
    }),
  }
}

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
    findings: new Gauge({
      name: 'packs_scrub_findings_open',
      help: 'What scrubs found to be wrong and is not set right, by kind, in the whole registry',
      labelNames: ['kind'] as const,
      registers,
      aggregator: 'max',
    }),
    scrubFinished: new Gauge({
      name: 'packs_scrub_last_finished_timestamp_seconds',
      help: 'When the last scrub of this mode was finished, in seconds since 1970; absent: never',
      labelNames: ['mode'] as const,
      registers,
      aggregator: 'max',
    }),
  }
}
