import * as v from 'valibot'
import { noQuery } from '../packs/request.ts'
import { decisionsQuery, holdBody, pageQuery, planBody, policyBody, runBody } from '../retention.ts'
import {
  holdAnswer,
  holdsAnswer,
  planAnswer,
  policiesAnswer,
  policyAnswer,
  retentionReportAnswer,
  retentionRunAnswer,
  retentionRunsAnswer,
} from '../retention-answers.ts'
import { json, type Operation, ok } from './operation.ts'

const document = {
  repositories: ['packs/net-*'],
  versions: { keepNewest: 5, keepNewerThan: '90d' },
  prereleases: { keepNewerThan: '14d', keepUnreleased: true as const },
}
const policy = {
  ...{ name: 'net', enabled: true, policy: document },
  ...{ updatedBy: 'alice', updatedAt: '2026-01-31T12:00:00.000Z' },
}
const hold = {
  ...{ packId: 'net-policy', version: '2.1.0', reason: 'evidence in case 7' },
  ...{ heldBy: 'alice', heldAt: '2026-01-31T12:00:00.000Z' },
}
const decision = { repository: 'packs/net-policy', kind: 'version', name: '1.0.0' }
const removed = { ...decision, policy: 'net', reason: 'older than 90d and not among the newest 5' }
const plan = {
  decisions: [
    {
      ...{ ...decision, name: '2.1.0', action: 'keep', rule: 'held' },
      reason: 'held by alice: evidence in case 7',
    },
    { ...removed, action: 'remove' },
  ],
  ...{ kept: 1, removed: 1, freedBytes: 20_480 },
}
const run = {
  ...{ id: '0199f0a2-5c1e-7a40-8a3b-2f6d1c9e4b59', askedBy: 'the schedule', state: 'completed' },
  ...{ createdAt: '2026-01-31T02:30:00.000Z', startedAt: '2026-01-31T02:30:00.100Z' },
  ...{ finishedAt: '2026-01-31T02:30:03.000Z', planned: 1, removed: 1, spared: 0, gone: 0 },
  ...{ kept: { newest: 5, channel: 1 }, freedBytes: 20_480 },
}
const removal = { number: 1, ...removed, outcome: 'removed', decidedAt: '2026-01-31T02:30:02.000Z' }
const location = { location: 'Where it is.' }

const policyOperations: Operation[] = [
  {
    method: 'get',
    path: '/retention/policies',
    operationId: 'listPolicies',
    summary: 'What is removed by itself',
    tag: 'retention',
    query: noQuery,
    answers: ok('All policies, by name.', json(policiesAnswer, { policies: [policy] })),
    failures: [],
  },
  {
    method: 'get',
    path: '/retention/policies/:name',
    operationId: 'getPolicy',
    summary: 'A policy',
    tag: 'retention',
    query: noQuery,
    answers: ok('The policy.', json(policyAnswer, { policy })),
    failures: ['POLICY_UNKNOWN'],
  },
  {
    method: 'put',
    path: '/retention/policies/:name',
    operationId: 'setPolicy',
    summary: 'Set what is kept of versions, tags and untagged manifests',
    description:
      'Of every kind that the policy names, what none of its rules keeps is removed, every night while the policy is enabled; ' +
      'kinds that it does not name it leaves alone. Versions that are the latest, held, named by a channel, members of a ' +
      'bundle, or accepted by a version of another pack are never removed. What one enabled policy keeps no other removes.',
    tag: 'retention',
    query: noQuery,
    body: json(policyBody, { policy: document, enabled: false }),
    answers: ok('The policy as it is now.', json(policyAnswer, { policy })),
    failures: ['REQUEST_INVALID', 'CONTENT_TOO_LARGE'],
  },
  {
    method: 'delete',
    path: '/retention/policies/:name',
    operationId: 'deletePolicy',
    summary: 'Forget a policy; a run of it that is under way removes nothing more',
    tag: 'retention',
    query: noQuery,
    answers: ok('Whether there was one.', json(v.object({ deleted: v.boolean() }), { deleted: true })),
    failures: [],
  },
]

const holdOperations: Operation[] = [
  {
    method: 'get',
    path: '/retention/holds',
    operationId: 'listHolds',
    summary: 'The versions that nobody may delete',
    tag: 'retention',
    query: pageQuery,
    answers: ok('A page of them, by pack and version.', json(holdsAnswer, { holds: [hold] })),
    failures: [],
  },
  {
    method: 'put',
    path: '/retention/holds/:id/:version',
    operationId: 'holdVersion',
    summary: 'Hold a version: nobody deletes it, whatever they force, until it is released',
    tag: 'retention',
    query: noQuery,
    body: json(holdBody, { reason: hold.reason }),
    answers: ok('It is held.', json(holdAnswer, { hold })),
    failures: ['PACK_UNKNOWN', 'VERSION_UNKNOWN', 'REQUEST_INVALID', 'CONTENT_TOO_LARGE'],
  },
  {
    method: 'delete',
    path: '/retention/holds/:id/:version',
    operationId: 'releaseVersion',
    summary: 'Release a version: it may be deleted again',
    tag: 'retention',
    query: noQuery,
    answers: ok('Whether it was held.', json(v.object({ released: v.boolean() }), { released: true })),
    failures: ['PACK_UNKNOWN', 'VERSION_UNKNOWN'],
  },
]

const runOperations: Operation[] = [
  {
    method: 'post',
    path: '/retention/plan',
    operationId: 'planRetention',
    summary: 'What would be removed and kept now, each with why; nothing is',
    description:
      'Of one policy by its name, enabled or not; of one that is not stored, as a document; or of all that are enabled. Pages ' +
      'are decided as they are asked for, so a plan of many is not of one moment.',
    tag: 'retention',
    query: decisionsQuery,
    body: json(planBody, { name: 'net' }),
    answers: ok('A page of decisions.', json(planAnswer, plan)),
    failures: ['REQUEST_INVALID', 'CONTENT_TOO_LARGE', 'POLICY_UNKNOWN'],
  },
  {
    method: 'post',
    path: '/retention/run',
    operationId: 'runRetention',
    summary: 'Apply one policy, enabled or not, or all that are enabled, as a job',
    description: 'Each removal is decided again, by what is there then, in the transaction that does it.',
    tag: 'retention',
    query: noQuery,
    body: json(runBody, { name: 'net' }),
    answers: {
      202: { description: 'It waits for a worker.', headers: location, body: json(retentionRunAnswer, { run }) },
    },
    failures: ['REQUEST_INVALID', 'CONTENT_TOO_LARGE', 'POLICY_UNKNOWN'],
  },
  {
    method: 'get',
    path: '/retention/runs',
    operationId: 'listRetentionRuns',
    summary: 'The last runs, the newest first',
    tag: 'retention',
    query: noQuery,
    answers: ok('At most 100 of them.', json(retentionRunsAnswer, { runs: [run] })),
    failures: [],
  },
  {
    method: 'get',
    path: '/retention/runs/:id',
    operationId: 'getRetentionRun',
    summary: 'What a run has removed, and what it spared, each with why',
    tag: 'retention',
    query: decisionsQuery,
    answers: ok('The run, and a page of its removals.', json(retentionReportAnswer, { run, removals: [removal] })),
    failures: ['RUN_UNKNOWN'],
  },
]

export const retentionOperations: Operation[] = [...policyOperations, ...holdOperations, ...runOperations]
