import { inventorySchema, planAnswer } from '../bundle-answers.ts'
import { exportBody } from '../bundles.ts'
import { noQuery } from '../packs/request.ts'
import { lock } from './examples.ts'
import { type Answer, json, type Operation, ok } from './operation.ts'

const [pack] = lock.packs
const planned = {
  problems: [],
  packs: pack
    ? [
        {
          packId: pack.packId,
          version: pack.version,
          type: pack.type,
          size: pack.size,
          manifestDigest: pack.manifestDigest,
        },
      ]
    : [],
  ...{ channels: [], referrers: [], leftOut: { blobs: 0, bytes: 0 }, signedBy: [] },
  id: '9834876dcfb05cb167a5c24953eba58c4ac89b1adf57f28f2f9d09af107ee8f0',
  index: 'sha256:3e744b9dc39389baf0c5a0660589b8402f3dbb49b89b3e75f2c9355852a3c677',
  ...{ size: 56_320, blobs: 6, bytes: 48_200, expiresAt: '2026-02-07T12:00:00.000Z' },
  sha256: '0a0a9f2a6772942557ab5355d76af442f8f65e01f2c2b1a0b5ccb8c3b1e9e1a4',
}
const request = { roots: ['net-policy@^2.1.0'], runner: '1.5.0' }

export const fileHeaders = {
  etag: 'Stands for the bytes of the file, quoted; for If-Range.',
  'content-disposition': 'The file name.',
  'accept-ranges': '`bytes`',
  'cache-control': 'Whether an answer is good for ever.',
}
const tar = (description: string) => ({
  'application/x-tar': { schema: { json: { type: 'string' as const, format: 'binary', description } } },
})

export function fileAnswers(more: Record<string, string>): Record<number, Answer> {
  return {
    200: {
      description: 'The file.',
      headers: { ...fileHeaders, ...more, 'content-length': 'Its size in bytes.' },
      body: tar('A tar of an OCI image layout.'),
    },
    206: {
      description: 'The part of the file that Range asks for.',
      headers: { ...fileHeaders, ...more, 'content-range': 'Which bytes these are.' },
      body: tar('Some bytes of it.'),
    },
  }
}

export const rangeHeaders = {
  range: 'The bytes that are wanted, such as `bytes=1000-`.',
  'if-range': 'The ETag of the file of which a part is there: where it is another by now, all of it is answered.',
}

export const bundleOperations: Operation[] = [
  {
    method: 'post',
    path: '/bundles',
    operationId: 'exportBundle',
    summary: 'Packs and all they need as one file, to be carried over an air gap',
    description:
      'A tar of an OCI image layout, with what hangs on the packs, the lock, and a signature where there is a key. The same ' +
      'request and state give the same bytes, of any process. `inventory`: what the receiver has is left out. To fetch a ' +
      'large file over a bad line, plan it, and get it by its id.',
    tag: 'bundles',
    query: noQuery,
    headers: rangeHeaders,
    body: json(exportBody, request),
    answers: fileAnswers({ 'x-bundle-index': 'The digest of index.json in it.' }),
    failures: [
      ...(['REQUEST_INVALID', 'CONTENT_TOO_LARGE', 'PACK_UNKNOWN', 'UNRESOLVABLE', 'BUNDLE_INCOMPLETE'] as const),
      ...(['INVENTORY_INVALID', 'RANGE_INVALID'] as const),
    ],
  },
  {
    method: 'post',
    path: '/bundles/plan',
    operationId: 'planBundle',
    summary: 'What would go into a bundle, and everything that keeps it from being made',
    description: 'The file that it names can be fetched for seven days, as it is now, whatever is published since.',
    tag: 'bundles',
    query: noQuery,
    body: json(exportBody, request),
    answers: ok('The plan.', json(planAnswer, planned)),
    failures: ['REQUEST_INVALID', 'CONTENT_TOO_LARGE', 'INVENTORY_INVALID'],
  },
  {
    method: 'get',
    path: '/bundles/:id',
    operationId: 'getBundle',
    summary: 'A file that was planned',
    tag: 'bundles',
    query: noQuery,
    headers: { ...rangeHeaders, 'if-none-match': 'The ETag that is there already.' },
    answers: {
      ...fileAnswers({}),
      304: { description: 'It is the one that If-None-Match names.', headers: fileHeaders },
    },
    failures: ['BUNDLE_UNKNOWN', 'BUNDLE_GONE', 'RANGE_INVALID'],
  },
  {
    method: 'get',
    path: '/inventory',
    operationId: 'getInventory',
    summary: 'What the registry holds of packs, for others to leave it out of what they send',
    tag: 'bundles',
    query: noQuery,
    headers: { 'if-none-match': 'The ETag that is there already.' },
    answers: {
      200: {
        description: 'A signed envelope (DSSE); without signatures where there is no key.',
        headers: {
          etag: 'Its digest, quoted.',
          'content-disposition': 'The file name.',
          'cache-control': '`no-cache`',
        },
        body: json(inventorySchema, {
          payload: 'eyJpbnZlbnRvcnlWZXJzaW9uIjoxLCJibG9icyI6MCwicGFja3MiOltdfQo=',
          payloadType: 'application/vnd.stellaops.pack.inventory.v1',
          signatures: [],
        }),
      },
      304: { description: 'It is the one that If-None-Match names.', headers: { etag: 'Its digest, quoted.' } },
    },
    failures: [],
  },
]
