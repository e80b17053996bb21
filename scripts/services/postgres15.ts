import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chownSync, existsSync, mkdtempSync, rmSync } from 'node:fs'
import { createConnection } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { waitFor } from '../../src/testing/wait.ts'
import { freePort, processesOf, signalAll } from './processes.ts'

const programs = '/usr/lib/postgresql/15/bin'

export type Postgres15 = {
  /** `postgres://…` of an empty database. */
  url: string
  /** Ends it as an administrator would (fast shutdown: connections are cut), keeping the data. */
  down(): Promise<void>
  up(): Promise<void>
  /** Makes it hang with all its connections open, and wakes it up again. */
  freeze(): void
  thaw(): void
  /** Ends it and removes its data. */
  stop(): Promise<void>
}

/**
 * Debian's PostgreSQL 15 with its default settings on a free port of 127.0.0.1; as root it runs as user `postgres`.
 * Gives undefined where it is not installed.
 */
export async function startPostgres15(): Promise<Postgres15 | undefined> {
  if (!existsSync(join(programs, 'postgres'))) return undefined
  const folder = mkdtempSync(join(tmpdir(), 'packs-registry-postgres-'))
  const user = process.getuid?.() === 0 ? postgresUser() : undefined
  if (user) chownSync(folder, user.uid, user.gid)
  const data = join(folder, 'data')
  const options = { ...user, cwd: folder, stdio: 'ignore' } as const
  execFileSync(
    join(programs, 'initdb'),
    ['-D', data, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--locale=C', '-N'],
    options,
  )

  const port = await freePort()
  let server: ReturnType<typeof spawn> | undefined
  process.on('exit', () => server?.kill('SIGKILL'))

  async function up() {
    const args = ['-D', data, '-h', '127.0.0.1', '-p', String(port), '-k', folder]
    server = spawn(join(programs, 'postgres'), args, options)
    await waitFor('PostgreSQL 15 to take connections', () => acceptsQueries(port, folder, options))
  }
  async function down() {
    if (!server || server.exitCode !== null || server.signalCode !== null) return
    const exited = once(server, 'exit')
    server.kill('SIGINT')
    await exited
  }
  // Each connection is a process of its own below the server.
  const all = (signal: NodeJS.Signals) => signalAll(server?.pid ? processesOf(server.pid) : [], signal)
  await up()
  return {
    url: `postgres://postgres@127.0.0.1:${port}/postgres`,
    up,
    down,
    freeze: () => all('SIGSTOP'),
    thaw: () => all('SIGCONT'),
    async stop() {
      all('SIGCONT')
      await down()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

async function acceptsQueries(port: number, folder: string, options: object): Promise<boolean> {
  const socket = createConnection(port, '127.0.0.1')
  const listens = await once(socket, 'connect').then(
    () => true,
    () => false,
  )
  socket.destroy()
  if (!listens) return false
  try {
    execFileSync(join(programs, 'pg_isready'), ['-h', folder, '-p', String(port), '-U', 'postgres'], options)
    return true
  } catch {
    return false
  }
}

function postgresUser(): { uid: number; gid: number } {
  const id = (flag: string) => Number(execFileSync('id', [flag, 'postgres'], { encoding: 'utf8' }))
  return { uid: id('-u'), gid: id('-g') }
}
