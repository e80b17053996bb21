import { ask, type Transaction, violated } from '../db/client.ts'
import { cancelJob, hasSuccessor, listDeadLetters, openJobs } from '../db/dead-letters.ts'
import { type NewEvent, recordEvents } from '../db/events.ts'
import { failExport } from '../db/export-files.ts'
import { abandonWhole } from '../db/imports.ts'
import { type EndedJob, retryJob } from '../db/jobs.ts'
import { endOpenRuns } from '../db/mirrors.ts'
import { send } from '../db/queue.ts'
import type { QueueName } from '../db/queues.ts'
import { failOpenRuns } from '../db/retention.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'

/** What hangs on a job of a kind, and has to learn that it has ended without success. `words`: why. */
const dependents: Partial<Record<QueueName, (tx: Transaction, job: EndedJob, words: string) => Promise<void>>> = {
  export: async (tx, job, words) => {
    if (job.key && !(await hasSuccessor(tx, job))) await failExport(tx, job.key, words)
  },
  import: async (tx, { key }, words) => {
    const detail = `it was not published: ${words}. Send it again`
    if (key) await abandonWhole(tx, key, { key: 'UNAVAILABLE', detail })
  },
  mirror: endMirrorRuns,
  // Its jobs do all runs that there are, whoever asked for them.
  retention: async (tx, job, words) => {
    if (!(await hasSuccessor(tx, job, { ofKey: false }))) await failOpenRuns(tx, words)
  },
}

/** A run that nobody goes on with has failed, and says so once more where it was not somebody who wanted its end. */
async function endMirrorRuns(tx: Transaction, job: EndedJob, words: string): Promise<void> {
  if (await hasSuccessor(tx, job)) return
  const runs = await endOpenRuns(tx, job.key ?? '', words)
  if (job.state === 'cancelled') return
  const events = runs.map(({ id: run, name: mirror, direction }): NewEvent => {
    return { type: 'mirror.failed', subject: mirror, data: { mirror, direction, run, error: words, final: true } }
  })
  await recordEvents(tx, events)
}

/**
 * Tells what hangs on a job that it has failed for good, or was cancelled. Called in the transaction that ends it, by
 * whoever that is: a worker, or who cancels it.
 */
export async function noteEnd(tx: Transaction, job: EndedJob): Promise<void> {
  const { id, name, key, attempts, state } = job
  const error = state === 'cancelled' ? 'cancelled' : (job.error ?? 'failed')
  await dependents[name as QueueName]?.(tx, job, error)
  if (state === 'cancelled') return
  const data = { job: id, name, ...(key === null ? {} : { key }), attempts, error }
  await recordEvents(tx, [{ type: 'job.failed', subject: key === null ? name : `${name} ${key}`, data }])
}

/**
 * Has a job of this kind run soon. One that waits already is as good, and is answered instead. `behind`: a job of the
 * same kind and key that runs now.
 */
export async function runByHand(
  deps: Deps,
  name: QueueName,
  data: object,
  key?: string,
): Promise<{ id: string; isNew: boolean; behind?: string }> {
  for (;;) {
    const sent = await ask(deps.db, (sql) =>
      send(sql, name, data, { priority: 1, ...(key === undefined ? {} : { key }) }),
    )
    const open = await ask(deps.db, (sql) => openJobs(sql, name, key))
    const running = open.find(({ id, isRunning }) => isRunning && id !== sent)
    const id = sent ?? open.find(({ isRunning }) => !isRunning)?.id
    // The one that waited has begun in this very moment: then another one may wait.
    if (id === undefined) continue
    return { id, isNew: sent !== undefined, ...(running ? { behind: running.id } : {}) }
  }
}

/** Cancels a job that waits, or has the worker of one that runs end it; false where it has ended. */
export async function cancel(deps: Deps, id: string): Promise<boolean> {
  const found = await ask(deps.db, (sql) =>
    sql.begin(async (tx) => {
      const job = await cancelJob(tx, id)
      if (job !== undefined && job !== 'running') await noteEnd(tx, job)
      return job
    }),
  )
  return found !== undefined
}

/** Makes a dead letter wait again; false where the job has not failed. Throws JOB_NOT_FAILED beside another of its key. */
export async function retry(
  deps: Deps,
  { id, name, key }: { id: string; name: string; key: string | null },
): Promise<boolean> {
  try {
    return await ask(deps.db, (sql) => retryJob(sql, id))
  } catch (error) {
    if (violated(error) === undefined) throw error
    const about = key === null ? name : `${name} of ${key}`
    throw new Failure('JOB_NOT_FAILED', {
      detail: `another job ${about} waits to be tried again already`,
      cause: error,
    })
  }
}

/** As many as one request tries again. */
const mostAtOnce = 1000

/**
 * Makes the dead letters of a kind wait again, the oldest first. Of an exclusive kind, one of a key; the others stay
 * dead, and are for the caller to discard. `more`: there were more than one call sees to.
 */
export async function retryAll(deps: Deps, name: string): Promise<{ retried: number; left: number; more: boolean }> {
  const ids = await ask(deps.db, (sql) => listDeadLetters(sql, name, mostAtOnce + 1))
  let [retried, left] = [0, 0]
  for (const id of ids.slice(0, mostAtOnce)) {
    try {
      if (await ask(deps.db, (sql) => retryJob(sql, id))) retried++
    } catch (error) {
      if (violated(error) === undefined) throw error
      left++
    }
  }
  return { retried, left, more: ids.length > mostAtOnce }
}
