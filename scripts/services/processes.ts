import { randomInt } from 'node:crypto'
import { readdirSync, readFileSync, readlinkSync, realpathSync } from 'node:fs'
import { createServer } from 'node:net'

/**
 * A port of 127.0.0.1 that nobody listens on, and, if asked, none on those after it either. It is below those that the
 * system hands out by itself, so that until it is used it becomes nobody's by chance, be it as the near end of a connection.
 */
export async function freePort(inARow = 1): Promise<number> {
  for (let tries = 0; tries < 100; tries++) {
    const first = randomInt(10_000, 30_000)
    const ports = Array.from({ length: inARow }, (_, i) => first + i)
    if ((await Promise.all(ports.map(isFree))).every(Boolean)) return first
  }
  throw new Error('no port')
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })
}

type Process = { pid: number; parent: number; state: string }

function allProcesses(): Process[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      const stat = quietly(() => readFileSync(`/proc/${name}/stat`, 'utf8'))
      if (stat === undefined) return []
      // The command name stands in parentheses and may hold anything, so fields count from its end.
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
      return [{ pid: Number(name), state: fields[0] ?? '?', parent: Number(fields[1]) }]
    })
}

/**
 * Every living process that belongs to a server: `pid`, all below it, and all whose working directory is inside
 * `folder` (a database keeps its own there, whoever is its parent by now). Zombies are dead.
 */
export function processesOf(pid: number | undefined, folder?: string): number[] {
  const living = allProcesses().filter((one) => one.state !== 'Z')
  const starts = living.filter((one) => one.pid === pid || (folder !== undefined && isInside(folder, one.pid)))
  const found = new Set(starts.map((one) => one.pid))
  for (let before = -1; before !== found.size; ) {
    before = found.size
    for (const one of living) if (found.has(one.parent)) found.add(one.pid)
  }
  return [...found]
}

function isInside(folder: string, pid: number): boolean {
  const cwd = quietly(() => readlinkSync(`/proc/${pid}/cwd`))
  // Where the folder is private, its database lives elsewhere, and is a link here.
  const linked = quietly(() => realpathSync(`${folder}/postgres`))
  return cwd !== undefined && [folder, linked].some((place) => place !== undefined && `${cwd}/`.startsWith(`${place}/`))
}

/** Whether there is such a process that is no zombie. */
export function isAlive(pid: number): boolean {
  return allProcesses().some((one) => one.pid === pid && one.state !== 'Z')
}

/** Of `pids`, those that run node: the server's own, without its database. */
export function nodeProcesses(pids: readonly number[]): number[] {
  return pids.filter((pid) => quietly(() => readlinkSync(`/proc/${pid}/exe`)) === process.execPath)
}

/** What each open descriptor of these processes points at, e.g. `/data/blobs/tmp/x` or `socket:[123]`. */
export function openDescriptors(pids: readonly number[]): string[] {
  return pids.flatMap((pid) => {
    const folder = `/proc/${pid}/fd`
    return (quietly(() => readdirSync(folder)) ?? []).flatMap(
      (fd) => quietly(() => readlinkSync(`${folder}/${fd}`)) ?? [],
    )
  })
}

/** How many connections processes here hold that were made to a port of this machine. */
export function connectionsTo(port: number): number {
  const local = `:${port.toString(16).toUpperCase().padStart(4, '0')}`
  const [listening, inode] = ['0A', 9]
  return ['tcp', 'tcp6']
    .flatMap((table) => (quietly(() => readFileSync(`/proc/net/${table}`, 'utf8')) ?? '').split('\n').slice(1))
    .map((line) => line.trim().split(/\s+/))
    .filter((field) => field[1]?.endsWith(local) && field[3] !== listening && field[inode] !== '0').length
}

/** Sends a signal to each; ones that are gone are no error. */
export function signalAll(pids: readonly number[], signal: NodeJS.Signals): void {
  for (const pid of pids) quietly(() => process.kill(pid, signal))
}

/** For what may vanish between two looks at it: processes and their files. */
function quietly<T>(look: () => T): T | undefined {
  try {
    return look()
  } catch {
    return undefined
  }
}
