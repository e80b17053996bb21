import { lockSchema } from '../../packs/lock.ts'
import { packMediaTypes } from '../../packs/pack.ts'
import { dependentsAnswer, referrersAnswer, treeAnswer } from '../packs/answers.ts'
import { dependentsQuery } from '../packs/reads.ts'
import { noQuery } from '../packs/request.ts'
import { referrersQuery, resolveBody, treeQuery } from '../packs/resolve.ts'
import { dependent, lock, referrer, tree } from './examples.ts'
import { json, type Operation, ok } from './operation.ts'

export const resolutionOperations: Operation[] = [
  {
    method: 'post',
    path: '/resolve',
    operationId: 'resolve',
    summary: 'Everything that packs need, as a lock: one version of each, by digest',
    description:
      'The highest versions that satisfy all ranges; the same state and request give the same bytes. `channel`: where ' +
      'a pack has it, its version is tried first. `lock`: its versions are tried first, yanked ones among them.',
    tag: 'resolution',
    query: noQuery,
    body: json(resolveBody, {
      roots: [{ packId: 'net-policy', version: '^2.1.0' }, 'edge-policy@1.x'],
      runner: '1.5.0',
    }),
    answers: {
      200: {
        description: 'The lock.',
        headers: {
          etag: 'The digest of the lock, quoted.',
          'repr-digest': 'The digest of the lock (RFC 9530).',
          'content-length': 'Its size in bytes.',
          'cache-control': '`no-store`',
        },
        body: { [packMediaTypes.lock]: { schema: lockSchema, example: lock } },
      },
    },
    failures: ['REQUEST_INVALID', 'CONTENT_TOO_LARGE', 'PACK_UNKNOWN', 'UNRESOLVABLE'],
  },
  {
    method: 'get',
    path: '/packs/:id/:version/dependencies',
    operationId: 'getDependencies',
    summary: 'What a version brings along, resolved, as a tree',
    tag: 'resolution',
    query: treeQuery,
    answers: ok('The tree.', json(treeAnswer, tree)),
    failures: ['PACK_UNKNOWN', 'VERSION_UNKNOWN', 'RUNNER_TOO_OLD', 'UNRESOLVABLE'],
  },
  {
    method: 'get',
    path: '/packs/:id/:version/dependents',
    operationId: 'listDependents',
    summary: 'The versions of other packs that accept this one as a dependency',
    tag: 'resolution',
    query: dependentsQuery,
    answers: ok('Who needs it.', json(dependentsAnswer, { dependents: [dependent] })),
    failures: ['PACK_UNKNOWN', 'VERSION_UNKNOWN'],
  },
  {
    method: 'get',
    path: '/packs/:id/:version/referrers',
    operationId: 'listReferrers',
    summary: 'What refers to a version: signatures, SBOMs, attestations',
    tag: 'resolution',
    query: referrersQuery,
    answers: ok('A page of what refers to it.', json(referrersAnswer, { referrers: [referrer] })),
    failures: ['PACK_UNKNOWN', 'VERSION_UNKNOWN'],
  },
]
