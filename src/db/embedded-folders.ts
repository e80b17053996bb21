import { randomBytes } from 'node:crypto'
import { chmod, mkdir, open, readdir, rm, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { isAlive } from './embedded-process.ts'

/** A name in `parent` for something that is renamed to its place once it is whole. */
export function unfinished(parent: string): string {
  return join(parent, `postgres.new-${process.pid}-${randomBytes(8).toString('hex')}`)
}

/** Removes what starters left behind that were killed before they had finished it: the process in the name is gone. */
export async function sweepUnfinished(parent: string): Promise<void> {
  for (const name of await readdir(parent)) {
    const pid = Number(/^postgres\.new-(\d+)-/.exec(name)?.[1])
    if (!pid || isAlive(pid)) continue
    // A minute's grace, for a starter that shares the folder from another container and has its own process ids.
    const facts = await stat(join(parent, name)).catch(() => undefined)
    if (facts && Date.now() - facts.mtimeMs > 60_000) await rm(join(parent, name), { recursive: true, force: true })
  }
}

/** Makes a folder, and those above it that are missing, such that every user may pass; existing ones are left alone. */
export async function makePublicFolder(path: string): Promise<void> {
  const first = await mkdir(path, { recursive: true })
  if (first === undefined) return
  for (let folder = path; folder.length >= first.length; folder = dirname(folder)) await chmod(folder, 0o755)
}

/** Makes what was renamed or linked in the folder survive a power cut. */
export async function syncFolder(path: string): Promise<void> {
  const folder = await open(path)
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}
