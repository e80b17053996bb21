import { createBody, keyAnswer, keysAnswer, rotateBody, trustBody } from '../keys.ts'
import { noQuery } from '../packs/request.ts'
import { json, type Operation, ok } from './operation.ts'

const publicKey =
  '-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n'
const key = {
  ...{ keyid: 'sha256:9834876dcfb05cb167a5c24953eba58c4ac89b1adf57f28f2f9d09af107ee8f0', name: 'release' },
  ...{ state: 'signing', own: true, publicKey, createdAt: '2026-01-31T12:00:00.000Z' },
}
const location = { location: 'Where the key is.' }

export const keyOperations: Operation[] = [
  {
    method: 'get',
    path: '/keys',
    operationId: 'listKeys',
    summary: 'The keys that bundles are signed and verified with',
    tag: 'keys',
    query: noQuery,
    answers: ok('Every key there ever was, those in use first.', json(keysAnswer, { keys: [key] })),
    failures: [],
  },
  {
    method: 'get',
    path: '/keys/:id',
    operationId: 'getKey',
    summary: 'A key, or with `.pem` behind its id its public part alone',
    tag: 'keys',
    query: noQuery,
    answers: ok('The key.', {
      ...json(keyAnswer, { key }),
      'application/x-pem-file': { schema: { json: { type: 'string' } }, example: publicKey },
    }),
    failures: ['KEY_UNKNOWN'],
  },
  {
    method: 'post',
    path: '/keys',
    operationId: 'createKey',
    summary: 'Make a key that new bundles are signed with',
    tag: 'keys',
    query: noQuery,
    body: json(createBody, { name: 'release', expires: '2999-01-31' }),
    answers: { 201: { description: 'The key is made.', headers: location, body: json(keyAnswer, { key }) } },
    failures: ['REQUEST_INVALID', 'CONTENT_TOO_LARGE', 'KEY_EXISTS'],
  },
  {
    method: 'post',
    path: '/keys/trusted',
    operationId: 'trustKey',
    summary: 'Trust the key of another site: what it signed is taken',
    tag: 'keys',
    query: noQuery,
    body: json(trustBody, { name: 'head-office', publicKey }),
    answers: ok('The key is trusted.', json(keyAnswer, { key: { ...key, own: false, state: 'verifying' } })),
    failures: ['REQUEST_INVALID', 'CONTENT_TOO_LARGE', 'KEY_INVALID', 'KEY_EXISTS'],
  },
  {
    method: 'post',
    path: '/keys/:id/rotate',
    operationId: 'rotateKey',
    summary: 'Put a new key in the place of one: it has its name, and signs from now on',
    tag: 'keys',
    query: noQuery,
    body: json(rotateBody, { expires: '2999-01-31' }),
    bodyIsOptional: true,
    answers: { 201: { description: 'The new key.', headers: location, body: json(keyAnswer, { key }) } },
    failures: ['REQUEST_INVALID', 'CONTENT_TOO_LARGE', 'KEY_UNKNOWN', 'KEY_NOT_SIGNING', 'KEY_EXISTS'],
  },
  {
    method: 'delete',
    path: '/keys/:id',
    operationId: 'distrustKey',
    summary: 'Distrust a key: what it signed is not taken any more',
    tag: 'keys',
    query: noQuery,
    answers: ok('The key as it is now.', json(keyAnswer, { key: { ...key, state: 'distrusted' } })),
    failures: ['KEY_UNKNOWN'],
  },
]
