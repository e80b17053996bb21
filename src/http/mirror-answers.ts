import * as v from 'valibot'
import { packIdSchema, packTypeSchema } from '../packs/document.ts'

// What is told of mirrors, their runs, and upstreams. Credentials are in none of it.

const digest = v.pipe(v.string(), v.regex(/^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/))
const count = v.pipe(v.number(), v.integer(), v.minValue(0))
const time = v.pipe(v.string(), v.isoTimestamp())
const id = v.pipe(v.string(), v.uuid())

const treatment = {
  allowPrivate: v.optional(v.boolean()),
  hosts: v.optional(v.array(v.string())),
}

export const mirrorSchema = v.object({
  name: v.string(),
  direction: v.picklist(['push', 'pull']),
  url: v.string(),
  prefix: v.pipe(v.string(), v.description('What stands before the ids of packs there.')),
  selection: v.object({
    packs: v.array(v.string()),
    versions: v.optional(v.string()),
    channels: v.optional(v.array(v.string())),
    types: v.optional(v.array(packTypeSchema)),
    closure: v.boolean(),
    referrers: v.boolean(),
  }),
  schedule: v.optional(v.pipe(v.string(), v.description('Five fields of cron, in UTC.'))),
  credentials: v.pipe(v.boolean(), v.description('Whether it has some.')),
  options: v.object({ ...treatment, concurrency: v.optional(count), bytesPerSecond: v.optional(count) }),
  createdAt: time,
})

const moved = { manifests: count, blobs: count, mounted: count, bytes: count, requests: count }

export const runSchema = v.object({
  id,
  dryRun: v.boolean(),
  state: v.picklist(['waiting', 'running', 'completed', 'failed']),
  createdAt: time,
  startedAt: v.optional(time),
  finishedAt: v.optional(time),
  progress: v.object({
    ...v.partial(v.object(moved)).entries,
    seen: v.optional(count),
    pack: v.optional(packIdSchema),
  }),
  clean: v.optional(v.pipe(v.boolean(), v.description('What it found: everything is on both sides, the same.'))),
  error: v.optional(v.string()),
})

const parityState = v.picklist(['same', 'missing', 'different', 'refused'])

export const paritySchema = v.object({
  clean: v.pipe(v.boolean(), v.description('Everything is on both sides, the same.')),
  dryRun: v.boolean(),
  counts: v.object({ same: count, missing: count, different: count, refused: count }),
  moved: v.object(moved),
  problems: v.array(v.string()),
  entries: v.array(
    v.object({
      kind: v.picklist(['version', 'channel', 'referrer']),
      packId: packIdSchema,
      reference: v.string(),
      digest,
      state: parityState,
      there: v.optional(digest),
      detail: v.optional(v.string()),
    }),
  ),
  more: v.pipe(count, v.description('How many entries there are beyond those.')),
})

export const upstreamSchema = v.object({
  prefix: v.string(),
  url: v.string(),
  remotePrefix: v.string(),
  tagTtlSeconds: count,
  credentials: v.pipe(v.boolean(), v.description('Whether it has some.')),
  ...treatment,
})

export const mirrorAnswer = v.object({ mirror: mirrorSchema })
export const mirrorsAnswer = v.object({ mirrors: v.array(mirrorSchema) })
export const runAnswer = v.object({ run: runSchema })
export const runsAnswer = v.object({ runs: v.array(runSchema) })
export const parityAnswer = v.object({ run: id, checkedAt: time, parity: paritySchema })
export const upstreamAnswer = v.object({ upstream: upstreamSchema })
export const upstreamsAnswer = v.object({ upstreams: v.array(upstreamSchema) })
