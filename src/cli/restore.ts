import { type FileHandle, open } from 'node:fs/promises'
import { pipeline } from 'node:stream'
import { extract, type Header } from 'tar-stream'
import { openBlobStore } from '../blobs/open.ts'
import { PacksError } from '../client/failure.ts'
import type { Config } from '../config.ts'
import { startEmbedded } from '../db/embedded.ts'
import { closeDeps, openDeps } from '../deps.ts'
import { type Log, openLog } from '../log.ts'
import type { BackupFile } from '../registry/backup.ts'
import { type Restored, restoreBackup } from '../registry/restore.ts'
import { type Scrubbed, scrub } from '../registry/scrub.ts'
import { requireDatabase } from './database.ts'
import { exitCodes } from './failure.ts'
import { bytesText, type Output } from './output.ts'

/**
 * Restores a backup into an empty database and store, and looks whether every object is there; answers the exit code: 2
 * where something is missing. No server may be running.
 */
export async function restore(config: Config, path: string, output: Output): Promise<number> {
  const log = openLog('silent')
  // Before a database is made for it.
  const file = await opened(path)
  try {
    return await restoreFrom(config, path, file, log, output)
  } finally {
    await file.close()
  }
}

/** Opens a backup. Throws FILE_MISSING, FILE_FAILED. */
async function opened(path: string): Promise<FileHandle> {
  const file = await open(path).catch((cause: NodeJS.ErrnoException) => {
    throw cause.code === 'ENOENT' ? new PacksError('FILE_MISSING', `${path} does not exist`, { cause }) : cause
  })
  if ((await file.stat()).isFile()) return file
  await file.close()
  throw new PacksError('FILE_FAILED', `${path} is no file; name the file that "packs backup" wrote`)
}

async function restoreFrom(config: Config, path: string, file: FileHandle, log: Log, output: Output): Promise<number> {
  const embedded = config.databaseUrl ? undefined : await startEmbedded({ dataDir: config.dataDir, log })
  try {
    const databaseUrl = config.databaseUrl ?? embedded?.url ?? ''
    await requireDatabase(config)
    const restored = await load(config, databaseUrl, path, file)
    const scrubbed = await look(config, databaseUrl, log)
    return tell(restored, scrubbed, output)
  } finally {
    await embedded?.stop()
  }
}

async function load(config: Config, databaseUrl: string, path: string, file: FileHandle): Promise<Restored> {
  const blobs = await openBlobStore(config.blobStore)
  try {
    return await restoreBackup({ databaseUrl, blobs }, filesOf(path, file))
  } finally {
    await blobs.close()
  }
}

async function* filesOf(path: string, handle: FileHandle): AsyncGenerator<BackupFile> {
  const tar = extract()
  const file = handle.createReadStream({ autoClose: false, highWaterMark: 1024 * 1024 })
  let failed: Error | undefined
  const told = async function* (content: AsyncIterable<Buffer>) {
    try {
      yield* content
    } catch (error) {
      throw refusal(path, failed ?? (error as Error))
    }
  }
  pipeline(file, tar, (error) => {
    failed ??= error ?? undefined
  })
  try {
    for await (const entry of tar) {
      const { name, size = 0 } = (entry as unknown as { header: Header }).header
      yield { name, size, content: told(entry as unknown as AsyncIterable<Buffer>) }
    }
  } catch (error) {
    throw refusal(path, failed ?? (error as Error))
  } finally {
    file.destroy()
    tar.destroy()
  }
}

function refusal(path: string, error: Error): Error {
  // What the system says of reading is told as it is.
  if ('syscall' in error || !/tar|unexpected end/i.test(error.message)) return error
  return new PacksError('BACKUP_DAMAGED', `${path} is no tar, or is cut off: ${error.message}`, { cause: error })
}

async function look(config: Config, databaseUrl: string, log: Log): Promise<Scrubbed | undefined> {
  const deps = await openDeps(config, databaseUrl, log)
  try {
    return await scrub(deps, { mode: 'quick' })
  } finally {
    await closeDeps(deps)
  }
}

function tell(restored: Restored, scrubbed: Scrubbed | undefined, output: Output): number {
  const open = scrubbed?.open ?? {}
  const findings = Object.entries(open)
  output.result({ ...restored, open }, () =>
    [
      `restored ${restored.tables} tables as of ${restored.createdAt}` +
        (restored.blobs > 0 ? `, and ${restored.blobs} blobs (${bytesText(restored.bytes)}), each checked` : ''),
      ...(findings.length === 0 ? ['clean: every object is there'] : []),
      ...findings.map(([kind, count]) => `${count} ${kind}`),
      ...(findings.length === 0 ? [] : ['Start the server, and see "packs scrub findings" for what is wrong.']),
    ].join('\n'),
  )
  return findings.length > 0 ? exitCodes.mismatch : exitCodes.ok
}
