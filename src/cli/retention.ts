import type { Command } from 'commander'
import type { Client, RetentionPolicy, RetentionRun } from '../client/client.ts'
import { PacksError } from '../client/failure.ts'
import { connect } from './connect.ts'
import { readJson } from './document.ts'
import { addHolds } from './hold.ts'
import { outcomeOf } from './outcome.ts'
import { aligned, bytesText, printable, table } from './output.ts'
import { type CommonFlags, common, type Here, type Run, run } from './run.ts'

type SetFlags = CommonFlags & { enable?: true; disable?: true }
type RunFlags = CommonFlags & { dryRun?: true; file?: string; onlyRemoved?: true; wait?: true }

/** The commands for what is removed by itself, and what never is. */
export function addRetention(packs: Command, here: Here): void {
  const retention = packs.command('retention').description('what is removed by itself, and what never is')
  retention.addHelpText('after', '\nExample:\n  packs retention run net --dry-run')
  addPolicies(retention, here)
  addRuns(retention, here)
  addHolds(retention, here)
}

function addPolicies(retention: Command, here: Here): void {
  const setting = retention
    .command('set')
    .description('set a policy from a file; without one, only turn it on or off')
    .argument('<name>', 'what it is to be called')
    .argument('[file]', 'the policy, in JSON (see spec/retention.md)')
    .option('--enable', 'apply it every night')
    .option('--disable', 'apply it only when told to, as a new one is')
  const example =
    'packs retention set net net-retention.json\npacks retention run net --dry-run\npacks retention set net --enable'
  common(setting, example).action((name: string, file: string | undefined, flags: SetFlags) =>
    run(here, flags, (at) => set(at, name, file, flags)),
  )
  const listing = retention.command('list').description('list the policies')
  common(listing, 'packs retention list').action((flags: CommonFlags) => run(here, flags, list))
  const showing = retention.command('show').description('show a policy, in JSON').argument('<name>', 'its name')
  common(showing, 'packs retention show net > net-retention.json').action((name: string, flags: CommonFlags) =>
    run(here, flags, async (at) => {
      const found = await (await connect(at)).retention.policy(name, { signal: at.signal })
      at.output.result({ policy: found }, () => JSON.stringify(found.policy, undefined, 2))
    }),
  )
  const removing = retention.command('remove').description('forget a policy').argument('<name>', 'its name')
  common(removing, 'packs retention remove net').action((name: string, flags: CommonFlags) =>
    run(here, flags, async (at) => {
      const removed = await (await connect(at)).retention.remove(name, { signal: at.signal })
      at.output.result({ removed }, () => (removed ? `removed ${name}` : `there was no policy ${name}`))
    }),
  )
}

async function set(at: Run, name: string, file: string | undefined, { enable, disable }: SetFlags): Promise<void> {
  if (enable && disable) throw new PacksError('USAGE', 'give either --enable or --disable')
  if (file === undefined && !enable && !disable)
    throw new PacksError('USAGE', 'give the file of the policy, or --enable, or --disable')
  const { retention } = await connect(at)
  const { signal } = at
  const before = await retention.policy(name, { signal }).catch((error: unknown) => {
    if (file !== undefined && error instanceof PacksError && error.code === 'POLICY_UNKNOWN') return undefined
    throw error
  })
  const policy = file === undefined ? before?.policy : ((await readJson(file)) as RetentionPolicy)
  if (policy === undefined) throw new PacksError('POLICY_UNKNOWN', `there is no policy ${name}`)
  const enabled = enable ?? (disable ? false : (before?.enabled ?? false))
  const stored = await retention.set(name, policy, { enabled, signal })
  at.output.result({ policy: stored }, () =>
    enabled
      ? `${name} is set, and applied every night; packs retention run ${name} --dry-run says what it would do now`
      : `${name} is set, and not enabled; packs retention run ${name} --dry-run says what it would do`,
  )
}

async function list(at: Run): Promise<void> {
  const policies = await (await connect(at)).retention.policies({ signal: at.signal })
  at.output.result({ policies }, () =>
    table(
      ['NAME', 'ENABLED', 'ABOUT', 'REPOSITORIES', 'SET BY', 'AT'],
      policies.map(({ name, enabled, policy, updatedBy, updatedAt }) => {
        const { repositories, except, ...kinds } = policy
        const places = [...repositories, ...(except ?? []).map((glob) => `but ${glob}`)]
        return [name, enabled ? 'yes' : 'no', Object.keys(kinds).join(' '), places.join(' '), updatedBy, updatedAt]
      }),
    ),
  )
  if (!at.output.json && policies.length === 0)
    at.output.note('there is no policy, so nothing is removed by itself; packs retention set makes one')
}

function addRuns(retention: Command, here: Here): void {
  const running = retention
    .command('run')
    .description('apply a policy, enabled or not, or all that are enabled; or only say what that would do')
    .argument('[name]', 'the policy (default: all that are enabled)')
    .option('--dry-run', 'only list each decision, and why')
    .option('--file <file>', 'a policy that is not stored, with --dry-run')
    .option('--only-removed', 'leave out what stays, with --dry-run')
    .option('--wait', 'wait for its end, and list what it removed')
  common(running, 'packs retention run net --dry-run').action((name: string | undefined, flags: RunFlags) =>
    run(here, flags, (at) => (flags.dryRun ? plan(at, name, flags) : runNow(at, name, flags))),
  )
  const listing = retention.command('runs').description('list the last runs')
  common(listing, 'packs retention runs').action((flags: CommonFlags) => run(here, flags, listRuns))
  const reporting = retention
    .command('report')
    .description('list what a run removed, what it spared, and why')
    .argument('<run>', 'its id')
  common(reporting, 'packs retention report 0199f0a2-5c1e-7a40-8a3b-2f6d1c9e4b59').action(
    (id: string, flags: CommonFlags) =>
      run(here, flags, async (at) => {
        const client = await connect(at)
        await report(at, client, await client.retention.showRun(id, { signal: at.signal }))
      }),
  )
}

/** Lines are written as they come: there may be a million. */
async function plan(at: Run, name: string | undefined, { file, onlyRemoved }: RunFlags): Promise<void> {
  const policy = file === undefined ? undefined : ((await readJson(file)) as RetentionPolicy)
  const { retention } = await connect(at)
  const { json } = at.output
  const decisions: object[] = []
  const sums = { kept: 0, removed: 0, freedBytes: 0 }
  for await (const page of retention.plan({ name, policy }, { signal: at.signal })) {
    sums.freedBytes += page.freedBytes
    for (const decision of page.decisions) {
      const { repository, name: what, action, reason } = decision
      sums[action === 'keep' ? 'kept' : 'removed']++
      if (onlyRemoved && action === 'keep') continue
      if (json) decisions.push(decision)
      else await write(`${action === 'keep' ? 'keep  ' : 'remove'}  ${repository} ${what}: ${reason}\n`)
    }
  }
  at.output.result({ decisions, ...sums }, () => '')
  if (!json)
    at.output.note(
      `${sums.removed} would be removed and ${sums.kept} kept; about ${bytesText(sums.freedBytes)} would be freed. Nothing was done`,
    )
}

async function write(text: string): Promise<void> {
  if (!process.stdout.write(printable(text))) await new Promise((resolve) => process.stdout.once('drain', resolve))
}

async function runNow(at: Run, name: string | undefined, { file, onlyRemoved, wait }: RunFlags): Promise<void> {
  if (file !== undefined || onlyRemoved) throw new PacksError('USAGE', '--file and --only-removed go with --dry-run')
  const client = await connect(at)
  const asked = await client.retention.run(name, { signal: at.signal })
  if (wait) return report(at, client, await ended(at, client, asked))
  at.output.result(
    { run: asked },
    () => `run ${asked.id} waits for a worker; packs retention report ${asked.id} tells more`,
  )
}

function ended(at: Run, client: Client, { id }: RetentionRun): Promise<RetentionRun> {
  return outcomeOf(
    at,
    () => client.retention.showRun(id, { signal: at.signal }),
    ({ state, error }) => {
      if (state === 'failed') throw new PacksError('RETENTION_FAILED', error ?? `run ${id} failed`)
      return state === 'completed'
    },
  )
}

async function listRuns(at: Run): Promise<void> {
  const runs = await (await connect(at)).retention.runs({ signal: at.signal })
  at.output.result({ runs }, () =>
    table(
      ['RUN', 'POLICY', 'ASKED BY', 'STATE', 'AT', 'REMOVED', 'SPARED', 'FREED', 'ABOUT'],
      runs.map(({ id, policy, askedBy, state, createdAt, removed, spared, freedBytes, error }) => [
        ...[id, policy ?? 'all enabled', askedBy, state, createdAt.replace(/\..*$/, 'Z'), String(removed)],
        ...[String(spared), bytesText(freedBytes), error ?? ''],
      ]),
    ),
  )
  if (!at.output.json && runs.length === 0) at.output.note('nothing has run yet')
}

async function report(at: Run, { retention }: Client, found: RetentionRun): Promise<void> {
  const { json } = at.output
  const removals: object[] = []
  for await (const removal of retention.removals(found.id, { signal: at.signal })) {
    if (json) removals.push(removal)
    else {
      const { repository, name, policy, reason, outcome, outcomeReason } = removal
      const why = outcome === 'removed' || outcome === undefined ? `${reason} (policy ${policy})` : outcomeReason
      await write(`${(outcome ?? 'waits').padEnd(7)}  ${repository} ${name}: ${why}\n`)
    }
  }
  at.output.result({ run: found, removals }, () => {
    const { state, planned, removed, spared, gone, freedBytes, kept } = found
    const rules = Object.entries(kept).map(([rule, count]) => `${rule} ${count}`)
    return aligned([
      ['state', found.error ? `${state}: ${found.error}` : state],
      ['removed', `${removed} of ${planned}${spared + gone > 0 ? `; spared ${spared}, gone already ${gone}` : ''}`],
      ['kept', rules.join(', ') || 'nothing'],
      ['freed', `about ${bytesText(freedBytes)}, once it is collected`],
    ])
  })
}
