import assert from 'node:assert/strict'
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { after, afterEach, before, it } from 'node:test'
import { promisify } from 'node:util'
import { listJobs } from '../db/jobs.ts'
import { send } from '../db/queue.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { startRegistry, type TestRegistry } from '../testing/registry.ts'
import { waitFor } from '../testing/wait.ts'

const main = new URL('../main.ts', import.meta.url).pathname
const command = ['--import', 'tsx', main]

let databases: TestDatabases
let registry: TestRegistry
let url: string
const children: ChildProcess[] = []
before(async () => {
  databases = await startDatabases()
  url = await databases.fresh()
  registry = await startRegistry(url)
})
// What a test that failed has left would do the work of the next.
afterEach(async () => {
  for (const child of children.splice(0)) {
    if (child.exitCode !== null || child.signalCode !== null) continue
    child.kill('SIGKILL')
    await once(child, 'exit')
  }
})
after(async () => {
  await registry?.stop()
  await databases?.stop()
})

const { PATH, HOME } = process.env

function start(...args: string[]): ChildProcess {
  const env = { PATH, HOME, DATABASE_URL: url, BLOB_STORE: registry.deps.config.blobStore, LOG_LEVEL: 'warn' }
  const child = spawn(process.execPath, [...command, ...args], { env, stdio: ['ignore', 'pipe', 'inherit'] })
  children.push(child)
  child.stdout?.resume()
  return child
}

/** What a process has said that matches, as soon as it has. */
function saidBy(child: ChildProcess, pattern: RegExp): () => string | undefined {
  let text = ''
  child.stdout?.setEncoding('utf8').on('data', (piece: string) => {
    text += piece
  })
  return () => pattern.exec(text)?.[1]
}

const completed = () => listJobs(registry.deps.db.sql, { state: 'completed', limit: 10 })

async function stop(child: ChildProcess): Promise<void> {
  child.kill('SIGTERM')
  const [code] = await once(child, 'exit')
  assert.equal(code, 0)
}

it('packs worker runs what is due and what is sent, and ends well when it is told to', async () => {
  const worker = start('worker')
  await waitFor('what is due to be done', async () => (await completed()).some(({ name }) => name === 'tidy'))
  await send(registry.deps.db.sql, 'tidy', {}, { key: 'by hand' })
  await waitFor('what is sent to be done', async () => (await completed()).some(({ key }) => key === 'by hand'))
  await stop(worker)
})

it('packs serve with several processes runs jobs in one of them; with WORKER=false in none', async () => {
  const { sql } = registry.deps.db
  const ears = async () => {
    const [row] = await sql<{ count: number }[]>`
      select count(*)::int as count from pg_stat_activity
      where datname = current_database() and query like 'listen%'`
    return row?.count
  }
  const lone = start('serve', '--port', '0', '--worker', 'false', '--log-level', 'info')
  const many = start('serve', '--port', '0', '--processes', '3', '--log-level', 'info')
  const serving = [lone, many].map((child) => saidBy(child, /"url":"(http[^"]+)"/))
  await waitFor('both to serve, and to know how they are told to stop', () => serving.every((told) => told()))
  await waitFor('one worker to listen', async () => (await ears()) === 1)
  await send(sql, 'tidy', {}, { key: 'among many' })
  await waitFor('the job to be done', async () => (await completed()).some(({ key }) => key === 'among many'))
  assert.equal(await ears(), 1)
  await Promise.all([stop(lone), stop(many)])
})

it('packs serve with several processes shows each figure of the registry once, and as it is now', async () => {
  const { sql } = registry.deps.db
  const server = start('serve', '--port', '0', '--processes', '2', '--worker', 'false', '--log-level', 'info')
  const told = saidBy(server, /"url":"(http:\/\/127\.0\.0\.1:\d+)"/)
  await waitFor('the address of the server', told)
  /** A connection of its own: the processes take turns. */
  const figures = async () => {
    const answer = await fetch(`${told()}/metrics`, { headers: { connection: 'close' } })
    return (await answer.text()).split('\n')
  }
  const dead = async () => (await figures()).filter((line) => line.startsWith('packs_jobs{kind="tidy",state="failed"}'))
  const id = await send(sql, 'tidy', {}, { key: 'dead' })
  assert.ok(id)
  await sql`update pgboss.job set state = 'failed', completed_on = now() where id = ${id}`
  for (let i = 0; i < 4; i++) assert.deepEqual(await dead(), ['packs_jobs{kind="tidy",state="failed"} 1'])
  await sql`delete from pgboss.job where id = ${id}`
  for (let i = 0; i < 4; i++) assert.deepEqual(await dead(), ['packs_jobs{kind="tidy",state="failed"} 0'])
  // Those of the processes are added up, whoever is asked. The other one may not have started yet.
  await waitFor('the figures of both processes', async () => {
    return (await figures()).includes('packs_database_connections{state="max"} 24')
  })
  await stop(server)
})

it('packs jobs lists, shows and retries', async () => {
  const packs = async (...args: string[]) => {
    const all = [...command, 'jobs', ...args, '--registry', registry.url]
    return (await promisify(execFile)(process.execPath, all)).stdout
  }
  const { sql } = registry.deps.db
  const id = await send(sql, 'tidy', {}, { key: 'shown' })
  assert.ok(id)
  await sql`update pgboss.job set state = 'failed', output = '{"error": "the disk is full"}' where id = ${id}`
  const { jobs } = JSON.parse(await packs('list', '--state', 'failed', '--json'))
  assert.deepEqual(
    jobs.map((job: { id: string }) => job.id),
    [id],
  )
  assert.match(await packs('list', '--dead'), new RegExp(id))
  assert.match(await packs('kinds'), /^tidy +0 +- +0 +1 .*yes +ends what/m)
  assert.match(await packs('list'), /JOB +NAME +STATE[\s\S]*tidy +failed +0\/4 .*shown: the disk is full/)
  assert.match(await packs('show', id), /^error +the disk is full$/m)
  assert.match(await packs('retry', id), /waits for a worker/)
  await assert.rejects(packs('retry', id), /only one that failed is retried/)
  assert.match(await packs('cancel', id), /is cancelled/)
  await sql`update pgboss.job set state = 'failed' where id = ${id}`
  assert.match(await packs('retry', '--all', 'tidy'), /1 of tidy wait/)
  await assert.rejects(packs('retry'), /the id of one dead letter, or --all/)
  await sql`update pgboss.job set state = 'failed' where id = ${id}`
  assert.match(await packs('discard', id), /is discarded/)
  assert.equal(await packs('list', '--dead'), '')
})

it('packs jobs run has a job run, waits for its end, and says how it went', async () => {
  const { sql } = registry.deps.db
  const packs = (...args: string[]) =>
    promisify(execFile)(process.execPath, [...command, 'jobs', 'run', ...args, '--registry', registry.url])
  await sql`delete from pgboss.job`
  const { stdout: said } = await packs('tidy')
  assert.match(said, /^tidy \S+ waits for a worker$/m)
  const { stderr } = await packs('tidy', '--data', '{}')
  assert.match(stderr, /waited already/)
  for (const [data, wrong] of [
    ['{"a":1}', /data of tidy/],
    ['no', /not JSON/],
    ['[]', /is an object/],
  ] as const)
    await assert.rejects(packs('tidy', '--data', data), wrong)
  const worker = start('worker')
  const done = await packs('tidy', '--wait')
  assert.match(done.stdout, /^tidy +\S+ is done\ndeleted +0\nexpired +0$/m)
  await stop(worker)
})

it('packs worker answers probes and Prometheus on WORKER_PORT, and nothing else', async () => {
  const worker = start('worker', '--worker-port', '0', '--log-level', 'info')
  const told = saidBy(worker, /"probes":"(http:\/\/127\.0\.0\.1:\d+)"/)
  await waitFor('the address of the probes', told)
  const get = async (path: string) => {
    const answer = await fetch(`${told()}${path}`)
    return { status: answer.status, text: await answer.text() }
  }
  assert.deepEqual(await get('/healthz'), { status: 200, text: '{"status":"ok"}' })
  assert.equal((await get('/readyz')).status, 200)
  const { text } = await get('/metrics')
  for (const figure of [
    /packs_worker_slots\{state="max"\} 4/,
    /packs_jobs_dead_total\{kind="tidy"\} 0/,
    /packs_part_up/,
  ])
    assert.match(text, figure)
  for (const path of ['/v2/', '/packs', '/jobs']) assert.equal((await get(path)).status, 404)
  await stop(worker)
})

it('packs worker says which setting to change where its port is taken', async () => {
  const port = new URL(registry.url).port
  const env = { PATH, HOME, DATABASE_URL: url, BLOB_STORE: registry.deps.config.blobStore }
  await assert.rejects(
    promisify(execFile)(process.execPath, [...command, 'worker', '--worker-port', port], { env }),
    new RegExp(`Port ${port} .* is in use .*WORKER_PORT=${Number(port) + 1}`),
  )
})
