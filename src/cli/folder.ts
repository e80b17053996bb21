import { createHash } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { lstat, open, readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { createGzip } from 'node:zlib'
import ignore from 'ignore'
import { type Pack, pack } from 'tar-stream'
import { ignoreMissing } from '../client/content.ts'
import { PacksError } from '../client/failure.ts'

// A folder as the content of a pack: tar and gzip whose bytes follow from the files' names, bytes and executable bits, and
// from nothing else. Entries are sorted by the bytes of their names; time, owner and group are 0. Folders have no
// entries of their own: git keeps no empty ones, and a clone has to give the same bytes.

/** A file that goes in: its path with "/" in the folder, its bytes, and whether it may be executed. */
export type FolderFile = { path: string; size: number; executable: boolean }

/** What is left out unless `.packignore` says otherwise. */
const leftOut = ['.git', '.packignore']

/** Bytes handed to the compressor at once: always the same cuts, whatever the pieces the files were read in. */
const cutBytes = 64 * 1024

/**
 * The files of a folder that make its content, sorted by the bytes of their paths. What `.packignore` (in the notation
 * of .gitignore) names is left out. Throws FOLDER_INVALID, in words, for all that is neither a file nor a folder.
 */
export async function listFolder(root: string): Promise<FolderFile[]> {
  const rules = ignore({ ignorecase: false }).add(leftOut)
  rules.add((await readFile(join(root, '.packignore'), 'utf8').catch(ignoreMissing)) ?? '')
  const files: FolderFile[] = []
  const refused: string[] = []
  const folders = ['']
  for (let folder = folders.pop(); folder !== undefined; folder = folders.pop())
    for (const name of await readdir(join(root, folder))) {
      const path = folder + name
      const entry = await lstat(join(root, path))
      const always = path === 'pack.json'
      if (!always && rules.ignores(entry.isDirectory() ? `${path}/` : path)) continue
      const problem = problemOf(path, entry)
      if (problem) refused.push(problem)
      else if (entry.isDirectory()) folders.push(`${path}/`)
      else files.push({ path, size: entry.size, executable: (entry.mode & 0o111) !== 0 })
    }
  if (refused.length > 0)
    throw new PacksError(
      'FOLDER_INVALID',
      `${root} cannot be packed:\n  ${refused.sort().join('\n  ')}\nA pack holds plain files only. Name the others in .packignore, or replace them.`,
    )
  return files.sort((a, b) => Buffer.compare(Buffer.from(a.path), Buffer.from(b.path)))
}

function problemOf(path: string, entry: Awaited<ReturnType<typeof lstat>>): string | undefined {
  if (entry.isSymbolicLink()) return `${path} is a symbolic link`
  // What readdir makes of a name that is no UTF-8: it could not be opened again.
  if (path.includes('\ufffd')) return `${path} has a name that is not UTF-8`
  return entry.isFile() || entry.isDirectory() ? undefined : `${path} is neither a file nor a folder`
}

/** Writes the content made of these files to `target`, in bounded memory, and answers what it is. */
export async function packFolder(
  root: string,
  files: readonly FolderFile[],
  target: string,
  signal: AbortSignal,
): Promise<{ digest: string; size: number }> {
  const tar = pack()
  const hash = createHash('sha256')
  let size = 0
  const filling = fill(tar, root, files).catch((error: Error) => {
    tar.destroy(error)
    throw error
  })
  // The pipeline below says it too, and sooner.
  filling.catch(() => undefined)
  await pipeline(
    () => inEqualPieces(tar as AsyncIterable<Buffer>),
    createGzip({ level: 9 }),
    withoutOrigin,
    async function* (pieces: AsyncIterable<Buffer>) {
      for await (const piece of pieces) {
        hash.update(piece)
        size += piece.length
        yield piece
      }
    },
    createWriteStream(target, { flags: 'wx' }),
    { signal },
  )
  await filling
  return { digest: `sha256:${hash.digest('hex')}`, size }
}

async function fill(tar: Pack, root: string, files: readonly FolderFile[]): Promise<void> {
  for (const file of files) await addFile(tar, root, file)
  tar.finalize()
}

async function addFile(tar: Pack, root: string, { path, size, executable }: FolderFile): Promise<void> {
  const handle = await open(join(root, path))
  try {
    const changed = () => new PacksError('FOLDER_INVALID', `${path} changed while it was packed. Try again`)
    if ((await handle.stat()).size !== size) throw changed()
    const entry = tar.entry({ name: path, size, mode: executable ? 0o755 : 0o644, mtime: new Date(0), uid: 0, gid: 0 })
    let read = 0
    await pipeline(
      handle.createReadStream({ autoClose: false, highWaterMark: cutBytes * 4 }),
      async function* (pieces: AsyncIterable<Buffer>) {
        for await (const piece of pieces) {
          read += piece.length
          if (read > size) throw changed()
          yield piece
        }
        if (read < size) throw changed()
      },
      entry,
    )
  } finally {
    await handle.close()
  }
}

async function* inEqualPieces(pieces: AsyncIterable<Buffer>) {
  let rest: Buffer = Buffer.alloc(0)
  for await (const piece of pieces) {
    rest = rest.length > 0 ? Buffer.concat([rest, piece]) : piece
    while (rest.length >= cutBytes) {
      yield rest.subarray(0, cutBytes)
      rest = rest.subarray(cutBytes)
    }
  }
  if (rest.length > 0) yield rest
}

/** Byte 9 of a gzip header is the system it was made on: 255, unknown, everywhere. Source: RFC 1952, section 2.3. */
async function* withoutOrigin(pieces: AsyncIterable<Buffer>) {
  let position = 0
  for await (const piece of pieces) {
    const at = 9 - position
    if (at >= 0 && at < piece.length) piece[at] = 255
    position += piece.length
    yield piece
  }
}
