import { Command, InvalidArgumentError, Option } from 'commander'
import { airGap, airGapRowNames } from './airgap.ts'
import { airGapMemory } from './airgap-memory.ts'
import { authoritySpeed } from './authority.ts'
import { cleanUp } from './cleanup.ts'
import { compare } from './compare.ts'
import { type ContestantName, contestantNames } from './contestants.ts'
import { listSpeed } from './lists.ts'
import { uploadMemory } from './memory.ts'
import { packRowNames, packSpeed } from './packs.ts'
import { rowNames } from './rows.ts'
import { upkeep, upkeepRowNames } from './upkeep.ts'

export type Options = {
  readonly rounds: number
  readonly seconds: number
  readonly processes: number
  readonly large: number
  readonly only: readonly string[]
  readonly peers: readonly ContestantName[]
  readonly json?: string
  readonly dir?: string
  readonly check: boolean
  readonly memory: boolean
  readonly lists: boolean
  readonly packs: boolean
  readonly uploads: number
  readonly size?: number
  readonly airgap: boolean
  readonly auth: boolean
  readonly airgapMemory: boolean
  readonly upkeep: boolean
  readonly rows: number
  readonly stores: readonly ('file' | 's3')[]
  readonly s3?: string
}

function positive(text: string): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError('a whole number from 1 on')
  return value
}

/** Some of the known names, separated by commas; all of them by default. */
function someOf(flags: string, known: readonly string[]): Option {
  const parse = (text: string): string[] => {
    const given = text.split(',')
    if (!given.every((name) => known.includes(name))) throw new InvalidArgumentError(`known are ${known.join(', ')}`)
    return known.filter((name) => given.includes(name))
  }
  return new Option(flags, `of ${known.join(', ')}`).argParser(parse).default(known, 'all')
}

const command = new Command('npm run bench --')
  .description('Drives this registry and its peers on this machine with the same load, in turn, and prints one table.')
  .option('--rounds <n>', 'how often each row is measured; the median counts', positive, 3)
  .option('--seconds <n>', 'how long each measurement of requests or packs runs', positive, 5)
  .option('--processes <n>', 'PROCESSES of this registry', positive, 2)
  .option('--large <n>', '64 MiB blobs per measurement of PUT and PATCH', positive, 16)
  .addOption(someOf('--only <rows>', [...rowNames, ...packRowNames, ...airGapRowNames, ...upkeepRowNames]))
  .addOption(someOf('--peers <names>', contestantNames))
  .option('--dir <folder>', "where the scratch folder goes, on a disk (default: the system's folder for such)")
  .option('--json <file>', 'write every figure to this file too')
  .option('--check', 'fail when a target is missed', false)
  .option('--memory', 'instead: the memory that many large uploads at once take', false)
  .option('--uploads <n>', 'for --memory: how many uploads', positive, 64)
  .option(
    '--size <MiB>',
    'for --memory: how large each of them is (1024); for --airgap: the content of the large bundle (2048); for --airgap-memory: of all of it (20480)',
    positive,
  )
  .addOption(someOf('--stores <names>', ['file', 's3']))
  .option('--s3 <address>', 'for --memory: BLOB_STORE of an S3 to use in place of a Ceph in memory')
  .option('--lists', 'instead: pages of long lists beside a short one', false)
  .option('--packs', "instead: the facade's reads, lists, searches, publishes and resolutions", false)
  .option('--airgap', 'instead: bundles from one site to another, beside tar and sha256sum', false)
  .option('--auth', 'instead: what it costs to know who asks, and lists of what they may see', false)
  .option(
    '--airgap-memory',
    'instead: the memory that a bundle takes on its way in and out; disk: its size once',
    false,
  )
  .option('--upkeep', 'instead: what a registry does for itself, beside those whom it serves', false)
  .option('--rows <n>', 'for --upkeep: blobs that nothing refers to', positive, 1_000_000)
  .addHelpText(
    'after',
    `
Needs wrk (Debian's package); --airgap needs curl, tar and sha256sum instead. Peers: docker-registry and nginx (Debian's packages); olareg and distribution 3 on PATH,
or named by OLAREG and DISTRIBUTION, or built by Go. What is not to be had is said and left out.`,
  )

try {
  const options = command.parse().opts<Options>()
  const instead = [
    options.memory && uploadMemory,
    options.lists && listSpeed,
    options.packs && packSpeed,
    options.airgap && airGap,
    options.auth && authoritySpeed,
    options.airgapMemory && airGapMemory,
    options.upkeep && upkeep,
  ]
  const run = instead.find((one) => one !== false) ?? compare
  process.exitCode = (await run(options)) ? 0 : 1
} finally {
  await cleanUp()
}
process.exit()
