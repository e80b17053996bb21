import * as v from 'valibot'
import { type QueueName, queues } from '../db/queues.ts'

/** What people are told of a kind of job, and what they may ask of it. */
type JobKind = {
  about: string
  /** The data that one run by hand may have; absent: there are none by hand. */
  data?: v.GenericSchema
  /** Whether one run by hand may have a key. */
  keys?: true
  /** Where there are none by hand: what to do instead. */
  instead?: string
}

const nothing = v.strictObject({})

/** Every kind of job. */
export const jobKinds: Record<QueueName, JobKind> = {
  'seal-audit': { about: 'seals the events of the audit, every minute', data: nothing },
  export: { about: 'makes a bundle file', instead: 'use POST /bundles/exports, or packs export --async' },
  import: {
    about: 'publishes a bundle that was received and verified',
    instead: 'use POST /bundles/import, or packs import',
  },
  mirror: { about: 'the runs of a mirror', instead: 'use POST /mirrors/{name}/run, or packs mirror run' },
  retention: {
    about: 'applies the policies of retention that are enabled, every night',
    instead: 'use POST /retention/run, or packs retention run',
  },
  'tend-quotas': { about: 'adds up what repositories with a quota hold, every minute', data: nothing },
  tidy: { about: 'ends what nobody came back to, deletes what is queued, every ten minutes', data: nothing },
  scrub: {
    about: 'compares the store and the database, and hashes every object, every Sunday night; mode "quick" hashes none',
    data: v.strictObject({ mode: v.optional(v.picklist(['full', 'quick'])), repair: v.optional(v.boolean()) }),
  },
  gc: { about: 'collects content that nothing refers to any more, every five minutes', data: nothing },
  sweep: {
    about: 'takes away what crashes left in the store: chunks, drafts, multipart uploads; every hour',
    data: nothing,
  },
}

export function isKind(name: string): name is QueueName {
  return Object.hasOwn(queues, name)
}
