import { setTimeout as sleep } from 'node:timers/promises'
import { askFor } from './answers.ts'
import { type Call, type Connection, queryOf } from './connection.ts'
import { PacksError, type PacksErrorCode, unlessCancelled } from './failure.ts'
import { anew, isComing, lookMs, noticeMs, resumeAtOf, type TakenUp, takeUp } from './import-take-up.ts'
import { listed } from './pages.ts'
import { Passing, persist } from './retry.ts'

/** A bundle to be imported. `open` gives its bytes from byte `from` on; they must be the same each time. */
export type ImportSource = { size: number; open(from: number): AsyncIterable<Uint8Array> }

export type ImportOptions = {
  /** Say what would become of it, and store nothing. */
  dryRun?: boolean
  /** Channels may go back to older versions, for this reason. */
  force?: { reason: string }
  /** A runner's version on which all of it has to run. */
  runner?: string
  /** The repository of a pack, such as `packs/net`, for a layout that does not say which it is. */
  repository?: string
  /** Of the file, in bytes; goes back where a part has to be sent again. */
  onProgress?: (progress: { sentBytes: number; totalBytes: number }) => void
  signal?: AbortSignal
}

/** Something that keeps a bundle from being imported. */
export type ImportProblem = { key: string; message: string; packId?: string; version?: string }

/** What was found, and what became of it. `changed`: something is there that was not before. */
export type ImportReport = {
  id?: string
  dryRun: boolean
  changed: boolean
  kind: 'bundle' | 'layout'
  index: string
  base?: string
  signature: { kind: 'missing' | 'verified' | 'refused'; by?: { keyid: string; name?: string }[]; reason?: string }
  packs: { packId: string; version: string; manifestDigest: string; outcome: 'new' | 'present' }[]
  channels: {
    packId: string
    channel: string
    version: string
    outcome: 'new' | 'moved' | 'present'
    from?: string
    backwards?: true
  }[]
  referrers: number
  blobs: { count: number; bytes: number; stored: number; storedBytes: number; leftOut: number }
  force?: { reason: string }
  problems: ImportProblem[]
}

/** An import, from wherever it is looked at. `resumeAt`: the byte of the file at which it can be gone on with. */
export type ImportStatus = {
  id: string
  state: 'receiving' | 'verifying' | 'publishing' | 'published' | 'failed'
  /** A process of the registry is at it, or will be by itself. */
  alive: boolean
  received: number
  total?: number
  blobs: number
  resumeAt?: number
  index?: string
  startedAt: string
  finishedAt?: string
  error?: { key: string; detail: unknown }
  report?: ImportReport
}

/** Bundle files that come into a registry. */
export type Imports = {
  /**
   * Imports a bundle, or the OCI layout of another tool: all of it, or nothing. The same again changes nothing. What the
   * network loses is sent again from where it was. Throws BUNDLE_INVALID, DIGEST_INVALID, SIGNATURE_INVALID,
   * SIGNATURE_MISSING, IMPORT_BASE_MISSING, IMPORT_BACKWARDS, VERSION_EXISTS and others, with every problem in `about`.
   */
  run(source: ImportSource, options?: ImportOptions): Promise<ImportReport>
  /** Sends and verifies it as `run` does, and leaves the publishing to a job of the registry: see `find`. */
  start(source: ImportSource, options?: Omit<ImportOptions, 'dryRun'>): Promise<ImportStatus>
  /** The newest first, without their reports, page by page as they are consumed. */
  list(options?: { state?: ImportStatus['state']; signal?: AbortSignal }): AsyncGenerator<ImportStatus, void, undefined>
  /** How far an import is, or what it found. Throws IMPORT_UNKNOWN. */
  find(id: string, options?: { signal?: AbortSignal }): Promise<ImportStatus>
}

/** Until a large bundle is published, the connection on which it came is silent. */
const silenceMs = 15 * 60_000

export function importsOf(connection: Connection): Imports {
  return {
    run: (source, options = {}) => run(connection, source, options),
    start: (source, options = {}) => start(connection, source, options),
    list: ({ state, signal } = {}) =>
      listed(connection, 'imports', { path: `/bundles/imports${queryOf({ state })}`, signal }),
    find: (id, { signal } = {}) => find(connection, id, signal),
  }
}

async function find(connection: Connection, id: string, signal: AbortSignal | undefined): Promise<ImportStatus> {
  const call = { path: `/bundles/imports/${encodeURIComponent(id)}`, signal }
  return (await askFor<{ import: ImportStatus }>(connection, 'import', call)).import
}

async function run(connection: Connection, source: ImportSource, options: ImportOptions): Promise<ImportReport> {
  const { dryRun = false, signal } = options
  // A dry run leaves nothing to go on with.
  const query = uploadQuery(options, { dryRun: 'true' })
  const sent = dryRun
    ? await send(connection, source, { ...options, id: undefined, from: 0, query, field: 'changed' })
    : await bring(connection, source, options, 'changed')
  return 'report' in sent ? sent.report : ended(connection, await find(connection, sent.id, signal), signal)
}

async function start(connection: Connection, source: ImportSource, options: ImportOptions): Promise<ImportStatus> {
  const { id } = await bring(connection, source, options, 'import')
  return find(connection, id, options.signal)
}

type Sent = { id: string } | { id: string; report: ImportReport }

/** Sends a file, from where a run before this one has left it. The id is known however early the connection is lost. */
async function bring(
  connection: Connection,
  source: ImportSource,
  options: ImportOptions,
  field: Sending['field'],
): Promise<Sent> {
  const { signal } = options
  const more = field === 'import' ? { async: 'true' } : {}
  const begin = async ({ id, from, status }: TakenUp): Promise<Sent> => {
    if (status) return { id }
    const query = uploadQuery(options, { ...more, resume: id })
    return { ...(await send(connection, source, { ...options, id, from, query, field })), id }
  }
  const taken = await takeUp(connection, source, {
    options: uploadQuery(options, more).toString(),
    find: (id) => find(connection, id, signal),
    signal,
  })
  try {
    return await begin(taken)
  } catch (error) {
    // Somebody else has one of this id, or another run of the same command sends it at this moment.
    const isAnothers = error instanceof PacksError && /^IMPORT_(?:UNKNOWN|SUPERSEDED)$/.test(error.code)
    if (taken.isFresh || !isAnothers) throw error
    return begin(anew())
  }
}

function uploadQuery({ force, runner, repository }: ImportOptions, more: Record<string, string>): URLSearchParams {
  return new URLSearchParams({
    ...more,
    ...(force ? { force: 'true', reason: force.reason } : {}),
    ...(runner === undefined ? {} : { runner }),
    ...(repository === undefined ? {} : { repository }),
  })
}

type Sending = ImportOptions & {
  id: string | undefined
  from: number
  query: URLSearchParams
  field: 'changed' | 'import'
}

/** For how long an import that the registry has a part of is tried again: so long a restart may take. */
const lastingMs = 2 * 60_000

/** Sends a file to its end, whatever breaks off meanwhile. Without a report: all of it is there, and is seen to. */
async function send(
  connection: Connection,
  source: ImportSource,
  { id, from: first, query, field, ...options }: Sending,
): Promise<{ report: ImportReport } | { id: string }> {
  const { signal } = options
  const once = { ...connection, attempts: 1, idleTimeoutMs: Math.max(connection.idleTimeoutMs, silenceMs) }
  let [from, told] = [first, first]
  // Whether where to go on is still to be asked, and whether the registry has some of it.
  let [isLost, isBegun] = [false, first > 0]
  const onTaken = () => {
    isBegun = true
  }
  const look = async (id: string): Promise<{ id: string } | undefined> => {
    const left = await whatIsLeft({ ...connection, attempts: 1 }, id, source, signal)
    if (typeof left !== 'number') return left
    isLost = false
    from = left
    isBegun ||= from > 0
    return undefined
  }
  return persist(connection, signal, async () => {
    try {
      const whole = isLost && id !== undefined ? await look(id) : undefined
      if (whole) return whole
      const call = callOf(`/bundles/import?${query}`, source, from, { ...options, onTaken })
      return { report: await askFor<ImportReport>(once, field, call) }
    } catch (error) {
      if (!mayPass(error)) throw error
      if (id !== undefined && !isLost) {
        isLost = true
        try {
          const whole = await look(id)
          if (whole) return whole
        } catch (again) {
          if (!mayPass(again)) throw again
        }
      }
      const gained = from > told
      told = from
      throw passing(error, { gained, lastingMs: isBegun && id !== undefined ? lastingMs : 0 })
    }
  })
}

const pollMs = 500

/** How an import ends that the registry finishes by itself. */
async function ended(
  connection: Connection,
  begun: ImportStatus,
  signal: AbortSignal | undefined,
): Promise<ImportReport> {
  let status = begun
  while (status.state === 'publishing') {
    await sleep(pollMs, undefined, signal ? { signal } : {}).catch(() => unlessCancelled(signal))
    status = await persist(connection, signal, () => findLasting(connection, begun.id, signal))
  }
  const { id, state, report, error } = status
  if (state === 'published' && report) return { ...report, id }
  throw new PacksError(
    (error?.key ?? 'IMPORT_REFUSED') as PacksErrorCode,
    typeof error?.detail === 'string' ? error.detail : `the import is ${state}; import it again`,
    { about: { import: id, ...(report ? { problems: report.problems } : {}) } },
  )
}

/** The same where the registry may be restarting. */
async function findLasting(connection: Connection, id: string, signal: AbortSignal | undefined): Promise<ImportStatus> {
  try {
    return await find({ ...connection, attempts: 1 }, id, signal)
  } catch (error) {
    throw mayPass(error) ? passing(error, { lastingMs }) : error
  }
}

type Told = Pick<ImportOptions, 'onProgress' | 'signal'> & { onTaken: () => void }

function callOf(path: string, { size, open }: ImportSource, from: number, { onProgress, onTaken, signal }: Told): Call {
  async function* body(): AsyncGenerator<Uint8Array> {
    let sentBytes = from
    let pieces = 0
    for await (const piece of open(from)) {
      yield piece
      sentBytes += piece.length
      // The first is asked behind also where there is no connection; the second goes when the first has gone.
      pieces += 1
      if (pieces === 2) onTaken()
      onProgress?.({ sentBytes, totalBytes: size })
    }
    if (sentBytes !== size)
      throw new PacksError('CONTENT_CHANGED', 'the bundle changed while it was being sent; import it again')
  }
  return {
    ...{ method: 'POST', path, signal },
    headers: from > 0 ? { 'content-range': `${from}-${size - 1}` } : {},
    body: { type: 'application/x-tar', length: size - from, open: body },
  }
}

function passing(error: PacksError, options: { gained?: boolean; lastingMs: number }): Passing {
  return new Passing(error, options)
}

function mayPass(error: unknown): error is PacksError {
  if (!(error instanceof PacksError)) return false
  const { code, status = 0 } = error
  return code === 'UNREACHABLE' || code === 'RANGE_INVALID' || status === 408 || status === 429 || status >= 500
}

/** Where to go on: at the start, where the registry knows nothing of it; nowhere, where it has all of it. */
async function whatIsLeft(
  connection: Connection,
  id: string,
  source: ImportSource,
  signal: AbortSignal | undefined,
): Promise<number | { id: string }> {
  try {
    let status = await find(connection, id, signal)
    // While the other side still waits for the lost connection, it has not said how far it got.
    for (let waitedMs = 0; status.alive && isComing(status) && waitedMs < noticeMs; waitedMs += lookMs) {
      await sleep(lookMs, undefined, signal ? { signal } : {}).catch(() => unlessCancelled(signal))
      status = await find(connection, id, signal)
    }
    return isComing(status) || status.state === 'failed' ? resumeAtOf(status, source) : { id }
  } catch (error) {
    if (error instanceof PacksError && error.code === 'IMPORT_UNKNOWN') return 0
    throw error
  }
}
