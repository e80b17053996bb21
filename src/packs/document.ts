import parseLicense from 'spdx-expression-parse'
import * as v from 'valibot'
import { isObject } from '../oci/descriptor.ts'
import { boundedList, mostViolations } from './bounded-list.ts'
import { type Dependency, idGrammar, type PackDocument, packStates, packTypes, parsePackId } from './pack.ts'
import { compareVersions, grammar, parseRange, parseVersion } from './version.ts'

/** One thing wrong with a document: where (`dependencies.0.version`, empty for the whole), and what to do about it. */
export type Violation = { path: string; message: string }

/** NUL and half a surrogate pair: no text to a database, and to few clients. */
const notText = /\0|\p{Surrogate}/u
const text = (most: number) =>
  v.pipe(
    v.string('must be text'),
    v.maxLength(most, `must not be longer than ${most} characters`),
    v.check((value) => !notText.test(value), 'must not contain NUL or half a surrogate pair'),
  )
const line = (most: number) => v.pipe(text(most), v.trim(), v.minLength(1, 'must not be empty'))

/** A name that may be part of a path, a repository and a tag everywhere. */
export const packIdSchema = v.pipe(
  v.string('must be text'),
  v.check(
    (id) => parsePackId(id) !== undefined,
    'must be lowercase letters and digits, joined by single ".", "_" or "-", at most 128 characters',
  ),
  v.metadata({
    description: 'The name of a pack: lowercase letters and digits, joined by single ".", "_" or "-".',
    pattern: idGrammar.source,
    maxLength: 128,
    examples: ['net-policy'],
  }),
  v.transform((id) => parsePackId(id) as NonNullable<ReturnType<typeof parsePackId>>),
)

export const versionSchema = v.pipe(
  v.string('must be text'),
  v.check(
    (version) => parseVersion(version) !== undefined,
    'must be a version by Semantic Versioning 2.0, such as 1.4.0 or 2.0.0-rc.1',
  ),
  v.metadata({
    description:
      'A version by Semantic Versioning 2.0, without a "v" in front. Two that differ only in their build part are the same release.',
    pattern: grammar.source,
    maxLength: 128,
    examples: ['1.4.0'],
  }),
  v.transform((version) => parseVersion(version) as NonNullable<ReturnType<typeof parseVersion>>),
)

export const rangeSchema = v.pipe(
  v.string('must be text'),
  v.check((range) => parseRange(range) !== undefined, 'must be a range of versions, such as ^1.2.0 or >=1.0.0 <3.0.0'),
  v.metadata({
    description: 'Which versions are accepted, in the notation of npm; empty or * means any.',
    maxLength: 256,
    examples: ['^1.2.0', '>=1.0.0 <3.0.0'],
  }),
  v.transform((range) => parseRange(range) as NonNullable<ReturnType<typeof parseRange>>),
)

export const packTypeSchema = v.picklist(packTypes, `must be one of ${packTypes.join(', ')}`)

export const packStateSchema = v.picklist(packStates, `must be one of ${packStates.join(', ')}`)

/** What a pack needs: another, in a version that a range accepts. */
export const dependencySchema = v.strictObject(
  { packId: packIdSchema, version: rangeSchema, optional: v.optional(v.boolean('must be true or false')) },
  (issue) => unknownField(issue) ?? 'must be { packId, version } or a text such as "net-rules@^1.2.0"',
)

/** For descriptions of the interface only: a pipe cannot be read as the choice that it is. */
const dependencyTextSchema = v.pipe(
  v.string(),
  v.description('Short for { packId, version }; without "@" and a range, any version.'),
  v.examples(['net-rules@^1.2.0']),
)

/** `net-rules@^1.2.0` is short for `{ packId, version }`. */
const written = <S extends v.GenericSchema>(inFull: S) =>
  v.pipe(
    v.unknown(),
    v.metadata({ writtenAs: [inFull, dependencyTextSchema] }),
    v.transform((value) => (typeof value === 'string' ? dependencyOf(value) : value)),
  )

const writtenDependency = v.pipe(
  written(dependencySchema),
  dependencySchema,
  v.transform(({ packId, version, optional }): Dependency => ({ packId, version, ...(optional ? { optional } : {}) })),
)

/** What a resolution starts from, written like a dependency. */
const rootInFull = v.strictObject({ packId: packIdSchema, version: rangeSchema }, (issue) =>
  issue.expected === 'never'
    ? 'is not a field of a root'
    : 'must be { packId, version } or a text such as "net-rules@^1.2.0"',
)
export const rootSchema = v.pipe(written(rootInFull), rootInFull)

function dependencyOf(written: string): { packId: string; version: string } {
  const at = written.indexOf('@')
  return at < 0
    ? { packId: written.trim(), version: '*' }
    : { packId: written.slice(0, at).trim(), version: written.slice(at + 1).trim() }
}

const isLicense = (expression: string) => {
  try {
    parseLicense(expression)
    return true
  } catch {
    return false
  }
}

const metadataObject = v.pipe(
  v.looseObject(
    {
      minRunnerVersion: v.optional(versionSchema),
      maxRunnerVersion: v.optional(versionSchema),
      license: v.optional(
        v.pipe(
          line(500),
          v.check(isLicense, 'must be an SPDX license expression, such as Apache-2.0 or MIT OR 0BSD'),
          v.description('An SPDX license expression.'),
          v.examples(['Apache-2.0', 'MIT OR 0BSD']),
        ),
      ),
      homepage: v.optional(
        v.pipe(
          line(2000),
          v.check((url) => URL.canParse(url) && /^https?:/i.test(url), 'must be an http or https address'),
          v.description('An http or https address.'),
          v.examples(['https://example.com/net-policy']),
        ),
      ),
      keywords: v.optional(boundedList(line(64), 50)),
      readme: v.optional(text(256 * 1024)),
      changes: v.optional(text(256 * 1024)),
    },
    'must be an object',
  ),
  v.check(
    (metadata) => isPlain(metadata, 16),
    'must be plain JSON, nested at most 16 levels, without NUL in its texts',
  ),
  v.check(
    ({ minRunnerVersion: min, maxRunnerVersion: max }) => !min || !max || compareVersions(min, max) <= 0,
    'minRunnerVersion must not be above maxRunnerVersion',
  ),
  v.description(
    'Open: fields of your own are kept as they are. Plain JSON, nested at most 16 levels. minRunnerVersion must not be above maxRunnerVersion.',
  ),
)

/** A list is an object too, to the checks as to the language. */
const metadataSchema = v.pipe(
  v.unknown(),
  v.metadata({ writtenAs: [metadataObject] }),
  v.check((value) => !Array.isArray(value), 'must be an object'),
  metadataObject,
)

function isPlain(value: unknown, depth: number): boolean {
  if (typeof value === 'string') return !notText.test(value)
  if (typeof value !== 'object' || value === null) return true
  if (depth === 0) return false
  if (Array.isArray(value)) return value.every((entry) => isPlain(entry, depth - 1))
  const fields = value as Record<string, unknown>
  return Object.keys(fields).every((key) => !notText.test(key) && isPlain(fields[key], depth - 1))
}

/** What an author writes: `pack.json`, the `manifest` part of POST /packs, the config blob. */
export const documentSchema = v.strictObject(
  {
    packId: packIdSchema,
    version: versionSchema,
    type: packTypeSchema,
    name: v.optional(line(200)),
    description: v.optional(text(4000)),
    author: v.optional(line(200)),
    dependencies: v.optional(
      v.pipe(
        boundedList(writtenDependency, 500),
        v.check(
          (list) => new Set(list.map((entry) => entry.packId)).size === list.length,
          'must name a pack once only',
        ),
        v.description('Packs that this one needs: each once, and not itself.'),
      ),
      [],
    ),
    metadata: v.optional(metadataSchema, {}),
  },
  (issue) => unknownField(issue) ?? 'must be a JSON object',
)
type Written = v.InferOutput<typeof documentSchema>

/** The order of these keys is the order in the config blob, whoever wrote it in whatever order. */
function documentOf(written: Written): PackDocument {
  const { packId, version, type, name, description, author, dependencies, metadata } = written
  return {
    packId,
    version,
    type,
    name: name ?? packId,
    ...(description ? { description } : {}),
    ...(author ? { author } : {}),
    dependencies,
    metadata,
  }
}

function unknownField(issue: { expected: string | null; path?: unknown }): string | undefined {
  return issue.expected === 'never' ? 'is not a field of a pack; what is your own belongs in "metadata"' : undefined
}

/** What the registry knows itself: a document that went through it may carry these, and they count for nothing. */
export const answeredFields: ReadonlySet<string> = new Set([
  'digest',
  'size',
  'publishedAt',
  'manifestDigest',
  'mediaType',
  'state',
  'message',
  'replacedBy',
  'channels',
])

/** The document, normalised; or everything that is wrong with it. */
export function checkDocument(value: unknown): { document: PackDocument } | { violations: Violation[] } {
  // A list would be taken for an object without fields.
  if (!isObject(value)) return { violations: [{ path: '', message: 'must be a JSON object' }] }
  const written = Object.fromEntries(Object.entries(value).filter(([key]) => !answeredFields.has(key)))
  const result = v.safeParse(documentSchema, written)
  const violations = result.success ? [] : violationsOf(result.issues)
  // As plain code: to hand what a check says on to another path, valibot looks through all that is wrong, for each.
  if (result.typed && result.output.dependencies.some(({ packId }) => packId === result.output.packId))
    violations.push({ path: 'dependencies', message: 'must not name the pack itself' })
  return violations.length === 0 ? { document: documentOf(result.output as Written) } : { violations }
}

/**
 * Numbers in a document's metadata that parsing has not kept, or may not have: `metadata.build must be …`. For whoever
 * writes the document anew; where its own bytes are kept, they say what they say.
 */
export function lostNumbers({ metadata }: PackDocument): Violation[] {
  const lost: Violation[] = []
  const waiting: { path: string; value: unknown }[] = [{ path: 'metadata', value: metadata }]
  for (let next = waiting.pop(); next && lost.length < mostViolations; next = waiting.pop()) {
    const { path, value: found } = next
    if (
      typeof found === 'number' &&
      (!Number.isFinite(found) || (Number.isInteger(found) && !Number.isSafeInteger(found)))
    )
      lost.push({
        path,
        message: `must not be a number above ${Number.MAX_SAFE_INTEGER}, which few can read; write it as text`,
      })
    if (typeof found === 'object' && found !== null)
      for (const [key, entry] of Object.entries(found)) waiting.push({ path: `${path}.${key}`, value: entry })
  }
  return lost
}

/** What is wrong, as far as it is told: the last of too many says that there are more. */
export function violationsOf(issues: readonly v.BaseIssue<unknown>[]): Violation[] {
  const violations = issues.slice(0, mostViolations).map((issue) => ({
    path: v.getDotPath(issue) ?? '',
    message: issue.received === 'undefined' && issue.kind === 'schema' ? 'is missing' : issue.message,
  }))
  return issues.length > mostViolations ? [...violations, { path: '', message: andMore }] : violations
}

const andMore = `more is wrong than these ${mostViolations}`

/** Violations as one text: `version: must be …; type: must be …`. */
export function inWords(violations: readonly Violation[]): string {
  const shown = violations.slice(0, 20).map(({ path, message }) => (path ? `${path} ${message}` : message))
  if (violations.some(({ message }) => message === andMore)) return `${shown.join('; ')}; and many more`
  return shown.join('; ') + (violations.length > 20 ? `; and ${violations.length - 20} more` : '')
}
