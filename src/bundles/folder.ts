import { createReadStream } from 'node:fs'
import { lstat, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { envelopeFile, indexFile, invalid, layoutFile } from './contents.ts'
import type { LayoutFile } from './tar.ts'

/**
 * The files of a layout that is a folder, in the order of our own archives. What else stands in the folder is another
 * program's business and not looked at; links are followed nowhere. Throws BUNDLE_INVALID.
 */
export async function* filesOfFolder(
  folder: string,
  { entries: most }: { entries: number },
): AsyncGenerator<LayoutFile> {
  for (const name of [layoutFile, indexFile, envelopeFile]) {
    const file = await fileOf(folder, name)
    if (file) yield file
  }
  let entries = 0
  for (const algorithm of await namesIn(folder, 'blobs')) {
    for (const hex of await namesIn(folder, `blobs/${algorithm}`)) {
      if (++entries > most) throw invalid(`it has more than ${most} entries`)
      const file = await fileOf(folder, `blobs/${algorithm}/${hex}`)
      if (file) yield file
    }
  }
}

async function fileOf(folder: string, name: string): Promise<LayoutFile | undefined> {
  const path = join(folder, name)
  const found = await lstat(path).catch(absent)
  if (!found) return undefined
  if (!found.isFile()) throw invalid(`${name} is not a file; a layout has files and folders only`)
  // Opened when it is read: a generator that nobody asks opens nothing.
  return { name, size: found.size, content: contentOf(path) }
}

async function* contentOf(path: string): AsyncGenerator<Buffer> {
  yield* createReadStream(path, { highWaterMark: 1024 * 1024 })
}

async function namesIn(folder: string, name: string): Promise<string[]> {
  const path = join(folder, name)
  const found = await lstat(path).catch(absent)
  if (!found) return []
  if (!found.isDirectory()) throw invalid(`${name} is not a folder`)
  return (await readdir(path)).sort()
}

function absent(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error
}
