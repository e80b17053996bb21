import { comes } from '../cron.ts'

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
