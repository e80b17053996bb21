import { stat } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import type { Command } from 'commander'
import { readDocument } from './document.ts'
import { bytesText } from './output.ts'
import { type CommonFlags, common, type Here, type Run, run } from './run.ts'

export function addValidate(packs: Command, here: Here): void {
  const command = packs
    .command('validate')
    .description('say everything that is wrong with a pack, without a registry')
    .argument('[folder]', 'folder with a pack.json, or a document itself', '.')
  common(command, 'packs validate ./net-policy', { registry: false }).action((folder: string, flags: CommonFlags) =>
    run(here, flags, (at) => validate(at, folder)),
  )
}

async function validate({ output }: Run, folder: string): Promise<void> {
  const isFolder = (await stat(folder)).isDirectory()
  const path = isFolder ? join(folder, 'pack.json') : folder
  const document = await readDocument(path)
  const { listFolder } = await import('./folder.ts')
  const files = isFolder ? await listFolder(resolve(folder)) : []
  const bytes = files.reduce((sum, file) => sum + file.size, 0)
  output.result({ valid: true, document, files: files.map((file) => file.path), bytes }, () => {
    const of = isFolder ? `, ${files.length} files, ${bytesText(bytes)}` : ''
    return `${path} is valid: ${document.packId} ${document.version} (${document.type}${of})`
  })
}
