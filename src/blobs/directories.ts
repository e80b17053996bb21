import fs from 'node:fs'
import { dirname } from 'node:path'
import { promisify } from 'node:util'

const fsync = promisify(fs.fsync)

type Syncs = { running: Promise<void>; next: Promise<void> | undefined }

/**
 * The folders below `root`: made when needed, and synced so that a name in them outlives a power cut.
 *
 * Concurrent commits share syncs. A sync covers only names that were there when it started, so:
 * - who finds none running starts one;
 * - who finds one running cannot know whether it began before the rename, and waits for the next;
 * - the next starts when the running one has ended, and serves everyone who came meanwhile.
 *
 * A folder is `known` once this process itself has synced its parents. That it exists is not enough: another process
 * may have made it and not yet synced it.
 */
export class Directories {
  #root: string
  #known: Set<string>
  #syncs = new Map<string, Syncs>()

  constructor(root: string) {
    this.#root = root
    this.#known = new Set([root])
  }

  /**
   * Gives the file at `from` the name `to`, instead of its own or as well, and resolves when that is durable. Where that
   * fails, the file is not at `to`. Throws ENOENT where there is no `from`.
   * `lasting`: remember the target's folder, so that the next file in it costs no mkdir and no sync of its parents.
   * `alongside`: another sync that has to be done, started once the file has its new name.
   */
  async enter(
    how: 'rename' | 'link',
    from: string,
    to: string,
    { lasting, alongside }: { lasting: boolean; alongside?: () => Promise<void> },
  ): Promise<void> {
    const folder = dirname(to)
    const enter = how === 'rename' ? fs.renameSync : fs.linkSync
    const stale = this.#known.has(folder) ? [] : this.#make(folder)
    try {
      enter(from, to)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || !fs.existsSync(from)) throw error
      // The folder was removed, empty, by another process in between.
      this.#known.delete(folder)
      stale.push(...this.#make(folder))
      enter(from, to)
    }
    // All of them settled: a file must not be closed under its sync.
    const outcomes = await Promise.allSettled([alongside?.(), ...[folder, ...stale].map((path) => this.sync(path))])
    const failed = outcomes.find((outcome) => outcome.status === 'rejected')
    if (failed) {
      fs.rmSync(to, { force: true })
      throw failed.reason
    }
    if (lasting) this.#known.add(folder)
  }

  sync(folder: string): Promise<void> {
    const syncs = this.#syncs.get(folder)
    if (!syncs) return this.#start(folder)
    syncs.next ??= syncs.running.then(
      () => this.#start(folder),
      () => this.#start(folder),
    )
    return syncs.next
  }

  /** Makes the folder and returns those above it whose entries may not be durable yet. */
  #make(folder: string): string[] {
    const stale: string[] = []
    for (let path = folder; !this.#known.has(path) && path !== dirname(path); path = dirname(path)) {
      stale.push(dirname(path))
    }
    // Not recursive above the root: where a mount has gone away, bytes must not land on the disk under it.
    if (fs.existsSync(this.#root)) fs.mkdirSync(folder, { recursive: true })
    return stale
  }

  #start(folder: string): Promise<void> {
    const syncs: Syncs = { running: syncFolder(folder), next: undefined }
    this.#syncs.set(folder, syncs)
    const forget = () => {
      if (!syncs.next) this.#syncs.delete(folder)
    }
    syncs.running.then(forget, forget)
    return syncs.running
  }
}

// Opening and closing a folder takes microseconds; only the sync is worth a trip through the thread pool.
async function syncFolder(folder: string): Promise<void> {
  const fd = fs.openSync(folder, 'r')
  try {
    await fsync(fd)
  } finally {
    fs.closeSync(fd)
  }
}
