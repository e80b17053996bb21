import { ask, askRead } from '../db/client.ts'
import { cancelJob, openJobs } from '../db/dead-letters.ts'
import { type NewEvent, recordEvents } from '../db/events.ts'
import {
  beginRun,
  deleteMirror,
  endRun,
  findMirror,
  forgetRuns,
  insertMirror,
  insertRun,
  lockMirror,
  type MirrorDirection,
  type MirrorRow,
  nextRun,
  noteProgress,
  pauseRun,
  type RunRow,
  updateMirror,
  waitingRun,
} from '../db/mirrors.ts'
import { send } from '../db/queue.ts'
import { storable } from '../db/text.ts'
import type { Deps } from '../deps.ts'
import { Failure, failures } from '../errors.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { PackId } from '../packs/pack.ts'
import type { Selection } from '../packs/selection.ts'
import { type Credentials, openRemote, originOf, type Remote } from '../remote/remote.ts'
import { pullSelected } from './mirror-pull.ts'
import { pushSelected } from './mirror-push.ts'
import type { Mirroring } from './mirroring.ts'
import { openReport, type ParityReport } from './parity.ts'
import { seal, unseal } from './sealed.ts'

/** How the other registry is treated. `hosts`: further hosts that belong to it, such as its token service. */
export type MirrorOptions = {
  allowPrivate?: boolean | undefined
  hosts?: readonly string[] | undefined
  concurrency?: number | undefined
  bytesPerSecond?: number | undefined
}

export type Mirror = MirrorRow<Selection, MirrorOptions>

/** A mirror as it is asked for. `credentials`: null takes them away, undefined leaves them. */
export type MirrorInput = {
  url: string
  prefix: RepositoryName
  selection: Selection
  schedule: string | null
  credentials?: Credentials | null | undefined
  options: MirrorOptions
}

const purpose = 'mirror credentials'
const runsKept = 200

/** Throws MIRROR_EXISTS, and REQUEST_INVALID where the URL is none of a registry. */
export async function createMirror(
  deps: Deps,
  name: string,
  direction: MirrorDirection,
  { credentials, ...input }: MirrorInput,
): Promise<Mirror> {
  const url = originOf(input.url).origin
  const sealed = credentials ? seal(deps.uploadSecret, purpose, JSON.stringify(credentials)) : null
  const row = await ask(deps.db, (sql) => insertMirror(sql, { name, direction, ...input, url, credentials: sealed }))
  if (!row) throw new Failure('MIRROR_EXISTS', { detail: `there is a mirror ${name}; change it, or take another name` })
  return row as Mirror
}

/** Throws MIRROR_UNKNOWN, and REQUEST_INVALID where credentials would go to another registry than they are for. */
export async function changeMirror(deps: Deps, before: Mirror, { credentials, ...input }: MirrorInput): Promise<void> {
  const url = originOf(input.url).origin
  // Whoever may change a mirror must not make it show its credentials to a server of theirs.
  if (credentials === undefined && before.credentials !== null && url !== before.url)
    throw new Failure('REQUEST_INVALID', {
      detail: `the credentials of ${before.name} are for ${before.url}: give those for ${url} along, or null for none`,
    })
  const kept = credentials === undefined ? before.credentials : null
  const sealed = credentials ? seal(deps.uploadSecret, purpose, JSON.stringify(credentials)) : kept
  const changed = await ask(deps.db, (sql) => updateMirror(sql, before.id, { ...input, url, credentials: sealed }))
  if (!changed) throw unknown(before.name)
}

/** Throws MIRROR_UNKNOWN. */
export async function mirrorOf(deps: Deps, name: string): Promise<Mirror> {
  const row = await askRead(deps.db, (sql) => findMirror(sql, { name }))
  if (!row) throw unknown(name)
  return row as Mirror
}

function unknown(name: string): Failure {
  return new Failure('MIRROR_UNKNOWN', { detail: `there is no mirror ${JSON.stringify(name.slice(0, 100))}` })
}

/** With its runs; one that is under way ends. False where there was none. */
export function removeMirror(deps: Deps, name: string): Promise<boolean> {
  return ask(deps.db, (sql) =>
    sql.begin(async (tx) => {
      const mirror = await findMirror(tx, { name })
      if (!mirror) return false
      // Jobs before runs, as whoever ends a job locks them.
      for (const job of await openJobs(tx, 'mirror', mirror.id)) await cancelJob(tx, job.id)
      return deleteMirror(tx, mirror.id)
    }),
  ) as Promise<boolean>
}

/** Has a run of it done, soon; one that waits already is as good. Throws MIRROR_UNKNOWN where it is deleted meanwhile. */
export function requestRun(deps: Deps, { id, name }: Mirror, { dryRun }: { dryRun: boolean }): Promise<RunRow> {
  return ask(deps.db, (sql) =>
    sql.begin(async (tx) => {
      if (!(await lockMirror(tx, id))) throw unknown(name)
      const run = (await waitingRun(tx, id, dryRun)) ?? (await insertRun(tx, id, dryRun))
      // Not taken where a job waits: that one does all runs there are.
      await send(tx, 'mirror', { mirror: id }, { key: id })
      return run
    }),
  ) as Promise<RunRow>
}

type Watch = { signal: AbortSignal; progress(value: object): void }

/**
 * Does the runs of a mirror that wait or were cut; one of its own where there is none. Answers how the last one ended;
 * undefined where the mirror has been deleted. Throws what ends a run before its time; it can be gone on with.
 */
export async function runMirror(deps: Deps, id: string, watch: Watch): Promise<object | undefined> {
  await ask(deps.db, (sql) => forgetRuns(sql, id, runsKept))
  let run = await ask(deps.db, (sql) => nextRun(sql, id))
  let result: object | undefined
  do {
    const mirror = (await askRead(deps.db, (sql) => findMirror(sql, { id }))) as Mirror | undefined
    if (!mirror) return result
    const next = run ?? (await ask(deps.db, (sql) => insertRun(sql, id, false)))
    const { clean, counts, moved } = await perform(deps, mirror, next, watch)
    result = { mirror: mirror.name, run: next.id, clean, counts, moved }
    run = await ask(deps.db, (sql) => nextRun(sql, id))
  } while (run)
  return result
}

async function perform(deps: Deps, mirror: Mirror, run: RunRow, watch: Watch): Promise<ParityReport> {
  await ask(deps.db, (sql) => beginRun(sql, run.id))
  const remote = remoteOf(deps, mirror)
  try {
    const mirroring = begin(deps, mirror, run, remote, watch)
    await (mirror.direction === 'push' ? pushSelected(mirroring) : pullSelected(mirroring))
    mirroring.report.moved.requests = remote.counts.requests
    const report = mirroring.report.close(run.dryRun)
    await ask(deps.db, (sql) =>
      sql.begin(async (tx) => {
        await endRun(tx, run.id, { report })
        if (!run.dryRun) await recordEvents(tx, [mirrorCompleted(mirror, run, report)])
      }),
    )
    return report
  } catch (error) {
    if (!watch.signal.aborted) await noteFailure(deps, mirror, run, error)
    throw error
  } finally {
    remote.close()
  }
}

function mirrorCompleted(
  { name, direction }: Mirror,
  { id }: RunRow,
  { clean, counts, moved }: ParityReport,
): NewEvent {
  const data = { mirror: name, direction, run: id, clean, counts, moved }
  return { type: 'mirror.completed', subject: name, data }
}

/** A failure that will not pass ends the run; any other makes it wait for the job's next try. */
async function noteFailure(deps: Deps, { name, direction }: Mirror, { id }: RunRow, error: unknown): Promise<void> {
  const words =
    error instanceof Failure
      ? typeof error.detail === 'string'
        ? storable(error.detail)
        : error.message
      : 'internal error; see the log'
  const final = error instanceof Failure && failures[error.key].status < 500
  const data = { mirror: name, direction, run: id, error: words, final }
  await ask(deps.db, (sql) =>
    sql.begin(async (tx) => {
      await (final ? endRun(tx, id, { error: words }) : pauseRun(tx, id, words))
      await recordEvents(tx, [{ type: 'mirror.failed', subject: name, data }])
    }),
  )
}

function begin(deps: Deps, mirror: Mirror, run: RunRow, remote: Remote, watch: Watch): Mirroring {
  const sessions = new Map(Object.entries((run.progress.sessions ?? {}) as Record<string, string>))
  const report = openReport()
  let seen = 0
  const facts = (pack?: PackId) => ({ ...report.moved, seen, ...(pack ? { pack } : {}) })
  return {
    deps,
    remote,
    prefix: mirror.prefix,
    selection: mirror.selection,
    dryRun: run.dryRun,
    concurrency: mirror.options.concurrency ?? defaultConcurrency,
    report,
    places: new Map(),
    sessions,
    signal: watch.signal,
    note({ pack }) {
      watch.signal.throwIfAborted()
      seen++
      watch.progress(facts(pack))
    },
    async keepSessions() {
      const progress = { ...facts(), sessions: Object.fromEntries(sessions) }
      if (await ask(deps.db, (sql) => noteProgress(sql, run.id, progress))) return
      throw unknown(mirror.name)
    },
  }
}

const defaultConcurrency = 4

function remoteOf(deps: Deps, { url, credentials, options, name }: Mirror): Remote {
  const text = credentials ? unseal(deps.uploadSecret, purpose, credentials) : undefined
  if (credentials && text === undefined)
    throw new Failure('REMOTE_DENIED', {
      detail: `the credentials of ${name} cannot be read: they were written under another secret. Set them again`,
    })
  const parsed = text === undefined ? undefined : (JSON.parse(text) as Credentials)
  return openRemote({ url, ...options, concurrency: options.concurrency ?? defaultConcurrency, credentials: parsed })
}
