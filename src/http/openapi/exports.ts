import { exportBody } from '../bundles.ts'
import { exportAnswer, exportDeleted, exportsAnswer } from '../export-answers.ts'
import { exportsQuery } from '../exports.ts'
import { noQuery } from '../packs/request.ts'
import { fileAnswers, fileHeaders, rangeHeaders } from './bundles.ts'
import { json, type Operation, ok } from './operation.ts'

const ready = {
  id: '9834876dcfb05cb167a5c24953eba58c4ac89b1adf57f28f2f9d09af107ee8f0',
  ...{ state: 'ready', size: 56_320, written: 56_320 },
  sha256: '0a0a9f2a6772942557ab5355d76af442f8f65e01f2c2b1a0b5ccb8c3b1e9e1a4',
  by: 'alice',
  ...{ createdAt: '2026-01-31T12:00:00.000000Z', finishedAt: '2026-01-31T12:00:03.000000Z' },
  expiresAt: '2026-02-07T12:00:03.000000Z',
  index: 'sha256:3e744b9dc39389baf0c5a0660589b8402f3dbb49b89b3e75f2c9355852a3c677',
  ...{ blobs: 6, bytes: 48_200, packs: 2, channels: 1, referrers: 0, leftOut: 0, signedBy: [] },
}
const { sha256: _, finishedAt: __, ...unready } = ready
const waiting = { ...unready, state: 'waiting', written: 0 }

export const exportOperations: Operation[] = [
  {
    method: 'post',
    path: '/bundles/exports',
    operationId: 'requestExport',
    summary: 'Have a bundle file made in the background, and kept for seven days',
    description:
      'The same file as POST /bundles, made by a job and put into the store, for those who cannot wait for it or fetch it ' +
      'several times. The same request in the same state is the same export: it is made once.',
    tag: 'bundles',
    query: noQuery,
    body: json(exportBody, { all: true }),
    answers: {
      202: {
        description: 'It is made, or has been.',
        headers: { location: 'Where the export is.' },
        body: json(exportAnswer, { export: waiting }),
      },
    },
    failures: [
      ...(['REQUEST_INVALID', 'CONTENT_TOO_LARGE', 'PACK_UNKNOWN', 'UNRESOLVABLE', 'BUNDLE_INCOMPLETE'] as const),
      'INVENTORY_INVALID',
    ],
  },
  {
    method: 'get',
    path: '/bundles/exports',
    operationId: 'listExports',
    summary: 'Exports, the newest first',
    tag: 'bundles',
    query: exportsQuery,
    answers: ok('A page of exports.', json(exportsAnswer, { exports: [ready] })),
    failures: [],
  },
  {
    method: 'get',
    path: '/bundles/exports/:id',
    operationId: 'getExport',
    summary: 'How far an export is',
    tag: 'bundles',
    query: noQuery,
    answers: ok('The export.', json(exportAnswer, { export: ready })),
    failures: ['EXPORT_UNKNOWN'],
  },
  {
    method: 'get',
    path: '/bundles/exports/:id/file',
    operationId: 'getExportFile',
    summary: 'The file of an export',
    tag: 'bundles',
    query: noQuery,
    headers: { ...rangeHeaders, 'if-none-match': 'The ETag that is there already.' },
    answers: {
      ...fileAnswers({ 'repr-digest': 'The sha256 of the file.' }),
      304: { description: 'It is the one that If-None-Match names.', headers: fileHeaders },
      307: {
        description: 'It is to be had from the store itself, for a few minutes.',
        headers: { location: 'Where.', 'cache-control': '`no-store`' },
      },
    },
    failures: ['EXPORT_UNKNOWN', 'EXPORT_NOT_READY', 'RANGE_INVALID'],
  },
  {
    method: 'delete',
    path: '/bundles/exports/:id',
    operationId: 'deleteExport',
    summary: 'Remove an export before its time',
    tag: 'bundles',
    query: noQuery,
    answers: ok('Whether there was one.', json(exportDeleted, { deleted: true })),
    failures: [],
  },
]
