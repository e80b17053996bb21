import * as v from 'valibot'
import {
  mirrorAnswer,
  mirrorsAnswer,
  parityAnswer,
  runAnswer,
  runsAnswer,
  upstreamAnswer,
  upstreamsAnswer,
} from '../mirror-answers.ts'
import { mirrorBody, mirrorChange, runQuery } from '../mirrors.ts'
import { noQuery } from '../packs/request.ts'
import { upstreamBody, upstreamPath } from '../upstreams.ts'
import { json, type Operation, ok } from './operation.ts'

const mirror = {
  ...{ name: 'site-b', direction: 'push' },
  ...{ url: 'https://registry.site-b.example', prefix: 'packs', schedule: '0 3 * * *', credentials: true },
  selection: { packs: ['net-*'], closure: true, referrers: true },
  options: { concurrency: 4 },
  createdAt: '2026-01-31T12:00:00.000Z',
}
const run = {
  ...{ id: '0199f0a2-5c1e-7a40-8a3b-2f6d1c9e4b58', dryRun: false, state: 'completed' },
  ...{ createdAt: '2026-01-31T12:00:00.000Z', startedAt: '2026-01-31T12:00:00.100Z' },
  ...{ finishedAt: '2026-01-31T12:00:03.000Z', progress: { manifests: 4, blobs: 8, bytes: 81_920 } },
}
const digest = 'sha256:9834876dcfb05cb167a5c24953eba58c4ac89b1adf57f28f2f9d09af107ee8f0'
const parity = {
  ...{ clean: true, dryRun: false, counts: { same: 1, missing: 0, different: 0, refused: 0 } },
  moved: { manifests: 1, blobs: 2, mounted: 0, bytes: 20_480, requests: 9 },
  problems: [],
  entries: [{ kind: 'version', packId: 'net-policy', reference: '1.0.0', digest, state: 'same', there: digest }],
  more: 0,
}
const upstream = {
  ...{ prefix: 'hub', url: 'https://registry.example', remotePrefix: 'library' },
  ...{ tagTtlSeconds: 300, credentials: false },
}
const location = { location: 'Where it is.' }
const deleted = json(v.object({ deleted: v.boolean() }), { deleted: true })

export const mirrorOperations: Operation[] = [
  {
    method: 'get',
    path: '/mirrors',
    operationId: 'listMirrors',
    summary: 'The mirrors, by name',
    tag: 'mirrors',
    query: noQuery,
    answers: ok('All of them.', json(mirrorsAnswer, { mirrors: [mirror] })),
    failures: [],
  },
  {
    method: 'post',
    path: '/mirrors',
    operationId: 'createMirror',
    summary: 'Set up a mirror: into another registry, or from one',
    tag: 'mirrors',
    query: noQuery,
    body: json(mirrorBody, { name: 'site-b', direction: 'push', url: 'https://registry.site-b.example' }),
    answers: { 201: { description: 'It is set up.', headers: location, body: json(mirrorAnswer, { mirror }) } },
    failures: ['REQUEST_INVALID', 'CONTENT_TOO_LARGE', 'MIRROR_EXISTS'],
  },
  {
    method: 'get',
    path: '/mirrors/:name',
    operationId: 'getMirror',
    summary: 'A mirror',
    tag: 'mirrors',
    query: noQuery,
    answers: ok('The mirror.', json(mirrorAnswer, { mirror })),
    failures: ['MIRROR_UNKNOWN'],
  },
  {
    method: 'patch',
    path: '/mirrors/:name',
    operationId: 'changeMirror',
    summary: 'Change a mirror: what is given replaces what was',
    tag: 'mirrors',
    query: noQuery,
    body: json(mirrorChange, { schedule: null }),
    answers: ok('The mirror as it is now.', json(mirrorAnswer, { mirror })),
    failures: ['REQUEST_INVALID', 'CONTENT_TOO_LARGE', 'MIRROR_UNKNOWN'],
  },
  {
    method: 'delete',
    path: '/mirrors/:name',
    operationId: 'deleteMirror',
    summary: 'Remove a mirror with its runs; what it moved stays',
    tag: 'mirrors',
    query: noQuery,
    answers: ok('Whether there was one.', deleted),
    failures: [],
  },
  {
    method: 'post',
    path: '/mirrors/:name/run',
    operationId: 'runMirror',
    summary: 'Run a mirror now, as a job',
    tag: 'mirrors',
    query: runQuery,
    answers: { 202: { description: 'It waits for a worker.', headers: location, body: json(runAnswer, { run }) } },
    failures: ['MIRROR_UNKNOWN'],
  },
  {
    method: 'get',
    path: '/mirrors/:name/runs',
    operationId: 'listMirrorRuns',
    summary: 'The last runs of a mirror, the newest first',
    tag: 'mirrors',
    query: noQuery,
    answers: ok('At most 100 of them.', json(runsAnswer, { runs: [run] })),
    failures: ['MIRROR_UNKNOWN'],
  },
  {
    method: 'get',
    path: '/mirrors/:name/parity',
    operationId: 'getParity',
    summary: 'How both sides compare by digest, as the last run that came to its end found',
    tag: 'mirrors',
    query: noQuery,
    answers: ok('The report.', json(parityAnswer, { run: run.id, checkedAt: run.finishedAt, parity })),
    failures: ['MIRROR_UNKNOWN', 'NOT_FOUND'],
  },
  {
    method: 'get',
    path: '/upstreams',
    operationId: 'listUpstreams',
    summary: 'The namespaces that are filled from other registries',
    tag: 'mirrors',
    query: noQuery,
    answers: ok('All of them.', json(upstreamsAnswer, { upstreams: [upstream] })),
    failures: [],
  },
  {
    method: 'get',
    path: upstreamPath,
    operationId: 'getUpstream',
    summary: 'Where a namespace is filled from',
    tag: 'mirrors',
    query: noQuery,
    answers: ok('The upstream.', json(upstreamAnswer, { upstream })),
    failures: ['NAME_INVALID', 'UPSTREAM_UNKNOWN'],
  },
  {
    method: 'put',
    path: upstreamPath,
    operationId: 'setUpstream',
    summary: 'Fill a namespace from another registry: what is missed in it is fetched, checked and kept',
    tag: 'mirrors',
    query: noQuery,
    body: json(upstreamBody, { url: 'https://registry.example', remotePrefix: 'library' }),
    answers: ok('The upstream as it is now.', json(upstreamAnswer, { upstream })),
    failures: ['NAME_INVALID', 'REQUEST_INVALID', 'CONTENT_TOO_LARGE'],
  },
  {
    method: 'delete',
    path: upstreamPath,
    operationId: 'deleteUpstream',
    summary: 'Fill a namespace no longer; what was fetched stays',
    tag: 'mirrors',
    query: noQuery,
    answers: ok('Whether there was one.', deleted),
    failures: ['NAME_INVALID'],
  },
]
