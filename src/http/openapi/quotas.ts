import { noQuery } from '../packs/request.ts'
import { quotaAnswer, quotaBody, quotaPath, quotaRemoved, quotasAnswer } from '../quotas.ts'
import { json, type Operation, ok } from './operation.ts'

const quota = {
  ...{ repositories: 'packs/team-*', maxBytes: 50_000_000_000, maxVersions: 500, bytes: 1_204_224, versions: 12 },
  ...{ setBy: 'alice', setAt: '2026-01-31T12:00:00.000Z' },
}

export const quotaOperations: Operation[] = [
  {
    method: 'get',
    path: '/quotas',
    operationId: 'listQuotas',
    summary: 'How much repositories may hold, and what they do',
    tag: 'access',
    query: noQuery,
    answers: ok('Every quota, by its glob.', json(quotasAnswer, { quotas: [quota] })),
    failures: [],
  },
  {
    method: 'get',
    path: quotaPath,
    operationId: 'getQuota',
    summary: 'What the repositories of one glob may hold, and what they do',
    tag: 'access',
    query: noQuery,
    answers: ok('The quota.', json(quotaAnswer, { quota })),
    failures: ['QUOTA_UNKNOWN', 'REQUEST_INVALID'],
  },
  {
    method: 'put',
    path: quotaPath,
    operationId: 'setQuota',
    summary: 'Say how much the repositories of a glob may hold together',
    description:
      'What is there stays, even if it is more. A push that would come to more is answered 403: QUOTA_EXCEEDED here, ' +
      'DENIED under /v2. Where several quotas match a repository, each holds.',
    tag: 'access',
    query: noQuery,
    body: json(quotaBody, { bytes: 50_000_000_000, versions: 500 }),
    answers: {
      200: { description: 'There was one; it is as set now.', body: json(quotaAnswer, { quota }) },
      201: { description: 'The quota.', body: json(quotaAnswer, { quota }) },
    },
    failures: ['REQUEST_INVALID', 'CONTENT_TOO_LARGE'],
  },
  {
    method: 'delete',
    path: quotaPath,
    operationId: 'removeQuota',
    summary: 'Let the repositories of a glob hold what they will',
    tag: 'access',
    query: noQuery,
    answers: ok('Whether there was one.', json(quotaRemoved, { deleted: true })),
    failures: ['REQUEST_INVALID'],
  },
]
