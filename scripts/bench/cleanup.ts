import { chmod, mkdir, mkdtemp, rm, statfs } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'

const pending: (() => Promise<void>)[] = []
let running: Promise<void> | undefined

/** Has something undone when the benchmark ends, however it ends; the last thing first. */
export function atEnd(undo: () => Promise<void>): void {
  pending.push(undo)
}

export function cleanUp(): Promise<void> {
  running ??= (async () => {
    for (let undo = pending.pop(); undo; undo = pending.pop()) {
      await undo().catch((error: unknown) => console.error(`while cleaning up: ${String(error)}`))
    }
  })()
  return running
}

for (const [signal, code] of [['SIGINT', 130] as const, ['SIGTERM', 143] as const]) {
  process.on(signal, () => {
    void cleanUp().finally(() => process.exit(code))
  })
}

const TMPFS_MAGIC = 0x01021994 // statfs(2)

/** A fresh folder on a disk, removed at the end. Memory would make every write look free. */
export async function scratchFolder(parent: string | undefined): Promise<string> {
  let place = resolve(parent ?? tmpdir())
  if ((await statfs(place)).type === TMPFS_MAGIC) {
    if (parent !== undefined) throw new Error(`${place} is in memory (tmpfs); give a folder on a disk`)
    place = resolve('.cache')
  }
  await mkdir(place, { recursive: true })
  const folder = await mkdtemp(join(place, 'packs-bench-'))
  // As root, the embedded PostgreSQL runs as another user, and would keep its data elsewhere if it could not come here.
  await chmod(folder, 0o755)
  atEnd(() => rm(folder, { recursive: true, force: true, maxRetries: 5 }))
  return folder
}

export async function freeBytes(folder: string): Promise<number> {
  const { bavail, bsize } = await statfs(folder)
  return bavail * bsize
}
