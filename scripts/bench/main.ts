import { Command, InvalidArgumentError } from 'commander'
import { cleanUp } from './cleanup.ts'
import { compare } from './compare.ts'
import { type ContestantName, contestantNames } from './contestants.ts'
import { rowNames } from './rows.ts'

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
}

function positive(text: string): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError('a whole number from 1 on')
  return value
}

function listOf<T extends string>(known: readonly T[]) {
  return (text: string): T[] => {
    const unknown = text.split(',').filter((name) => !known.includes(name as T))
    if (unknown.length > 0) throw new InvalidArgumentError(`known are ${known.join(', ')}`)
    return known.filter((name) => text.split(',').includes(name))
  }
}

const command = new Command('npm run bench --')
  .description('Drives this registry and its peers on this machine with the same load, in turn, and prints one table.')
  .option('--rounds <n>', 'how often each row is measured; the median counts', positive, 3)
  .option('--seconds <n>', 'how long each measurement of requests or packs runs', positive, 5)
  .option('--processes <n>', 'PROCESSES of this registry', positive, 2)
  .option('--large <n>', '64 MiB blobs per measurement of PUT and PATCH', positive, 16)
  .option('--only <rows>', `of ${rowNames.join(', ')}`, listOf(rowNames), rowNames)
  .option('--peers <names>', `of ${contestantNames.join(', ')}`, listOf(contestantNames), contestantNames)
  .option('--dir <folder>', "where the scratch folder goes, on a disk (default: the system's folder for such)")
  .option('--json <file>', 'write every figure to this file too')
  .option('--check', 'fail when a target is missed', false)
  .addHelpText(
    'after',
    `
Needs wrk (Debian's package). Peers: docker-registry and nginx (Debian's packages); olareg and distribution 3 on PATH,
or named by OLAREG and DISTRIBUTION, or built by Go. What is not to be had is said and left out.`,
  )

try {
  const options = command.parse().opts<Options>()
  process.exitCode = (await compare(options)) ? 0 : 1
} finally {
  await cleanUp()
}
process.exit()
