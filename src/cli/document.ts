import { isUtf8 } from 'node:buffer'
import { readFile } from 'node:fs/promises'
import { PacksError } from '../client/failure.ts'
import type { Violation } from '../packs/document.ts'
import type { PackDocument } from '../packs/pack.ts'

/** Reads a file that was named. Of one that is open when it fails, such as a folder, the system tells no name. */
export async function readNamed(path: string): Promise<Buffer> {
  return readFile(path).catch((error) => {
    throw Object.assign(error, { path })
  })
}

/** Reads a file as JSON. Throws FILE_MISSING, PACK_INVALID, in words. */
export async function readJson(path: string, advice = ''): Promise<unknown> {
  const bytes = await readNamed(path).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code !== 'ENOENT') throw cause
    throw new PacksError('FILE_MISSING', `${path} does not exist${advice && `. ${advice}`}`, { cause })
  })
  if (!isUtf8(bytes)) throw new PacksError('PACK_INVALID', `${path} is not JSON: it is not UTF-8. Save it as UTF-8`)
  try {
    return JSON.parse(bytes.toString().replace(/^\ufeff/, ''))
  } catch (error) {
    throw notJson(path, error as Error)
  }
}

function notJson(path: string, cause: Error): PacksError {
  return new PacksError('PACK_INVALID', `${path} is not JSON: ${cause.message}`, { cause })
}

const makeOne = 'Make one with: packs init --type policy --id my-pack'

/** Reads the document of a pack. Throws PACK_INVALID with everything that is wrong with it. */
export async function readDocument(path: string): Promise<PackDocument> {
  const { checkDocument, lostNumbers } = await import('../packs/document.ts')
  const checked = checkDocument(await readJson(path, makeOne))
  const violations = 'document' in checked ? lostNumbers(checked.document) : checked.violations
  if ('document' in checked && violations.length === 0) return checked.document
  throw invalidDocument(path, violations)
}

export function invalidDocument(path: string, violations: readonly Violation[]): PacksError {
  const lines = violations.map(({ path: field, message }) => `\n  ${field ? `${field} ` : ''}${message}`)
  return new PacksError('PACK_INVALID', `${path} is not a valid pack:${lines.join('')}`, { about: { violations } })
}
