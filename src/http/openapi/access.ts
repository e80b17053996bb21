import { auditAnswer, auditCheckAnswer, auditQuery, verifyQuery } from '../audit.ts'
import { noQuery } from '../packs/request.ts'
import { grantedAnswer, tokenQuery } from '../token.ts'
import { createBody, createdAnswer, rotatedAnswer, tokenAnswer, tokensAnswer } from '../tokens.ts'
import { json, type Operation, ok } from './operation.ts'
import type { JsonSchema } from './schema.ts'

const token = 'pkr_0d2mG5u1PzC3o0m9V1tq7m9m3kT1b2hQm8b0Zl5xY7w'
const info = {
  ...{ id: '0b7a9c1e-5a44-4d0e-8a3b-2f6d1c9e4b57', name: 'ci', state: 'active', admin: false, createdBy: 'alice' },
  grants: [
    { glob: 'packs/*', actions: ['pull'] },
    { glob: 'packs/net-*', actions: ['pull', 'push'] },
  ],
  ...{ createdAt: '2026-01-31T12:00:00.000Z', expiresAt: '2026-05-01T12:00:00.000Z' },
}
const event = {
  ...{ id: 7, at: '2026-01-31T12:00:00.000000Z', who: 'alice', kind: 'user', address: '192.0.2.7' },
  ...{ action: 'POST /packs', path: '/packs', repository: 'packs/net-policy', outcome: 'done', status: 201 },
  ...{ digest: `sha256:${'5'.repeat(64)}`, requestId: '8d1f0c6a2b3e4f50' },
}
const check = { intact: true, seals: 3, events: 120, unsealed: 2, head: 'a'.repeat(64), broken: [] }
const granted = {
  ...{ token: 'eyJhbGciOiJFZERTQSJ9.e30.c2ln', access_token: 'eyJhbGciOiJFZERTQSJ9.e30.c2ln', token_type: 'Bearer' },
  ...{ expires_in: 300, issued_at: '2026-01-31T12:00:00Z', scope: 'repository:packs/net-policy:pull' },
}
const form: JsonSchema = {
  type: 'object',
  required: ['grant_type'],
  properties: {
    grant_type: { enum: ['password', 'refresh_token'] },
    ...Object.fromEntries(
      ['username', 'password', 'refresh_token', 'scope', 'access_type', 'service', 'client_id'].map((name) => [
        name,
        { type: 'string' },
      ]),
    ),
  },
}

export const accessOperations: Operation[] = [
  {
    method: 'get',
    path: '/token',
    operationId: 'getToken',
    summary: 'A token for a few minutes and some repositories, as docker, podman, oras and others ask for it',
    description: 'Whoever shows no credentials gets one for what everybody may do.',
    tag: 'access',
    query: tokenQuery,
    answers: ok('The token.', json(grantedAnswer, granted)),
    failures: [],
  },
  {
    method: 'post',
    path: '/token',
    operationId: 'postToken',
    summary: 'The same in the form of OAuth2',
    tag: 'access',
    body: { 'application/x-www-form-urlencoded': { schema: { json: form } } },
    answers: ok('The token.', json(grantedAnswer, granted)),
    failures: ['REQUEST_INVALID', 'CONTENT_TOO_LARGE'],
  },
  {
    method: 'get',
    path: '/tokens',
    operationId: 'listTokens',
    summary: 'The API tokens that there are and were',
    tag: 'access',
    query: noQuery,
    answers: ok('Every token, those that hold first.', json(tokensAnswer, { tokens: [info] })),
    failures: [],
  },
  {
    method: 'post',
    path: '/tokens',
    operationId: 'createToken',
    summary: 'Make an API token, for a program to log in with',
    tag: 'access',
    query: noQuery,
    body: json(createBody, { name: 'ci', pull: ['packs/*'], push: ['packs/net-*'], expires: '90d' }),
    answers: {
      201: {
        description: 'The token, which is told this once.',
        headers: { location: 'Where to revoke it.' },
        body: json(createdAnswer, { token, info }),
      },
    },
    failures: ['REQUEST_INVALID', 'CONTENT_TOO_LARGE', 'TOKEN_EXISTS'],
  },
  {
    method: 'post',
    path: '/tokens/rotate-key',
    operationId: 'rotateTokenKey',
    summary: 'Sign the tokens of /token with a new key; those that are out stay good until they expire',
    tag: 'access',
    query: noQuery,
    answers: ok('The new key.', json(rotatedAnswer, { kid: 'kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k' })),
    failures: [],
  },
  {
    method: 'delete',
    path: '/tokens/:id',
    operationId: 'revokeToken',
    summary: 'Revoke an API token, at once and everywhere',
    tag: 'access',
    query: noQuery,
    answers: ok('The token as it is now.', json(tokenAnswer, { info: { ...info, state: 'revoked' } })),
    failures: ['TOKEN_UNKNOWN'],
  },
  {
    method: 'get',
    path: '/audit',
    operationId: 'listAuditEvents',
    summary: 'What was done and what was refused, the newest first',
    tag: 'access',
    query: auditQuery,
    answers: ok('A page of events.', json(auditAnswer, { events: [event] })),
    failures: [],
  },
  {
    method: 'get',
    path: '/audit/verify',
    operationId: 'verifyAudit',
    summary: 'Whether anything of the audit was changed or taken away',
    tag: 'access',
    query: verifyQuery,
    answers: ok('What was found.', json(auditCheckAnswer, check)),
    failures: [],
  },
]
