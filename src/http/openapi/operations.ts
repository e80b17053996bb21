import * as v from 'valibot'
import { jobAnswer, jobsAnswer, jobsQuery } from '../jobs.ts'
import { noQuery } from '../packs/request.ts'
import type { Operation } from './operation.ts'
import { json, ok } from './operation.ts'
import { readOperations } from './reads.ts'
import { resolutionOperations } from './resolution.ts'
import { writeOperations } from './writes.ts'

const part = v.picklist(['ok', 'down'])
const readiness = v.object({
  status: v.picklist(['ok', 'unavailable']),
  parts: v.object({ database: part, blobStore: part, server: v.picklist(['ok', 'draining']) }),
})

const waiting = {
  ...{ id: '0199f0a2-5c1e-7a40-8a3b-2f6d1c9e4b57', name: 'tidy', state: 'waiting', priority: 0 },
  ...{
    attempts: 1,
    maxAttempts: 6,
    createdAt: '2026-01-31T12:00:00.000000Z',
    startAfter: '2026-01-31T12:00:30.000000Z',
  },
}
const failed = {
  ...waiting,
  state: 'failed',
  attempts: 6,
  startAfter: undefined,
  error: 'the blob store does not answer',
}

const jobOperations: Operation[] = [
  {
    method: 'get',
    path: '/jobs',
    operationId: 'listJobs',
    summary: 'What the registry does in the background, the newest first',
    tag: 'operations',
    query: jobsQuery,
    answers: ok('A page of jobs.', json(jobsAnswer, { jobs: [failed] })),
    failures: ['QUERY_INVALID', 'DENIED', 'UNAVAILABLE'],
  },
  {
    method: 'get',
    path: '/jobs/:id',
    operationId: 'getJob',
    summary: 'A job: its state, what it has done, why it failed',
    tag: 'operations',
    query: noQuery,
    answers: ok('The job.', json(jobAnswer, { job: failed })),
    failures: ['QUERY_INVALID', 'DENIED', 'UNAVAILABLE', 'JOB_UNKNOWN'],
  },
  {
    method: 'post',
    path: '/jobs/:id/retry',
    operationId: 'retryJob',
    summary: 'Try a job that failed again',
    tag: 'operations',
    query: noQuery,
    answers: { 202: { description: 'It waits to be tried again.', body: json(jobAnswer, { job: waiting }) } },
    failures: ['QUERY_INVALID', 'DENIED', 'UNAVAILABLE', 'JOB_UNKNOWN', 'JOB_NOT_FAILED'],
  },
]

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
    failures: [],
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
  ...jobOperations,
  ...servingOperations,
]
