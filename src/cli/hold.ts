import type { Command } from 'commander'
import type { Hold } from '../client/client.ts'
import { connect } from './connect.ts'
import { table } from './output.ts'
import { parseExact } from './reference.ts'
import { type CommonFlags, common, type Here, type Run, run } from './run.ts'

/** The command that holds a version; as it is below `packs`, and below `packs retention`. */
export function addHold(parent: Command, here: Here): void {
  const holding = parent
    .command('hold')
    .description('keep a version from being deleted by anybody, until it is released')
    .argument('<id@version>', 'the exact version')
    .requiredOption('--reason <text>', 'why; whoever wants to delete it is told')
  common(holding, 'packs hold net-policy@1.4.0 --reason "evidence in case 7"').action(
    (pack: string, flags: CommonFlags & { reason: string }) => run(here, flags, (at) => hold(at, pack, flags.reason)),
  )
}

export function addHolds(retention: Command, here: Here): void {
  addHold(retention, here)
  const releasing = retention
    .command('release')
    .description('let a version that was held be deleted again')
    .argument('<id@version>', 'the exact version')
  common(releasing, 'packs retention release net-policy@1.4.0').action((pack: string, flags: CommonFlags) =>
    run(here, flags, async (at) => {
      const { packId, version } = parseExact(pack)
      const client = await connect(at)
      const released = await client.retention.release(packId, version, { signal: at.signal })
      at.output.result({ packId, version, released }, () =>
        released ? `released ${packId} ${version}` : `${packId} ${version} was not held`,
      )
    }),
  )
  const listing = retention.command('holds').description('list the versions that are held')
  common(listing, 'packs retention holds').action((flags: CommonFlags) => run(here, flags, list))
}

async function hold(at: Run, pack: string, reason: string): Promise<void> {
  const { packId, version } = parseExact(pack)
  const client = await connect(at)
  const held = await client.retention.hold(packId, version, reason, { signal: at.signal })
  at.output.result({ hold: held }, () => `${packId} ${version} is held; packs retention release ${pack} takes it back`)
}

async function list(at: Run): Promise<void> {
  const client = await connect(at)
  const holds: Hold[] = []
  for await (const held of client.retention.holds({ signal: at.signal })) holds.push(held)
  at.output.result({ holds }, () =>
    table(
      ['PACK', 'VERSION', 'HELD BY', 'SINCE', 'WHY'],
      holds.map(({ packId, version, heldBy, heldAt, reason }) => [packId, version, heldBy, heldAt, reason]),
    ),
  )
  if (!at.output.json && holds.length === 0) at.output.note('no version is held')
}
