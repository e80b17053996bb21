import { createRequire } from 'node:module'

// Loaded when it is first needed: it takes longer than all of the settings.
const load = createRequire(import.meta.url)

/** Whether five fields of cron, in UTC, name a time that comes: `0 0 31 2 *` does not. */
export function comes(cron: string): boolean {
  const { parseExpression } = load('cron-parser') as typeof import('cron-parser')
  try {
    parseExpression(cron, { utc: true }).next()
    return true
  } catch {
    return false
  }
}

/** Lowest and highest of minute, hour, day of month, month, day of week. */
const bounds = [
  [0, 59],
  [0, 23],
  [1, 31],
  [1, 12],
  [0, 7],
] as const

/** Whether a text is five fields of cron: numbers, ranges, lists and steps, such as `15,45 2-4 * * 1-5`, of a time that comes. */
export function isCron(text: string): boolean {
  const fields = text.trim().split(/\s+/)
  return (
    fields.length === bounds.length &&
    fields.every((field, i) => field.split(',').every((part) => isPart(part, i))) &&
    comes(text)
  )
}

function isPart(part: string, field: number): boolean {
  const [, from, to, step] = /^(?:\*|(\d{1,2})(?:-(\d{1,2}))?)(?:\/(\d{1,2}))?$/.exec(part) ?? []
  if (!/^[\d*]/.test(part) || (from === undefined && !part.startsWith('*'))) return false
  const [low = 0, high = 0] = bounds[field] ?? []
  const within = (text: string | undefined) => text === undefined || (Number(text) >= low && Number(text) <= high)
  const ordered = from === undefined || to === undefined || Number(from) <= Number(to)
  return within(from) && within(to) && ordered && (step === undefined || Number(step) > 0)
}
