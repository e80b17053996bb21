import { setMaxListeners } from 'node:events'
import { dirname, join, resolve } from 'node:path'
import type { Connection } from './connection.ts'
import { asPacksError, cachePath, copyOut, isAt, makeFolder } from './content.ts'
import { download, type Remote } from './download.ts'
import { cancelled, PacksError, unlessCancelled } from './failure.ts'
import { fileNameOf } from './file-name.ts'
import { checkLock, type Lock, type LockedPack, wrongWith } from './lock.ts'
import type { Pack } from './pack.ts'

/**
 * How far a pull is: of one pack, and of all of the lock. `cached`: its bytes were at hand and are not asked for.
 * `receivedBytes` begins above 0 where an interrupted download goes on, and may fall back where it has to begin again.
 */
export type PullProgress = {
  packId: string
  version: string
  /** Where it will be, whole and verified, when the pull of it has ended. */
  file: string
  receivedBytes: number
  totalBytes: number
  cached: boolean
  overall: { receivedBytes: number; totalBytes: number }
}

/** A pack that is on the disk, verified. */
export type PulledPack = {
  packId: string
  version: string
  /** The path: `<into>/<packId>/<file name>`. A bundle without content of its own: its index, `index.json`. */
  file: string
  digest: string
  size: number
  mediaType: string
  /** It came from the cache, or was there already: the registry was not asked. */
  cached: boolean
}

/** `into`: the folder; it is made where it is missing. */
export type PullOptions = {
  into: string
  onProgress?: ((progress: PullProgress) => void) | undefined
  signal?: AbortSignal | undefined
}

/** Where pulls keep what they fetched, and how many files they fetch at a time. */
export type PullSettings = { cacheDir: string | undefined; concurrency: number }

/** What is needed of a pack to pull it. */
type Pulled = Pick<LockedPack, 'packId' | 'version' | 'digest' | 'size' | 'mediaType' | 'title'>

const indexType = 'application/vnd.oci.image.index.v1+json'

/** Every pack of a lock, in its order. The first failure stops the others; files that are finished stay. */
export async function pull(
  connection: Connection,
  settings: PullSettings,
  lock: Lock,
  { into, onProgress, signal }: PullOptions,
): Promise<PulledPack[]> {
  const { packs } = checkLock(lock)
  const overall = { receivedBytes: 0, totalBytes: packs.reduce((sum, { size }) => sum + size, 0) }
  const stop = new AbortController()
  // One listener or two for every file under way.
  setMaxListeners(0, stop.signal)
  const onAbort = () => stop.abort(signal?.reason)
  if (signal?.aborted) throw cancelled(signal)
  signal?.addEventListener('abort', onAbort, { once: true })
  const pulled: PulledPack[] = []
  const queue = packs.entries()
  const work = async () => {
    for (const [i, pack] of queue)
      pulled[i] = await place(connection, settings, pack, {
        into,
        signal: stop.signal,
        report: reporter(overall, onProgress),
      })
  }
  let failure: unknown
  const worker = () =>
    work().catch((error) => {
      failure ??= error
      stop.abort(error)
    })
  try {
    await Promise.all(Array.from({ length: Math.min(Math.max(1, settings.concurrency), packs.length) }, worker))
  } finally {
    signal?.removeEventListener('abort', onAbort)
  }
  if (failure !== undefined) throw failure
  return pulled
}

/** One pack. Throws REQUEST_INVALID where the description of it cannot be right. */
export async function pullOne(
  connection: Connection,
  settings: PullSettings,
  pack: LockedPack | Pack,
  { into, onProgress, signal }: PullOptions,
): Promise<PulledPack> {
  const wrong = wrongWith(pack)
  if (wrong.length > 0) throw new PacksError('REQUEST_INVALID', `not a pack that can be pulled: ${wrong.join('; ')}`)
  const report = reporter({ receivedBytes: 0, totalBytes: pack.size }, onProgress)
  return place(connection, settings, pack, { into, signal, report })
}

type Report = (pack: Pulled, file: string, receivedBytes: number, cached: boolean) => void

/** Tells the progress of one pack, and adds it to the overall one. */
function reporter(overall: PullProgress['overall'], onProgress: PullOptions['onProgress']): Report {
  let before = 0
  return ({ packId, version, size }, file, receivedBytes, cached) => {
    overall.receivedBytes += receivedBytes - before
    before = receivedBytes
    onProgress?.({ packId, version, file, receivedBytes, totalBytes: size, cached, overall: { ...overall } })
  }
}

type PlaceOptions = { into: string; signal: AbortSignal | undefined; report: Report }

/** Gets one file to its place: it is there already, or comes from the cache, or from the registry. */
async function place(
  connection: Connection,
  { cacheDir }: PullSettings,
  pack: Pulled,
  { into, signal, report }: PlaceOptions,
): Promise<PulledPack> {
  const { packId, version, digest, size, mediaType } = pack
  const name = mediaType === indexType ? 'index.json' : fileNameOf(pack)
  const file = resolve(into, packId, name)
  const tell = (bytes: number, cached: boolean) => report(pack, file, bytes, cached)
  const answer = (cached: boolean) => ({ packId, version, file, digest, size, mediaType, cached })
  try {
    unlessCancelled(signal)
    await makeFolder(dirname(file))
    const isCached = cacheDir
      ? await throughCache(connection, cacheDir, { pack, file, signal, tell })
      : await straight(connection, { pack, file, signal, tell })
    return answer(isCached)
  } catch (error) {
    throw asPacksError(error)
  }
}

type Placing = {
  pack: Pulled
  file: string
  signal: AbortSignal | undefined
  tell(bytes: number, cached: boolean): void
}

/** Whether it was at hand. */
async function straight(connection: Connection, { pack, file, signal, tell }: Placing): Promise<boolean> {
  return inTurn(file, signal, async () => {
    if (await isAt(file, pack, signal)) {
      tell(pack.size, true)
      return true
    }
    const onReceived = (bytes: number) => tell(bytes, false)
    await download(connection, remoteOf(pack), file, { folder: dirname(file), keep: false, onReceived, signal })
    return false
  })
}

/** Whether it was at hand. */
async function throughCache(connection: Connection, cacheDir: string, placing: Placing): Promise<boolean> {
  const { pack, file, signal, tell } = placing
  const cached = cachePath(resolve(cacheDir), pack)
  const folder = join(resolve(cacheDir), 'partial')
  return inTurn(cached, signal, async () => {
    if ((await isAt(file, pack, signal)) || (await copyOut(cached, file, pack, signal))) {
      tell(pack.size, true)
      return true
    }
    await Promise.all([makeFolder(dirname(cached)), makeFolder(folder)])
    const onReceived = (bytes: number) => tell(bytes, false)
    await download(connection, remoteOf(pack), cached, { folder, keep: true, onReceived, signal })
    if (await copyOut(cached, file, pack, signal)) return false
    throw new PacksError('FILE_FAILED', `${cached} vanished or was changed while it was copied; pull again`)
  })
}

/** Nothing that may change is asked for: content and index are named by their digest. */
function remoteOf({ packId, version, digest, size, mediaType }: Pulled): Remote {
  const isIndex = mediaType === indexType
  return {
    path: `/v2/packs/${packId}/${isIndex ? 'manifests' : 'blobs'}/${digest}`,
    ...(isIndex ? { headers: { accept: indexType } } : {}),
    ...{ digest, size, what: `${packId} ${version}` },
  }
}

/** Who is fetching which file in this process. */
const turns = new Map<string, Promise<unknown>>()

/** One after the other for one file: the second finds what the first has fetched. */
async function inTurn<T>(key: string, signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
  for (let before = turns.get(key); before; before = turns.get(key)) await until(before, signal)
  unlessCancelled(signal)
  const turn = work()
  const settled = turn.catch(() => undefined).finally(() => turns.delete(key))
  turns.set(key, settled)
  return turn
}

/** Waits for it to end, however it ends. Throws CANCELLED. */
function until(settled: Promise<unknown>, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((done, reject) => {
    const onAbort = () => reject(cancelled(signal as AbortSignal))
    signal?.addEventListener('abort', onAbort, { once: true })
    void settled.then(() => {
      signal?.removeEventListener('abort', onAbort)
      done()
    })
  })
}
