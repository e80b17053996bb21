import * as v from 'valibot'
import { packIdSchema, packTypeSchema, versionSchema } from '../packs/document.ts'

const digest = v.pipe(v.string(), v.regex(/^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/))
const count = v.pipe(v.number(), v.integer(), v.minValue(0))

/** What keeps a bundle from being made. */
const problem = v.object({
  code: v.pipe(v.string(), v.description('As in the type of a problem, such as `UNRESOLVABLE`.')),
  detail: v.string(),
  about: v.optional(v.looseObject({})),
})

/** What POST /bundles/plan answers; the second half only where there are no problems. */
export const planAnswer = v.object({
  problems: v.pipe(v.array(problem), v.description('Everything that keeps the bundle from being made, at once.')),
  packs: v.array(
    v.object({
      ...{ packId: packIdSchema, version: versionSchema, type: packTypeSchema },
      ...{ size: count, manifestDigest: digest },
    }),
  ),
  channels: v.array(v.object({ packId: packIdSchema, channel: v.string(), manifestDigest: digest })),
  referrers: v.array(
    v.object({
      ...{ digest, size: count, mediaType: v.string() },
      ...{ artifactType: v.optional(v.string()), subject: digest },
    }),
  ),
  leftOut: v.pipe(v.object({ blobs: count, bytes: count }), v.description('What the inventory has.')),
  inventory: v.optional(
    v.object({
      digest: v.pipe(digest, v.description('Of what it says, whoever signed it.')),
      signature: v.picklist(['trusted', 'unknown', 'none']),
    }),
  ),
  signedBy: v.pipe(v.array(v.string()), v.description('The key ids.')),
  id: v.optional(v.pipe(v.string(), v.description('The file is at `/bundles/{id}`, until `expiresAt`.'))),
  index: v.optional(v.pipe(digest, v.description('Of index.json in the file.'))),
  size: v.optional(v.pipe(count, v.description('Of the file, in bytes.'))),
  blobs: v.optional(v.pipe(count, v.description('How many files it has under blobs/.'))),
  bytes: v.optional(v.pipe(count, v.description('The sum of their sizes.'))),
  sha256: v.optional(v.pipe(v.string(), v.description('Of the file, in hex, where it is small.'))),
  sha256Unknown: v.optional(v.pipe(v.string(), v.description('Else: why it is not known.'))),
  expiresAt: v.optional(v.pipe(v.string(), v.isoTimestamp())),
})

/** What GET /inventory answers, and what POST /bundles takes as the receiver's. */
export const inventorySchema = v.object({
  payload: v.pipe(v.string(), v.description('Base64: a line of JSON, then 32 bytes for each digest.')),
  payloadType: v.literal('application/vnd.stellaops.pack.inventory.v1'),
  signatures: v.array(v.object({ keyid: v.optional(v.string()), sig: v.string() })),
})
