import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chown, link, mkdtemp, open, readFile, rename, rm, rmdir, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import type { Binaries } from './embedded-binaries.ts'
import { cannotRun, isAlive, isTaken, spawnOptions } from './embedded-process.ts'
import { socketFile, socketPathFits } from './embedded-url.ts'
import { canEnter, type User } from './embedded-user.ts'

/** A living PostgreSQL on a cluster, as its postmaster.pid tells. `status`: starting, ready, stopping. */
export type Postmaster = {
  readonly pid: number
  readonly startedOn: string
  readonly socketFolder: string
  readonly status: string
}

/** PostgreSQL settings by name, given as `-c name=value`. */
export type Settings = Readonly<Record<string, string | number>>

/** What a small installation needs, and durable: what has been committed survives kill -9 and a power cut. */
const smallServer: Settings = {
  fsync: 'on',
  full_page_writes: 'on',
  synchronous_commit: 'on',
  shared_buffers: '64MB',
  max_connections: 60,
  // No replicas and no subscriptions: less WAL, one process fewer.
  wal_level: 'minimal',
  max_wal_senders: 0,
  max_logical_replication_workers: 0,
  max_wal_size: '512MB',
  // lz4 and zstd are not in these binaries.
  wal_compression: 'pglz',
  // `worker` adds three processes and 2.5 MB, for reads of large tables that this schema does not have.
  io_method: 'sync',
  max_parallel_workers_per_gather: 0,
  jit: 'off',
  autovacuum: 'on',
  track_io_timing: 'off',
  timezone: 'UTC',
  log_timezone: 'UTC',
  log_destination: 'stderr',
  logging_collector: 'off',
  log_min_messages: 'warning',
  log_checkpoints: 'off',
}

/** The PostgreSQL that runs on the cluster, from its postmaster.pid; `undefined` when none does. */
export async function findPostmaster(cluster: string): Promise<Postmaster | undefined> {
  const lines = (await readPidFile(cluster)).split('\n')
  const [pid, startedOn = ''] = [Number(lines[0]), lines[1]]
  if (!(pid > 0) || !(await isPostmaster(pid, cluster, startedOn))) return undefined
  return { pid, startedOn, socketFolder: lines[4] ?? '', status: lines[7]?.trim() ?? '' }
}

function readPidFile(cluster: string): Promise<string> {
  return readFile(join(cluster, 'postmaster.pid'), 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return ''
    throw error
  })
}

/**
 * Whether the process is a postmaster on the cluster, and not one that was given the same id later. A postmaster's
 * current folder is its cluster, whatever the path to it is by now. Where that cannot be seen (root without
 * CAP_SYS_PTRACE in a container; macOS), its command line has to do; in doubt the answer is yes, for a postmaster
 * that is taken for dead would lose its postmaster.pid.
 */
async function isPostmaster(pid: number, cluster: string, startedOn: string): Promise<boolean> {
  if (!isAlive(pid)) return false
  const command = await commandLine(pid)
  if (!/^(?:\S.*\/)?postgres(?: |$)/.test(command)) return false
  const [worksIn, ours] = await Promise.all(
    [`/proc/${pid}/cwd`, cluster].map((path) => stat(path).catch(() => undefined)),
  )
  if (worksIn && ours) return worksIn.dev === ours.dev && worksIn.ino === ours.ino
  return !command.includes(' -D /') || command.includes(` -D ${startedOn} `)
}

async function commandLine(pid: number): Promise<string> {
  if (process.platform === 'linux')
    return (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).replaceAll('\0', ' ')
  const ps = await promisify(execFile)('/bin/ps', ['-ww', '-o', 'command=', '-p', String(pid)]).catch(() => undefined)
  return `${ps?.stdout.trim() ?? ''} `
}

/** Why a PostgreSQL gave way to another one on the same cluster, or met remains that go away by themselves. */
const gaveWay = /lock file .* (?:already exists|is empty)|bogus data in lock file|pre-existing shared memory block/

/** A PostgreSQL that this process has started. */
export type Launched = {
  readonly child: ChildProcess
  readonly socketFolder: string
  hasExited(): boolean
  /** The last lines it logged. */
  logTail(): Promise<string>
  /** After its exit: whether it only made room for another one, so that looking again is right. */
  gaveWay(): Promise<boolean>
}

type LaunchOptions = {
  cluster: string
  binaries: Binaries
  user: User | undefined
  logFile: string
  settings: Settings
}

/**
 * Starts PostgreSQL on the cluster, in a session of its own (Ctrl-C in a terminal reaches only us), listening in a
 * fresh private folder of sockets. It outlives this process. It may exit at once, because another one was faster.
 */
export async function launch({ cluster, binaries, user, logFile, settings }: LaunchOptions): Promise<Launched> {
  await clearRemains(cluster)
  const socketFolder = await makeSocketFolder(user)
  const log = await open(logFile, 'a', 0o600)
  try {
    if ((await log.stat()).size > 10 * 1024 * 1024) await log.truncate()
    const { size } = await log.stat()
    const place = { listen_addresses: '', port: 5432, unix_socket_directories: `"${socketFolder}"` }
    const flags = Object.entries({ ...smallServer, ...settings, ...place }).flatMap(([name, value]) => [
      '-c',
      `${name}=${value}`,
    ])
    const program = join(binaries.native, 'bin/postgres')
    const child = spawn(program, ['-D', cluster, ...flags], {
      ...spawnOptions(user),
      detached: true,
      stdio: ['ignore', log.fd, log.fd],
    })
    await once(child, 'spawn').catch((cause) => {
      throw cannotRun(program, cause)
    })
    child.unref()
    return {
      child,
      socketFolder,
      hasExited: () => child.exitCode !== null || child.signalCode !== null,
      logTail: () => tail(logFile, size),
      gaveWay: async () => gaveWay.test(await tail(logFile, size)),
    }
  } catch (error) {
    await removeSocketFolder(socketFolder)
    throw error
  } finally {
    await log.close()
  }
}

/** The last lines of the log, not from before `from`. */
export async function tail(logFile: string, from = 0): Promise<string> {
  const bytes = await readFile(logFile).catch(() => Buffer.alloc(0))
  return bytes.subarray(from).toString().trim().split('\n').slice(-12).join('\n')
}

/**
 * Removes what a killed PostgreSQL left: its folder of sockets, and a postmaster.pid that PostgreSQL itself would stop
 * at, because the process id in it has been given to another process since (after a restart of the machine, and in
 * containers), or because it was never written to its end. The file is renamed before it is judged for the last time:
 * if another starter has replaced it meanwhile, it goes back. Should both start all the same, PostgreSQL's second
 * interlock, the shared memory segment keyed by the cluster's inode, lets only one run.
 */
async function clearRemains(cluster: string): Promise<void> {
  const file = join(cluster, 'postmaster.pid')
  const text = await readPidFile(cluster)
  const written = await stat(file).catch(() => undefined)
  if (!written || (await findPostmaster(cluster))) return
  const [pid, , , , socketFolder = ''] = text.split('\n')
  await removeSocketFolder(socketFolder)
  const isWhole = Number(pid) > 0
  if (isWhole ? !isTaken(Number(pid)) : Date.now() - written.mtimeMs < 2_000) return
  const aside = `${file}.stale-${process.pid}`
  await rename(file, aside).catch(() => undefined)
  const found = await readFile(aside, 'utf8').catch(() => undefined)
  if (found !== undefined && found !== text) await link(aside, file).catch(() => undefined)
  await rm(aside, { force: true })
}

const socketFolderPrefix = 'packs-pg-'

/** A fresh folder that only the server's user (and root) may enter, with a path short enough for a socket. */
async function makeSocketFolder(user: User | undefined): Promise<string> {
  for (const parent of [tmpdir(), '/tmp', '/var/tmp', '/run']) {
    if (!socketPathFits(join(parent, `${socketFolderPrefix}XXXXXX`)) || parent.includes('"')) continue
    if (user && !(await canEnter(user, parent).catch(() => false))) continue
    const folder = await mkdtemp(join(parent, socketFolderPrefix)).catch(() => undefined)
    if (folder === undefined) continue
    if (user) await chown(folder, user.uid, user.gid)
    return folder
  }
  throw new Error(
    `There is no temporary folder for the embedded PostgreSQL's socket: neither ${tmpdir()} nor /tmp, /var/tmp or /run ` +
      'is short, writable and open to every user. Make /tmp writable, or set DATABASE_URL.',
  )
}

/** Removes a folder of sockets that we made. Anything else at that path, or in it, is left alone. */
export async function removeSocketFolder(folder: string): Promise<void> {
  if (!basename(folder).startsWith(socketFolderPrefix)) return
  await rm(socketFile(folder), { force: true })
  await rm(`${socketFile(folder)}.lock`, { force: true })
  await rmdir(folder).catch(() => undefined)
}

/**
 * Stops a PostgreSQL: fast shutdown (SIGINT: sessions are ended, a checkpoint is written), after `patienceMs` the
 * immediate one (SIGQUIT: it recovers at the next start). Returns when it is gone; throws an Error in words when it
 * does not go.
 */
export async function stopPostmaster(
  cluster: string,
  { pid, startedOn }: Postmaster,
  patienceMs = 30_000,
): Promise<void> {
  for (const signal of ['SIGINT', 'SIGQUIT'] as const) {
    if (!(await isPostmaster(pid, cluster, startedOn))) return
    try {
      process.kill(pid, signal)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
    }
    const until = Date.now() + patienceMs
    while (Date.now() < until) {
      await sleep(5)
      if (!isAlive(pid)) return
    }
  }
  throw new Error(`PostgreSQL (process ${pid}) on ${cluster} does not stop. End it with "kill -9 ${pid}".`)
}
