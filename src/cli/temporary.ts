import { randomBytes } from 'node:crypto'
import { lstat, mkdtemp, rename, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { ignoreMissing } from '../client/content.ts'
import { PacksError } from '../client/failure.ts'

/** Does work that needs a folder for a while. It is gone afterwards, however the work ended. */
export async function withTemporary<T>(work: (folder: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), 'packs-'))
  try {
    return await work(folder)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/**
 * What stands under the name of an output: a file, or none yet; or a device, a pipe or a link, such as /dev/stdout, which is
 * written to and never replaced. Throws FILE_FAILED for a folder, and ENOENT with the folder's name where that is missing.
 */
export async function outputKind(path: string): Promise<'file' | 'stream'> {
  const found = await stat(path).catch(ignoreMissing)
  if (found?.isDirectory()) throw new PacksError('FILE_FAILED', `${path} is a folder; name a file in it`)
  // Where stdout is a file, /dev/stdout is a link to one.
  if ((await lstat(path).catch(ignoreMissing))?.isSymbolicLink()) return 'stream'
  if (found) return found.isFile() ? 'file' : 'stream'
  await stat(dirname(path))
  return 'file'
}

/** Writes a file whole or not at all: a reader never sees half of it. A device, a pipe or a link takes it as it is. */
export async function replaceFile(path: string, bytes: string | Uint8Array): Promise<void> {
  if ((await outputKind(path)) === 'stream') return writeFile(path, bytes)
  // The draft sits beside its target: rename is atomic only within one filesystem.
  // Its name is not to be guessed, so that nobody can put a link there.
  const draft = `${path}.${randomBytes(6).toString('hex')}.tmp`
  try {
    await writeFile(draft, bytes, { flag: 'wx' })
    await rename(draft, path)
  } catch (error) {
    await rm(draft, { force: true })
    // Whoever reads it has named the one, and knows nothing of the other.
    throw Object.assign(error as Error, { path })
  }
}
