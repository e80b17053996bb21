import type { Options } from './main.ts'
import { cleanUpTags } from './upkeep-delete.ts'
import { webhooks } from './upkeep-events.ts'
import { collectGarbage } from './upkeep-gc.ts'
import { scrubStore } from './upkeep-scrub.ts'
import { printVerdicts, type Verdict } from './verdicts.ts'

// What a registry does for itself, beside those whom it serves. Each row is a file of its own.

/** A row: what was measured, as lines of the table. */
export type UpkeepRow = (options: Options) => Promise<Verdict[]>

/** By the name for --only, in the order of the table. */
const rows: Readonly<Record<string, UpkeepRow>> = {
  gc: collectGarbage,
  scrub: scrubStore,
  'delete-tag': cleanUpTags,
  webhooks,
}

export const upkeepRowNames = Object.keys(rows)

/** Prints one table; gives whether every target was met, or --check was not asked for. */
export async function upkeep(options: Options): Promise<boolean> {
  const lines: Verdict[] = []
  for (const [name, row] of Object.entries(rows)) if (options.only.includes(name)) lines.push(...(await row(options)))
  printVerdicts(lines)
  return !options.check || lines.every((line) => line.met)
}
