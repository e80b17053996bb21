import { access, mkdir, writeFile } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { type Command, Option } from 'commander'
import { PacksError } from '../client/failure.ts'
import { type PackType, packTypes, parsePackId } from '../packs/pack.ts'
import { pathText } from './output.ts'
import { type CommonFlags, common, type Here, type Run, run } from './run.ts'
import { isExecutable, starterOf } from './starters.ts'

type Flags = CommonFlags & { type: PackType; id?: string }

export function addInit(packs: Command, here: Here): void {
  const command = packs
    .command('init')
    .description('begin a pack: a folder with a valid pack.json, sample content, .packignore and README')
    .argument('[folder]', 'folder to begin in; it is made where it does not exist', '.')
    .addOption(new Option('--type <type>', 'what it will be').choices(packTypes).makeOptionMandatory())
    .option('--id <id>', 'id of the pack (default: the name of the folder)')
  common(command, 'packs init ./net-policy --type policy --id net-policy', { registry: false }).action(
    (folder: string, flags: Flags) => run(here, flags, (at) => init(at, folder, flags)),
  )
}

async function init({ output }: Run, folder: string, { type, id }: Flags): Promise<void> {
  const root = resolve(folder)
  const packId = parsePackId(id ?? basename(root).toLowerCase())
  if (!packId)
    throw new PacksError(
      'PACK_INVALID',
      `${JSON.stringify(id ?? basename(root))} cannot be the id of a pack: it is made of lowercase letters and digits, joined by single ".", "_" or "-". Name another: --id`,
    )
  const files = Object.entries(starterOf(type, packId))
  await requireNone(root, files)
  for (const [path, text] of files) {
    await mkdir(dirname(join(root, path)), { recursive: true })
    await writeFile(join(root, path), text, { flag: 'wx', mode: isExecutable(path) ? 0o755 : 0o644 })
  }
  const paths = files.map(([path]) => path)
  output.result({ folder: root, packId, type, files: paths }, () => {
    const place = pathText(root)
    const lines = paths.map((path) => `  ${join(place, path)}\n`)
    return `${packId}, a ${type} pack, begins here:\n${lines.join('')}\nNext: packs publish ${place} --dry-run`
  })
}

/** Nothing that is there already is written over: all of it is named before a file is written. */
async function requireNone(root: string, files: [string, string][]): Promise<void> {
  const there: string[] = []
  for (const [path] of files) {
    const exists = await access(join(root, path)).then(
      () => true,
      () => false,
    )
    if (exists) there.push(path)
  }
  if (there.length > 0)
    throw new PacksError('FILE_EXISTS', `${root} has ${there.join(', ')} already. Begin in another folder`)
}
