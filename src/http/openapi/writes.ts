import * as v from 'valibot'
import { channelAnswer, deletedAnswer, dryRunAnswer, packAnswer, publishedAnswer } from '../packs/answers.ts'
import { channelBody, channelQuery, deleteQuery, stateBody } from '../packs/changes.ts'
import { publishBody, publishQuery } from '../packs/publish.ts'
import { noQuery } from '../packs/request.ts'
import { channel, pack, published, tried, written } from './examples.ts'
import { type Body, json, type Operation, ok } from './operation.ts'

const publishForms: Body = {
  'multipart/form-data': {
    schema: {
      json: {
        type: 'object',
        description: 'First the part `manifest`, then the part `content`; its Content-Type and file name are kept.',
        properties: {
          manifest: { $ref: '#/components/schemas/Manifest' },
          content: { type: 'string', format: 'binary', description: 'Of any size: it is streamed.' },
        },
        required: ['manifest'],
      },
    },
  },
  ...json(publishBody, { manifest: written, content: 'SGVsbG8sIHBhY2tzIQ==', filename: 'net-policy.tgz' }),
}

const publishedHeaders = { location: 'Where the version is.' }

export const writeOperations: Operation[] = [
  {
    method: 'post',
    path: '/packs',
    operationId: 'publishPack',
    summary: 'Publish a version of a pack',
    description:
      'A published version never changes: to publish the same again changes nothing and answers 200, other content is ' +
      'refused. With `dryRun`, nothing is stored and everything that is wrong is answered at once.',
    tag: 'publishing',
    query: publishQuery,
    body: publishForms,
    answers: {
      200: {
        description: 'It was published before, with the same content; or the result of a dry run.',
        body: json(v.union([publishedAnswer, dryRunAnswer]), tried),
      },
      201: { description: 'It is published.', headers: publishedHeaders, body: json(publishedAnswer, published) },
    },
    failures: [
      ...(['REQUEST_INVALID', 'CONTENT_TOO_LARGE', 'PACK_INVALID', 'DIGEST_INVALID', 'SIZE_INVALID'] as const),
      ...(['DEPENDENCY_INVALID', 'VERSION_EXISTS', 'VERSION_SPENT', 'MANIFEST_INVALID', 'MANIFEST_TOO_LARGE'] as const),
      ...(['MANIFEST_BLOB_UNKNOWN', 'PACK_UNKNOWN', 'UNRESOLVABLE', 'BUNDLE_INCOMPLETE', 'QUOTA_EXCEEDED'] as const),
    ],
  },
  {
    method: 'delete',
    path: '/packs/:id/:version',
    operationId: 'deleteVersion',
    summary: 'Delete a version for good',
    description:
      'Its number is never used again. To keep it for those who have locked it, yank it instead. Takes the exact version.',
    tag: 'publishing',
    query: deleteQuery,
    answers: ok('Whether there was one.', json(deletedAnswer, { deleted: true })),
    failures: ['PACK_UNKNOWN', 'VERSION_UNKNOWN', 'DEPENDENTS_EXIST', 'VERSION_HELD'],
  },
  {
    method: 'patch',
    path: '/packs/:id/:version',
    operationId: 'changeState',
    summary: 'Deprecate or yank a version, or take that back',
    description:
      'A deprecated version is still resolved. A yanked one is left out of resolution, and still served by its number ' +
      'and to a lock. Takes the exact version.',
    tag: 'publishing',
    query: noQuery,
    body: json(stateBody, { state: 'deprecated', message: 'misses IPv6', replacedBy: 'net-policy@3.0.0' }),
    answers: ok('The version as it is now.', json(packAnswer, { pack })),
    failures: ['PACK_UNKNOWN', 'VERSION_UNKNOWN', 'REQUEST_INVALID', 'CONTENT_TOO_LARGE'],
  },
  {
    method: 'put',
    path: '/packs/:id/channels/:channel',
    operationId: 'setChannel',
    summary: 'Point a channel at a published version',
    description:
      'A channel does not go back to an older version than it names, unless that is asked for: `allowOlder` with a `reason`, ' +
      'which the audit keeps. `latest` is kept by the registry.',
    tag: 'publishing',
    query: channelQuery,
    headers: { 'if-match': 'The manifest digest, quoted, that the channel must point at now.' },
    body: json(channelBody, { version: '2.1.0' }),
    answers: {
      200: {
        description: 'The channel points there.',
        headers: { etag: 'The manifest digest of the version, quoted.' },
        body: json(channelAnswer, channel),
      },
    },
    failures: [
      ...(['PACK_UNKNOWN', 'VERSION_UNKNOWN', 'REQUEST_INVALID', 'CONTENT_TOO_LARGE'] as const),
      ...(['TAG_INVALID', 'CHANNEL_INVALID', 'CHANNEL_BACKWARDS', 'PRECONDITION_FAILED'] as const),
    ],
  },
]
