import { spawn } from 'node:child_process'
import { once } from 'node:events'
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

/** Whether there is a process of that id (with EPERM: one of another user). */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}
