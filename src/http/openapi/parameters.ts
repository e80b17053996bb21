import type * as v from 'valibot'
import type { Operation } from './operation.ts'
import { inDocument, type JsonSchema, type Named } from './schema.ts'

type Parameter = { name: string; in: string; description: string; required?: true; schema: JsonSchema }

/** What each parameter of a query means. */
const queryMeanings: Record<string, string> = {
  type: 'Only packs of this type; of events: only of these types, or patterns over them, separated by commas.',
  pack: 'Only events of these packs, or patterns over their ids, separated by commas.',
  q: 'Words, or beginnings of words, all of which must occur in id, name, keywords, author or description.',
  author: 'Only packs by this author.',
  runner: 'The version of the runner that asks: only what it can run.',
  state: 'Only those in this state: a pack by the version that is shown, a job, an import, or a delivery.',
  name: 'Only jobs of this name.',
  sort: 'By id; by the last change, newest first; or by how well the words fit. Without it: relevance where there are words, else id.',
  limit: 'How many at most.',
  after: '`next` of the page before, with the same filters and order; of events any position, or `latest`.',
  channel: 'Where a pack has this channel, its version is tried first.',
  artifactType: 'Only referrers of this type.',
  dryRun: 'Store nothing, and tell everything that is wrong.',
  all: 'Those that are resolved, too.',
  kind: 'Only findings of this kind.',
  allowMissing: 'Publish although dependencies are not there yet.',
  who: 'Only what this user or token did.',
  digest: 'Only what was done with this manifest or blob.',
  outcome: 'Only what was done, was refused, or failed.',
  since: 'Only what was done then or later: a time, or a day.',
  until: 'Only what was done before: a time, or a day.',
  head: 'The digest of a seal that was the last one once: it must still be there.',
  service: 'The name of this registry, as the challenge says it; not looked at.',
  client_id: 'The program that asks; not looked at.',
  account: 'The user that asks; not looked at.',
  offline_token: 'Whether to give a refresh token too: `true`.',
  scope: 'What the token is for: `repository:packs/net-policy:pull,push`, several separated by spaces, or repeated.',
  force: 'Delete although other packs may use it; import although channels go back to older versions.',
  reason:
    'Why that is meant: it is kept, in the report of an import, else in the audit. What goes back on purpose needs it.',
  allowOlder: 'The channel may go back to an older version; with a `reason`.',
  repository:
    'The repository of a pack, `packs/<id>`, for a layout that does not say which pack it is; of the audit: only what was done to it.',
  resume: 'The import to go on with; one that is not there begins under this id.',
  async: 'Answer when all of it is received and verified, and let a job publish it.',
}

type Described = { description: string; schema: JsonSchema; example: string }

/** What `:id` is, by what stands before it in the path. */
const idParameters: Record<string, Described> = {
  packs: { description: 'The pack.', schema: { $ref: '#/components/schemas/PackId' }, example: 'net-policy' },
  deliveries: {
    description: 'The delivery.',
    schema: { type: 'string', format: 'uuid' },
    example: '0199f0a2-5c1e-7a40-8a3b-2f6d1c9e4b59',
  },
  jobs: {
    description: 'The job.',
    schema: { type: 'string', format: 'uuid' },
    example: '0199f0a2-5c1e-7a40-8a3b-2f6d1c9e4b57',
  },
  tokens: {
    description: 'The id of the token, or the name of one that was not revoked.',
    schema: { type: 'string' },
    example: 'ci',
  },
  bundles: {
    description: 'The id of the file, as its plan says it.',
    schema: { type: 'string', pattern: '^[0-9a-f]{64}$' },
    example: '9834876dcfb05cb167a5c24953eba58c4ac89b1adf57f28f2f9d09af107ee8f0',
  },
  exports: {
    description: 'The export.',
    schema: { type: 'string', pattern: '^[0-9a-f]{64}$' },
    example: '9834876dcfb05cb167a5c24953eba58c4ac89b1adf57f28f2f9d09af107ee8f0',
  },
  imports: {
    description: 'The import.',
    schema: { type: 'string', format: 'uuid' },
    example: '0b1c2d3e-4f50-4a6b-8c7d-9e0f1a2b3c4d',
  },
  holds: { description: 'The pack.', schema: { $ref: '#/components/schemas/PackId' }, example: 'net-policy' },
  runs: {
    description: 'The run.',
    schema: { type: 'string', format: 'uuid' },
    example: '0199f0a2-5c1e-7a40-8a3b-2f6d1c9e4b59',
  },
  keys: {
    description: 'The id of the key, or the name of one in use.',
    schema: { type: 'string' },
    example: 'release',
  },
}

const pathParameters: Record<string, Described> = {
  name: {
    description: 'The name of the mirror, the policy or the webhook.',
    schema: { type: 'string' },
    example: 'site-b',
  },
  prefix: {
    description: 'The first part of the names of its repositories; it may have slashes.',
    schema: { type: 'string' },
    example: 'hub',
  },
  repositories: {
    description: 'A glob over repository names: `*` stands for anything but a slash, `**` for anything.',
    schema: { type: 'string' },
    example: 'packs/team-*',
  },
  version: {
    description: 'A version, a channel, `latest`, or a range of versions, of which the highest is meant.',
    schema: { type: 'string', maxLength: 256 },
    example: '^2.1.0',
  },
  channel: {
    description: 'The channel: letters, digits, ".", "_" and "-", and nothing that looks like a version.',
    schema: { type: 'string', pattern: '^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$' },
    example: 'stable',
  },
}

/** `/packs/:id`, or `/bundles/:id{[0-9a-f]{64}}`, as OpenAPI writes it. */
export function templateOf(path: string): string {
  return path.replace(/:(\w+)(?:\{[^/]+\})?/g, '{$1}')
}

export function parametersOf({ method, path, query, headers = {} }: Operation, components: Named): Parameter[] {
  const isRead = method === 'get' || method === 'head'
  const inPath = [...path.matchAll(/:(\w+)/g)].map(([, name = '']): Parameter => {
    const parameter =
      name === 'id' ? idParameters[path.split('/:id')[0]?.split('/').at(-1) ?? ''] : pathParameters[name]
    if (!parameter) throw new Error(`the parameter ${name} of ${path} is not described`)
    if (isRead || name !== 'version') return { name, in: 'path', required: true, ...parameter }
    const schema = { $ref: '#/components/schemas/Version' }
    return { name, in: 'path', required: true, description: 'The exact version.', schema }
  })
  const inQuery = Object.entries(query?.entries ?? {}).map(([name, entry]): Parameter => {
    const description = queryMeanings[name]
    if (!description) throw new Error(`the parameter ${name} of ${path} is not described`)
    return { name, in: 'query', description, schema: asTyped(inDocument(entry as v.GenericSchema, components)) }
  })
  const inHeader = Object.entries(headers).map(([name, description]): Parameter => {
    return { name, in: 'header', description, schema: { type: 'string' } }
  })
  return [...inPath, ...inQuery, ...inHeader]
}

/** A query is text. What is read as a number or a switch is described as one. */
function asTyped(schema: JsonSchema): JsonSchema {
  const { pattern, default: fallback, ...others } = schema
  if (schema.type === 'integer') return { ...others, default: Number(fallback) }
  if (schema.type === 'boolean') return { ...others, default: fallback === 'true' }
  return schema
}
