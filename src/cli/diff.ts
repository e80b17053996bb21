import { isDeepStrictEqual } from 'node:util'
import type { Command } from 'commander'
import type { Client, Pack } from '../client/client.ts'
import type { ArchiveEntry } from './archive.ts'
import { connect } from './connect.ts'
import { aligned, bytesText } from './output.ts'
import { parseReference } from './reference.ts'
import { type CommonFlags, common, type Here, type Run, run } from './run.ts'
import { withTemporary } from './temporary.ts'

/** Something that is not the same in two versions; a side where it is not there is absent. */
type Change = { name: string; from?: unknown; to?: unknown }
/** `files` is absent where a content is no tar+gzip. */
type Difference = { document: Change[]; dependencies: Change[]; content: Change[]; files?: Change[] }

export function addDiff(packs: Command, here: Here): void {
  const command = packs
    .command('diff')
    .description('show what changed from one version of a pack to another, down to the files in it')
    .argument('<id>', 'id of the pack')
    .argument('<from>', 'a version, a range or a channel')
    .argument('<to>', 'a version, a range or a channel')
  common(command, 'packs diff net-policy 1.3.0 1.4.0\npacks diff net-policy stable latest').action(
    (id: string, from: string, to: string, flags: CommonFlags) => run(here, flags, (at) => diff(at, id, from, to)),
  )
}

async function diff(at: Run, id: string, one: string, other: string): Promise<void> {
  const { packId } = parseReference(id)
  const client = await connect(at)
  const from = await client.pack(packId, { version: one, signal: at.signal })
  const to = await client.pack(packId, { version: other, signal: at.signal })
  const files = await fileChanges(at, client, from, to)
  const difference: Difference = {
    document: changesBetween(documentFacts(from), documentFacts(to)),
    dependencies: changesBetween(dependencyFacts(from), dependencyFacts(to)),
    content: changesBetween(contentFacts(from), contentFacts(to)),
    ...(files ? { files } : {}),
  }
  at.output.result({ packId, from: from.version, to: to.version, ...difference }, () => {
    const text = textOf(difference)
    const what = `${packId} ${from.version} → ${to.version}`
    return text ? `${at.output.bold(what)}\n${text}` : `${what}: no difference`
  })
}

type Facts = Map<string, unknown>

function documentFacts({ type, name, description, author, metadata }: Pack): Facts {
  const own = Object.entries(metadata).map(([key, value]): [string, unknown] => [`metadata.${key}`, value])
  return new Map<string, unknown>([...Object.entries({ type, name, description, author }), ...own])
}

function dependencyFacts({ dependencies }: Pack): Facts {
  return new Map(
    dependencies.map(({ packId, version, optional }) => [packId, version + (optional ? ' (optional)' : '')]),
  )
}

function contentFacts({ digest, size, mediaType, title }: Pack): Facts {
  // By itself the file's name follows from the version.
  return new Map<string, unknown>(Object.entries({ digest, size, mediaType })).set('title', title?.replace(/\d.*/, ''))
}

/** What differs, sorted by name. */
function changesBetween(from: Facts, to: Facts): Change[] {
  return [...new Set([...from.keys(), ...to.keys()])]
    .filter((name) => !isDeepStrictEqual(from.get(name), to.get(name)))
    .sort()
    .map((name) => ({
      name,
      ...(from.get(name) === undefined ? {} : { from: from.get(name) }),
      ...(to.get(name) === undefined ? {} : { to: to.get(name) }),
    }))
}

/** The files added, removed and changed; undefined where one of the contents is no archive. */
async function fileChanges({ signal }: Run, client: Client, from: Pack, to: Pack): Promise<Change[] | undefined> {
  if (from.digest === to.digest) return []
  const { readArchive } = await import('./archive.ts')
  return withTemporary(async (folder) => {
    const sides: Facts[] = []
    for (const [pack, side] of [[from, 'from'] as const, [to, 'to'] as const]) {
      const { file } = await client.pullOne(pack, { into: `${folder}/${side}`, signal })
      const entries = await readArchive(file, signal)
      if (!entries) return undefined
      sides.push(new Map([...entries].map(([path, { path: _, ...facts }]) => [path, facts])))
    }
    const [before, after] = sides as [Facts, Facts]
    return changesBetween(before, after)
  })
}

function textOf({ document, dependencies, content, files }: Difference): string {
  const isSize = ({ name }: Change) => name === 'size'
  const parts: [title: string, changes: Change[] | undefined, text: (value: unknown, change: Change) => string][] = [
    ['document', document, shortly],
    ['dependencies', dependencies, shortly],
    ['content', content, (value, change) => (isSize(change) ? bytesText(Number(value)) : shortly(value))],
    ['files', files, fileText],
  ]
  const shown = parts.map(([title, changes, text]) => (changes?.length ? `\n${title}\n${linesOf(changes, text)}` : ''))
  return shown.join('') + (files ? '' : '\nfiles\n  the contents are not both tar+gzip: their files are not compared\n')
}

/** `+` added, `-` removed, `~` changed. */
function linesOf(changes: Change[], text: (value: unknown, change: Change) => string): string {
  const rows = changes.map((change) => {
    const { name, from, to } = change
    const sign = from === undefined ? '+' : to === undefined ? '-' : '~'
    const values = [from, to].filter((value) => value !== undefined).map((value) => text(value, change))
    return [sign, name, values.join(' → ')]
  })
  return aligned(rows).replace(/^(?=.)/gm, '  ')
}

function shortly(value: unknown): string {
  const text = typeof value === 'string' ? value : JSON.stringify(value)
  return text.length > 100 ? `${text.slice(0, 99)}…` : text
}

function fileText(value: unknown): string {
  const { size, type, executable } = value as ArchiveEntry
  return [bytesText(size), type !== 'file' && type, executable && 'executable'].filter(Boolean).join(', ')
}
