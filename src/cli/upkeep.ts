import { type Command, InvalidArgumentError } from 'commander'
import { bytesPerSecond, readConfig } from '../config.ts'
import type { BackupFlags } from './backup.ts'
import type { GcFlags } from './gc.ts'
import { openOutput } from './output.ts'
import type { RebuildFlags } from './rebuild.ts'
import type { RebuildStoreFlags } from './rebuild-store.ts'
import type { Here } from './run.ts'
import type { ScrubFlags } from './scrub.ts'
import { addFindings } from './scrub-findings.ts'
import { secondsOf } from './seconds.ts'
import { type Flags, overlaid, withSettings } from './server-commands.ts'

/** The commands that look after what is stored, beside a server that may be running. */
export function addUpkeep(packs: Command, here: Here): void {
  addGc(packs, here)
  addScrub(packs, here)
  addRebuild(packs, here)
  addBackup(packs, here)
}

function addGc(packs: Command, here: Here): void {
  withSettings(
    packs
      .command('gc')
      .description('collect now what nothing refers to, beside a server that may be running')
      .option('--dry-run', 'say what would go and why, and change nothing')
      .option('--rate <rows>', 'rows and objects a second; 0: as many as it can (default: GC_RATE)', rowsOf)
      .option('--json', 'as one JSON object'),
  )
    .addHelpText('after', '\nExample:\n  packs gc --dry-run')
    .action(async (flags: Flags & GcFlags & { json?: boolean }) => {
      const { gc } = await import('./gc.ts')
      const output = openOutput(here.env, { json: flags.json === true })
      here.finish(await gc(readConfig(overlaid(here.env, flags)), flags, output))
    })
}

function rowsOf(text: string): number {
  if (/^\d{1,7}$/.test(text)) return Number(text)
  throw new InvalidArgumentError('It is a whole number; 0 is without a limit.')
}

function addScrub(packs: Command, here: Here): void {
  const command = packs
    .command('scrub')
    .description(
      'compare the store and the database both ways, and hash every object; ends with 2 where something is wrong',
    )
  command
    .option('--full', 'hash every object (unless --quick)')
    .option('--quick', 'look only whether every object is there, and as long as it should be')
    .option(
      '--repair',
      'set right what can be: re-link from another object of the same content, put wrong bytes into quarantine, delete orphans',
    )
    .option(
      '--rate <bytes>',
      'bytes a second that are read, such as 50MB/s; 0: as many as it can (default: SCRUB_RATE)',
      rateOf,
    )
    .option(
      '--drop-many',
      'with --repair: delete orphans even where they are so many that this may be the wrong database',
    )
    .option('--json', 'as one JSON object')
  withSettings(command)
    .addHelpText(
      'after',
      '\nExample:\n  packs scrub --quick\n  packs scrub --repair --rate 100MB/s\n  packs scrub findings',
    )
    .action(async (flags: Flags & ScrubFlags & { full?: boolean; json?: boolean }) => {
      if (flags.full && flags.quick) command.error('error: --full and --quick exclude each other')
      const { scrub } = await import('./scrub.ts')
      here.finish(
        await scrub(readConfig(overlaid(here.env, flags)), flags, openOutput(here.env, { json: flags.json === true })),
      )
    })
  addFindings(command, here)
}

function addRebuild(packs: Command, here: Here): void {
  const command = packs
    .command('rebuild')
    .description('make what the facade says of packs again from their manifests')
    .option('--dry-run', 'say what differs, and change nothing')
    .option(
      '--from-store',
      'instead: make the rows of blobs again from the objects of the store, whose database is lost',
    )
    .option('--trust', 'with --from-store: take digests from the names of objects, and read none')
    .option(
      '--keep <time>',
      'with --from-store: keep content for so long that nothing refers to (default: 30d)',
      secondsOf,
    )
    .option('--link <repository>', 'with --from-store: make the content readable in this repository')
    .option('--json', 'as one JSON object')
  withSettings(command)
    .addHelpText('after', '\nExample:\n  packs rebuild --dry-run\n  packs rebuild --from-store --link recovered')
    .action(async (flags: Flags & RebuildFlags & RebuildStoreFlags & { fromStore?: boolean }) => {
      if (flags.fromStore) {
        const { rebuildStore } = await import('./rebuild-store.ts')
        const output = openOutput(here.env, { json: flags.json === true })
        here.finish(await rebuildStore(readConfig(overlaid(here.env, flags)), flags, output))
        return
      }
      const { rebuild } = await import('./rebuild.ts')
      here.finish(await rebuild(readConfig(overlaid(here.env, flags)), flags, (text) => process.stdout.write(text)))
    })
}

function addBackup(packs: Command, here: Here): void {
  const command = packs
    .command('backup')
    .description('write all tables into a file, beside a server that may be running')
    .requiredOption('-o, --output <path>', 'the file; or a folder, in which it gets a name with the time')
    .option(
      '--with-blobs',
      'all content too, each checked; else the list of it, for the bucket is copied by other means',
    )
    .option('--hold <time>', 'delete no object for so long afterwards, while the bucket is copied: 90m, 6h', secondsOf)
    .option('--json', 'as one JSON object')
  withSettings(command)
    .addHelpText('after', '\nExample:\n  packs backup -o /backup --with-blobs\n  packs backup -o packs.tar --hold 6h')
    .action(async (flags: Flags & BackupFlags & { json?: boolean }) => {
      const { backup } = await import('./backup.ts')
      here.finish(
        await backup(readConfig(overlaid(here.env, flags)), flags, openOutput(here.env, { json: flags.json === true })),
      )
    })
  withSettings(
    packs
      .command('restore')
      .description('restore a backup into an empty database and store, and check them')
      .argument('<file>', 'what "packs backup" wrote')
      .option('--json', 'as one JSON object'),
  )
    .addHelpText('after', '\nExample:\n  packs restore packs.tar --data-dir ./new')
    .action(async (file: string, flags: Flags & { json?: boolean }) => {
      const { restore } = await import('./restore.ts')
      here.finish(
        await restore(readConfig(overlaid(here.env, flags)), file, openOutput(here.env, { json: flags.json === true })),
      )
    })
}

function rateOf(text: string): number {
  const rate = bytesPerSecond(text)
  if (rate !== undefined) return rate
  throw new InvalidArgumentError('It is bytes a second, such as 50MB/s, 500KB or 0.')
}
