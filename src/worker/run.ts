import { setTimeout as sleep } from 'node:timers/promises'
import { ask, type Transaction } from '../db/client.ts'
import { cancelRun, deadRun, giveBack, heartbeat, holdRun, type Run } from '../db/jobs.ts'
import { completeJob, failJob } from '../db/queue.ts'
import { storable } from '../db/text.ts'
import type { Deps } from '../deps.ts'
import { Failure, failures } from '../errors.ts'
import { withoutSecrets } from '../log.ts'
import { noteEnd } from '../registry/jobs.ts'
import type { Job } from './jobs.ts'

/** Why a handler's signal aborts: the worker stops. Its job is given back. */
export class Stopped extends Error {
  override name = 'Stopped'
}

/** Why a handler's signal aborts: somebody has cancelled the job. */
export class Cancelled extends Error {
  override name = 'Cancelled'
}

/** Why a handler's signal aborts: another worker has the job by now, or may have. */
class Lost extends Error {
  override name = 'Lost'
}

/** `dead`: failed, and no try follows. */
type Outcome = 'completed' | 'failed' | 'dead' | 'cancelled' | 'given back' | 'lost'

/**
 * Runs a job under its lease, from the handler's start to the job's end in the queue. Never throws. `abort` is what
 * stops it from outside, with Stopped as the reason.
 */
export async function perform(deps: Deps, job: Job, run: Run, abort: AbortController): Promise<void> {
  const { name, id, attempt } = run
  const about = { job: name, id, attempt }
  const started = performance.now()
  deps.log.debug(about, 'job begun')
  const progress = { value: undefined as object | undefined, isNew: false }
  const endHeart = startHeart(deps, run, progress, abort)
  const ended = await handle(deps, job, run, progress, abort.signal)
  await endHeart()
  const outcome = await settle(deps, run, ended, progress.value, abort.signal)
  const seconds = (performance.now() - started) / 1000
  deps.metrics.jobs.labels(name, outcome === 'dead' ? 'failed' : outcome).observe(seconds)
  if (outcome === 'dead') deps.metrics.jobsDead.labels(name).inc()
  const facts = { ...about, ms: Math.round(seconds * 1000) }
  // Most of what is due by the clock finds nothing to do.
  if (outcome === 'completed')
    deps.log[isNothing(ended.result) ? 'debug' : 'info']({ ...facts, result: ended.result }, 'job completed')
  else if (outcome === 'failed') deps.log.warn({ ...facts, error: ended.error }, 'job failed; it is tried again')
  else if (outcome === 'dead') deps.log.error({ ...facts, error: ended.error }, 'job failed for good: a dead letter')
  else deps.log.warn(facts, `job ${outcome}`)
}

/** Whether a job's result says that there was nothing to do: all that it has counted is 0. */
function isNothing(result: object | undefined): boolean {
  return Object.values(result ?? {}).every((value) => value === 0)
}

type Progress = { value: object | undefined; isNew: boolean }
type Ended = { error?: unknown; result?: object | undefined }

async function handle(deps: Deps, job: Job, run: Run, progress: Progress, signal: AbortSignal): Promise<Ended> {
  const context = {
    signal,
    progress(value: object) {
      progress.value = value
      progress.isNew = true
    },
  }
  try {
    return { result: await job.run(deps, run.data as never, context) }
  } catch (error) {
    return { error: error ?? new Error('the handler threw nothing') }
  }
}

/**
 * Prolongs the lease three times in its length, and with it writes the progress, at most once a second. A database that
 * is down is asked again; when the whole lease goes by without an answer, the run is given up for lost.
 */
function startHeart(deps: Deps, run: Run, progress: Progress, abort: AbortController): () => Promise<void> {
  const leaseMs = run.lease * 1000
  let heard = performance.now()
  let beating = Promise.resolve()
  let isBeating = false
  const lose = (reason: string, cause?: unknown) => {
    clearInterval(timer)
    abort.abort(new Lost(reason, { cause }))
  }
  const beat = async () => {
    const asked = performance.now()
    const noted = progress.isNew ? progress.value : undefined
    progress.isNew = false
    try {
      const held = await ask(deps.db, (sql) => heartbeat(sql, run, noted))
      if (!held) return lose('another worker has this job')
      heard = asked
      if (held.isCancelled) abort.abort(new Cancelled('the job was cancelled'))
    } catch (error) {
      progress.isNew ||= noted !== undefined
      if (performance.now() - heard < leaseMs) return
      lose('the database could not be told in time that this job is alive', error)
    }
  }
  const timer = setInterval(
    () => {
      if (isBeating) return
      if (!progress.isNew && performance.now() - heard < leaseMs / 3) return
      isBeating = true
      beating = beat().finally(() => {
        isBeating = false
      })
    },
    Math.min(1000, leaseMs / 6),
  )
  // A handler that never ends must not keep a process that has given its job back.
  timer.unref()
  return async () => {
    clearInterval(timer)
    await beating
  }
}

/** Writes down how it ended, asking again for as long as the database is down and the lease may last. */
async function settle(
  deps: Deps,
  run: Run,
  ended: Ended,
  progress: object | undefined,
  signal: AbortSignal,
): Promise<Outcome> {
  const deadline = performance.now() + run.lease * 1000
  for (;;) {
    try {
      if (signal.reason instanceof Lost && ended.error !== undefined) return 'lost'
      return await write(deps, run, ended, progress, signal)
    } catch (error) {
      if (performance.now() > deadline || signal.aborted) {
        deps.log.warn(
          { error, job: run.name, id: run.id },
          'could not write down how a job ended; it will be run again',
        )
        return 'lost'
      }
      await sleep(500)
    }
  }
}

async function write(
  deps: Deps,
  run: Run,
  { error, result }: Ended,
  progress: object | undefined,
  signal: AbortSignal,
): Promise<Outcome> {
  if (error !== undefined && signal.reason instanceof Stopped)
    return (await giveBackRun(deps, run)) === 'cancelled' ? 'cancelled' : 'given back'
  const noted = progress === undefined ? {} : { progress }
  const last = error instanceof Failure && isFinal(error)
  return ask(deps.db, (sql) =>
    sql.begin(async (tx) => {
      const held = await holdRun(tx, run, { last })
      if (!held) return 'lost' as const
      if (error !== undefined) return endWithout(tx, run, { ...noted, error: inWords(error) }, held)
      await completeJob(tx, run.name, run.id, { ...noted, result: result ?? null })
      return 'completed' as const
    }),
  )
}

/** Ends a run that is held and has not come to its end. */
async function endWithout(
  tx: Transaction,
  run: Run,
  output: object,
  { isCancelled }: { isCancelled: boolean },
): Promise<'cancelled' | 'dead' | 'failed'> {
  if (!isCancelled) await failJob(tx, run.name, run.id, output)
  const ended = isCancelled ? await cancelRun(tx, run, output) : await deadRun(tx, run)
  if (!ended) return 'failed'
  await noteEnd(tx, ended)
  return ended.state === 'cancelled' ? 'cancelled' : 'dead'
}

/** Gives a job back; answers how it has ended, where it has thereby. */
export function giveBackRun(deps: Deps, run: Run): Promise<'failed' | 'cancelled' | undefined> {
  return ask(deps.db, (sql) =>
    sql.begin(async (tx) => {
      const ended = await giveBack(tx, run)
      if (ended) await noteEnd(tx, ended)
      return ended?.state
    }),
  )
}

/** Whether trying again is no use: it is the request that is wrong. */
function isFinal({ key }: Failure): boolean {
  return failures[key].status < 500 && key !== 'TOOMANYREQUESTS'
}

const longestError = 4000

/** What a person reads of an error. No stack, and no secret that an address may carry. */
function inWords(error: unknown): string {
  const { message } = error instanceof Error ? error : { message: String(error) }
  const detail = error instanceof Failure ? error.detail : undefined
  const words =
    detail === undefined ? message : typeof detail === 'string' ? detail : `${message}: ${JSON.stringify(detail)}`
  return storable(withoutSecrets(words).slice(0, longestError))
}
