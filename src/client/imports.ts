import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { askFor, type Call, type Connection } from './connection.ts'
import { PacksError, unlessCancelled } from './failure.ts'
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
  state: 'receiving' | 'verifying' | 'published' | 'failed'
  /** A process of the registry is at it. */
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
  /** How far an import is, or what it found. Throws IMPORT_UNKNOWN. */
  find(id: string, options?: { signal?: AbortSignal }): Promise<ImportStatus>
}

/** Until a large bundle is published, the connection on which it came is silent. */
const silenceMs = 15 * 60_000

export function importsOf(connection: Connection): Imports {
  return {
    run: (source, options = {}) => run(connection, source, options),
    find: (id, { signal } = {}) => find(connection, id, signal),
  }
}

async function find(connection: Connection, id: string, signal: AbortSignal | undefined): Promise<ImportStatus> {
  const call = { path: `/bundles/imports/${encodeURIComponent(id)}`, signal }
  return (await askFor<{ import: ImportStatus }>(connection, 'import', call)).import
}

async function run(connection: Connection, source: ImportSource, options: ImportOptions): Promise<ImportReport> {
  const { dryRun = false, force, runner, repository, signal } = options
  // Chosen here, so that it is known however early the connection is lost. A dry run leaves nothing to go on with.
  const id = dryRun ? undefined : randomUUID()
  const query = new URLSearchParams({
    ...(id === undefined ? { dryRun: 'true' } : { resume: id }),
    ...(force ? { force: 'true', reason: force.reason } : {}),
    ...(runner === undefined ? {} : { runner }),
    ...(repository === undefined ? {} : { repository }),
  })
  const once = { ...connection, attempts: 1, idleTimeoutMs: Math.max(connection.idleTimeoutMs, silenceMs) }
  let from = 0
  return persist(connection, signal, async () => {
    try {
      return await askFor<ImportReport>(once, 'changed', callOf(`/bundles/import?${query}`, source, from, options))
    } catch (error) {
      if (!mayPass(error)) throw error
      const before = from
      from = id === undefined ? 0 : await resumeAt(connection, id, source, signal)
      throw passing(error, from > before)
    }
  })
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

/** Where to go on; at the start, where the registry knows nothing of it. */
async function resumeAt(
  connection: Connection,
  id: string,
  { size }: ImportSource,
  signal: AbortSignal | undefined,
): Promise<number> {
  try {
    let status = await find(connection, id, signal)
    // While the other side still waits for the lost connection, it has not said how far it got.
    for (let waitedMs = 0; status.alive && waitedMs < noticeMs; waitedMs += lookMs) {
      await sleep(lookMs, undefined, signal ? { signal } : {}).catch(() => unlessCancelled(signal))
      status = await find(connection, id, signal)
    }
    return Math.min(status.resumeAt ?? 0, size - 1)
  } catch (error) {
    if (error instanceof PacksError && error.code === 'IMPORT_UNKNOWN') return 0
    throw error
  }
}
