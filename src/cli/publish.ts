import { stat } from 'node:fs/promises'
import { basename, join, resolve } from 'node:path'
import type { Command } from 'commander'
import type { Client, DryRun, Published, Submission } from '../client/client.ts'
import { PacksError } from '../client/failure.ts'
import type { PackDocument } from '../packs/pack.ts'
import { connect } from './connect.ts'
import { invalidDocument, readDocument } from './document.ts'
import type { FolderFile } from './folder.ts'
import { bytesText } from './output.ts'
import { openProgress } from './progress.ts'
import { type CommonFlags, common, type Here, type Run, run } from './run.ts'
import { withTemporary } from './temporary.ts'

type Flags = CommonFlags & {
  dryRun?: true
  allowMissing?: true
  file?: string
  created?: string
  mediaType?: string
}

export function addPublish(packs: Command, here: Here): void {
  const command = packs
    .command('publish')
    .description('publish a folder, or a file as it is')
    .argument('[folder-or-file]', 'folder with a pack.json, or the content as one file', '.')
    .option('--dry-run', 'say what would become of it, and publish nothing')
    .option('--allow-missing', 'publish although a dependency is not there yet')
    .option('--file <pack.json>', "the pack's document (default: pack.json in the folder)")
    .option('--created <time>', 'when it was made, such as 2026-01-31T12:00:00Z (default: now)')
    .option('--media-type <type>', 'media type of a file that is no .tgz')
  const example = 'packs publish ./net-policy\npacks publish ./net-policy-1.4.0.tgz --file pack.json'
  common(command, `${example}\n\n${rules}`).action((path: string, flags: Flags) =>
    run(here, flags, (at) => publish(at, path, flags)),
  )
}

const rules = `A folder becomes a .tgz whose bytes depend on its files alone: the same folder has the same digest everywhere.
What .packignore names (in the notation of .gitignore) stays out. A bundle with nothing beside its pack.json
is published as an index of all the packs it needs.`

async function publish(at: Run, path: string, flags: Flags): Promise<void> {
  const isFolder = (await stat(path)).isDirectory()
  if (!isFolder && !flags.file)
    throw new PacksError('USAGE', `${path} is a file: say with --file where its pack.json is`)
  if (isFolder && flags.mediaType) throw new PacksError('USAGE', '--media-type is for a file; a folder becomes a .tgz')
  const documentPath = flags.file ?? join(path, 'pack.json')
  const document = await readDocument(documentPath)
  const client = await connect(at)
  const submission = { document, ...optionsOf(flags) }
  if (!isFolder) {
    const content = { content: { path: resolve(path) }, title: basename(path) }
    return submit(at, client, documentPath, { ...submission, ...content })
  }
  const { listFolder, packFolder } = await import('./folder.ts')
  const files = await listFolder(resolve(path))
  if (files.length === 0) throw new PacksError('FOLDER_INVALID', `${path} has no files to publish`)
  for (const file of files) at.output.note(`  ${file.path} (${bytesText(file.size)})`)
  if (isBareBundle(document, files)) return submit(at, client, documentPath, submission, files)
  return withTemporary(async (folder) => {
    const target = join(folder, `${document.packId}-${document.version}.tgz`)
    await packFolder(resolve(path), files, target, at.signal)
    const content = { content: { path: target }, title: basename(target) }
    return submit(at, client, documentPath, { ...submission, ...content }, files)
  })
}

/** A bundle without content of its own: the registry makes it an index of what it needs. */
function isBareBundle({ type }: PackDocument, files: readonly FolderFile[]): boolean {
  return type === 'bundle' && files.every((file) => file.path === 'pack.json')
}

function optionsOf({ created, mediaType, allowMissing, dryRun }: Flags): Omit<Submission, 'document'> {
  return {
    ...(created ? { created } : {}),
    ...(mediaType ? { mediaType } : {}),
    allowMissing: allowMissing ?? false,
    dryRun: dryRun ?? false,
  }
}

async function submit(
  { output, signal }: Run,
  client: Client,
  documentPath: string,
  submission: Submission & { document: PackDocument },
  files: readonly FolderFile[] = [],
): Promise<void> {
  const { packId, version } = submission.document
  const progress = await openProgress(output, { start: 'sending', end: 'sent' })
  let answer: Published | DryRun
  let size = 0
  try {
    answer = await client.publish(submission, {
      signal,
      onProgress({ sentBytes, totalBytes }) {
        size = totalBytes
        progress.moved(`${packId} ${version}`, sentBytes, totalBytes)
      },
    })
  } finally {
    progress.end()
  }
  if ('valid' in answer && !answer.valid) throw invalidDocument(documentPath, answer.violations)
  const packed = submission.content ? { size } : {}
  output.result(
    { ...answer, ...packed, ...(files.length > 0 ? { files: files.map((file) => file.path) } : {}) },
    () => {
      const facts = [answer.digest, ...(submission.content ? [bytesText(size)] : [])].join('  ')
      if ('valid' in answer) return `${packId} ${version} would be published at ${client.url}  ${facts}`
      if (!answer.isNew) return `${packId} ${version} was published before, the same; nothing to do  ${facts}`
      return `published ${packId} ${version} at ${client.url}  ${facts}`
    },
  )
}
