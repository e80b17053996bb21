import { type Command, Option } from 'commander'
import type { ImportStatus } from '../client/client.ts'
import { connect } from './connect.ts'
import { reportText } from './import.ts'
import { aligned, bytesText, table } from './output.ts'
import { type CommonFlags, common, type Here, type Run, run } from './run.ts'

type State = ImportStatus['state']
type ListFlags = CommonFlags & { state?: State }

const states: State[] = ['receiving', 'verifying', 'publishing', 'published', 'failed']
const shown = 50

/** Bundle files that came, or are coming, into the registry. */
export function addImports(packs: Command, here: Here): void {
  const imports = packs.command('imports').description('bundles that came in by "packs import", or are on their way')
  imports.addHelpText('after', '\nExample:\n  packs imports list --state failed')
  const listing = imports
    .command('list')
    .description(`list the newest ${shown}`)
    .addOption(new Option('--state <state>', 'only those in this state').choices(states))
  common(listing, 'packs imports list --state failed').action((flags: ListFlags) =>
    run(here, flags, (at) => list(at, flags)),
  )
  const showing = imports.command('show').description('say how far one is, or what it found').argument('<id>', 'its id')
  common(showing, 'packs imports show 0b1c2d3e-4f50-4a6b-8c7d-9e0f1a2b3c4d').action((id: string, flags: CommonFlags) =>
    run(here, flags, async (at) => {
      const client = await connect(at)
      const found = await client.imports.find(id, { signal: at.signal })
      at.output.result({ import: found }, () => textOf(found, client.url))
    }),
  )
}

async function list(at: Run, { state }: ListFlags): Promise<void> {
  const client = await connect(at)
  const found: ImportStatus[] = []
  for await (const one of client.imports.list({ ...(state ? { state } : {}), signal: at.signal })) {
    if (found.length === shown) break
    found.push(one)
  }
  at.output.result({ imports: found }, () => table(['IMPORT', 'STATE', 'RECEIVED', 'BEGUN', 'ABOUT'], found.map(rowOf)))
  if (!at.output.json && found.length === 0) at.output.note('there is none')
}

function rowOf({ id, state, received, startedAt, error }: ImportStatus): string[] {
  const about = error ? `${error.key}: ${inWords(error.detail)}` : ''
  const time = startedAt.replace(/\..*$/, 'Z')
  return [id, state, bytesText(received), time, about.length > 80 ? `${about.slice(0, 79)}…` : about]
}

function inWords(detail: unknown): string {
  return typeof detail === 'string' ? detail : JSON.stringify(detail)
}

function textOf({ report, error, ...facts }: ImportStatus, url: string): string {
  const rows = Object.entries(facts).map(([name, value]) => [name, String(value)])
  const why = error ? [['error', `${error.key}: ${inWords(error.detail)}`]] : []
  const isPublished = report && facts.state === 'published'
  const problems = (report?.problems ?? []).map(({ packId, version, message }) =>
    packId === undefined ? `- ${message}` : `- ${packId} ${version ?? ''}: ${message}`,
  )
  return [aligned([...rows, ...why]), isPublished ? reportText(report, url) : problems.join('\n')]
    .filter(Boolean)
    .join('\n')
}
