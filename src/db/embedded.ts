/*
 * The embedded PostgreSQL: one cluster in `<dataDir>/postgres`, one server on it, one PacksRegistry that owns it.
 *
 * Two things are guarded, each by its own lock:
 *   - the cluster, by PostgreSQL itself: postmaster.pid, and behind it a shared memory segment. A second server on
 *     the same cluster exits at once.
 *   - the ownership, by a session-level advisory lock, held on a connection of its own as long as our process lives.
 *     It ends with the process however that ends, so a kill -9 leaves nothing that has to be believed or cleaned.
 *
 * Start: look at postmaster.pid, act, look again, until the lock is ours or somebody else's:
 *   nothing runs        start a server. It recovers by itself from whatever it was killed in. If another starter's
 *                       server was faster, ours exits, and the next look finds the other one.
 *   starting, stopping  wait.
 *   ready               connect and try the lock.
 *     got it            and postmaster.pid still says `ready` with the same process: it is ours. (A server writes
 *                       `stopping` before it ends any session: a lock got from an owner who is just stopping is seen.)
 *                       If we did not start this server, its owner was killed: it is adopted, and stopped by stop().
 *     not got           the holder, who names its process id in application_name, lives: refused, in words. It does
 *                       not live: its session is about to end; look again.
 * Two starters of the same moment may own each other's server. That is fine: only the lock makes an owner, a refused
 * starter leaves the server it started alone, and the owner stops the server it owns by its process id.
 *
 * Stop: SIGINT to the server while the lock is still held; it goes away with the server. Then the socket folder.
 *
 * Lost lock: a crashed backend makes PostgreSQL end all sessions and start over with the same postmaster. The lock is
 * then taken again, as at the start. When the postmaster is gone or somebody else has the lock, `exited` says so. No
 * server is restarted behind the caller's back: it has to log, end and be started again, which is the tested path.
 */
import { access, constants, mkdir, realpath } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Binaries, binariesFor, findBinaries } from './embedded-binaries.ts'
import { prepareCluster } from './embedded-cluster.ts'
import { type Lock, tryLock } from './embedded-lock.ts'
import {
  findPostmaster,
  type Launched,
  launch,
  type Postmaster,
  removeSocketFolder,
  type Settings,
  stopPostmaster,
  tail,
} from './embedded-postmaster.ts'
import { isAlive } from './embedded-process.ts'
import { socketUrl } from './embedded-url.ts'
import { serverUser, type User } from './embedded-user.ts'

/** A running PostgreSQL that this process owns. */
export type Embedded = {
  /** For psql and child processes as it is; for `postgres()` together with `socketHost(url)`. */
  readonly url: string
  /** The process id of the server. */
  readonly pid: number
  /** The server was there already, left behind by a PacksRegistry that was killed. */
  readonly adopted: boolean
  /** Resolves, with an Error in words, when the server is gone or not ours any more, unless stop() was called. */
  readonly exited: Promise<Error>
  /** Stops the server, adopted or not, and returns when it has exited. Further calls return the same promise. */
  stop(): Promise<void>
}

/** Where news of the server goes; a pino logger fits. */
export type EmbeddedLog = Record<'info' | 'warn', (facts: object, words: string) => void>

export type EmbeddedOptions = {
  /** The cluster is in its folder `postgres`, the server's log in its file `postgres.log`. Made when missing. */
  dataDir: string
  log?: EmbeddedLog
  /** PostgreSQL settings over the built-in ones. They apply when the server is started, not when it is adopted. */
  settings?: Settings
  /** As root: where binaries and clusters go that PostgreSQL's user could not reach at their own place. */
  stateDir?: string
  /** The folder of the npm package that holds PostgreSQL's programs. */
  packageDir?: string
  /** How long start-up may take, recovery after a crash included. */
  timeoutMs?: number
}

type Site = {
  dataDir: string
  cluster: string
  binaries: Binaries
  user: User | undefined
  logFile: string
  settings: Settings
}
type Owned = { lock: Lock; postmaster: Postmaster; adopted: boolean }

const silent: EmbeddedLog = { info: () => undefined, warn: () => undefined }

/**
 * Starts the bundled PostgreSQL on `<dataDir>/postgres`, or adopts the one a killed PacksRegistry left there.
 * Throws an Error that says what to do: another PacksRegistry owns the folder, it was made by another user or by
 * another major version, there are no binaries for this platform, the server does not start.
 */
export async function startEmbedded({
  dataDir,
  log = silent,
  settings = {},
  stateDir = '/var/lib/packs-registry',
  packageDir,
  timeoutMs = 120_000,
}: EmbeddedOptions): Promise<Embedded> {
  const installed = await findBinaries(packageDir)
  const folder = await openDataFolder(dataDir)
  const user = await serverUser(join(folder, 'postgres'))
  const binaries = user ? await binariesFor(user, installed, stateDir) : installed
  const cluster = await prepareCluster({ dataDir: folder, stateDir, binaries, user })
  const site = { dataDir: folder, cluster, binaries, user, logFile: join(folder, 'postgres.log'), settings }
  const owned = await own(site, Date.now() + timeoutMs, log)
  log.info(
    { postgres: owned.postmaster.pid, cluster, ...(user && { user: user.name }) },
    owned.adopted ? 'adopted the PostgreSQL left running' : 'PostgreSQL started',
  )
  return watch(site, owned, log)
}

async function openDataFolder(dataDir: string): Promise<string> {
  try {
    await mkdir(dataDir, { recursive: true })
    await access(dataDir, constants.R_OK | constants.W_OK | constants.X_OK)
    return await realpath(dataDir)
  } catch (cause) {
    throw new Error(
      `The data folder ${resolve(dataDir)} cannot be used: ${(cause as Error).message}. Set DATA_DIR to a folder you can write to.`,
      { cause },
    )
  }
}

/** The loop of the protocol above. */
async function own(site: Site, deadline: number, log: EmbeddedLog): Promise<Owned> {
  let launched: Launched | undefined
  let obstacle: unknown
  const patience = setTimeout(
    () => log.info({ cluster: site.cluster }, 'waiting for PostgreSQL, which recovers'),
    3_000,
  )
  try {
    for (; Date.now() < deadline; await sleep(5)) {
      const postmaster = await findPostmaster(site.cluster)
      if (postmaster?.status === 'ready') {
        const lock = await lockOn(site, postmaster).catch((error) => {
          if (error instanceof Refused) throw error
          obstacle = error
          // Ready, but its socket cannot be opened (removed, or another container's): waiting long is no use.
          if ('syscall' in error) deadline = Math.min(deadline, Date.now() + 10_000)
        })
        if (lock) return { lock, postmaster, adopted: postmaster.pid !== launched?.child.pid }
      } else if (!postmaster && (!launched || launched.hasExited())) {
        if (launched) await afterExit(site, launched)
        launched = await launch(site)
      }
    }
    throw await tooLate(site, launched, obstacle)
  } finally {
    clearTimeout(patience)
    if (launched) await settle(site, launched)
  }
}

/** Sees a server of ours that lost to another one to its end. One that is the cluster's server stays, whoever owns it. */
async function settle({ cluster }: Site, launched: Launched): Promise<void> {
  while (!launched.hasExited()) {
    if ((await findPostmaster(cluster))?.pid === launched.child.pid) return
    await sleep(5)
  }
  await removeSocketFolder(launched.socketFolder)
}

/** Somebody else owns the server. */
class Refused extends Error {}

/** The lock, if it can be had on this server now. Throws Refused when a living process, other than `except`, has it. */
async function lockOn(
  { dataDir, cluster }: Site,
  { pid, socketFolder }: Postmaster,
  except?: number,
): Promise<Lock | undefined> {
  const attempt = await tryLock(socketUrl(socketFolder))
  if (!('holder' in attempt)) {
    const now = await findPostmaster(cluster)
    if (now?.pid === pid && now.status === 'ready') return attempt
    await attempt.release()
  } else if (attempt.holder !== undefined && attempt.holder !== except && isAlive(attempt.holder)) {
    throw new Refused(
      `Another PacksRegistry (process ${attempt.holder}) is already running on ${dataDir} (postgres process ${pid}). ` +
        'Stop it first, or set DATA_DIR to another folder.',
    )
  }
  return undefined
}

/** A server of ours has exited: removes what it had; throws an Error in words unless it only gave way to another. */
async function afterExit({ cluster, logFile }: Site, launched: Launched): Promise<void> {
  await removeSocketFolder(launched.socketFolder)
  if (await launched.gaveWay()) {
    await sleep(50)
    return
  }
  const { exitCode, signalCode } = launched.child
  throw new Error(
    `PostgreSQL did not start on ${cluster} (${signalCode ?? `exit code ${exitCode}`}). The end of ${logFile}:\n${await launched.logTail()}`,
  )
}

async function tooLate({ cluster, logFile }: Site, launched: Launched | undefined, cause: unknown): Promise<Error> {
  if (launched && !launched.hasExited()) launched.child.kill('SIGINT')
  const { pid, status } = (await findPostmaster(cluster)) ?? {}
  const reason = cause instanceof Error ? `: ${cause.message}` : ''
  const state = pid === undefined ? '' : ` Process ${pid} is ${status}; if it hangs, stop it with "kill -INT ${pid}".`
  return new Error(
    `PostgreSQL on ${cluster} could not be reached in time${reason}.${state} The end of ${logFile}:\n${await tail(logFile)}`,
    { cause },
  )
}

function watch(site: Site, { lock, postmaster, adopted }: Owned, log: EmbeddedLog): Embedded {
  let stopping: Promise<void> | undefined
  let isOurs = true

  /** Keeps the lock; returns why that is not possible any more. */
  async function guard(): Promise<Error> {
    for (;;) {
      await lock.lost
      await lock.release()
      try {
        lock = await takeAgain(site, postmaster)
        log.warn({ postgres: postmaster.pid }, 'PostgreSQL ended its sessions; it is ready again')
      } catch (error) {
        isOurs = !(error instanceof Refused)
        // After stop() this is no news.
        return stopping ? new Promise<never>(() => undefined) : (error as Error)
      }
    }
  }

  async function stop(): Promise<void> {
    if (!isOurs) return
    await stopPostmaster(site.cluster, postmaster)
    await lock.release()
    await removeSocketFolder(postmaster.socketFolder)
    log.info({ postgres: postmaster.pid }, 'PostgreSQL stopped')
  }

  return {
    url: socketUrl(postmaster.socketFolder),
    pid: postmaster.pid,
    adopted,
    exited: guard(),
    stop() {
      stopping ??= stop()
      return stopping
    },
  }
}

/** Waits until the same server is ready again and takes the lock. Throws an Error in words when that cannot be. */
async function takeAgain(site: Site, { pid }: Postmaster): Promise<Lock> {
  const deadline = Date.now() + 120_000
  for (;;) {
    const now = await findPostmaster(site.cluster)
    if (now?.pid !== pid || now.status === 'stopping' || Date.now() > deadline) {
      throw new Error(
        `PostgreSQL (process ${pid}) on ${site.cluster} is gone. The end of ${site.logFile}:\n${await tail(site.logFile)}`,
      )
    }
    // Our own old session may be the last holder, just ending.
    const lock = await lockOn(site, now, process.pid).catch((error) => {
      if (error instanceof Refused) throw error
    })
    if (lock) return lock
    await sleep(20)
  }
}
