import type { Deps } from '../deps.ts'
import { writeExport } from '../registry/export-files.ts'
import type { JobContext } from './jobs.ts'

/** Makes a bundle file, and puts it into the store. */
export function exportFile(deps: Deps, { export: id }: { export: string }, context: JobContext) {
  return writeExport(deps, id, context)
}
