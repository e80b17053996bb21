import { type Command, InvalidArgumentError, Option } from 'commander'
import type { Job, JobState } from '../client/client.ts'
import { connect } from './connect.ts'
import { aligned, table } from './output.ts'
import { type CommonFlags, common, type Here, type Run, run } from './run.ts'

const states: JobState[] = ['waiting', 'running', 'completed', 'failed', 'cancelled']

type ListFlags = CommonFlags & { state?: JobState; name?: string; limit: number }

export function addJobs(packs: Command, here: Here): void {
  const jobs = packs
    .command('jobs')
    .description('background work of a registry: imports, mirrors, tidying up')
    .addHelpText('after', '\nExample:\n  packs jobs list --state failed')
  const listing = jobs
    .command('list')
    .description('list jobs, the newest first')
    .addOption(new Option('--state <state>', 'only jobs in this state').choices(states))
    .option('--name <name>', 'only jobs of this kind, such as tidy')
    .option('--limit <count>', 'at most so many', countOf, 50)
  common(listing, 'packs jobs list --state failed').action((flags: ListFlags) =>
    run(here, flags, (at) => list(at, flags)),
  )
  const showing = jobs.command('show').description('say all there is to know of a job').argument('<id>', 'its id')
  common(showing, 'packs jobs show 8dab7a96-538e-437b-ab1d-b2ad7780c69a').action((id: string, flags: CommonFlags) =>
    run(here, flags, async (at) => {
      const client = await connect(at)
      const job = await client.jobs.show(id, { signal: at.signal })
      at.output.result({ job }, () => aligned(factsOf(job)))
    }),
  )
  const retrying = jobs
    .command('retry')
    .description('make a job that failed wait again, with all its tries')
    .argument('<id>', 'its id')
  common(retrying, 'packs jobs retry 8dab7a96-538e-437b-ab1d-b2ad7780c69a').action((id: string, flags: CommonFlags) =>
    run(here, flags, async (at) => {
      const client = await connect(at)
      const job = await client.jobs.retry(id, { signal: at.signal })
      at.output.result({ job }, () => `${job.name} ${job.id} waits for a worker`)
    }),
  )
}

function countOf(text: string): number {
  if (/^[1-9]\d{0,6}$/.test(text)) return Number(text)
  throw new InvalidArgumentError('It is a whole number above 0.')
}

async function list(at: Run, { state, name, limit }: ListFlags): Promise<void> {
  const query = { ...(state ? { state } : {}), ...(name ? { name } : {}), pageSize: Math.min(limit, 1000) }
  const client = await connect(at)
  const found: Job[] = []
  let more = false
  for await (const job of client.jobs.list(query, { signal: at.signal })) {
    more = found.length === limit
    if (more) break
    found.push(job)
  }
  at.output.result({ jobs: found, more }, () =>
    table(['JOB', 'NAME', 'STATE', 'TRIES', 'SENT', 'ABOUT'], found.map(rowOf)),
  )
  if (at.output.json) return
  if (found.length === 0) at.output.note('there is no such job')
  if (more) at.output.note(`there are more: --limit ${limit * 2}`)
}

function rowOf({ id, name, state, attempts, maxAttempts, createdAt, key, error }: Job): string[] {
  const about = [key, error].filter((part) => part !== undefined).join(': ')
  const time = createdAt.replace(/\..*$/, 'Z')
  return [id, name, state, `${attempts}/${maxAttempts}`, time, about.length > 80 ? `${about.slice(0, 79)}…` : about]
}

/** A line for each fact; what is not a text is shown as JSON. */
function factsOf(job: Job): string[][] {
  return Object.entries(job).map(([name, value]) => [name, typeof value === 'string' ? value : JSON.stringify(value)])
}
