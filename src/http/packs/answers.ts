import * as v from 'valibot'
import { dependencySchema, packIdSchema, packStateSchema, packTypeSchema, versionSchema } from '../../packs/document.ts'

// What the facade answers. The handlers are held to it by their types, the tests by the document that is made of it.

/** What a handler gives for an answer of this schema. */
export type Answer<S extends v.GenericSchema> = v.InferInput<S>

const digestSchema = v.pipe(v.string(), v.regex(/^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/))
const bytes = v.pipe(v.number(), v.integer(), v.minValue(0))
export const time = v.pipe(v.string(), v.isoTimestamp())
const channels = v.pipe(v.array(v.string()), v.description('The channels that point at it, `latest` among them.'))

/** What a person said of a version. */
const said = { state: packStateSchema, message: v.optional(v.string()), replacedBy: v.optional(v.string()) }

const contentFacts = {
  digest: v.pipe(digestSchema, v.description("The content's digest.")),
  size: v.pipe(bytes, v.description("The content's size in bytes.")),
}

export const packSchema = v.object({
  packId: packIdSchema,
  version: versionSchema,
  type: packTypeSchema,
  name: v.string(),
  description: v.optional(v.string()),
  author: v.optional(v.string()),
  dependencies: v.array(dependencySchema),
  metadata: v.looseObject({
    minRunnerVersion: v.optional(versionSchema),
    maxRunnerVersion: v.optional(versionSchema),
  }),
  ...contentFacts,
  mediaType: v.string(),
  manifestDigest: digestSchema,
  publishedAt: time,
  ...said,
  channels,
})
export const packAnswer = v.object({ pack: packSchema })

export const packSummary = v.pipe(
  v.object({
    packId: packIdSchema,
    type: packTypeSchema,
    name: v.string(),
    description: v.optional(v.string()),
    author: v.optional(v.string()),
    version: versionSchema,
    ...contentFacts,
    publishedAt: time,
    state: packStateSchema,
    versions: v.pipe(bytes, v.description('How many versions there are.')),
    minRunnerVersion: v.optional(versionSchema),
    keywords: v.optional(v.array(v.string())),
  }),
  v.description('A pack by its latest version, or the newest one that the runner in the query can run.'),
)
const next = v.optional(v.pipe(v.string(), v.description('Where there is more: the `after` of the next page.')))
export const packsAnswer = v.object({
  packs: v.array(packSummary),
  next,
})

export const versionSummary = v.object({
  version: versionSchema,
  ...said,
  channels,
  minRunnerVersion: v.optional(versionSchema),
  ...contentFacts,
  manifestDigest: digestSchema,
  publishedAt: time,
})
export const versionsAnswer = v.object({
  versions: v.pipe(v.array(versionSummary), v.description('The highest first.')),
})

export const publishedAnswer = v.object({
  packId: packIdSchema,
  version: versionSchema,
  digest: digestSchema,
  manifestDigest: digestSchema,
})

export const violationSchema = v.object({
  path: v.pipe(v.string(), v.description('Where, such as `dependencies.0.version`; empty for the whole.')),
  message: v.string(),
})
export const dryRunAnswer = v.object({
  valid: v.boolean(),
  violations: v.pipe(v.array(violationSchema), v.description('Everything that would keep it from being published.')),
  packId: v.optional(packIdSchema),
  version: v.optional(versionSchema),
  tag: v.optional(v.pipe(v.string(), v.description('The tag that the version would have.'))),
  digest: v.optional(digestSchema),
  members: v.optional(
    v.pipe(
      v.array(v.object({ packId: packIdSchema, version: versionSchema })),
      v.description('Of a bundle without content of its own: the packs that it would be made of.'),
    ),
  ),
})

export const deletedAnswer = v.object({
  deleted: v.pipe(v.boolean(), v.description('False where there was no such version.')),
})

export const channelAnswer = v.object({
  packId: packIdSchema,
  channel: v.string(),
  version: versionSchema,
  manifestDigest: digestSchema,
})

export const dependentSchema = v.object({
  packId: packIdSchema,
  version: versionSchema,
  range: v.string(),
  optional: v.boolean(),
  state: packStateSchema,
})
export const dependentsAnswer = v.object({ dependents: v.array(dependentSchema), next })

/** A dependency and what it brings: see packs/tree.ts. */
type Node = {
  packId: string
  range: string
  optional?: true
  resolved?: { version: string; digest: string; size: number; manifestDigest: string }
  seen?: true
  truncated?: true
  dependencies: Node[]
}
const yes = (meaning: string) => v.exactOptional(v.pipe(v.literal(true), v.description(meaning)))
export const treeNodeSchema: v.GenericSchema<Node> = v.object({
  packId: packIdSchema,
  range: v.string(),
  optional: yes('The pack can do without it.'),
  resolved: v.exactOptional(v.object({ version: versionSchema, ...contentFacts, manifestDigest: digestSchema })),
  seen: yes('Its dependencies are told elsewhere in the tree.'),
  truncated: yes('Its dependencies are left out, for the tree is deep enough: ask for its own tree.'),
  dependencies: v.array(v.lazy(() => treeNodeSchema)),
})
export const treeAnswer = v.object({
  packId: packIdSchema,
  version: versionSchema,
  dependencies: v.array(treeNodeSchema),
})

export const referrerSchema = v.object({
  digest: digestSchema,
  mediaType: v.string(),
  artifactType: v.optional(v.string()),
  size: bytes,
  annotations: v.optional(v.record(v.string(), v.string())),
})
export const referrersAnswer = v.object({ referrers: v.array(referrerSchema), next })

/** Source: RFC 9457. */
export const problemSchema = v.pipe(
  v.object({
    type: v.pipe(v.string(), v.description('`urn:packs-registry:` and the code of the failure.')),
    title: v.string(),
    status: v.pipe(v.number(), v.integer()),
    detail: v.optional(v.pipe(v.string(), v.description('What is wrong, and what to do about it.'))),
    about: v.optional(v.pipe(v.looseObject({}), v.description('Facts beside the words.'))),
    requestId: v.optional(v.pipe(v.string(), v.description('The name of the request in the log.'))),
  }),
  v.description('Every failure is answered as such a document (RFC 9457).'),
)
