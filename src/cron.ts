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
