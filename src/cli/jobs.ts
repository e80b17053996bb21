import { type Command, InvalidArgumentError, Option } from 'commander'
import type { Job, JobState } from '../client/client.ts'
import { PacksError } from '../client/failure.ts'
import { connect } from './connect.ts'
import { addJobRun } from './job-run.ts'
import { aligned, table } from './output.ts'
import { type CommonFlags, common, type Here, type Run, run } from './run.ts'

const states: JobState[] = ['waiting', 'running', 'completed', 'failed', 'cancelled']

type ListFlags = CommonFlags & { state?: JobState; dead?: true; name?: string; limit: number }

const anId = '8dab7a96-538e-437b-ab1d-b2ad7780c69a'

export function addJobs(packs: Command, here: Here): void {
  const jobs = packs
    .command('jobs')
    .description('background work of a registry: what waits, runs and failed, and what to do about it')
    .addHelpText('after', '\nExample:\n  packs jobs list --dead')
  const kinds = jobs
    .command('kinds')
    .description('list the kinds of jobs, with how many wait, run and are dead letters')
  common(kinds, 'packs jobs kinds').action((flags: CommonFlags) => run(here, flags, listKinds))
  const listing = jobs
    .command('list')
    .description('list jobs, the newest first')
    .addOption(new Option('--state <state>', 'only jobs in this state').choices(states))
    .addOption(
      new Option('--dead', 'only dead letters: jobs that failed for good; as --state failed').conflicts('state'),
    )
    .option('--name <name>', 'only jobs of this kind, such as tidy')
    .option('--limit <count>', 'at most so many', countOf, 50)
  common(listing, 'packs jobs list --dead').action((flags: ListFlags) => run(here, flags, (at) => list(at, flags)))
  const showing = jobs.command('show').description('say all there is to know of a job').argument('<id>', 'its id')
  common(showing, `packs jobs show ${anId}`).action((id: string, flags: CommonFlags) =>
    run(here, flags, async (at) => {
      const client = await connect(at)
      const job = await client.jobs.show(id, { signal: at.signal })
      at.output.result({ job }, () => aligned(factsOf(job)))
    }),
  )
  addJobRun(jobs, here)
  addJobChanges(jobs, here)
}

function addJobChanges(jobs: Command, here: Here): void {
  const retrying = jobs
    .command('retry')
    .description('make a dead letter wait again, with all its tries; or all of a kind')
    .argument('[id]', 'its id')
    .option('--all <name>', 'all dead letters of this kind instead')
  common(retrying, `packs jobs retry ${anId}\npacks jobs retry --all mirror`).action(
    (id: string | undefined, flags: CommonFlags & { all?: string }) =>
      run(here, flags, (at) => retry(at, id, flags.all)),
  )
  const cancelling = jobs
    .command('cancel')
    .description('end a job that waits or runs; what it has done so far stays')
    .argument('<id>', 'its id')
  common(cancelling, `packs jobs cancel ${anId}`).action((id: string, flags: CommonFlags) =>
    run(here, flags, async (at) => {
      const job = await (await connect(at)).jobs.cancel(id, { signal: at.signal })
      const told = job.state === 'running' ? 'is told to end; "packs jobs show" says when it has' : 'is cancelled'
      at.output.result({ job }, () => `${job.name} ${job.id} ${told}`)
    }),
  )
  const discarding = jobs
    .command('discard')
    .description('take a dead letter from the list of them; it is kept as cancelled for a week')
    .argument('<id>', 'its id')
  common(discarding, `packs jobs discard ${anId}`).action((id: string, flags: CommonFlags) =>
    run(here, flags, async (at) => {
      const job = await (await connect(at)).jobs.discard(id, { signal: at.signal })
      at.output.result({ job }, () => `${job.name} ${job.id} is discarded`)
    }),
  )
}

async function retry(at: Run, id: string | undefined, all: string | undefined): Promise<void> {
  if ((id === undefined) === (all === undefined))
    throw new PacksError('USAGE', 'give the id of one dead letter, or --all with the name of a kind')
  const client = await connect(at)
  if (id !== undefined) {
    const job = await client.jobs.retry(id, { signal: at.signal })
    at.output.result({ job }, () => `${job.name} ${job.id} waits for a worker`)
    return
  }
  const sum = { retried: 0, left: 0 }
  for (let more = true; more; ) {
    const done = await client.jobs.retryAll(all ?? '', { signal: at.signal })
    sum.retried += done.retried
    sum.left = done.left
    // What is left stays first in the list: were there a thousand such, it would be asked for again for ever.
    more = done.more && done.retried > 0
  }
  at.output.result(sum, () => `${sum.retried} of ${all} wait for a worker`)
  if (sum.left > 0 && !at.output.json)
    at.output.note(`${sum.left} are left: another one of their key waits already; "packs jobs discard" forgets them`)
}

async function listKinds(at: Run): Promise<void> {
  const client = await connect(at)
  const kinds = await client.jobs.kinds({ signal: at.signal })
  at.output.result({ kinds }, () =>
    table(
      ['KIND', 'WAIT', 'OLDEST DUE', 'RUN', 'DEAD', 'OLDEST DEAD', 'BY HAND', 'ABOUT'],
      kinds.map(({ name, waiting, oldestDueSeconds, running, failed, oldestFailedSeconds, byHand, about }) => [
        ...[name, String(waiting), ageText(oldestDueSeconds), String(running)],
        ...[String(failed), ageText(oldestFailedSeconds), byHand ? 'yes' : 'no', about],
      ]),
    ),
  )
}

/** A time in its largest units: `3d 4h`, `12m 30s`; `-` for none. */
function ageText(seconds: number): string {
  const whole = Math.floor(seconds)
  if (whole === 0) return '-'
  const units = [
    ['d', Math.floor(whole / 86_400)],
    ['h', Math.floor(whole / 3_600) % 24],
    ['m', Math.floor(whole / 60) % 60],
    ['s', whole % 60],
  ] as const
  const first = units.findIndex(([, count]) => count > 0)
  return units
    .slice(first, first + 2)
    .map(([unit, count]) => `${count}${unit}`)
    .join(' ')
}

function countOf(text: string): number {
  if (/^[1-9]\d{0,6}$/.test(text)) return Number(text)
  throw new InvalidArgumentError('It is a whole number above 0.')
}

async function list(at: Run, { dead, state = dead && 'failed', name, limit }: ListFlags): Promise<void> {
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
  if (found.length === 0) at.output.note(dead ? 'there are no dead letters' : 'there is no such job')
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
