import { type ChildProcess, spawn } from 'node:child_process'
import { readdir, readFile, readlink, writeFile } from 'node:fs/promises'
import { basename } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { atEnd } from './cleanup.ts'

export type Launch = {
  readonly command: string
  readonly args: readonly string[]
  readonly env?: NodeJS.ProcessEnv
  readonly origin: string
  /** The path that answers 200 once the server is ready. */
  readonly ready: string
  /** The folder that holds its data: a process that works in there is part of the server, whoever its parent is. */
  readonly folder: string
}

export type Server = {
  readonly origin: string
  readonly folder: string
  readonly pid: number
  /** Once it has ended: how, and what it said last. */
  ended(): string | undefined
  stop(): Promise<void>
}

/** Starts a server and waits until it is ready. Throws with the end of what it printed when it stops or stays silent. */
export async function startServer(launch: Launch, { timeoutSeconds = 60 } = {}): Promise<Server> {
  const { command, args, origin, ready, folder } = launch
  // A process group of its own: Ctrl-C reaches the benchmark alone, which then stops every server by its pid.
  const child = spawn(command, args, {
    cwd: process.cwd(),
    env: { ...process.env, ...launch.env },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  })
  atEnd(() => stop(child, folder))
  let output = ''
  const keep = (chunk: Buffer) => {
    output = (output + chunk.toString()).slice(-2000)
  }
  child.stdout.on('data', keep)
  child.stderr.on('data', keep)
  let end: string | undefined
  const failed = new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(error.message))
    child.once('exit', (code, signal) => {
      end = `it stopped with ${code ?? signal}`
      resolve(end)
    })
  })
  const answered = answers(origin + ready, timeoutSeconds)
  const problem = await Promise.race([failed, answered])
  if (problem !== undefined) {
    await stop(child, folder)
    throw new Error(`${basename(command)} did not start (${problem}): ${output.trim()}`)
  }
  const ended = () => end && `${end}: ${output.trim()}`
  return { origin, folder, pid: child.pid ?? 0, ended, stop: () => stop(child, folder) }
}

async function answers(url: string, timeoutSeconds: number): Promise<string | undefined> {
  const end = Date.now() + timeoutSeconds * 1000
  let last = ''
  while (Date.now() < end) {
    try {
      const response = await fetch(url, { signal: AbortSignal.timeout(2000) })
      await response.arrayBuffer()
      if (response.ok) return undefined
      last = String(response.status)
    } catch (error) {
      last = String(error)
    }
    await sleep(50)
  }
  return `not ready after ${timeoutSeconds} s: ${last}`
}

async function stop(child: ChildProcess, folder: string): Promise<void> {
  const members = await processesOf(child.pid ?? 0, folder)
  if (child.pid !== undefined && child.exitCode === null && child.signalCode === null) {
    const exited = new Promise((resolve) => child.once('exit', resolve))
    child.kill('SIGTERM')
    await Promise.race([exited, sleep(20_000, undefined, { ref: false })])
  }
  // Only what was seen to be part of this server, and still is: a pid may have been given to somebody else meanwhile.
  const started = new Map(members.map((one) => [one.pid, one.startTime]))
  for (const { pid, startTime } of await allProcesses()) {
    if (started.get(pid) === startTime) kill(pid)
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It ended by itself.
  }
}

type ProcessInfo = { pid: number; parent: number; name: string; startTime: string; cpuTicks: number }

async function allProcesses(): Promise<ProcessInfo[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name))
  const found = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')))
  return found.flatMap((stat) => {
    // proc(5): pid (comm) state ppid … starttime is field 22. comm may hold spaces and brackets.
    const match = /^(\d+) \((.*)\) (.*)$/s.exec(stat)
    const fields = match?.[3]?.split(' ')
    if (!match || !fields) return []
    const cpuTicks = Number(fields[11]) + Number(fields[12])
    const startTime = fields[19] ?? ''
    return [{ pid: Number(match[1]), name: match[2] ?? '', parent: Number(fields[1]), startTime, cpuTicks }]
  })
}

/** A server's processes: the one that was started, everything below it, and whatever works in its data folder. */
export async function processesOf(root: number, folder: string): Promise<ProcessInfo[]> {
  const all = await allProcesses()
  const places = await Promise.all(all.map(({ pid }) => readlink(`/proc/${pid}/cwd`).catch(() => '')))
  const members = new Set(all.filter(({ pid }, at) => pid === root || places[at]?.startsWith(`${folder}/`)))
  for (let before = -1; before < members.size; ) {
    before = members.size
    const pids = new Set([...members].map(({ pid }) => pid))
    for (const one of all) if (pids.has(one.parent)) members.add(one)
  }
  return [...members]
}

/** Processor time that a server's processes have taken so far, its PostgreSQL's too. */
export async function cpuSecondsOf({ pid, folder }: Pick<Server, 'pid' | 'folder'>): Promise<number> {
  const all = await processesOf(pid, folder)
  // Linux counts in hundredths for every program, whatever it does itself: proc(5).
  return all.reduce((sum, one) => sum + one.cpuTicks, 0) / 100
}

export type Memory = { readonly own: number; readonly postgres: number }

/**
 * Memory of a server in megabytes (10^6 bytes), its PostgreSQL apart. `Pss` shares what several processes map among
 * them, so it can be summed; `Rss` counts it in each.
 */
export function memoryOf(server: Server, measure: 'Pss' | 'Rss' = 'Pss'): Promise<Memory> {
  return sumOf(server, 'smaps_rollup', measure)
}

/** The highest `Rss` of each process since `resetPeaks`, summed: the kernel keeps it, so no moment is missed. */
export function peakOf(server: Server): Promise<Memory> {
  return sumOf(server, 'status', 'VmHWM')
}

export async function resetPeaks({ pid, folder }: Server): Promise<void> {
  // proc(5): 5 resets the peak resident set size to the current one.
  for (const one of await processesOf(pid, folder))
    await writeFile(`/proc/${one.pid}/clear_refs`, '5').catch(() => undefined)
}

async function sumOf({ pid, folder }: Server, file: string, field: string): Promise<Memory> {
  const sum = { own: 0, postgres: 0 }
  for (const one of await processesOf(pid, folder)) {
    const text = await readFile(`/proc/${one.pid}/${file}`, 'utf8').catch(() => '')
    const kilobytes = Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(text)?.[1] ?? 0)
    sum[one.name === 'postgres' ? 'postgres' : 'own'] += (kilobytes * 1024) / 1e6
  }
  return sum
}
