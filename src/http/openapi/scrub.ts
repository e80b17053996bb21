import { scrubAnswer, scrubQuery } from '../scrub.ts'
import { json, type Operation, ok } from './operation.ts'

const digest = `sha256:${'5'.repeat(64)}`
const pass = {
  ...{ mode: 'full', phase: 'manifests', running: false, total: 1200, blobs: 1200, bytes: 52_428_800_000 },
  ...{ objects: 1201, manifests: 300, found: 1, repaired: 0 },
  ...{ startedAt: '2026-01-31T03:00:00.000000Z', finishedAt: '2026-01-31T03:17:28.000000Z' },
}
const finding = {
  ...{ id: 7, kind: 'object-missing', digest, key: `blobs/sha256/55/${'5'.repeat(64)}.0a1b2c3d`, size: 4096 },
  ...{ expected: '4096 bytes', actual: 'no object' },
  ...{ firstSeen: '2026-01-31T03:02:10.000000Z', lastSeen: '2026-01-31T03:02:10.000000Z' },
  repositories: [{ name: 'packs/net-policy', manifests: [`sha256:${'6'.repeat(64)}`] }],
}

export const scrubOperations: Operation[] = [
  {
    method: 'get',
    path: '/scrub',
    operationId: 'getScrub',
    summary: 'What scrubs of the store did and found to be wrong, the newest finding first',
    tag: 'jobs',
    query: scrubQuery,
    answers: ok(
      'Passes, and a page of findings.',
      json(scrubAnswer, { passes: [pass], open: { 'object-missing': 1 }, findings: [finding] }),
    ),
    failures: [],
  },
]
