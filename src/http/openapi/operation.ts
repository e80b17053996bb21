import type * as v from 'valibot'
import type { FailureKey } from '../../errors.ts'
import type { methods } from '../routes.ts'
import type { JsonSchema } from './schema.ts'

/** A body, by the media types it may have: a checked schema, or a schema as JSON for what is no JSON. */
export type Body = Record<string, { schema: v.GenericSchema | { json: JsonSchema }; example?: unknown }>

/** `headers`: each with what it means; one whose name ends in `?` is not always there. */
export type Answer = { description: string; headers?: Record<string, string>; body?: Body }

/** A route as the document describes it. What every route has in common is added by the document. */
export type Operation = {
  method: (typeof methods)[number] | 'head'
  /** As the route is written: `/packs/:id`. */
  path: string
  operationId: string
  summary: string
  description?: string
  tag:
    | 'packs'
    | 'publishing'
    | 'resolution'
    | 'keys'
    | 'bundles'
    | 'mirrors'
    | 'events'
    | 'retention'
    | 'access'
    | 'jobs'
    | 'operations'
  query?: { entries: v.ObjectEntries }
  /** Request headers, each with what it means. */
  headers?: Record<string, string>
  body?: Body
  bodyIsOptional?: true
  answers: Record<number, Answer>
  /** How it may fail, beside what may happen to any request. */
  failures: FailureKey[]
}

/** A JSON body of this schema. */
export function json(schema: v.GenericSchema, example: unknown): Body {
  return { 'application/json': { schema, example } }
}

export function ok(description: string, body: Body): Record<number, Answer> {
  return { 200: { description, body } }
}
