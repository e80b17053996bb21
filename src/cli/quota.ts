import { type Command, InvalidArgumentError } from 'commander'
import type { Quota } from '../client/client.ts'
import { PacksError } from '../client/failure.ts'
import { connect } from './connect.ts'
import { aligned, bytesText, table } from './output.ts'
import { type CommonFlags, common, type Here, type Run, run } from './run.ts'
import { parseSize } from './size.ts'

type SetFlags = CommonFlags & { bytes?: string; versions?: number }

/** The commands for how much repositories may hold. */
export function addQuota(packs: Command, here: Here): void {
  const quota = packs.command('quota').description('how much repositories may hold')
  quota.addHelpText('after', "\nExample:\n  packs quota set 'packs/team-*' --bytes 50GB --versions 500")
  const setting = quota
    .command('set')
    .description('limit what the repositories of a glob hold together, in the place of an earlier limit')
    .argument('<repositories>', 'a glob: packs/net-* or mirror/**')
    .option('--bytes <size>', 'bytes in all, such as 50GB; a blob counts in every repository that has it')
    .option('--versions <count>', 'manifests, signatures and the like not counted', wholeNumber)
  common(setting, "packs quota set 'packs/team-*' --bytes 50GB --versions 500").action(
    (repositories: string, flags: SetFlags) => run(here, flags, (at) => setQuota(at, repositories, flags)),
  )
  const listing = quota.command('list').description('list the quotas, and what is used of them')
  common(listing, 'packs quota list').action((flags: CommonFlags) => run(here, flags, listQuotas))
  const showing = quota
    .command('show')
    .description('show one quota, and what is used of it')
    .argument('<repositories>', 'its glob')
  common(showing, "packs quota show 'packs/team-*'").action((repositories: string, flags: CommonFlags) =>
    run(here, flags, async (at) => {
      const quota = await (await connect(at)).quotas.get(repositories, { signal: at.signal })
      at.output.result({ quota }, () => aligned(factsOf(quota)))
    }),
  )
  const removing = quota.command('remove').description('take a limit away').argument('<repositories>', 'its glob')
  common(removing, "packs quota remove 'packs/team-*'").action((repositories: string, flags: CommonFlags) =>
    run(here, flags, async (at) => {
      const removed = await (await connect(at)).quotas.remove(repositories, { signal: at.signal })
      at.output.result({ removed }, () =>
        removed ? `${repositories} has no quota any more` : `there was no quota for ${repositories}`,
      )
    }),
  )
}

async function setQuota(at: Run, repositories: string, flags: SetFlags): Promise<void> {
  const bytes = flags.bytes === undefined ? undefined : parseSize(flags.bytes)
  const { versions } = flags
  if (bytes === undefined && versions === undefined)
    throw new PacksError('USAGE', 'say what to limit: --bytes 50GB, --versions 500, or both')
  const quota = await (await connect(at)).quotas.set(repositories, { bytes, versions }, { signal: at.signal })
  at.output.result({ quota }, () => aligned(factsOf(quota)))
  if (isSpent(quota)) at.output.note('More than that is there already: it stays, and nothing can be added')
}

async function listQuotas(at: Run): Promise<void> {
  const quotas = await (await connect(at)).quotas.list({ signal: at.signal })
  at.output.result({ quotas }, () => {
    const rows = quotas.map((quota) => [
      ...[quota.repositories, bytesText(quota.bytes), quota.maxBytes === undefined ? '-' : bytesText(quota.maxBytes)],
      ...[String(quota.versions), String(quota.maxVersions ?? '-'), shareOf(quota)],
    ])
    return table(['REPOSITORIES', 'BYTES', 'OF', 'VERSIONS', 'OF', 'USED'], rows) || 'no quotas'
  })
}

function factsOf(quota: Quota): string[][] {
  const { repositories, bytes, maxBytes, versions, maxVersions, setBy, setAt } = quota
  return [
    ['repositories', repositories],
    ['bytes', `${bytesText(bytes)} of ${maxBytes === undefined ? 'any number' : bytesText(maxBytes)}`],
    ['versions', `${versions} of ${maxVersions ?? 'any number'}`],
    ['used', shareOf(quota)],
    ['set', `by ${setBy}, ${setAt}`],
  ]
}

/** How full it is, by the limit that is nearer. */
function shareOf({ bytes, maxBytes, versions, maxVersions }: Quota): string {
  const share = (used: number, most: number | undefined) => (most === undefined ? 0 : most === 0 ? 1 : used / most)
  return `${Math.round(100 * Math.max(share(bytes, maxBytes), share(versions, maxVersions)))} %`
}

function isSpent({ bytes, maxBytes = Infinity, versions, maxVersions = Infinity }: Quota): boolean {
  return bytes > maxBytes || versions > maxVersions
}

function wholeNumber(text: string): number {
  if (/^\d{1,15}$/.test(text)) return Number(text)
  throw new InvalidArgumentError('It is a whole number.')
}
