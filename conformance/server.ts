import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, realpathSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { freePort, isAlive, processesOf, signalAll } from '../scripts/services/processes.ts'
import { waitFor } from '../src/testing/wait.ts'
import { call } from './registry-client.ts'

const checkout = join(import.meta.dirname, '..')

export type ServerOptions = {
  /** Settings of the server, by their environment names. */
  env?: Record<string, string>
  /** Kept when the server stops. Without one a temporary folder is made, and removed with the server. */
  dataDir?: string
  /** Sets no DATA_DIR: the server uses its default, `data` in the checkout. */
  withoutDataDir?: boolean
  port?: number
  /** The folder that holds `src/main.ts`. */
  checkout?: string
  /** The command before `node`, e.g. `['setpriv', '--reuid=nobody']`. */
  prefix?: readonly string[]
  /** Run instead of `node --import tsx src/main.ts serve`. */
  command?: readonly [string, ...string[]]
}

export type Server = {
  url: string
  /** `127.0.0.1:PORT`, as clients name a registry. */
  host: string
  pid: number
  dataDir: string
  /** Every process of the server, its workers and its own database. */
  processes(): number[]
  /** What it has said so far, stdout and stderr. */
  log(): string
  /** Signals the process group as a terminal would, waits for the end, and expects a clean one: 0, nothing left. */
  stop(signal?: 'SIGTERM' | 'SIGINT'): Promise<void>
  /** SIGKILL to everything at once. */
  kill(): Promise<void>
}

/** Starts the real server as its own process and waits until it is ready. */
export async function startServer(options: ServerOptions = {}): Promise<Server> {
  const given = options.withoutDataDir ? join(options.checkout ?? checkout, 'data') : options.dataDir
  const dataDir = given ?? temporaryFolder()
  const run = await spawnServer({ ...options, dataDir }, dataDir)
  if (given === undefined) run.onEnd(() => rmSync(dataDir, { recursive: true, force: true, maxRetries: 5 }))
  try {
    await waitFor(`${run.url}/readyz to answer 200`, async () => {
      if (run.ended() !== undefined) return true
      return (await call('GET', `${run.url}/readyz`)).status === 200
    })
    assert.equal(run.ended(), undefined, 'the server ended instead of getting ready')
    return run
  } catch (error) {
    await run.kill()
    throw new Error(`the server did not start; it said:\n${run.log()}`, { cause: error })
  }
}

/** Starts a server that is expected to refuse, and gives what it said and how it ended once nothing of it runs. */
export async function startRefused(
  options: ServerOptions & { dataDir: string },
): Promise<{ code: number | string; said: string }> {
  // The folder may be in use by another server, whose processes are not ours to end.
  const run = await spawnServer(options, undefined)
  try {
    const code = await waitFor('the server to refuse', () => run.ended()?.toString())
    return { code: Number.isNaN(Number(code)) ? code : Number(code), said: run.log() }
  } finally {
    await run.kill()
  }
}

const running = new Set<() => void>()
process.on('exit', () => {
  for (const end of running) end()
})
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1))

type Spawned = Server & { ended(): number | string | undefined; onEnd(cleanUp: () => void): void }

/** `folder`: where processes count as this server's own, whoever their parent is. */
async function spawnServer(options: ServerOptions, folder: string | undefined): Promise<Spawned> {
  const { env = {}, prefix = [], command = [process.execPath, '--import', 'tsx', 'src/main.ts', 'serve'] } = options
  const port = options.port ?? (await freePort())
  const [program = '', ...args] = [...prefix, ...command]
  const child = spawn(program, args, {
    cwd: options.checkout ?? checkout,
    // Its own process group, so that Ctrl-C can be given to all of it; nothing of this environment but what it needs.
    detached: true,
    env: {
      PATH: process.env.PATH,
      HOME: process.env.HOME,
      HOST: '127.0.0.1',
      PORT: String(port),
      LOG_LEVEL: 'info',
      ...(options.withoutDataDir ? {} : { DATA_DIR: options.dataDir }),
      ...env,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const log = collectOutput(child)
  await once(child, 'spawn')
  const pid = child.pid ?? assert.fail('no process')
  const ended = () => child.exitCode ?? child.signalCode ?? undefined
  // Once it has ended, its process id may be another's.
  const processes = () => processesOf(ended() === undefined ? pid : undefined, folder)

  const killNow = () => signalAll(processes(), 'SIGKILL')
  running.add(killNow)
  const cleanUps: (() => void)[] = [() => running.delete(killNow)]
  const kill = async () => {
    await waitFor('the server to die', () => {
      killNow()
      return processes().length === 0 && ended() !== undefined
    })
    for (const cleanUp of cleanUps.splice(0)) cleanUp()
  }

  async function stop(signal: 'SIGTERM' | 'SIGINT' = 'SIGTERM') {
    if (ended() !== undefined) {
      await kill()
      assert.fail(`the server had ended before it was told to, with ${ended()}; it said:\n${log()}`)
    }
    const before = processes()
    process.kill(signal === 'SIGINT' ? -pid : pid, signal)
    await waitFor(`the server to end on ${signal}`, () => ended() !== undefined).catch(() => {})
    const left = () => [...new Set([...processes(), ...before.filter(isAlive)])]
    await waitFor('all its processes to end', () => left().length === 0, { timeoutMs: 10_000 }).catch(() => {})
    const [code, leftOver] = [ended(), left()]
    await kill()
    assert.equal(code, 0, `${signal} of ${before.join(' ')} did not end it with 0; it said:\n${log()}`)
    assert.deepEqual(leftOver, [], 'processes were left behind')
  }

  const host = `127.0.0.1:${port}`
  return {
    ...{ url: `http://${host}`, host, pid, dataDir: options.dataDir ?? '', processes, log, stop, kill, ended },
    onEnd: (cleanUp) => cleanUps.push(cleanUp),
  }
}

/** The end of what a process says, bounded. */
function collectOutput(child: ChildProcess): () => string {
  let text = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (piece: string) => {
      text = (text + piece).slice(-64 * 1024)
    })
  }
  return () => text
}

/** A fresh folder that any user may enter, its path free of symlinks. Whoever asks for it removes it. */
export function temporaryFolder(): string {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), 'packs-registry-')))
  chmodSync(folder, 0o755)
  return folder
}
