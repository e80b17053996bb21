import { importAnswer, importReport, importsAnswer } from '../import-answers.ts'
import { importQuery, importsQuery } from '../imports.ts'
import { noQuery } from '../packs/request.ts'
import { published } from './examples.ts'
import { json, type Operation, ok } from './operation.ts'

const id = '0b1c2d3e-4f50-4a6b-8c7d-9e0f1a2b3c4d'
const report = {
  ...{ dryRun: false, changed: true, kind: 'bundle', index: published.digest },
  signature: { kind: 'verified', by: [{ keyid: published.digest, name: 'head-office' }] },
  packs: [
    {
      packId: published.packId,
      version: published.version,
      manifestDigest: published.manifestDigest,
      outcome: 'new',
    },
  ],
  channels: [
    { packId: published.packId, channel: 'stable', version: published.version, outcome: 'moved', from: '2.0.0' },
  ],
  ...{ referrers: 1, blobs: { count: 8, bytes: 48_200, stored: 5, storedBytes: 46_100, leftOut: 0 }, problems: [] },
}
const underWay = {
  ...{ id, state: 'receiving', alive: true, received: 20_480, blobs: 3, total: 56_320, resumeAt: 18_432 },
  ...{ startedAt: '2026-01-31T12:00:00.000000Z', expiresAt: '2026-02-01T12:00:00.000000Z' },
}

export const importOperations: Operation[] = [
  {
    method: 'post',
    path: '/bundles/import',
    operationId: 'importBundle',
    summary: 'Bring a bundle in: all of it, or nothing',
    description:
      'The file as it is: a bundle, or the OCI image layout of another tool, as a tar, plain or compressed by gzip or ' +
      'zstd. It is verified as a whole before anything of it can be seen, and every problem is told at once. The same ' +
      'again changes nothing. An import that was cut off goes on with `resume` and Content-Range, `<first>-<last>`, ' +
      'from the byte that GET /bundles/imports/{id} names as `resumeAt`. One that is `publishing` is finished by the ' +
      'registry whatever becomes of the connection; with `async`, or Prefer: respond-async, nobody waits for that.',
    tag: 'bundles',
    query: importQuery,
    headers: {
      'content-range': 'Which part of the file this is, where it is not all of it: `<first>-<last>`.',
      prefer: '`respond-async`: as `async`.',
    },
    body: { 'application/x-tar': { schema: { json: { type: 'string', format: 'binary' } } } },
    answers: {
      200: {
        description: 'All of it was here already; or, in a dry run, what would become of it.',
        headers: { 'location?': 'Where the import is.' },
        body: json(importReport, { ...report, id, changed: false }),
      },
      201: {
        description: 'It is published.',
        headers: { location: 'Where the import is.' },
        body: json(importReport, { ...report, id }),
      },
      202: {
        description: 'It is whole and verified, and a job publishes it.',
        headers: { location: 'Where the import is.', 'preference-applied': '`respond-async`' },
        body: json(importAnswer, { import: { ...underWay, state: 'publishing', received: 56_320 } }),
      },
    },
    failures: [
      ...(['BUNDLE_INVALID', 'DIGEST_INVALID', 'SIGNATURE_INVALID', 'SIGNATURE_MISSING'] as const),
      ...(['IMPORT_BASE_MISSING', 'IMPORT_REFUSED', 'IMPORT_BACKWARDS', 'VERSION_EXISTS', 'VERSION_SPENT'] as const),
      ...(['MANIFEST_INVALID', 'TAG_INVALID', 'DEPENDENCY_INVALID', 'RUNNER_TOO_OLD', 'RANGE_INVALID'] as const),
      ...(['IMPORT_UNKNOWN', 'IMPORT_SUPERSEDED', 'BLOB_UPLOAD_INVALID', 'QUOTA_EXCEEDED'] as const),
    ],
  },
  {
    method: 'get',
    path: '/bundles/imports',
    operationId: 'listImports',
    summary: 'Imports, the newest first, without their reports',
    tag: 'bundles',
    query: importsQuery,
    answers: ok('A page of imports.', json(importsAnswer, { imports: [underWay] })),
    failures: [],
  },
  {
    method: 'get',
    path: '/bundles/imports/:id',
    operationId: 'getImport',
    summary: 'How far an import is, and what it found',
    tag: 'bundles',
    query: noQuery,
    answers: ok('The import.', json(importAnswer, { import: underWay })),
    failures: ['IMPORT_UNKNOWN'],
  },
]
