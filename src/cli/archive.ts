import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { pipeline } from 'node:stream/promises'
import { createGunzip } from 'node:zlib'
import { extract } from 'tar-stream'

/** An entry of an archive. `digest`: of its bytes. */
export type ArchiveEntry = { path: string; type: string; size: number; executable: boolean; digest: string }

/**
 * What is in a tar+gzip file, by path, in bounded memory: bytes are hashed as they pass. Undefined where the file is no
 * such archive. Of a path that occurs twice the last counts, as when it is unpacked.
 */
export async function readArchive(
  file: string,
  signal: AbortSignal,
): Promise<ReadonlyMap<string, ArchiveEntry> | undefined> {
  const entries = new Map<string, ArchiveEntry>()
  const tar = extract()
  const reading = (async () => {
    for await (const entry of tar) {
      const { name, type, size, mode, linkname } = entry.header
      const hash = createHash('sha256').update(linkname ?? '')
      for await (const piece of entry) hash.update(piece as Buffer)
      if (type === 'directory') continue
      const path = name.replace(/^(?:\.\/)+/, '')
      const executable = ((mode ?? 0) & 0o111) !== 0
      const digest = `sha256:${hash.digest('hex')}`
      entries.set(path, { path, type: type ?? 'file', size: size ?? 0, executable, digest })
    }
  })()
  try {
    await Promise.all([pipeline(createReadStream(file), createGunzip(), tar, { signal }), reading])
    return entries
  } catch (error) {
    if (signal.aborted) throw error
    return undefined
  }
}
