import { eventsAnswer, eventsQuery } from '../events.ts'
import type { Operation } from './operation.ts'

const digest = 'sha256:9834876dcfb05cb167a5c24953eba58c4ac89b1adf57f28f2f9d09af107ee8f0'
export const cloudEvent = {
  ...{ specversion: '1.0', id: '0b7a9c1e-5a44-4d0e-8a3b-2f6d1c9e4b57', source: 'https://packs.example.org' },
  ...{ type: 'org.stellaops.registry.pack.published.v1', subject: 'net-policy@2.1.0' },
  ...{ time: '2026-01-31T12:00:00.000Z', datacontenttype: 'application/json', sequence: '0000000000000042' },
  data: { packId: 'net-policy', version: '2.1.0', type: 'policy', digest, size: 45_678, manifestDigest: digest },
}

export const eventOperations: Operation[] = [
  {
    method: 'get',
    path: '/events',
    operationId: 'listEvents',
    summary: 'What happened, in its order: a page, or as it happens',
    description:
      'Accept: text/event-stream gives a stream of server-sent events, from now on or from what Last-Event-ID or `after` ' +
      'names; the id of each is its position. Otherwise a page of JSON, from the oldest event that is kept. Only what ' +
      'whoever asks may read is told; what is about no pack is told to administrators.',
    tag: 'events',
    query: eventsQuery,
    headers: { 'last-event-id': 'The id of the last event that was seen, to go on after it. Goes before `after`.' },
    answers: {
      200: {
        description: 'A page of events; or a stream of them, which has no end.',
        headers: { 'cache-control': 'no-store.' },
        body: {
          'application/json': { schema: eventsAnswer, example: { events: [cloudEvent], next: '42' } },
          'text/event-stream': { schema: { json: { type: 'string' } } },
        },
      },
    },
    failures: ['EVENTS_GONE'],
  },
]
