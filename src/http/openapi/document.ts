import { type FailureKey, failures } from '../../errors.ts'
import {
  answeredFields,
  dependencySchema,
  documentSchema,
  packIdSchema,
  packStateSchema,
  packTypeSchema,
  rangeSchema,
  versionSchema,
} from '../../packs/document.ts'
import { lockedPackSchema, lockSchema } from '../../packs/lock.ts'
import { eventSchema } from '../audit.ts'
import { inventorySchema, planAnswer } from '../bundle-answers.ts'
import { exportBody } from '../bundles.ts'
import { cloudEventSchema } from '../events.ts'
import { importReport, importSchema } from '../import-answers.ts'
import { jobSchema } from '../jobs.ts'
import { keySchema } from '../keys.ts'
import { mirrorSchema, paritySchema, runSchema, upstreamSchema } from '../mirror-answers.ts'
import * as answers from '../packs/answers.ts'
import { channelBody, stateBody } from '../packs/changes.ts'
import { declaredSchema } from '../packs/manifest.ts'
import { resolveBody } from '../packs/resolve.ts'
import { internalErrorTitle } from '../problem.ts'
import { quotaSchema } from '../quotas.ts'
import { apiTokenSchema } from '../tokens.ts'
import { deliverySchema, webhookSchema } from '../webhook-answers.ts'
import type { Answer, Body, Operation } from './operation.ts'
import { operations } from './operations.ts'
import { parametersOf, templateOf } from './parameters.ts'
import { componentSchemas, inDocument, type JsonSchema, type Named } from './schema.ts'

/** The version of the interface, by Semantic Versioning: fields and calls may be added, and are never taken away. */
const interfaceVersion = '1.0.0'

/** The schemas that have a name in the document. */
export const components: Named = {
  PackId: packIdSchema,
  Version: versionSchema,
  Range: rangeSchema,
  PackType: packTypeSchema,
  PackState: packStateSchema,
  Dependency: dependencySchema,
  PackDocument: documentSchema,
  StateChange: stateBody,
  ChannelChange: channelBody,
  Pack: answers.packSchema,
  PackSummary: answers.packSummary,
  VersionSummary: answers.versionSummary,
  Published: answers.publishedAnswer,
  DryRun: answers.dryRunAnswer,
  Violation: answers.violationSchema,
  Dependent: answers.dependentSchema,
  DependencyTree: answers.treeAnswer,
  TreeNode: answers.treeNodeSchema,
  Referrer: answers.referrerSchema,
  ResolveRequest: resolveBody,
  Lock: lockSchema,
  Key: keySchema,
  ExportRequest: exportBody,
  BundlePlan: planAnswer,
  Import: importSchema,
  ImportReport: importReport,
  Inventory: inventorySchema,
  Mirror: mirrorSchema,
  MirrorRun: runSchema,
  Parity: paritySchema,
  Upstream: upstreamSchema,
  CloudEvent: cloudEventSchema,
  Webhook: webhookSchema,
  Delivery: deliverySchema,
  Job: jobSchema,
  ApiToken: apiTokenSchema,
  Quota: quotaSchema,
  AuditEvent: eventSchema,
  LockedPack: lockedPackSchema,
  Problem: answers.problemSchema,
}

/** What may become of any request. */
const always: FailureKey[] = ['QUERY_INVALID', 'UNAUTHORIZED', 'DENIED', 'TOOMANYREQUESTS', 'UNAVAILABLE']

const info = {
  title: 'PacksRegistry',
  version: interfaceVersion,
  description:
    'Packs by name and version. The same packs are OCI artifacts under /v2, which speaks the OCI distribution ' +
    'specification 1.1: what is published by one door comes out of the other, byte for byte.',
  license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
}

const tags = [
  { name: 'packs', description: 'Finding and downloading packs.' },
  { name: 'publishing', description: 'Publishing versions, and saying what becomes of them.' },
  { name: 'resolution', description: 'What needs what.' },
  { name: 'keys', description: 'What bundles are signed and verified with.' },
  { name: 'access', description: 'Who may do what.' },
  { name: 'bundles', description: 'Files that carry packs over an air gap.' },
  { name: 'mirrors', description: 'Other registries: kept like this one, or fetched from when something is missed.' },
  { name: 'events', description: 'What happened: to be asked for, followed, or sent to webhooks.' },
  { name: 'retention', description: 'What is removed by itself, and what never is.' },
  { name: 'jobs', description: 'What the registry does in the background.' },
  { name: 'operations', description: 'For those who run the registry.' },
]

const securitySchemes = {
  password: {
    ...{ type: 'http', scheme: 'basic' },
    description: 'User and password; or, as the password, an API token or an access token of the Authority.',
  },
  token: {
    ...{ type: 'http', scheme: 'bearer' },
    description: 'An API token, an access token of the Authority, or a token of /token for the repository.',
  },
}

/** The description of the facade, made of the schemas that check its requests. Source: OpenAPI 3.1.1. */
export function openapiDocument() {
  const paths: Record<string, Record<string, object>> = {}
  for (const operation of operations) {
    const path = templateOf(operation.path)
    paths[path] = { ...paths[path], [operation.method]: described(operation) }
  }
  const schemas = { ...componentSchemas(components), Manifest: manifestSchema() }
  return {
    openapi: '3.1.1',
    info,
    servers: [{ url: '/' }],
    tags,
    paths,
    components: { schemas, responses: sharedProblems(), securitySchemes },
    // What is open to everybody, or everything with AUTH=none, takes none of them.
    security: [{}, { password: [] }, { token: [] }],
  }
}

function described(operation: Operation): object {
  const { operationId, summary, description, tag, body, bodyIsOptional } = operation
  return {
    operationId,
    summary,
    ...(description ? { description } : {}),
    tags: [tag],
    parameters: parametersOf(operation, components),
    ...(body ? { requestBody: { required: !bodyIsOptional, content: content(body) } } : {}),
    responses: { ...responses(operation), ...problems(operation) },
  }
}

function responses({ answers }: Operation): Record<string, object> {
  return Object.fromEntries(Object.entries(answers).map(([status, answer]) => [status, response(answer)]))
}

function response({ description, headers, body }: Answer): object {
  const fields = Object.entries(headers ?? {}).map(([name, description]) => [
    name.replace('?', ''),
    { description, required: !name.endsWith('?'), schema: { type: name === 'content-length' ? 'integer' : 'string' } },
  ])
  return {
    description,
    ...(headers ? { headers: Object.fromEntries(fields) } : {}),
    ...(body ? { content: content(body) } : {}),
  }
}

function content(body: Body): Record<string, object> {
  const entries = Object.entries(body).map(([type, { schema, example }]) => [
    type,
    {
      schema: 'json' in schema ? schema.json : inDocument(schema, components),
      ...(example === undefined ? {} : { examples: { example: { value: example } } }),
    },
  ])
  return Object.fromEntries(entries)
}

/** The failures of an operation, by their status; an operation's own answer of that status stands beside them. */
function problems(operation: Operation): Record<string, object> {
  const found: Record<string, object> = { 500: { $ref: '#/components/responses/UNKNOWN' } }
  const keys = [...new Set([...operation.failures, ...(operation.tag === 'operations' ? [] : always)])]
  for (const status of new Set(keys.map((key) => failures[key].status))) {
    const codes = keys.filter((key) => failures[key].status === status)
    found[status] = codes.length === 1 ? { $ref: `#/components/responses/${codes[0]}` } : problem(status, codes)
  }
  return found
}

/** The answers that have one code, by that. */
function sharedProblems(): Record<string, object> {
  const keys = [...new Set([...always, ...operations.flatMap((operation) => operation.failures)])]
  const entries = keys.map((key): [string, object] => [key, problem(failures[key].status, [key])])
  return { UNKNOWN: problem(500, ['UNKNOWN']), ...Object.fromEntries(entries) }
}

const titleOf = (code: FailureKey | 'UNKNOWN') => (code === 'UNKNOWN' ? internalErrorTitle : failures[code].title)

function problem(status: number, codes: readonly (FailureKey | 'UNKNOWN')[]): object {
  const types = codes.map((code) => `urn:packs-registry:${code}`)
  return {
    description: codes.map((code) => `\`${code}\`: ${titleOf(code)}`).join('; '),
    content: {
      'application/problem+json': {
        schema: {
          $ref: '#/components/schemas/Problem',
          properties: { type: { enum: types }, status: { const: status } },
        },
        examples: Object.fromEntries(
          codes.map((code, i) => [code, { value: { type: types[i], title: titleOf(code), status } }]),
        ),
      },
    },
  }
}

/** The part `manifest` of a publish: the document, what is declared of the content, and what an answer would have. */
function manifestSchema(): JsonSchema {
  const document = inDocument(documentSchema, {})
  const { properties } = inDocument(declaredSchema, {})
  const named = componentSchemas(components).PackDocument?.properties
  const ignored = [...answeredFields].filter((field) => !(field in (properties ?? {})))
  return {
    ...document,
    description: 'The document of the pack, and what the content must turn out to be.',
    properties: {
      ...named,
      ...properties,
      ...Object.fromEntries(ignored.map((field) => [field, { description: 'Known by the registry; ignored.' }])),
    },
  }
}
