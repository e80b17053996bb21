import { PacksError } from '../client/failure.ts'

/** A size such as 4GiB, 700MB or 1000000, in bytes. Throws USAGE. */
export function parseSize(text: string, { least = 0, leastText = '' } = {}): number {
  const [, number, unit = 'B'] = /^(\d+(?:\.\d+)?)\s*([kmgt]?i?b)?$/i.exec(text.trim()) ?? []
  const power = 'bkmgt'.indexOf((unit[0] ?? 'b').toLowerCase())
  const bytes = Math.floor(Number(number) * (/i/i.test(unit) ? 1024 : 1000) ** power)
  if (number !== undefined && bytes >= least && Number.isSafeInteger(bytes)) return bytes
  const atLeast = leastText && ` of at least ${leastText}`
  throw new PacksError('USAGE', `${JSON.stringify(text)} is not a size${atLeast}, such as 4GiB or 700MB`)
}
