import {
  jobAnswer,
  jobBody,
  jobKindsAnswer,
  jobSentAnswer,
  jobsAnswer,
  jobsQuery,
  retriedAnswer,
  retryQuery,
} from '../jobs.ts'
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

const tidyCounts = {
  ...{ name: 'tidy', about: 'deletes what is queued', byHand: true, waiting: 1, running: 0, failed: 1, completed: 144 },
  ...{ cancelled: 0, oldestDueSeconds: 0.4, oldestFailedSeconds: 3600.5 },
}

export const jobOperations: Operation[] = [
  {
    method: 'post',
    path: '/jobs',
    operationId: 'runJob',
    summary: 'Have a job of a kind run now that else runs by its schedule',
    tag: 'jobs',
    query: noQuery,
    body: json(jobBody, { name: 'tidy' }),
    answers: {
      200: {
        description: 'One waited already.',
        headers: { location: 'The job.' },
        body: json(jobSentAnswer, { job: waiting, isNew: false }),
      },
      202: {
        description: 'It waits for a worker.',
        headers: { location: 'The job.' },
        body: json(jobSentAnswer, { job: waiting, isNew: true }),
      },
    },
    failures: ['REQUEST_INVALID', 'CONTENT_TOO_LARGE'],
  },
  {
    method: 'get',
    path: '/jobs/kinds',
    operationId: 'listJobKinds',
    summary: 'Every kind of job, how many wait, run and are dead, and for how long',
    tag: 'jobs',
    query: noQuery,
    answers: ok('The kinds.', json(jobKindsAnswer, { kinds: [tidyCounts] })),
    failures: [],
  },
  {
    method: 'post',
    path: '/jobs/retry',
    operationId: 'retryDeadJobs',
    summary: 'Try the dead letters of a kind again, the oldest first, at most a thousand',
    tag: 'jobs',
    query: retryQuery,
    answers: ok('How many.', json(retriedAnswer, { retried: 3, left: 0, more: false })),
    failures: [],
  },
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
  {
    method: 'post',
    path: '/jobs/:id/cancel',
    operationId: 'cancelJob',
    summary: 'Cancel a job that waits or runs',
    description: 'One that waits has ended thereby. One that runs is told, and has ended when its state says so.',
    tag: 'jobs',
    query: noQuery,
    answers: {
      202: {
        description: 'It has ended, or is about to.',
        body: json(jobAnswer, { job: { ...failed, state: 'cancelled' } }),
      },
    },
    failures: ['JOB_UNKNOWN', 'JOB_ENDED'],
  },
  {
    method: 'post',
    path: '/jobs/:id/discard',
    operationId: 'discardJob',
    summary: 'Take a dead letter from the list of them: it is kept as cancelled',
    tag: 'jobs',
    query: noQuery,
    answers: ok('The job.', json(jobAnswer, { job: { ...failed, state: 'cancelled' } })),
    failures: ['JOB_UNKNOWN', 'JOB_NOT_FAILED'],
  },
]
