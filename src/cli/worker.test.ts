import assert from 'node:assert/strict'
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { after, before, it } from 'node:test'
import { promisify } from 'node:util'
import { listJobs } from '../db/jobs.ts'
import { send } from '../db/queue.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { startRegistry, type TestRegistry } from '../testing/registry.ts'

const main = new URL('../main.ts', import.meta.url).pathname
const command = ['--import', 'tsx', main]

let databases: TestDatabases
let registry: TestRegistry
let url: string
let children: ChildProcess[] = []
before(async () => {
  databases = await startDatabases()
  url = await databases.fresh()
  registry = await startRegistry(url)
})
after(async () => {
  for (const child of children) child.kill('SIGKILL')
  await registry?.stop()
  await databases?.stop()
})

async function until(condition: () => Promise<boolean> | boolean): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 50))
}

function start(...args: string[]): ChildProcess {
  const env = { ...process.env, DATABASE_URL: url, BLOB_STORE: registry.deps.config.blobStore, LOG_LEVEL: 'warn' }
  const child = spawn(process.execPath, [...command, ...args], { env, stdio: ['ignore', 'ignore', 'inherit'] })
  children = [...children, child]
  return child
}

const completed = () => listJobs(registry.deps.db.sql, { state: 'completed', limit: 10 })

async function stop(child: ChildProcess): Promise<void> {
  child.kill('SIGTERM')
  const [code] = await once(child, 'exit')
  assert.equal(code, 0)
}

it('packs worker runs what is due and what is sent, and ends well when it is told to', async () => {
  const worker = start('worker')
  await until(async () => (await completed()).some(({ name }) => name === 'tidy'))
  await send(registry.deps.db.sql, 'tidy', {}, { key: 'by hand' })
  await until(async () => (await completed()).some(({ key }) => key === 'by hand'))
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
  const lone = start('serve', '--port', '0', '--worker', 'false')
  const many = start('serve', '--port', '0', '--processes', '3')
  await until(async () => (await ears()) === 1)
  await send(sql, 'tidy', {}, { key: 'among many' })
  await until(async () => (await completed()).some(({ key }) => key === 'among many'))
  assert.equal(await ears(), 1)
  await Promise.all([stop(lone), stop(many)])
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
  assert.match(await packs('list'), /JOB +NAME +STATE[\s\S]*tidy +failed +0\/1 .*shown: the disk is full/)
  assert.match(await packs('show', id), /^error +the disk is full$/m)
  assert.match(await packs('retry', id), /waits for a worker/)
  await assert.rejects(packs('retry', id), /only one that failed is retried/)
})
