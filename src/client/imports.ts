import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { askFor, type Call, type Connection, queryOf } from './connection.ts'
import { PacksError, type PacksErrorCode, unlessCancelled } from './failure.ts'
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
  // Chosen here, so that it is known however early the connection is lost. A dry run leaves nothing to go on with.
  const id = dryRun ? undefined : randomUUID()
  const query = uploadQuery(options, id === undefined ? { dryRun: 'true' } : { resume: id })
  const sent = await send(connection, source, { ...options, id, query, field: 'changed' })
  return 'report' in sent ? sent.report : ended(connection, await find(connection, sent.id, signal), signal)
}

async function start(connection: Connection, source: ImportSource, options: ImportOptions): Promise<ImportStatus> {
  const id = randomUUID()
  const query = uploadQuery(options, { resume: id, async: 'true' })
  await send(connection, source, { ...options, id, query, field: 'import' })
  return find(connection, id, options.signal)
}

function uploadQuery({ force, runner, repository }: ImportOptions, more: Record<string, string>): URLSearchParams {
  return new URLSearchParams({
    ...more,
    ...(force ? { force: 'true', reason: force.reason } : {}),
    ...(runner === undefined ? {} : { runner }),
    ...(repository === undefined ? {} : { repository }),
  })
}

type Sending = ImportOptions & { id: string | undefined; query: URLSearchParams; field: 'changed' | 'import' }

/** Sends a file to its end, whatever breaks off meanwhile. Without a report: all of it is there, and is seen to. */
async function send(
  connection: Connection,
  source: ImportSource,
  { id, query, field, ...options }: Sending,
): Promise<{ report: ImportReport } | { id: string }> {
  const { signal } = options
  const once = { ...connection, attempts: 1, idleTimeoutMs: Math.max(connection.idleTimeoutMs, silenceMs) }
  let from = 0
  return persist(connection, signal, async () => {
    try {
      const call = callOf(`/bundles/import?${query}`, source, from, options)
      return { report: await askFor<ImportReport>(once, field, call) }
    } catch (error) {
      if (!mayPass(error)) throw error
      const before = from
      const left = id === undefined ? 0 : await whatIsLeft(connection, id, source, signal)
      if (typeof left !== 'number') return left
      from = left
      throw passing(error, from > before)
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
    status = await find(connection, status.id, signal)
  }
  const { id, state, report, error } = status
  if (state === 'published' && report) return { ...report, id }
  throw new PacksError(
    (error?.key ?? 'IMPORT_REFUSED') as PacksErrorCode,
    typeof error?.detail === 'string' ? error.detail : `the import is ${state}; import it again`,
    { about: { import: id, ...(report ? { problems: report.problems } : {}) } },
  )
}

function callOf(path: string, { size, open }: ImportSource, from: number, { onProgress, signal }: ImportOptions): Call {
  async function* body(): AsyncGenerator<Uint8Array> {
    let sentBytes = from
    for await (const piece of open(from)) {
      yield piece
      sentBytes += piece.length
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

function passing(error: PacksError, gained: boolean): Passing {
  return new Passing(error, { gained })
}

function mayPass(error: unknown): error is PacksError {
  if (!(error instanceof PacksError)) return false
  const { code, status = 0 } = error
  return code === 'UNREACHABLE' || code === 'RANGE_INVALID' || status === 408 || status === 429 || status >= 500
}

/** The registry notices a lost connection within moments; after this it is taken over all the same. */
const noticeMs = 20_000
const lookMs = 300

/** Where to go on: at the start, where the registry knows nothing of it; nowhere, where it has all of it. */
async function whatIsLeft(
  connection: Connection,
  id: string,
  { size }: ImportSource,
  signal: AbortSignal | undefined,
): Promise<number | { id: string }> {
  try {
    let status = await find(connection, id, signal)
    // While the other side still waits for the lost connection, it has not said how far it got.
    for (let waitedMs = 0; status.alive && isComing(status) && waitedMs < noticeMs; waitedMs += lookMs) {
      await sleep(lookMs, undefined, signal ? { signal } : {}).catch(() => unlessCancelled(signal))
      status = await find(connection, id, signal)
    }
    return isComing(status) || status.state === 'failed' ? Math.min(status.resumeAt ?? 0, size - 1) : { id }
  } catch (error) {
    if (error instanceof PacksError && error.code === 'IMPORT_UNKNOWN') return 0
    throw error
  }
}

function isComing({ state }: ImportStatus): boolean {
  return state === 'receiving' || state === 'verifying'
}
