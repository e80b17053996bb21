import * as v from 'valibot'
import { isObject } from '../../oci/descriptor.ts'
import type { Digest } from '../../oci/digest.ts'
import { checkDocument, lostNumbers, type Violation, violationsOf } from '../../packs/document.ts'
import type { PackDocument } from '../../packs/pack.ts'
import type { Publish } from '../../registry/publish.ts'
import { parseMoment } from '../moment.ts'

/** What the client may say of the content and the time, in the manifest beside the document. */
export const declaredSchema = v.object({
  digest: v.optional(
    v.pipe(
      v.string('must be text'),
      v.regex(/^sha256:[0-9a-f]{64}$/, 'must be sha256: and 64 hex digits'),
      v.description('The content must turn out to have this digest.'),
      v.transform((text) => text as Digest),
    ),
  ),
  size: v.optional(
    v.pipe(
      v.number('must be a whole number of bytes'),
      v.safeInteger('must be a whole number of bytes'),
      v.minValue(0, 'must be a whole number of bytes'),
      v.description('The content must turn out to have this many bytes.'),
    ),
  ),
  created: v.optional(
    v.pipe(
      v.string('must be text'),
      v.check(isTime, 'must be a time such as 2026-01-31T12:00:00Z'),
      v.metadata({ format: 'date-time', description: 'When the pack was made; else the time of the publish.' }),
    ),
  ),
})

/** Source: RFC 3339. */
function isTime(text: string): boolean {
  return text.includes('T') && parseMoment(text) !== undefined
}

export type Checked = {
  document: PackDocument | undefined
  created: string | undefined
  declared: Publish['declared']
  violations: Violation[]
}

/** The manifest part: the document, and beside it what the client says of the content and the time. */
export function checkManifest(manifest: unknown): Checked {
  if (!isObject(manifest)) return { ...documentIn(manifest), created: undefined, declared: {} }
  const { created: _, ...written } = manifest
  const { document, violations } = documentIn(written)
  const said = v.safeParse(declaredSchema, manifest)
  if (!said.success)
    return { document, created: undefined, declared: {}, violations: [...violations, ...violationsOf(said.issues)] }
  const { created, ...declared } = said.output
  return { document, created, declared, violations }
}

function documentIn(written: unknown): { document: PackDocument | undefined; violations: Violation[] } {
  const result = checkDocument(written)
  return 'document' in result
    ? { ...result, violations: lostNumbers(result.document) }
    : { document: undefined, ...result }
}
