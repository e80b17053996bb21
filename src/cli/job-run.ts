import type { Command } from 'commander'
import type { Client, Job } from '../client/client.ts'
import { PacksError } from '../client/failure.ts'
import { connect } from './connect.ts'
import { outcomeOf } from './outcome.ts'
import { aligned } from './output.ts'
import { type CommonFlags, common, type Here, type Run, run } from './run.ts'

type RunFlags = CommonFlags & { key?: string; data?: string; wait?: true }

/** The command that has a job run now. */
export function addJobRun(jobs: Command, here: Here): void {
  const running = jobs
    .command('run')
    .description('have a job run now that else runs by its schedule; "packs jobs kinds" lists them')
    .argument('<name>', 'its kind')
    .option('--key <key>', 'what it is to be about, where jobs of this kind have keys')
    .option('--data <json>', 'what it is to be told, as a JSON object')
    .option('--wait', 'wait for its end; ends with 1 where it fails')
  common(running, 'packs jobs run tidy --wait').action((name: string, flags: RunFlags) =>
    run(here, flags, (at) => runNow(at, name, flags)),
  )
}

async function runNow(at: Run, name: string, { key, data, wait }: RunFlags): Promise<void> {
  const client = await connect(at)
  const asked = { name, ...(key === undefined ? {} : { key }), ...(data === undefined ? {} : { data: objectOf(data) }) }
  const sent = await client.jobs.run(asked, { signal: at.signal })
  const { job, isNew, behind } = sent
  if (behind) at.output.note(`${name} ${behind} runs now; this one begins when it has ended`)
  if (!isNew) at.output.note(`${name} ${job.id} waited already; it is this one that is meant`)
  if (!wait) {
    at.output.result(sent, () => `${name} ${job.id} waits for a worker`)
    return
  }
  const ended = await endOf(at, client, job)
  at.output.result({ ...sent, job: ended }, () => aligned(resultOf(ended)))
}

function objectOf(text: string): object {
  const value = parsed(text)
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value
  throw new PacksError('USAGE', `--data is an object, such as '{"dryRun":true}'`)
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw notJson(error as Error)
  }
}

const notJson = (cause: Error) => new PacksError('USAGE', `--data is not JSON: ${cause.message}`, { cause })

/** Waits until a job has completed. Throws JOB_FAILED, JOB_CANCELLED. */
function endOf(at: Run, client: Client, { id, name }: Job): Promise<Job> {
  const isOver = ({ state, error }: Job) => {
    if (state === 'failed') throw new PacksError('JOB_FAILED', `${name} failed: ${error ?? 'nobody knows why'}`)
    if (state === 'cancelled') throw new PacksError('JOB_CANCELLED', `${name} was cancelled`)
    return state === 'completed'
  }
  const told = ({ state, progress }: Job) =>
    state === 'running' && progress ? `running: ${JSON.stringify(progress)}` : undefined
  return outcomeOf(at, () => client.jobs.show(id, { signal: at.signal }), isOver, told)
}

/** What a job has to say at its end, a line for each fact. */
function resultOf({ name, id, result }: Job): string[][] {
  const facts = typeof result === 'object' && result !== null ? Object.entries(result) : []
  return [
    [name, `${id} is done`],
    ...facts.map(([key, value]) => [key, typeof value === 'string' ? value : JSON.stringify(value)]),
  ]
}
