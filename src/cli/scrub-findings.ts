import { type Command, InvalidArgumentError } from 'commander'
import type { ScrubFinding, ScrubPass } from '../client/client.ts'
import { connect } from './connect.ts'
import { bytesText, table } from './output.ts'
import { type CommonFlags, common, type Here, type Run, run } from './run.ts'

type FindingsFlags = CommonFlags & { all?: boolean; kind?: string; limit: number }

/** `packs scrub findings`: what scrubs of a registry did and found. */
export function addFindings(scrub: Command, here: Here): void {
  const findings = scrub
    .command('findings')
    .description('say what scrubs of a registry found to be wrong, and when the last ones were')
    .option('--all', 'also what is right again')
    .option('--kind <kind>', 'only these, such as object-missing')
    .option('--limit <count>', 'at most so many', countOf, 50)
  common(findings, 'packs scrub findings --kind object-missing').action((flags: FindingsFlags) =>
    run(here, flags, (at) => show(at, flags)),
  )
}

function countOf(text: string): number {
  if (/^[1-9]\d{0,6}$/.test(text)) return Number(text)
  throw new InvalidArgumentError('It is a whole number above 0.')
}

async function show(at: Run, { all = false, kind, limit }: FindingsFlags): Promise<void> {
  const client = await connect(at)
  const state = await client.scrubs.show({ all, kind, limit, signal: at.signal })
  at.output.result(state, () =>
    [
      ...state.passes.map(passLine),
      ...(state.passes.length === 0 ? ['nothing was scrubbed yet'] : []),
      '',
      table(['SEEN', 'KIND', 'WHAT', 'EXPECTED', 'FOUND', 'WHERE', 'REPAIRED'], state.findings.map(rowOf)) ||
        'nothing is wrong',
    ].join('\n'),
  )
  if (state.next !== undefined && !at.output.json) at.output.note(`there are more: --limit ${limit * 2}`)
}

function passLine({ mode, running, phase, finishedAt, startedAt, blobs, total, bytes, found }: ScrubPass): string {
  const when = finishedAt ? `finished ${finishedAt.replace(/\..*$/, 'Z')}` : `began ${startedAt.replace(/\..*$/, 'Z')}`
  const state = finishedAt ? '' : running ? `, now at ${phase}` : ', waits to be gone on with'
  const share = finishedAt || total === 0 ? '' : ` of about ${total}`
  return `${mode} scrub ${when}${state}: ${blobs}${share} blobs, ${bytesText(bytes)} hashed, ${found} wrong`
}

function rowOf(finding: ScrubFinding): string[] {
  const { lastSeen, kind, digest, key, expected, actual, repositories, repaired, quarantine } = finding
  const isContent = digest !== undefined && !kind.startsWith('orphan')
  const where = repositories.map(({ name, manifests }) => `${name}${manifests[0] ? `@${manifests[0]}` : ''}`)
  const more = where.length > 2 ? ` and ${where.length - 2} more` : ''
  return [
    ...[lastSeen.replace(/\..*$/, 'Z'), kind, (isContent ? digest : key) ?? '', expected ?? '', actual ?? ''],
    ...[`${where.slice(0, 2).join(', ')}${more}`, repaired ?? (quarantine ? `kept in ${quarantine}` : '')],
  ]
}
