import * as v from 'valibot'
import { runStates } from '../db/retention.ts'
import { packIdSchema, versionSchema } from '../packs/document.ts'
import { time } from './packs/answers.ts'
import { policySchema } from './retention-policies.ts'

// What is told of retention: policies, holds, plans and runs.

const count = v.pipe(v.number(), v.integer(), v.minValue(0))
const bytes = v.pipe(
  v.number(),
  v.description('About how much less there would be in the store: content that nothing else refers to.'),
)
const kind = v.picklist(['version', 'prerelease', 'tag', 'untagged'])
const reason = v.pipe(v.string(), v.description('Why, in words that go on from "kept: " or "removed: ".'))

export const storedPolicySchema = v.object({
  name: v.string(),
  enabled: v.boolean(),
  policy: policySchema,
  updatedBy: v.string(),
  updatedAt: time,
})
export const policyAnswer = v.object({ policy: storedPolicySchema })
export const policiesAnswer = v.object({ policies: v.array(storedPolicySchema) })

export const holdSchema = v.object({
  packId: packIdSchema,
  version: versionSchema,
  reason: v.string(),
  heldBy: v.string(),
  heldAt: time,
})
export const holdAnswer = v.object({ hold: holdSchema })
export const holdsAnswer = v.object({ holds: v.array(holdSchema), next: v.optional(v.string()) })

export const decisionSchema = v.object({
  repository: v.string(),
  kind,
  name: v.pipe(v.string(), v.description('The version, the tag, or the digest.')),
  action: v.picklist(['keep', 'remove']),
  rule: v.optional(v.pipe(v.string(), v.description('Of what is kept: which rule, in a word.'))),
  policy: v.optional(v.pipe(v.string(), v.description('Of what would be removed: by which policy.'))),
  reason,
})
export const planAnswer = v.object({
  decisions: v.array(decisionSchema),
  kept: v.pipe(count, v.description('Of these decisions.')),
  removed: v.pipe(count, v.description('Of these decisions.')),
  freedBytes: bytes,
  next: v.optional(v.string()),
})

export const retentionRunSchema = v.object({
  id: v.pipe(v.string(), v.uuid()),
  policy: v.optional(v.pipe(v.string(), v.description('Absent: all that were enabled.'))),
  askedBy: v.string(),
  state: v.picklist(runStates),
  createdAt: time,
  startedAt: v.optional(time),
  finishedAt: v.optional(time),
  planned: v.pipe(count, v.description('What was to be removed.')),
  removed: count,
  spared: v.pipe(count, v.description('Looked at again, it was not to go any more.')),
  gone: v.pipe(count, v.description('Somebody else had removed it.')),
  kept: v.pipe(v.record(v.string(), count), v.description('How many things were kept, by the rule.')),
  freedBytes: bytes,
  error: v.optional(v.string()),
})
export const retentionRunAnswer = v.object({ run: retentionRunSchema })
export const retentionRunsAnswer = v.object({ runs: v.array(retentionRunSchema) })

export const removalSchema = v.object({
  number: count,
  repository: v.string(),
  kind,
  name: v.string(),
  policy: v.string(),
  reason,
  outcome: v.optional(v.picklist(['removed', 'kept', 'gone'])),
  outcomeReason: v.optional(v.string()),
  decidedAt: v.optional(time),
})
export const retentionReportAnswer = v.object({
  run: retentionRunSchema,
  removals: v.array(removalSchema),
  next: v.optional(v.string()),
})
