import { jobAnswer, jobsAnswer, jobsQuery } from '../jobs.ts'
import { noQuery } from '../packs/request.ts'
import { json, type Operation, ok } from './operation.ts'

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

export const jobOperations: Operation[] = [
  {
    method: 'get',
    path: '/jobs',
    operationId: 'listJobs',
    summary: 'What the registry does in the background, the newest first',
    tag: 'jobs',
    query: jobsQuery,
    answers: ok('A page of jobs.', json(jobsAnswer, { jobs: [failed] })),
    failures: [],
  },
  {
    method: 'get',
    path: '/jobs/:id',
    operationId: 'getJob',
    summary: 'A job: its state, what it has done, why it failed',
    tag: 'jobs',
    query: noQuery,
    answers: ok('The job.', json(jobAnswer, { job: failed })),
    failures: ['JOB_UNKNOWN'],
  },
  {
    method: 'post',
    path: '/jobs/:id/retry',
    operationId: 'retryJob',
    summary: 'Try a job that failed again',
    tag: 'jobs',
    query: noQuery,
    answers: { 202: { description: 'It waits to be tried again.', body: json(jobAnswer, { job: waiting }) } },
    failures: ['JOB_UNKNOWN', 'JOB_NOT_FAILED'],
  },
]
