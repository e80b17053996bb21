import { type Command, InvalidArgumentError, Option } from 'commander'
import type { Client, MirrorParity, MirrorRun, NewMirror, PackType } from '../client/client.ts'
import { PacksError } from '../client/failure.ts'
import { readStdin } from './ask.ts'
import { connect } from './connect.ts'
import { outcomeOf } from './outcome.ts'
import { aligned, bytesText, table } from './output.ts'
import { type CommonFlags, common, type Here, type Run, run } from './run.ts'

type AddFlags = CommonFlags & {
  to?: string
  from?: string
  prefix?: string
  pack?: string[]
  versions?: string
  channel?: string[]
  type?: PackType[]
  closure?: true
  referrers: boolean
  schedule?: string
  username?: string
  passwordStdin?: true
  tokenStdin?: true
  allowPrivate?: true
  host?: string[]
  concurrency?: number
  rate?: number
}
type RunFlags = CommonFlags & { dryRun?: true; wait?: true }

export function addMirror(packs: Command, here: Here): void {
  const mirror = packs.command('mirror').description('other registries that packs are pushed to or pulled from')
  mirror.addHelpText('after', '\nExample:\n  packs mirror list')
  addAdd(mirror, here)
  const listing = mirror.command('list').description('list the mirrors')
  common(listing, 'packs mirror list').action((flags: CommonFlags) => run(here, flags, list))
  const removing = mirror
    .command('remove')
    .description('forget a mirror; what it has carried stays')
    .argument('<name>', 'its name')
  common(removing, 'packs mirror remove site-b').action((name: string, flags: CommonFlags) =>
    run(here, flags, async (at) => {
      const removed = await (await connect(at)).mirrors.remove(name, { signal: at.signal })
      at.output.result({ removed }, () => (removed ? `removed ${name}` : `there was no mirror ${name}`))
    }),
  )
  const running = mirror
    .command('run')
    .description('have a mirror run now, as a job; only what is missing is moved')
    .argument('<name>', 'its name')
    .option('--dry-run', 'only look what it would do')
    .option('--wait', 'wait for its end, and say how both sides compare')
  common(running, 'packs mirror run site-b --wait').action((name: string, flags: RunFlags) =>
    run(here, flags, (at) => runNow(at, name, flags)),
  )
  const showing = mirror.command('status').description('say how its runs went').argument('<name>', 'its name')
  common(showing, 'packs mirror status site-b').action((name: string, flags: CommonFlags) =>
    run(here, flags, (at) => status(at, name)),
  )
  const comparing = mirror
    .command('parity')
    .description('say how both sides compared by digest when it last ran')
    .argument('<name>', 'its name')
  common(comparing, 'packs mirror parity site-b').action((name: string, flags: CommonFlags) =>
    run(here, flags, async (at) => {
      const client = await connect(at)
      showParity(at, await client.mirrors.parity(name, { signal: at.signal }))
    }),
  )
}

function addAdd(mirror: Command, here: Here): void {
  const many = (value: string, before: string[] = []) => [...before, value]
  const adding = mirror
    .command('add')
    .description('set up a mirror')
    .argument('<name>', 'what it is to be called')
    .option('--to <url>', 'push to this registry')
    .option('--from <url>', 'pull from this registry')
    .option('--prefix <name>', 'what stands before the ids of packs there (default: packs)')
    .option('--pack <pattern>', 'a pack id, with * for any characters; may be repeated (default: all)', many)
    .option('--versions <range>', 'only versions in this range')
    .option('--channel <channel>', 'only versions that this channel names; may be repeated', many)
    .addOption(
      new Option('--type <type...>', 'only packs of these types').choices(['policy', 'analyzer', 'task', 'bundle']),
    )
    .option('--closure', 'with all that they need')
    .option('--no-referrers', 'without signatures, SBOMs and attestations')
    .option('--schedule <cron>', 'when it runs by itself: five fields of cron, in UTC')
    .option('--username <name>', 'who logs in there; with --password-stdin')
    .option('--password-stdin', 'read the password from stdin')
    .option('--token-stdin', 'read a bearer token from stdin')
    .option('--allow-private', 'it may have a private or loopback address')
    .option('--host <host>', 'a further host that belongs to it, such as its token service; may be repeated', many)
    .option('--concurrency <count>', 'connections at a time', countOf)
    .option('--rate <bytes>', 'bytes per second at most', countOf)
  common(adding, 'packs mirror add site-b --to https://registry.site-b.example --pack "policy-*" --closure').action(
    (name: string, flags: AddFlags) => run(here, flags, (at) => add(at, name, flags)),
  )
}

function countOf(text: string): number {
  if (/^[1-9]\d{0,14}$/.test(text)) return Number(text)
  throw new InvalidArgumentError('It is a whole number above 0.')
}

async function add(at: Run, name: string, flags: AddFlags): Promise<void> {
  const url = flags.to ?? flags.from
  if (!url || (flags.to && flags.from)) throw new PacksError('USAGE', 'give either --to or --from')
  const { pack, versions, channel, type, closure, referrers, schedule, prefix } = flags
  const mirror: NewMirror = {
    ...{ name, direction: flags.to ? 'push' : 'pull', url },
    ...(prefix ? { prefix } : {}),
    ...(schedule ? { schedule } : {}),
    selection: {
      ...(pack ? { packs: pack } : {}),
      ...(versions ? { versions } : {}),
      ...(channel ? { channels: channel } : {}),
      ...(type ? { types: type } : {}),
      ...(closure ? { closure } : {}),
      referrers,
    },
    credentials: await credentialsOf(flags),
    options: {
      ...(flags.allowPrivate ? { allowPrivate: true } : {}),
      ...(flags.host ? { hosts: flags.host } : {}),
      ...(flags.concurrency ? { concurrency: flags.concurrency } : {}),
      ...(flags.rate ? { bytesPerSecond: flags.rate } : {}),
    },
  }
  const client = await connect(at)
  const added = await client.mirrors.add(mirror, { signal: at.signal })
  at.output.result({ mirror: added }, () => `${name} is set up; packs mirror run ${name} --wait runs it`)
}

async function credentialsOf({ username, passwordStdin, tokenStdin }: AddFlags) {
  if (tokenStdin && (username || passwordStdin))
    throw new PacksError('USAGE', '--token-stdin goes without --username and --password-stdin')
  if (Boolean(username) !== Boolean(passwordStdin))
    throw new PacksError('USAGE', '--username and --password-stdin go together')
  if (tokenStdin) return { token: await readStdin('the token') }
  return username ? { username, password: await readStdin('the password') } : null
}

async function list(at: Run): Promise<void> {
  const client = await connect(at)
  const mirrors = await client.mirrors.list({ signal: at.signal })
  at.output.result({ mirrors }, () =>
    table(
      ['NAME', 'DIRECTION', 'REGISTRY', 'SCHEDULE', 'PACKS'],
      mirrors.map(({ name, direction, url, prefix, schedule, selection }) => [
        ...[name, direction, `${url}/${prefix}`, schedule ?? '-', (selection.packs ?? ['*']).join(' ')],
      ]),
    ),
  )
  if (!at.output.json && mirrors.length === 0) at.output.note('there is no mirror; packs mirror add sets one up')
}

async function status(at: Run, name: string): Promise<void> {
  const client = await connect(at)
  const mirror = await client.mirrors.show(name, { signal: at.signal })
  const runs = await client.mirrors.runs(name, { signal: at.signal })
  at.output.result({ mirror, runs }, () =>
    table(
      ['RUN', 'STATE', 'ASKED FOR', 'ENDED', 'ABOUT'],
      runs.map(({ id, state, createdAt, finishedAt, dryRun, clean, error }) => {
        const outcome = error ?? (clean === undefined ? '' : clean ? 'both sides are the same' : 'the sides differ')
        return [id, state, createdAt, finishedAt ?? '-', dryRun ? `dry run: ${outcome}` : outcome]
      }),
    ),
  )
  if (!at.output.json && runs.length === 0) at.output.note(`${name} has not run yet`)
}

async function runNow(at: Run, name: string, { dryRun, wait }: RunFlags): Promise<void> {
  const client = await connect(at)
  const asked = await client.mirrors.run(name, { dryRun, signal: at.signal })
  if (!wait) {
    at.output.result({ run: asked }, () => `run ${asked.id} waits for a worker; packs mirror status ${name} tells more`)
    return
  }
  await ended(at, client, name, asked)
  const found = await client.mirrors.parity(name, { signal: at.signal })
  showParity(at, found)
  if (!found.parity.clean && !dryRun)
    throw new PacksError('MIRROR_INCOMPLETE', `${name} has run, and the sides are not the same`)
}

async function ended(at: Run, client: Client, name: string, { id }: MirrorRun): Promise<void> {
  const ask = async () => {
    const found = (await client.mirrors.runs(name, { signal: at.signal })).find((one) => one.id === id)
    if (!found) throw new PacksError('MIRROR_UNKNOWN', `${name} was removed meanwhile`)
    return found
  }
  await outcomeOf(at, ask, ({ state, error }) => {
    if (state === 'failed') throw new PacksError('MIRROR_FAILED', error ?? `run ${id} failed`)
    return state === 'completed'
  })
}

function showParity(at: Run, found: MirrorParity): void {
  const { clean, counts, moved, entries, problems, more, dryRun } = found.parity
  at.output.result(found, () => {
    const others = entries.filter(({ state }) => state !== 'same')
    const rows = others.map(({ packId, kind, reference, state, detail }) => [
      packId,
      kind,
      reference,
      state,
      detail ?? '',
    ])
    const summary = [
      ['same', String(counts.same)],
      ['missing', String(counts.missing)],
      ['different', String(counts.different)],
      ['refused', String(counts.refused)],
      ['moved', `${moved.manifests} manifests, ${moved.blobs} blobs, ${bytesText(moved.bytes)}`],
    ]
    const words = [...problems, ...(more > 0 ? [`${more} more are not listed`] : [])]
      .map((line) => `${line}\n`)
      .join('')
    const verdict = clean ? 'both sides are the same' : dryRun ? 'this is what a run would see to' : 'the sides differ'
    return `${table(['PACK', 'KIND', 'REFERENCE', 'STATE', 'ABOUT'], rows)}${words}${aligned(summary)}${verdict}\n`
  })
}
