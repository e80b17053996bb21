import { type ConversionConfig, type JsonSchema, toJsonSchema, toJsonSchemaDefs } from '@valibot/to-json-schema'
import type * as v from 'valibot'

export type { JsonSchema }

/** Schemas by the name that they have in a document; one that another refers to stands there by its name. */
export type Named = Record<string, v.GenericSchema>

const dialect = 'https://json-schema.org/draft/2020-12/schema'

/**
 * How checks become a description: what is written (`input`), not what it is made into. Checks that are code cannot be
 * expressed: the schemas say them in words, by their metadata. `writtenAs`: the choices that a pipe stands for.
 */
function conversion(definitions: Named, place: string): ConversionConfig {
  const nested = (schema: v.GenericSchema): JsonSchema => {
    const name = Object.keys(definitions).find((key) => definitions[key] === schema)
    return name ? { $ref: place + name } : plain(toJsonSchema(schema, { ...config, definitions: {} }))
  }
  const config: ConversionConfig = {
    target: 'draft-2020-12',
    typeMode: 'input',
    errorMode: 'ignore',
    definitions,
    overrideRef: ({ referenceId }) => place + referenceId,
    overrideSchema: ({ valibotSchema, jsonSchema }) =>
      valibotSchema.type === 'loose_object' ? { ...jsonSchema, additionalProperties: true } : undefined,
    overrideAction({ valibotAction }) {
      if (valibotAction.type !== 'metadata') return undefined
      const { writtenAs } = (valibotAction as unknown as { metadata: { writtenAs?: v.GenericSchema[] } }).metadata
      const [only, ...more] = writtenAs?.map(nested) ?? []
      return more.length > 0 ? { anyOf: [only as JsonSchema, ...more] } : only
    },
  }
  return config
}

/** Without what only the outermost schema of a document has. */
function plain({ $schema: _, $defs: __, ...schema }: JsonSchema): JsonSchema {
  return schema
}

/** A schema for use within an OpenAPI document that has these components. */
export function inDocument(schema: v.GenericSchema, components: Named): JsonSchema {
  return plain(toJsonSchema(schema, conversion(components, '#/components/schemas/')))
}

export function componentSchemas(components: Named): Record<string, JsonSchema> {
  return toJsonSchemaDefs(components, conversion(components, '#/components/schemas/'))
}

/** A JSON Schema that stands by itself. */
export function standalone(
  schema: v.GenericSchema,
  definitions: Named,
  about: { $id: string; title: string; description: string },
): JsonSchema {
  const { $defs, ...body } = toJsonSchema(schema, conversion(definitions, '#/$defs/'))
  return { $schema: dialect, ...about, ...body, $defs: onlyUsed(body, $defs ?? {}) }
}

/** The definitions that a schema refers to, itself or by way of others. */
function onlyUsed(schema: JsonSchema, definitions: Record<string, unknown>): Record<string, JsonSchema> {
  const used = new Set<string>()
  const visit = (part: unknown) => {
    for (const [, name = ''] of JSON.stringify(part).matchAll(/"#\/\$defs\/([^"]+)"/g)) {
      if (used.has(name)) continue
      used.add(name)
      visit(definitions[name])
    }
  }
  visit(schema)
  return Object.fromEntries(Object.entries(definitions).filter(([name]) => used.has(name))) as Record<
    string,
    JsonSchema
  >
}
