import type { Command } from 'commander'
import type { Pack, PackVersion } from '../client/client.ts'
import { connect } from './connect.ts'
import { aligned, bytesText, table } from './output.ts'
import { parseReference } from './reference.ts'
import { type CommonFlags, common, type Here, type Run, run } from './run.ts'

type Flags = CommonFlags & { runner?: string }

export function addInfo(packs: Command, here: Here): void {
  const info = packs
    .command('info')
    .description('show a pack')
    .argument('<pack>', 'id, or id@ and a version, a range or a channel')
    .option('--runner <version>', 'the newest version that this runner can run')
  common(info, 'packs info net-policy\npacks info net-policy@^1.2 --json').action((pack: string, flags: Flags) =>
    run(here, flags, (at) => showPack(at, pack, flags)),
  )
  const versions = packs
    .command('versions')
    .description('list the versions of a pack, the newest first')
    .argument('<id>', 'id of the pack')
    .option('--runner <version>', 'only what this runner can run')
  common(versions, 'packs versions net-policy --runner 1.5.0').action((id: string, flags: Flags) =>
    run(here, flags, (at) => showVersions(at, id, flags)),
  )
}

async function showPack(at: Run, text: string, { runner }: Flags): Promise<void> {
  const { packId, selector } = parseReference(text)
  const client = await connect(at)
  const pack = await client.pack(packId, { version: selector, runner, signal: at.signal })
  at.output.result({ pack }, () => {
    const head = `${at.output.bold(`${pack.packId} ${pack.version}`)}  ${pack.type}${stateText(pack)}\n`
    return `${head}${pack.description ? `${pack.description}\n` : ''}\n${aligned(factsOf(pack))}`
  })
}

function factsOf(pack: Pack): string[][] {
  const { metadata, dependencies } = pack
  const facts: [string, unknown][] = [
    ['name', pack.name],
    ['author', pack.author],
    ['published', pack.publishedAt],
    ['content', `${bytesText(pack.size)}, ${pack.mediaType}`],
    ['digest', pack.digest],
    ['manifest', pack.manifestDigest],
    ['channels', pack.channels.join(', ')],
    ['message', pack.message],
    ['replaced by', pack.replacedBy],
    ['runner', runnerText(metadata)],
    ['license', metadata.license],
    ['homepage', metadata.homepage],
    ['keywords', Array.isArray(metadata.keywords) ? metadata.keywords.join(', ') : undefined],
    ...dependencies.map(({ packId, version, optional }, i): [string, unknown] => [
      i === 0 ? 'needs' : '',
      `${packId} ${version}${optional ? ' (optional)' : ''}`,
    ]),
  ]
  return facts.filter(([, value]) => value !== undefined && value !== '').map(([name, value]) => [name, String(value)])
}

function runnerText({ minRunnerVersion: min, maxRunnerVersion: max }: Record<string, unknown>): string | undefined {
  if (min === undefined && max === undefined) return undefined
  return [min && `${min} or newer`, max && `up to ${max}`].filter(Boolean).join(', ')
}

function stateText({ state }: { state: string }): string {
  return state === 'active' ? '' : `  ${state.toUpperCase()}`
}

async function showVersions(at: Run, id: string, { runner }: Flags): Promise<void> {
  const { packId } = parseReference(id)
  const client = await connect(at)
  const versions = await client.versions(packId, { runner, signal: at.signal })
  at.output.result({ packId, versions }, () =>
    versions.length === 0
      ? `no version of ${packId} runs on runner ${runner}`
      : table(['VERSION', 'STATE', 'CHANNELS', 'RUNNER', 'SIZE', 'PUBLISHED', 'DIGEST'], versions.map(rowOf)),
  )
}

function rowOf({ version, state, channels, minRunnerVersion, size, publishedAt, digest }: PackVersion): string[] {
  const runner = minRunnerVersion ? `>=${minRunnerVersion}` : '-'
  return [version, state, channels.join(',') || '-', runner, bytesText(size), publishedAt.slice(0, 10), digest]
}
