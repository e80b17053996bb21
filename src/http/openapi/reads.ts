import { packAnswer, packsAnswer, versionsAnswer } from '../packs/answers.ts'
import { listQuery } from '../packs/list.ts'
import { runnerQuery } from '../packs/request.ts'
import { pack, summary, version } from './examples.ts'
import { type Answer, json, type Operation, ok } from './operation.ts'

const contentHeaders = {
  etag: 'The digest of the content, or what stands for it, quoted.',
  'repr-digest?': 'The digest of the whole content (RFC 9530), whatever part of it is answered. Not of a closure.',
  'content-disposition': 'The file name, with its form beyond ASCII where it has one.',
  'docker-content-digest?': 'The digest of the content. Not of a closure.',
  'x-pack-version': 'The version that was selected.',
  'accept-ranges': '`bytes`',
  'cache-control': 'For ever for an exact version; what a range or a channel names may change.',
}

const contentAnswers: Record<number, Answer> = {
  200: {
    description: 'The content.',
    headers: { ...contentHeaders, 'content-length': 'Its size in bytes.' },
    body: { '*/*': { schema: { json: { description: 'The content, byte for byte as it was published.' } } } },
  },
  206: {
    description: 'The part of the content that Range asks for.',
    headers: { ...contentHeaders, 'content-range': 'Which bytes these are.' },
    body: { '*/*': { schema: { json: { description: 'Some bytes of the content.' } } } },
  },
  304: { description: 'The content is the one that If-None-Match names.', headers: contentHeaders },
  307: {
    description: 'The content is to be had from the store itself, by an address that is good for minutes.',
    headers: { location: 'Where.', 'docker-content-digest': 'The digest of the content, to be checked.' },
  },
}

const contentFailures = ['PACK_UNKNOWN', 'VERSION_UNKNOWN', 'RUNNER_TOO_OLD'] as const

export const readOperations: Operation[] = [
  {
    method: 'get',
    path: '/packs',
    operationId: 'listPacks',
    summary: 'List and search packs',
    tag: 'packs',
    query: listQuery,
    answers: ok('A page of packs.', json(packsAnswer, { packs: [summary] })),
    failures: [],
  },
  {
    method: 'get',
    path: '/packs/:id',
    operationId: 'getPack',
    summary: 'A pack by its latest version',
    description:
      'The version that `latest` names. With `runner`: the newest that it can run. A pre-release only where there is no release.',
    tag: 'packs',
    query: runnerQuery,
    answers: ok('The pack.', json(packAnswer, { pack })),
    failures: ['PACK_UNKNOWN', 'RUNNER_TOO_OLD'],
  },
  {
    method: 'get',
    path: '/packs/:id/versions',
    operationId: 'listVersions',
    summary: 'All versions of a pack, the highest first',
    tag: 'packs',
    query: runnerQuery,
    answers: ok('The versions.', json(versionsAnswer, { versions: [version] })),
    failures: ['PACK_UNKNOWN'],
  },
  {
    method: 'get',
    path: '/packs/:id/:version',
    operationId: 'getContent',
    summary: 'Download the content of a version',
    description:
      'Of a bundle without content of its own: its closure, as a tar file of an OCI image layout. Made on the way out, ' +
      'it has the same bytes each time, so that a download can be resumed.',
    tag: 'packs',
    query: runnerQuery,
    headers: {
      range: 'One range of bytes, such as `bytes=1000-`.',
      'if-range': 'The ETag for which Range counts; else the whole content is answered.',
      'if-none-match': 'The ETag that is there already.',
    },
    answers: contentAnswers,
    failures: [...contentFailures, 'BLOB_UNKNOWN', 'MANIFEST_UNKNOWN', 'BUNDLE_INCOMPLETE', 'RANGE_INVALID'],
  },
  {
    method: 'head',
    path: '/packs/:id/:version',
    operationId: 'headContent',
    summary: 'What would be downloaded',
    tag: 'packs',
    query: runnerQuery,
    headers: { 'if-none-match': 'The ETag that is there already.' },
    answers: {
      200: { description: 'The content is there.', headers: { ...contentHeaders, 'content-length': 'Its size.' } },
      304: { description: 'The content is the one that If-None-Match names.', headers: contentHeaders },
    },
    failures: [...contentFailures, 'MANIFEST_UNKNOWN', 'BUNDLE_INCOMPLETE'],
  },
  {
    method: 'get',
    path: '/packs/:id/:version/manifest',
    operationId: 'getVersion',
    summary: 'A version, with its document and its state',
    tag: 'packs',
    query: runnerQuery,
    answers: ok('The version.', json(packAnswer, { pack })),
    failures: ['PACK_UNKNOWN', 'VERSION_UNKNOWN', 'RUNNER_TOO_OLD'],
  },
]
