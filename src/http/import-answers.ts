import * as v from 'valibot'
import { importStates } from '../db/imports.ts'
import { packIdSchema, versionSchema } from '../packs/document.ts'

// What is told of imports.

const digest = v.pipe(v.string(), v.regex(/^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/))
const count = v.pipe(v.number(), v.integer(), v.minValue(0))
const time = v.pipe(v.string(), v.isoTimestamp())
const id = v.pipe(v.string(), v.uuid())

const problem = v.object({
  key: v.pipe(v.string(), v.description('What it is, such as `VERSION_EXISTS`.')),
  message: v.string(),
  packId: v.optional(packIdSchema),
  version: v.optional(v.string()),
})

export const importReport = v.object({
  id: v.optional(v.pipe(id, v.description('Of the import; absent in a dry run, and in the report itself.'))),
  dryRun: v.boolean(),
  changed: v.pipe(v.boolean(), v.description('Something is here that was not before.')),
  kind: v.picklist(['bundle', 'layout']),
  index: v.pipe(digest, v.description('Of index.json.')),
  base: v.optional(v.pipe(digest, v.description('The inventory that an incremental bundle was made against.'))),
  signature: v.object({
    kind: v.picklist(['missing', 'verified', 'refused']),
    by: v.optional(v.array(v.object({ keyid: v.string(), name: v.optional(v.string()) }))),
    reason: v.optional(v.string()),
  }),
  packs: v.array(
    v.object({
      packId: packIdSchema,
      version: versionSchema,
      manifestDigest: digest,
      outcome: v.picklist(['new', 'present']),
    }),
  ),
  channels: v.array(
    v.object({
      packId: packIdSchema,
      channel: v.string(),
      version: v.string(),
      outcome: v.picklist(['new', 'moved', 'present']),
      from: v.optional(v.pipe(v.string(), v.description('The version that it named before.'))),
      backwards: v.optional(v.literal(true)),
    }),
  ),
  referrers: count,
  blobs: v.object({
    ...{ count, bytes: count, stored: count, storedBytes: count },
    leftOut: v.pipe(count, v.description('Those that an incremental bundle does not hold.')),
  }),
  force: v.optional(v.object({ reason: v.string() })),
  problems: v.array(problem),
})

export const importSchema = v.object({
  id,
  state: v.picklist(importStates),
  alive: v.pipe(v.boolean(), v.description('A process of the registry is at it.')),
  received: v.pipe(count, v.description('Bytes of the file so far.')),
  blobs: count,
  total: v.optional(v.pipe(count, v.description('Bytes of the whole file, where that was announced.'))),
  resumeAt: v.optional(v.pipe(count, v.description('The byte of the file at which it can be gone on with.'))),
  index: v.optional(digest),
  startedAt: time,
  finishedAt: v.optional(time),
  expiresAt: v.pipe(time, v.description('When what it has stored is thrown away, unless it was published.')),
  error: v.optional(v.object({ key: v.string(), detail: v.unknown() })),
  report: v.optional(v.looseObject({}, 'must be a report')),
})
export const importAnswer = v.object({ import: importSchema })
export const importsAnswer = v.object({ imports: v.array(importSchema), next: v.optional(v.string()) })
