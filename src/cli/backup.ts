import { randomBytes } from 'node:crypto'
import { type FileHandle, open, rename, rm, stat } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { finished, pipeline } from 'node:stream/promises'
import { type Pack, pack } from 'tar-stream'
import { PacksError } from '../client/failure.ts'
import type { Config } from '../config.ts'
import { openLog } from '../log.ts'
import { type BackupFile, type BackupSums, makeBackup } from '../registry/backup.ts'
import { beside } from './beside.ts'
import { exitCodes } from './failure.ts'
import { bytesText, type Output, pathText } from './output.ts'

export type BackupFlags = {
  output: string
  withBlobs?: boolean | undefined
  /** Seconds. */
  hold?: number | undefined
}

const progressMs = 2_000

/**
 * Writes a backup into a file, or under a name of its own into a folder; answers the exit code: 2 where content was
 * missing or wrong. The server may be running. The file appears when it is whole, and only its owner may read it.
 */
export async function backup(config: Config, flags: BackupFlags, output: Output): Promise<number> {
  await requireData(config)
  const path = await pathOf(flags.output)
  const draft = `${path}.${randomBytes(4).toString('hex')}.partial`
  const work = async ({ deps, databaseUrl, signal }: Parameters<Parameters<typeof beside>[2]>[0]) => {
    try {
      const { withBlobs = false, hold = 0 } = flags
      const making = makeBackup(deps, databaseUrl, { withBlobs, holdSeconds: hold, signal })
      // The keys of the registry are in it.
      const file = await open(draft, 'wx', 0o600).catch((error) => {
        throw Object.assign(error, { path })
      })
      const sums = await write(file, making, output)
      await rename(draft, path)
      return tell(path, sums, { ...flags, encrypted: config.keyEncryptionFile !== undefined }, output)
    } finally {
      await rm(draft, { force: true })
    }
  }
  return beside(config, openLog('silent'), work, () => output.note('stopped; nothing was written'))
}

/** A database that is made on the way is empty: whoever mistyped the folder would believe to have a backup. */
async function requireData({ databaseUrl, dataDir }: Config): Promise<void> {
  if (databaseUrl !== undefined) return
  await stat(join(dataDir, 'postgres')).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code !== 'ENOENT') throw cause
    throw new PacksError(
      'FILE_MISSING',
      `there is no registry in ${pathText(dataDir)}: set DATA_DIR to the folder of the one that is to be backed up, or DATABASE_URL`,
      { cause },
    )
  })
}

async function pathOf(given: string): Promise<string> {
  const path = resolve(given)
  const there = await stat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error
    return undefined
  })
  if (there?.isDirectory()) {
    const time = new Date().toISOString().replace(/[-:]|\.\d+/g, '')
    return join(path, `packs-backup-${time}.tar`)
  }
  if (there) throw new PacksError('USAGE', `${pathText(path)} is there already: name another file, or a folder`)
  // Of a folder that is not there, the folder's name is told.
  await stat(dirname(path))
  return path
}

async function write(
  file: FileHandle,
  files: AsyncGenerator<BackupFile, BackupSums>,
  output: Output,
): Promise<BackupSums> {
  const tar = pack()
  const writing = pipeline(tar, file.createWriteStream())
  const broken = writing.then(() => Promise.reject(new Error('the file was closed before its end')))
  // It is waited for by turns; should nobody do so at that moment, it is told at the next one.
  broken.catch(() => undefined)
  try {
    let bytes = 0
    let next = performance.now() + progressMs
    for (let one = await files.next(); ; one = await files.next()) {
      if (one.done) {
        tar.finalize()
        await writing
        return one.value
      }
      await Promise.race([add(tar, one.value), broken])
      bytes += one.value.size
      if (performance.now() < next) continue
      next = performance.now() + progressMs
      output.note(`${bytesText(bytes)} written, now ${one.value.name}`)
    }
  } catch (error) {
    tar.destroy(error as Error)
    // Where the file could not be written, that is the reason; the archive knows only that it was ended.
    await writing
    throw error
  } finally {
    await files.return({ files: {}, blobs: 0, bytes: 0, missing: [], damaged: [] })
  }
}

async function add(tar: Pack, { name, size, content }: BackupFile): Promise<void> {
  const entry = tar.entry({ name, size, mode: 0o600, mtime: new Date(0) })
  const done = finished(entry as unknown as NodeJS.WritableStream)
  done.catch(() => undefined)
  for await (const bytes of Buffer.isBuffer(content) ? [content] : content)
    if (!entry.write(bytes)) await Promise.race([new Promise<void>((go) => entry.once('drain', go)), done])
  entry.end(undefined)
  await done
}

/** What whoever keeps the file has to know. */
function keysText(encrypted: boolean): string {
  return encrypted
    ? 'Private keys in it are encrypted: without the file of KEY_ENCRYPTION_FILE, which is not in it, nobody can open them. Other secrets are not.'
    : 'It holds the keys of this registry, for signing and for tokens: whoever has it can act as this registry.'
}

function tell(
  path: string,
  sums: BackupSums,
  { withBlobs, hold = 0, encrypted }: BackupFlags & { encrypted: boolean },
  output: Output,
): number {
  const { blobs, bytes, missing, damaged } = sums
  const result = { file: path, withBlobs: withBlobs ?? false, blobs, bytes, missing, damaged }
  output.result(result, () =>
    [
      `wrote ${pathText(path)}: every table${withBlobs ? '' : ', and the list'} of ${blobs} blobs (${bytesText(bytes)})`,
      keysText(encrypted),
      ...(withBlobs ? [] : ['Now copy the bucket or the folder of the blobs; objects that are newer do no harm.']),
      ...(hold > 0 ? [`Until ${new Date(Date.now() + hold * 1000).toISOString()} no object is deleted.`] : []),
      ...missing.map((digest) => `missing: ${digest} has no object in the store`),
      ...damaged.map((digest) => `damaged: the bytes of ${digest} are wrong`),
    ].join('\n'),
  )
  return missing.length + damaged.length > 0 ? exitCodes.mismatch : exitCodes.ok
}
