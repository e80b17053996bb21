import { type Command, Option } from 'commander'
import type { AuditEvent } from '../client/client.ts'
import { PacksError } from '../client/failure.ts'
import { connect } from './connect.ts'
import { table } from './output.ts'
import { type CommonFlags, common, type Here, type Run, run } from './run.ts'

type ListFlags = CommonFlags & {
  who?: string
  of?: string
  outcome?: AuditEvent['outcome']
  since?: string
  until?: string
  limit: string
}

/** The commands for what a registry wrote down of writes and refusals. */
export function addAudit(packs: Command, here: Here): void {
  const audit = packs.command('audit').description('what was done and what was refused: by whom, from where')
  audit.addHelpText('after', '\nExample:\n  packs audit list --outcome refused --since 2027-01-31')
  const filters = (command: Command) =>
    command
      .option('--who <name>', 'only what this user or token did')
      .option('--of <repository>', 'only what was done to this repository')
      .addOption(new Option('--outcome <outcome>', 'only these').choices(['done', 'refused', 'failed']))
      .option('--since <time>', 'only then or later: a time, or a day')
      .option('--until <time>', 'only before: a time, or a day')
  const list = filters(audit.command('list').description('show events, the newest first')).option(
    '--limit <count>',
    'at most so many',
    '50',
  )
  common(list, 'packs audit list --of packs/net-policy').action((flags: ListFlags) =>
    run(here, flags, (at) => listEvents(at, flags)),
  )
  const exporting = filters(
    audit.command('export').description('write every event as a line of JSON, the newest first'),
  )
  common(exporting, 'packs audit export --since 2027-01-01 > audit.jsonl').action((flags: ListFlags) =>
    run(here, flags, (at) => exportEvents(at, flags)),
  )
  const verify = audit
    .command('verify')
    .description('check that nothing was changed or taken away; ends with 2 where something was')
    .option('--head <digest>', 'the digest of the last seal at some time before: it must still be there')
  common(verify, 'packs audit verify --head "$(cat audit.head)"').action((flags: CommonFlags & { head?: string }) =>
    run(here, flags, (at) => verifyAudit(at, flags)),
  )
}

const queryOf = ({ who, of: repository, outcome, since, until }: ListFlags) => ({
  ...{ who, repository, outcome, since, until },
})

async function listEvents(at: Run, flags: ListFlags): Promise<void> {
  const most = Number(flags.limit)
  if (!Number.isSafeInteger(most) || most < 1) throw new PacksError('USAGE', '--limit is a whole number above 0')
  const client = await connect(at)
  const events: AuditEvent[] = []
  const query = { ...queryOf(flags), pageSize: Math.min(most, 1000) }
  for await (const event of client.audit.list(query, { signal: at.signal })) {
    events.push(event)
    if (events.length === most) break
  }
  at.output.result({ events }, () => {
    const rows = events.map((event) => [
      ...[event.at, event.who, event.address, event.outcome, String(event.status)],
      ...[event.action.split(' ')[0] ?? '', `${event.path}${event.tags ? ` ${event.tags}` : ''}`],
    ])
    return table(['WHEN', 'WHO', 'FROM', 'OUTCOME', 'STATUS', 'METHOD', 'PATH'], rows) || 'nothing'
  })
}

async function exportEvents(at: Run, flags: ListFlags): Promise<void> {
  const client = await connect(at)
  for await (const event of client.audit.list(queryOf(flags), { signal: at.signal }))
    if (!process.stdout.write(`${JSON.stringify(event)}\n`))
      await new Promise<void>((resolve) => process.stdout.once('drain', resolve))
}

async function verifyAudit(at: Run, { head }: { head?: string }): Promise<void> {
  const client = await connect(at)
  const found = await client.audit.verify({ head, signal: at.signal })
  const { intact, seals, events, unsealed, broken, headFound } = found
  if (!intact) {
    const what = broken.length > 0 ? `seals ${broken.join(', ')} do not hold` : 'seals are missing'
    const words = headFound === false ? 'the seal with that digest is gone' : what
    throw new PacksError('AUDIT_BROKEN', `the audit was changed: ${words}`, { about: found })
  }
  at.output.result(found, () =>
    [
      `intact: ${events} events under ${seals} seals; ${unsealed} wait to be sealed`,
      ...(found.head ? [`head ${found.head}`] : []),
    ].join('\n'),
  )
}
