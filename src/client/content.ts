import { createHash, type Hash, randomBytes } from 'node:crypto'
import { constants, createReadStream } from 'node:fs'
import { copyFile, lstat, mkdir, open, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { PacksError, unlessCancelled } from './failure.ts'
import { fileTrouble } from './file-trouble.ts'

/** Bytes of which is known what they are. `size` in bytes. */
export type Content = { digest: string; size: number }

/** A hash of the digest's own algorithm. */
export function hashFor({ digest }: Content): Hash {
  return createHash(algorithmOf(digest))
}

/** Whether what went into the hash is the content. Uses the hash up. */
export function isContent(hash: Hash, { digest }: Content): boolean {
  return `${algorithmOf(digest)}:${hash.digest('hex')}` === digest
}

function algorithmOf(digest: string): string {
  return digest.slice(0, digest.indexOf(':'))
}

/** Where a cache has this content, if it has. */
export function cachePath(cacheDir: string, { digest }: Content): string {
  const hex = digest.slice(digest.indexOf(':') + 1)
  return join(cacheDir, algorithmOf(digest), hex.slice(0, 2), hex)
}

/** Whether this file is there and is the content, to the last byte. A link is not taken for it. */
export async function isAt(path: string, content: Content, signal: AbortSignal | undefined): Promise<boolean> {
  const found = await lstat(path).catch(ignoreMissing)
  if (!found?.isFile() || found.size !== content.size) return false
  const hash = hashFor(content)
  for await (const piece of createReadStream(path, { highWaterMark: 1024 * 1024 })) {
    unlessCancelled(signal)
    hash.update(piece as Buffer)
  }
  return isContent(hash, content)
}

/**
 * Puts a copy of a cached file at the target: whoever edits it does not damage the cache. The copy is verified; a
 * damaged file is taken out of the cache. False where there is none, or was a damaged one.
 */
export async function copyOut(
  cached: string,
  target: string,
  content: Content,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  const found = await lstat(cached).catch(ignoreMissing)
  if (!found) return false
  const copy = join(dirname(target), temporaryName())
  try {
    // A reflink where the file system has them, which costs nothing.
    const copied = found.size === content.size && (await copyOf(cached, copy))
    if (copied && (await isAt(copy, content, signal))) {
      await settle(copy, target)
      return true
    }
    await rm(cached, { force: true })
    return false
  } finally {
    await rm(copy, { force: true })
  }
}

/** False where it has gone in between. */
async function copyOf(from: string, to: string): Promise<boolean> {
  try {
    await copyFile(from, to, constants.COPYFILE_FICLONE)
    return true
  } catch (error) {
    ignoreMissing(error)
    return false
  }
}

/** Hidden, and told from all others. */
export function temporaryName(): string {
  return `.${randomBytes(12).toString('hex')}.partial`
}

/** Gives a finished file its name. After that it outlives a power failure; before it, nobody sees it. */
export async function settle(temporary: string, target: string): Promise<void> {
  const file = await open(temporary, 'r+')
  try {
    await file.sync()
  } finally {
    await file.close()
  }
  await rename(temporary, target)
  await syncFolder(dirname(target))
}

/** Windows opens no folders, and some network file systems sync none: there the rename has to do. */
async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r').catch(() => undefined)
  await folder?.sync().catch(() => undefined)
  await folder?.close()
}

export async function makeFolder(path: string): Promise<void> {
  await mkdir(path, { recursive: true })
}

export function ignoreMissing(error: unknown): undefined {
  if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
}

/** What a file system refuses, as a failure of ours. */
export function asPacksError(error: unknown): unknown {
  const { code, syscall, message } = error as NodeJS.ErrnoException
  if (error instanceof PacksError || code === undefined || syscall === undefined) return error
  const hint = code === 'ENOSPC' || code === 'EDQUOT' ? '. Then pull again: it goes on where it was' : ''
  return new PacksError('FILE_FAILED', `${fileTrouble(error) ?? message}${hint}`, { cause: error })
}
