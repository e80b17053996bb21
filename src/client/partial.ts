import { randomBytes } from 'node:crypto'
import { readdir, rename, rm, stat } from 'node:fs/promises'
import { hostname } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { type Content, ignoreMissing } from './content.ts'

// Interrupted downloads are gone on with, also by other processes, without any lock. The name of the file says whose
// it is: `<digest>.partial` is nobody's, `<digest>.<host>.<pid>.<random>.partial` belongs to that process. To own it is
// to have renamed it, and of two that try, one finds it gone. A process that was killed could not give its file back:
// it is taken over where that process runs on this host no more, or the file has rested for longer than any download
// does. Were its owner alive after all, both would write the same bytes at the same places.

/** Downloads of this process that are under way. */
const ours = new Set<string>()

const suffix = '.partial'
/** Pauses between tries, and a clock of another host that is wrong. */
const slackMs = 5 * 60_000

/** A file to receive into, this process's own: one that was begun before, or the name for a new one. */
export async function claimPartial(folder: string, content: Content, idleTimeoutMs: number): Promise<string> {
  const stem = stemOf(content)
  const own = `${stem}.${host()}.${process.pid}.${randomBytes(6).toString('hex')}${suffix}`
  ours.add(own)
  // A cache may be shared, and names in it are easy to guess: a link is nobody's download.
  const found = await readdir(folder, { withFileTypes: true })
  const names = found.filter((entry) => entry.isFile()).map(({ name }) => name)
  for (const name of names.filter((one) => one.startsWith(stem) && one.endsWith(suffix)))
    if (await isAbandoned(folder, name, stem, idleTimeoutMs)) {
      const taken = await rename(join(folder, name), join(folder, own)).then(() => true, ignoreMissing)
      if (taken) break
    }
  return join(folder, own)
}

/** Leaves it to whoever comes next. */
export async function releasePartial(path: string, content: Content): Promise<void> {
  await rename(path, join(dirname(path), `${stemOf(content)}${suffix}`)).catch(ignoreMissing)
  ours.delete(basename(path))
}

/** To be called when it has got another name, too. */
export async function dropPartial(path: string): Promise<void> {
  await rm(path, { force: true })
  ours.delete(basename(path))
}

function stemOf({ digest }: Content): string {
  return `.${digest.replace(':', '-')}`
}

/** Without dots, which divide the name. */
function host(): string {
  return (
    hostname()
      .replace(/[^a-zA-Z0-9-]/g, '_')
      .slice(0, 64) || 'host'
  )
}

async function isAbandoned(folder: string, name: string, stem: string, idleTimeoutMs: number): Promise<boolean> {
  const [owner, pid] = name.slice(stem.length + 1, -suffix.length).split('.')
  if (ours.has(name)) return false
  // In a shared cache there are those of other users: they may still write to theirs, and it is not ours to rename.
  const found = await stat(join(folder, name)).catch(ignoreMissing)
  if (!found || (process.getuid && found.uid !== process.getuid())) return false
  if (pid === undefined) return true
  // A pid that is ours was another's before: in a container all processes may have the same one.
  if (owner === host() && (Number(pid) === process.pid || !isRunning(Number(pid)))) return true
  return Date.now() - found.mtimeMs > idleTimeoutMs + slackMs
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH'
  }
}
