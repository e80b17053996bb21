import { Gauge, Registry } from 'prom-client'

/** The figures of the whole registry, which every process reads from the same database: new ones for each scrape. */
export function sharedMetrics() {
  const register = new Registry()
  const registers = [register]
  return {
    register,
    ...sharedEventMetrics(registers),
    quota: quotaGauge(registers),
    parts: new Gauge({
      name: 'packs_part_up',
      help: 'Whether a part that the registry stands on (database, blobStore) answers: 1, or 0',
      labelNames: ['part'] as const,
      registers,
    }),
    uploadsOpen: new Gauge({
      name: 'packs_uploads_open',
      help: 'Upload sessions that are neither finished nor expired',
      registers,
    }),
    jobsByState: new Gauge({
      name: 'packs_jobs',
      help: 'Jobs by kind and state, the finished ones as long as they are kept; failed: dead letters',
      labelNames: ['kind', 'state'] as const,
      registers,
    }),
    jobsWaited: new Gauge({
      name: 'packs_jobs_oldest_waiting_seconds',
      help: 'How long the oldest job that is due has waited for a worker',
      labelNames: ['kind'] as const,
      registers,
    }),
    jobsDeadFor: new Gauge({
      name: 'packs_jobs_oldest_dead_seconds',
      help: 'How long the oldest dead letter has been one',
      labelNames: ['kind'] as const,
      registers,
    }),
    auditUnsealed: new Gauge({
      name: 'packs_audit_oldest_unsealed_seconds',
      help: 'How long the oldest event of the audit has not been sealed; 0 where all are',
      registers,
    }),
    backlog: new Gauge({
      name: 'packs_gc_backlog',
      help: 'In the whole registry, counted up to 100000: rows that are due for review (due), objects that are queued for deletion (queued)',
      labelNames: ['kind'] as const,
      registers,
    }),
    backlogAge: new Gauge({
      name: 'packs_gc_oldest_due_seconds',
      help: 'How long the oldest row that is due for review has waited for it',
      registers,
    }),
    collectedAt: new Gauge({
      name: 'packs_gc_last_completed_timestamp_seconds',
      help: 'When the job gc was last completed, by whichever worker; 0: not within the last week',
      registers,
    }),
    ...findingMetrics([register]),
    blobSpace: new Gauge({
      name: 'packs_blob_store_space_bytes',
      help: 'Room on the disk of a blob store that is a folder: free, and in all; absent with S3',
      labelNames: ['state'] as const,
      registers,
    }),
  }
}

function findingMetrics(registers: Registry[]) {
  return {
    findings: new Gauge({
      name: 'packs_scrub_findings_open',
      help: 'What scrubs found to be wrong and is not set right, by kind',
      labelNames: ['kind'] as const,
      registers,
    }),
    scrubFinished: new Gauge({
      name: 'packs_scrub_last_finished_timestamp_seconds',
      help: 'When the last scrub of this mode was finished, in seconds since 1970; absent: never',
      labelNames: ['mode'] as const,
      registers,
    }),
  }
}

function quotaGauge(registers: Registry[]) {
  return new Gauge({
    name: 'packs_quota',
    help: 'What the repositories of a quota hold (used), and may (limit), in bytes and in versions',
    labelNames: ['repositories', 'unit', 'figure'] as const,
    registers,
  })
}

function sharedEventMetrics(registers: Registry[]) {
  return {
    outbox: new Gauge({
      name: 'packs_events_outbox',
      help: 'Events that are written down and not yet to be seen by anybody',
      registers,
    }),
    outboxOldest: new Gauge({
      name: 'packs_events_outbox_oldest_seconds',
      help: 'How long the oldest of them has waited',
      registers,
    }),
    deliveriesByState: new Gauge({
      name: 'packs_webhook_deliveries',
      help: 'Deliveries that wait, and that were given up and can be sent again (dead)',
      labelNames: ['state'] as const,
      registers,
    }),
    deliveriesOldest: new Gauge({
      name: 'packs_webhook_oldest_waiting_seconds',
      help: 'How long the oldest delivery that waits has waited, but for those of webhooks that are switched off',
      registers,
    }),
  }
}
