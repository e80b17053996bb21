import fs from 'node:fs'
import { dirname, join } from 'node:path'
import type { Readable } from 'node:stream'
import { setImmediate } from 'node:timers/promises'
import { Failure, unavailable } from '../errors.ts'
import { Directories } from './directories.ts'
import { type Draft, Drafts } from './drafts.ts'
import { consume, releaseOf } from './intake.ts'
import { type ObjectKey, storedKey } from './keys.ts'
import { type BlobStore, type ByteRange, NotDeleted } from './store.ts'

/** Measured for a 64 MiB file over loopback: twice the throughput of the default 64 KiB. */
const readBytes = 1024 * 1024

/**
 * A store in a folder, which is made if it is missing. An object is a file at the path of its key; files under way are
 * in `tmp/` beside them. Several processes may share the folder.
 * Throws an Error in words where the folder cannot be made or written to.
 */
export async function openFolderStore(folder: string): Promise<BlobStore & { filePath(key: ObjectKey): string }> {
  const temporary = join(folder, 'tmp')
  prepare(folder, temporary)
  const directories = new Directories(folder)
  const drafts = new Drafts(temporary)
  // Keys are normal paths. To join them takes most of what deleting an object leaves to the collector of V8.
  const filePath = (key: ObjectKey) => `${folder}/${key}`

  async function store(
    key: ObjectKey,
    fill: (draft: Draft) => Promise<void>,
    copied?: (piece: Buffer) => void,
  ): Promise<void> {
    const draft = drafts.begin(copied)
    try {
      await fill(draft)
      const alongside = await refused(draft.finish())
      const options = { lasting: !isStaged(key), ...(alongside && { alongside }) }
      await refused(directories.enter('rename', draft.path, filePath(key), options))
    } catch (error) {
      await draft.discard()
      throw error
    }
  }

  const putStream: BlobStore['putStream'] = async (key, source, { onBytes, seal }) => {
    let size = 0
    const fill = async (draft: Draft) => {
      await consume(source, (piece) => {
        onBytes?.(piece)
        size += piece.length
        return refusedNow(() => draft.add(piece))
      })
      seal?.()
    }
    await store(key, fill, releaseOf(source))
    return size
  }

  return {
    description: `folder ${folder}`,
    filePath,
    put: (key, bytes) => store(key, async (draft) => refusedNow(() => draft.add(bytes))),
    putStream,
    async link(from, to) {
      if (await linkFile(directories, filePath(from), filePath(to), { lasting: !isStaged(to) })) return true
      const source = await openFile(filePath(from))
      if (!source) return false
      await putStream(to, source, {}).finally(() => source.destroy())
      return true
    },
    read: (key) => found(fs.promises.readFile(filePath(key))),
    open: (key, range) => openFile(filePath(key), range),
    size: async (key) => (await found(fs.promises.stat(filePath(key))))?.size,
    async delete(keys) {
      // Where the whole folder has gone away, as a mount can, nothing is deleted because no file is there.
      await refused(fs.promises.access(temporary))
      await deleteFiles(keys, filePath)
    },
    unfinished: (before) => unfinished(temporary, before),
    list: (prefix) => list(folder, prefix),
    ping: () => refused(fs.promises.access(temporary, fs.constants.W_OK | fs.constants.X_OK)),
    async space() {
      const { bavail, blocks, bsize } = await refused(fs.promises.statfs(folder))
      return { free: bavail * bsize, total: blocks * bsize }
    },
    close: async () => undefined,
  }
}

/** Larger files take the disk a while to let go of. */
const smallBytes = 8 * 1024 * 1024
/** Small files that are deleted before others have their turn: well below a millisecond. */
const deletedAtOnce = 32

/**
 * As files are made (decision 9): a trip through libuv's pool takes several times as long as what it is taken for, and
 * that from everybody else when a million files go. Only large ones take it.
 * Not synced: a file that comes back with a power cut is an orphan, which scrub finds.
 */
async function deleteFiles(keys: readonly ObjectKey[], filePath: (key: ObjectKey) => string): Promise<void> {
  const reasons = new Map<ObjectKey, string>()
  for (const [at, key] of keys.entries()) {
    const path = filePath(key)
    try {
      const file = fs.lstatSync(path, { throwIfNoEntry: false })
      if (file && file.size > smallBytes) await fs.promises.unlink(path)
      else if (file) fs.unlinkSync(path)
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException
      if (code !== 'ENOENT') reasons.set(key, message)
    }
    if (isStaged(key)) leaveFolder(dirname(path))
    if ((at + 1) % deletedAtOnce === 0) await setImmediate()
  }
  if (reasons.size > 0) throw unavailable('blob store', new NotDeleted(reasons))
}

/** A second name for the file; false where there is no such file, or the file system has no hard links. */
async function linkFile(
  directories: Directories,
  from: string,
  to: string,
  options: { lasting: boolean },
): Promise<boolean> {
  try {
    await directories.enter('link', from, to, options)
    return true
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException
    if (['ENOENT', 'EPERM', 'ENOTSUP', 'ENOSYS', 'EMLINK'].includes(code)) return false
    throw refusal(error)
  }
}

const isStaged = (key: ObjectKey) => key.startsWith('uploads/')

/** The folder of an upload goes with its last chunk; those of content stay, and stay known. */
function leaveFolder(path: string): void {
  try {
    fs.rmdirSync(path)
  } catch {
    // Not empty, or gone: either is fine.
  }
}

async function openFile(path: string, range?: ByteRange): Promise<Readable | undefined> {
  const file = await found(fs.promises.open(path))
  const part = range && { start: range.first, end: range.last }
  return file?.createReadStream({ ...part, highWaterMark: readBytes })
}

async function* list(folder: string, prefix: string): ReturnType<BlobStore['list']> {
  const top = prefix.slice(0, prefix.lastIndexOf('/') + 1)
  for await (const path of walk(folder, top)) {
    if (!path.startsWith(prefix)) continue
    const stats = await found(fs.promises.stat(join(folder, path)))
    if (stats) yield { key: storedKey(path), size: stats.size, modifiedAt: stats.mtime }
  }
}

async function* walk(folder: string, under: string): AsyncGenerator<string> {
  const directory = await found(fs.promises.opendir(join(folder, under)))
  if (!directory) return
  for await (const entry of directory) {
    const path = `${under}${entry.name}`
    if (!entry.isDirectory()) yield path
    else if (path !== 'tmp') yield* walk(folder, `${path}/`)
  }
}

/**
 * What crashed processes left in `tmp/`. By age, not by whether the writer lives: the process id in a name says nothing
 * where containers share the folder. A file that has not grown for a day has no live writer; an upload without a byte is
 * cut off long before.
 */
async function* unfinished(temporary: string, before: Date): ReturnType<BlobStore['unfinished']> {
  const folder = await found(fs.promises.opendir(temporary))
  if (!folder) return
  for await (const { name } of folder) {
    const path = join(temporary, name)
    const stats = await found(fs.promises.stat(path))
    if (!stats || stats.mtimeMs >= before.getTime()) continue
    const remove = () => refused(fs.promises.rm(path, { recursive: true, force: true }))
    yield { kind: 'file', name: path, size: stats.size, since: stats.mtime, remove }
  }
}

const reasons: Record<string, string> = {
  EACCES: 'this user may not write there',
  EPERM: 'this user may not write there',
  EROFS: 'the file system is read-only',
  ENOSPC: 'the disk is full',
  EDQUOT: 'the disk quota is used up',
  ENOTDIR: 'a part of the path is a file',
  EEXIST: 'there is a file of that name',
}

function prepare(folder: string, temporary: string): void {
  try {
    fs.mkdirSync(temporary, { recursive: true })
    // Only writing tells: permissions, a read-only mount, a full disk.
    fs.rmdirSync(fs.mkdtempSync(join(temporary, 'probe-')))
  } catch (cause) {
    const { code = '', message } = cause as NodeJS.ErrnoException
    throw new Error(
      `cannot keep blobs in the folder ${folder}: ${reasons[code] ?? message}${code && ` (${code})`}. ` +
        'Make it a folder this user can write to, or name another one: BLOB_STORE=file:/absolute/path',
      { cause },
    )
  }
}

/** What the operating system refuses (full, read-only, broken, out of descriptors) is a store that is unavailable. */
function refusal(error: unknown): unknown {
  const known = error instanceof Failure || (error as NodeJS.ErrnoException).errno === undefined
  return known ? error : unavailable('blob store', error)
}

async function refused<T>(call: Promise<T>): Promise<T> {
  try {
    return await call
  } catch (error) {
    throw refusal(error)
  }
}

function refusedNow<T>(call: () => T): T {
  try {
    return call()
  } catch (error) {
    throw refusal(error)
  }
}

async function found<T>(call: Promise<T>): Promise<T | undefined> {
  try {
    return await call
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw refusal(error)
  }
}
