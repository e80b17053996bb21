import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { text } from 'node:stream/consumers'
import type { User } from './embedded-user.ts'

/** How every program of PostgreSQL is started: as whom, in a known environment, in a folder that every user can read. */
export function spawnOptions(user: User | undefined) {
  return { cwd: '/', env: { LC_ALL: 'C' }, ...(user && { uid: user.uid, gid: user.gid }) }
}

/** Runs one of PostgreSQL's programs to its end. Throws an Error in words with its output when it fails. */
export async function run(program: string, args: string[], user: User | undefined): Promise<void> {
  const child = spawn(program, args, { ...spawnOptions(user), stdio: ['ignore', 'ignore', 'pipe'] })
  const errors = text(child.stderr).catch(() => '')
  const [code, signal] = await once(child, 'close').catch((cause) => {
    throw cannotRun(program, cause)
  })
  if (code === 0) return
  throw new Error(
    `${program} failed (${signal ?? `exit code ${code}`}): ${(await errors).trim()}\n` +
      'Remove the reason and start again, or set DATABASE_URL to a PostgreSQL of your own.',
  )
}

/** The Error in words for a program that the operating system did not start. */
export function cannotRun(program: string, cause: Error): Error {
  return new Error(
    `Cannot run ${program}: ${cause.message}. The embedded PostgreSQL needs macOS or a Linux with glibc (not Alpine's musl), ` +
      'and permission to run programs from that folder. Otherwise set DATABASE_URL to a PostgreSQL of your own.',
    { cause },
  )
}

/** Whether the system has that process id in use (with EPERM: for another user's process), be it only for a zombie. */
export function isTaken(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

/**
 * Whether the process still runs. One that has ended but that its parent has not waited for does not: the first
 * process of many containers never does that for those it inherits.
 */
export function isAlive(pid: number): boolean {
  if (!isTaken(pid)) return false
  if (process.platform !== 'linux') return true
  try {
    // Source: proc(5), /proc/pid/stat: the state follows the name, which may hold any character, in parentheses.
    return !/\) [ZX] [^)]*$/.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
  } catch {
    return isTaken(pid)
  }
}
