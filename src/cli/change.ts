import type { Command } from 'commander'
import type { PackState } from '../client/client.ts'
import { PacksError } from '../client/failure.ts'
import { connect } from './connect.ts'
import { parseExact } from './reference.ts'
import { type CommonFlags, common, type Here, type Run, run } from './run.ts'

type ChannelFlags = CommonFlags & { allowOlder?: true; reason?: string }
type StateFlags = CommonFlags & { message?: string; replacedBy?: string }

/** The commands that change what is published. */
export function addChanges(packs: Command, here: Here): void {
  addChannel(packs, here)
  const states: [name: string, state: PackState, description: string][] = [
    ['deprecate', 'deprecated', 'say that a version should not be used any more; it is still resolved, with a warning'],
    ['yank', 'yanked', 'leave a version out of resolution; who has it in a lock still gets it'],
    ['unyank', 'active', 'take back a yank or a deprecation'],
  ]
  for (const [name, state, description] of states) {
    const command = packs.command(name).description(description).argument('<id@version>', 'the exact version')
    if (state !== 'active') command.option('--message <text>', 'why, for those who use it')
    if (state === 'deprecated') command.option('--replaced-by <pack>', 'what to use instead: id, or id@version')
    const reason = {
      deprecated: ' --replaced-by net-policy@2.0.0',
      yanked: ' --message "denies everything"',
      active: '',
    }
    common(command, `packs ${name} net-policy@1.4.0${reason[state]}`).action((pack: string, flags: StateFlags) =>
      run(here, flags, (at) => changeState(at, pack, state, flags)),
    )
  }
  const remove = packs
    .command('delete')
    .description('delete a version; its number is never used again')
    .argument('<id@version>', 'the exact version')
    .option('--force', 'although other packs need it')
  common(remove, 'packs delete net-policy@1.4.0').action((pack: string, flags: CommonFlags & { force?: true }) =>
    run(here, flags, (at) => deleteVersion(at, pack, flags)),
  )
}

async function changeState(at: Run, text: string, state: PackState, flags: StateFlags): Promise<void> {
  const { packId, version } = parseExact(text)
  const client = await connect(at)
  const { message, replacedBy } = flags
  const pack = await client.setState(packId, version, { state, message, replacedBy }, { signal: at.signal })
  at.output.result({ pack }, () => `${packId} ${version} is ${pack.state} now`)
}

async function deleteVersion(at: Run, text: string, { force }: { force?: true }): Promise<void> {
  const { packId, version } = parseExact(text)
  const client = await connect(at)
  const deleted = await client.remove(packId, version, { force, signal: at.signal })
  at.output.result({ packId, version, deleted }, () =>
    deleted ? `deleted ${packId} ${version}` : `there is no ${packId} ${version}; nothing to do`,
  )
}

function addChannel(packs: Command, here: Here): void {
  const channel = packs.command('channel').description('channels: names such as stable that point at a version')
  const set = channel
    .command('set')
    .description('point a channel at a published version')
    .argument('<id>', 'id of the pack')
    .argument('<channel>', 'name of the channel, such as stable')
    .argument('<version>', 'the exact version')
    .option('--allow-older', 'although the channel points at a newer version; with --reason')
    .option('--reason <text>', 'why it goes back; the audit keeps it')
  common(set, 'packs channel set net-policy stable 1.4.0').action(
    (id: string, name: string, version: string, flags: ChannelFlags) =>
      run(here, flags, (at) => setChannel(at, [id, name, version], flags)),
  )
}

/** Moves a channel from what it was seen to point at: whoever moves it at the same time is not written over. */
async function setChannel(
  at: Run,
  [id, channel, text]: [string, string, string],
  { allowOlder, reason }: ChannelFlags,
) {
  const { packId, version } = parseExact(`${id}@${text}`)
  if (Boolean(allowOlder) !== Boolean(reason?.trim()))
    throw new PacksError('USAGE', '--allow-older and --reason go together: the audit keeps why a channel went back')
  const client = await connect(at)
  const versions = await client.versions(packId, { signal: at.signal })
  const now = versions.find((entry) => entry.channels.includes(channel))
  const set = await client.setChannel(packId, channel, version, {
    ...{ signal: at.signal, ifMatch: now?.manifestDigest },
    allowOlder: allowOlder && reason ? { reason } : undefined,
  })
  at.output.result({ ...set, ...(now ? { from: now.version } : {}) }, () => {
    const from = now && now.version !== version ? ` (was ${now.version})` : ''
    return `${channel} of ${packId} points at ${set.version}${from}`
  })
}
