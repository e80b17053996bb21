import { type Command, InvalidArgumentError, Option } from 'commander'
import type { PackSummary, SearchQuery } from '../client/client.ts'
import { type PackState, type PackType, packStates, packTypes } from '../packs/pack.ts'
import { connect } from './connect.ts'
import { table } from './output.ts'
import { type CommonFlags, common, type Here, type Run, run } from './run.ts'

type Flags = CommonFlags & {
  type?: PackType
  author?: string
  runner?: string
  state?: PackState
  sort?: 'id' | 'updated' | 'relevance'
  limit: number
}

export function addSearch(packs: Command, here: Here): void {
  const command = packs
    .command('search')
    .description('find packs by words, or list them all')
    .argument('[words...]', 'words or beginnings of words, all of which must fit')
    .addOption(new Option('--type <type>', 'only packs of this type').choices(packTypes))
    .option('--author <author>', 'only packs by this author')
    .option('--runner <version>', 'only packs that this runner can run')
    .addOption(new Option('--state <state>', 'only packs in this state').choices(packStates))
    .addOption(
      new Option('--sort <order>', 'order (default: relevance with words, else id)').choices([
        'id',
        'updated',
        'relevance',
      ]),
    )
    .option('--limit <count>', 'at most so many', countOf, 50)
  common(command, 'packs search network policy --type policy --runner 1.5.0').action((words: string[], flags: Flags) =>
    run(here, flags, (at) => search(at, words, flags)),
  )
}

function countOf(text: string): number {
  if (/^[1-9]\d{0,6}$/.test(text)) return Number(text)
  throw new InvalidArgumentError('It is a whole number above 0.')
}

async function search(at: Run, words: string[], flags: Flags): Promise<void> {
  const { type, author, runner, state, sort, limit } = flags
  const query: SearchQuery = {
    ...(words.length > 0 ? { q: words.join(' ') } : {}),
    ...(type ? { type } : {}),
    ...(author ? { author } : {}),
    ...(runner ? { runner } : {}),
    ...(state ? { state } : {}),
    ...(sort ? { sort } : {}),
    pageSize: Math.min(limit, 1000),
  }
  const client = await connect(at)
  const found: PackSummary[] = []
  let more = false
  for await (const pack of client.search(query, { signal: at.signal })) {
    more = found.length === limit
    if (more) break
    found.push(pack)
  }
  at.output.result({ packs: found, more }, () =>
    table(['PACK', 'VERSION', 'TYPE', 'STATE', 'DESCRIPTION'], found.map(rowOf)),
  )
  if (at.output.json) return
  if (found.length === 0) at.output.note('no pack fits')
  if (more) at.output.note(`there are more: --limit ${limit * 2}`)
}

function rowOf({ packId, version, type, state, description, name }: PackSummary): string[] {
  const text = description ?? name
  return [packId, version, type, state, text.length > 80 ? `${text.slice(0, 79)}…` : text]
}
