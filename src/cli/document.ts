import { readFile } from 'node:fs/promises'
import { PacksError } from '../client/failure.ts'
import type { Violation } from '../packs/document.ts'
import type { PackDocument } from '../packs/pack.ts'

/** Reads a file as JSON. Throws FILE_MISSING, JSON_INVALID, in words. */
export async function readJson(path: string, advice = ''): Promise<unknown> {
  const text = await readFile(path, 'utf8').catch((cause: NodeJS.ErrnoException) => {
    if (cause.code !== 'ENOENT') throw cause
    throw new PacksError('FILE_MISSING', `${path} does not exist${advice && `. ${advice}`}`, { cause })
  })
  try {
    return JSON.parse(text.replace(/^\ufeff/, ''))
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
  const { checkDocument } = await import('../packs/document.ts')
  const checked = checkDocument(await readJson(path, makeOne))
  if ('document' in checked) return checked.document
  throw invalidDocument(path, checked.violations)
}

export function invalidDocument(path: string, violations: readonly Violation[]): PacksError {
  const lines = violations.map(({ path: field, message }) => `\n  ${field ? `${field} ` : ''}${message}`)
  return new PacksError('PACK_INVALID', `${path} is not a valid pack:${lines.join('')}`, { about: { violations } })
}
