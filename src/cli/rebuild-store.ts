import { PacksError } from '../client/failure.ts'
import type { Config } from '../config.ts'
import { openLog } from '../log.ts'
import { parseName } from '../oci/name.ts'
import { rebuildFromStore, type StoreRebuild } from '../registry/rebuild-store.ts'
import { beside } from './beside.ts'
import { exitCodes } from './failure.ts'
import { bytesText, type Output } from './output.ts'

export type RebuildStoreFlags = {
  trust?: boolean | undefined
  /** Seconds. */
  keep?: number | undefined
  link?: string | undefined
}

const day = 24 * 60 * 60
const progressMs = 2_000

/** Makes the rows of blobs from what is in the store; answers the exit code: 2 where objects are wrong. */
export async function rebuildStore(config: Config, flags: RebuildStoreFlags, output: Output): Promise<number> {
  const { trust = false, keep = 30 * day } = flags
  const link = flags.link === undefined ? undefined : parseName(flags.link)
  if (flags.link !== undefined && !link)
    throw new PacksError('USAGE', `--link: ${JSON.stringify(flags.link)} is no name of a repository`)
  return beside(config, openLog('silent'), async ({ deps, signal }) => {
    let next = performance.now() + progressMs
    const onProgress = ({ objects, bytes, added }: StoreRebuild) => {
      if (performance.now() < next) return
      next = performance.now() + progressMs
      output.note(`${objects} objects (${bytesText(bytes)}) so far, ${added} rows made`)
    }
    const done = await rebuildFromStore(deps, { trust, keepSeconds: keep, link, signal, onProgress })
    output.result({ ...done, trust, keepDays: keep / day, link }, () => inWords(done, keep, link))
    return done.wrong.length > 0 ? exitCodes.mismatch : exitCodes.ok
  })
}

function inWords({ objects, added, healed, wrong }: StoreRebuild, keep: number, link: string | undefined): string {
  return [
    `${objects} objects that no row named; ${added} blobs are held again, ${healed} that were damaged are right again`,
    ...wrong.map((key) => `wrong: ${key}`),
    ...(added === 0
      ? []
      : [
          `They are kept for ${Math.round(keep / day)} days, and then as long as manifests refer to them.`,
          link
            ? `They can be read in the repository ${link}, and mounted from there.`
            : 'They are in no repository: push what refers to them again, or use --link to read them.',
          'Repositories, manifests, tags and packs are in the database only: "packs restore" brings them back.',
        ]),
  ].join('\n')
}
