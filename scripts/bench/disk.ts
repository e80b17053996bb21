import { randomBytes } from 'node:crypto'
import { open, rm } from 'node:fs/promises'
import { join } from 'node:path'

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
