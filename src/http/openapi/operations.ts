import * as v from 'valibot'
import { accessOperations } from './access.ts'
import { bundleOperations } from './bundles.ts'
import { eventOperations } from './events.ts'
import { exportOperations } from './exports.ts'
import { importOperations } from './imports.ts'
import { jobOperations } from './jobs.ts'
import { keyOperations } from './keys.ts'
import { mirrorOperations } from './mirrors.ts'
import type { Operation } from './operation.ts'
import { json, ok } from './operation.ts'
import { quotaOperations } from './quotas.ts'
import { readOperations } from './reads.ts'
import { resolutionOperations } from './resolution.ts'
import { retentionOperations } from './retention.ts'
import { scrubOperations } from './scrub.ts'
import { webhookOperations } from './webhooks.ts'
import { writeOperations } from './writes.ts'

const part = v.picklist(['ok', 'down'])
const readiness = v.object({
  status: v.picklist(['ok', 'unavailable']),
  parts: v.object({ database: part, blobStore: part, server: v.picklist(['ok', 'draining']) }),
})

const servingOperations: Operation[] = [
  {
    method: 'get',
    path: '/healthz',
    operationId: 'getHealth',
    summary: 'Whether the process answers',
    tag: 'operations',
    answers: ok('It does.', json(v.object({ status: v.literal('ok') }), { status: 'ok' })),
    failures: [],
  },
  {
    method: 'get',
    path: '/readyz',
    operationId: 'getReadiness',
    summary: 'Whether everything the registry stands on answers',
    tag: 'operations',
    answers: {
      200: {
        description: 'It does.',
        body: json(readiness, { status: 'ok', parts: { database: 'ok', blobStore: 'ok', server: 'ok' } }),
      },
      503: {
        description: 'Something is down, or the server is about to stop.',
        headers: { 'retry-after': 'In seconds.' },
        body: json(readiness, { status: 'unavailable', parts: { database: 'down', blobStore: 'ok', server: 'ok' } }),
      },
    },
    failures: [],
  },
  {
    method: 'get',
    path: '/metrics',
    operationId: 'getMetrics',
    summary: 'Figures for Prometheus',
    tag: 'operations',
    answers: ok('In the text format of Prometheus.', { 'text/plain': { schema: { json: { type: 'string' } } } }),
    failures: ['UNAUTHORIZED', 'DENIED', 'TOOMANYREQUESTS'],
  },
  {
    method: 'get',
    path: '/openapi.json',
    operationId: 'getDescription',
    summary: 'This document',
    tag: 'operations',
    headers: { 'if-none-match': 'The ETag that is there already.' },
    answers: {
      200: {
        description: 'OpenAPI 3.1.',
        headers: { etag: 'Its digest, quoted.' },
        body: { 'application/json': { schema: { json: { type: 'object' } } } },
      },
      304: { description: 'It is the one that If-None-Match names.' },
    },
    failures: [],
  },
]

/** Every route but those of /v2, which the distribution specification describes. */
export const operations: readonly Operation[] = [
  ...readOperations,
  ...writeOperations,
  ...resolutionOperations,
  ...keyOperations,
  ...accessOperations,
  ...quotaOperations,
  ...bundleOperations,
  ...exportOperations,
  ...importOperations,
  ...mirrorOperations,
  ...eventOperations,
  ...webhookOperations,
  ...retentionOperations,
  ...jobOperations,
  ...scrubOperations,
  ...servingOperations,
]
