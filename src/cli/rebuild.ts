import type { Config } from '../config.ts'
import type { Deps } from '../deps.ts'
import { openLog } from '../log.ts'
import { type LeftOut, type PackChange, rebuildPacks } from '../registry/rebuild.ts'
import { beside } from './beside.ts'

/** The exit code where manifests broke the rules and were left out. */
const invalid = 11

export type RebuildFlags = { dryRun?: boolean | undefined; json?: boolean | undefined }

/**
 * Makes the facade's rows again from the manifests under packs/, and says what differed; answers the exit code.
 * The server may be running. To cut it off does no harm: a pack is set right as a whole.
 */
export function rebuild(
  config: Config,
  { dryRun = false, json = false }: RebuildFlags,
  say: (text: string) => void,
): Promise<number> {
  return beside(config, openLog('warn'), ({ deps, signal }) => run(deps, { dryRun, json }, say, signal))
}

async function run(
  deps: Deps,
  { dryRun, json }: { dryRun: boolean; json: boolean },
  say: (text: string) => void,
  signal: AbortSignal,
): Promise<number> {
  const changes: PackChange[] = []
  const allLeftOut: LeftOut[] = []
  let looked = 0
  for await (const { change, leftOut } of rebuildPacks(deps, { dryRun })) {
    signal.throwIfAborted()
    looked++
    allLeftOut.push(...leftOut)
    if (change) changes.push(change)
    if (json) continue
    if (change) say(`${inWords(change)}\n`)
    for (const { repository, tag, reason } of leftOut)
      say(`left out: ${repository}${tag ? `:${tag}` : ''}: ${reason}\n`)
  }
  if (json) say(`${JSON.stringify({ dryRun, looked, changes, leftOut: allLeftOut }, undefined, 2)}\n`)
  else
    say(
      `${looked} packs, ${changes.length} ${dryRun ? 'would be set right' : 'set right'}, ${allLeftOut.length} manifests left out\n`,
    )
  return allLeftOut.length > 0 ? invalid : 0
}

/** `net: added 1.0.0, 1.1.0; changed 1.2.0 (document); removed 2.0.0; tag set right of 2.1.0; latest, list entry anew`. */
function inWords({ packId, added, changed, removed, retagged, shown }: PackChange): string {
  const parts = [
    added.length > 0 && `added ${added.join(', ')}`,
    changed.length > 0 &&
      `changed ${changed.map(({ version, fields }) => `${version} (${fields.join(', ')})`).join(', ')}`,
    removed.length > 0 && `removed ${removed.join(', ')}`,
    retagged.length > 0 && `tag set right of ${retagged.join(', ')}`,
    shown.length > 0 && `${shown.join(', ')} anew`,
  ]
  return `${packId}: ${parts.filter(Boolean).join('; ')}`
}
