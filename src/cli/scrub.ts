import type { Config } from '../config.ts'
import { openLog } from '../log.ts'
import { type Scrubbed, scrub as scrubStore } from '../registry/scrub.ts'
import { beside } from './beside.ts'
import { exitCodes } from './failure.ts'
import { bytesText, type Output } from './output.ts'

export type ScrubFlags = {
  quick?: boolean | undefined
  repair?: boolean | undefined
  /** Bytes a second; 0: as fast as it goes. */
  rate?: number | undefined
  dropMany?: boolean | undefined
}

const progressMs = 2_000

/**
 * Compares the store and the database, and says what is wrong; answers the exit code: 2 where something is. The server
 * may be running. What was stopped goes on where it was.
 */
export async function scrub(config: Config, flags: ScrubFlags, output: Output): Promise<number> {
  const { quick = false, repair = false, rate, dropMany = false } = flags
  const mode = quick ? 'quick' : 'full'
  return beside(
    config,
    openLog('silent'),
    async ({ deps, signal }) => {
      const started = performance.now()
      let [next, before] = [started + progressMs, -1]
      const done = await scrubStore(deps, {
        ...{ mode, repair, dropMany, signal },
        ...(rate === undefined ? {} : { rate }),
        onProgress({ phase, blobs, bytes, objects, manifests, found }) {
          if (before < 0) before = bytes
          const now = performance.now()
          if (now < next) return
          next = now + progressMs
          const speed = bytesText(((bytes - before) / (now - started)) * 1000)
          output.note(
            `${phase}: ${blobs} blobs (${bytesText(bytes)}, ${speed}/s), ${objects} objects, ${manifests} manifests; ${found} wrong`,
          )
        },
      })
      if (!done) {
        output.result({ running: true }, () => 'a scrub is under way already: see "packs scrub findings"')
        return exitCodes.failed
      }
      output.result(done, () => inWords(done, repair))
      return Object.keys(done.open).length > 0 ? exitCodes.mismatch : exitCodes.ok
    },
    () => output.note('stopped; the next scrub goes on from here'),
  )
}

function inWords(
  { blobs, bytes, objects, manifests, found, repaired, open, spared }: Scrubbed,
  repair: boolean,
): string {
  const kinds = Object.entries(open)
  return [
    `${blobs} blobs looked at, ${bytesText(bytes)} hashed; ${objects} objects and ${manifests} manifests held against the database`,
    `${found} found to be wrong${repair ? `, ${repaired} of them set right` : ''}`,
    ...(spared === 0
      ? []
      : [
          `${spared} orphans were left: so many that this may not be the database of this store. If it is: --drop-many; if the database was lost: packs rebuild --from-store`,
        ]),
    ...kinds.map(([kind, count]) => `open: ${count} ${kind}: ${adviceFor[kind] ?? ''}`),
    ...(kinds.length === 0 ? ['nothing is wrong'] : ['"packs scrub findings" names them.']),
  ].join('\n')
}

const pushAgain = 'push that content again, or "packs scrub --repair"'

/** What to do about each kind of finding. */
export const adviceFor: Readonly<Record<string, string>> = {
  'object-missing': pushAgain,
  'wrong-bytes': pushAgain,
  unreadable: `look after the disk; ${pushAgain}`,
  'wrong-size': '"packs scrub --repair" corrects the row',
  'odd-key': '"packs scrub --repair" gives the object a proper key',
  'orphan-object': '"packs scrub --repair" deletes it, "packs rebuild --from-store" takes it in',
  'orphan-chunk': '"packs scrub --repair" deletes it',
  'odd-object': 'nothing of this registry: it is left alone',
  'wrong-manifest': 'push that manifest again, or "packs scrub --repair"',
}
