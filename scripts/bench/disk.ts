import { randomBytes } from 'node:crypto'
import { open, rm } from 'node:fs/promises'
import { join } from 'node:path'

/**
 * Writes as much as will be pushed below a folder, and removes it again. The disk of a virtual machine is often given
 * out on first use: here a block costs three times as much the first time it is written (540 and 1,700 MB/s), which
 * would hit whoever happens to be next.
 */
export async function breakIn(folder: string, bytes: number): Promise<void> {
  const path = join(folder, 'break-in')
  const block = randomBytes(8 << 20)
  const file = await open(path, 'w')
  try {
    for (let written = 0; written < bytes; written += block.length) await file.write(block)
    await file.datasync()
  } finally {
    await file.close()
    await rm(path)
  }
}

/** Megabytes per second that this disk makes durable: no registry that syncs what it acknowledges can be faster. */
export async function diskCeiling(folder: string, { files = 16, clients = 4, bytes = 64 << 20 } = {}): Promise<number> {
  const block = randomBytes(1 << 20)
  const started = performance.now()
  const client = async (first: number) => {
    for (let at = first; at < files; at += clients) {
      const file = await open(join(folder, `ceiling-${at}`), 'w')
      for (let written = 0; written < bytes; written += block.length) await file.write(block)
      await file.datasync()
      await file.close()
    }
  }
  await Promise.all(Array.from({ length: clients }, (_, first) => client(first)))
  const seconds = (performance.now() - started) / 1000
  for (let at = 0; at < files; at++) await rm(join(folder, `ceiling-${at}`))
  return (files * bytes) / 1e6 / seconds
}
