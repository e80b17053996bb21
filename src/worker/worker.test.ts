import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, before, describe, it } from 'node:test'
import { readConfig } from '../config.ts'
import { connect, type Sql } from '../db/client.ts'
import { countJobs, discardJob } from '../db/dead-letters.ts'
import { findJob, type JobRow, listJobs, retryJob, takeJob } from '../db/jobs.ts'
import { migrate } from '../db/migrate.ts'
import { send } from '../db/queue.ts'
import type { QueueOptions } from '../db/queues.ts'
import { closeDeps, type Deps, openDeps } from '../deps.ts'
import { Failure } from '../errors.ts'
import { openLog } from '../log.ts'
import { cancel, retryAll } from '../registry/jobs.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { waitFor } from '../testing/wait.ts'
import type { Job } from './jobs.ts'
import { timesAround } from './schedule.ts'
import { startWorker, type WorkerOptions } from './worker.ts'

let databases: TestDatabases
/** For blobs, of which there are none. */
let folder: string
before(async () => {
  databases = await startDatabases()
  folder = await mkdtemp(join(tmpdir(), 'packs-worker-'))
})
after(async () => {
  await databases?.stop()
  await rm(folder, { recursive: true, force: true })
})

const ends: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end()
})

type Site = { url: string; deps: Deps; sql: Sql; work(jobs: Record<string, Job>, options?: WorkerOptions): Worker }
type Worker = ReturnType<typeof startWorker>

/** A database with these queues, and what works on it. */
async function site(queues: Record<string, QueueOptions>, url?: string): Promise<Site> {
  const address = url ?? (await databases.fresh())
  await migrate(address, queues)
  const deps = await openDeps(readConfig({ BLOB_STORE: `file:${folder}` }), address, openLog('silent'))
  ends.push(() => closeDeps(deps))
  return {
    url: address,
    deps,
    sql: deps.db.sql,
    work(jobs, options) {
      const worker = startWorker(deps, { jobs, pollMs: 100, careMs: 50, ...options })
      ends.push(() => worker.stop({ graceMs: 0, endMs: 1000 }))
      return worker
    },
  }
}

const plain = { retries: 2, retryDelay: 1, lease: 30 }

async function stateOf(sql: Sql, id: string | undefined): Promise<JobRow['state'] | undefined> {
  return (await findJob(sql, id ?? ''))?.state
}

/** The job, as soon as it is in this state. */
function jobWhen(sql: Sql, id: string | undefined, state: JobRow['state']) {
  return waitFor(`the job to be ${state}`, async () => {
    const found = await findJob(sql, id ?? '')
    return found?.state === state && found
  })
}

async function sent(sql: Sql, ...given: [queue: string, data?: object, options?: Parameters<typeof send>[3]]) {
  const [queue, data = {}, options] = given
  return (await send(sql, queue, data, options)) ?? assert.fail('not taken')
}

describe('sending', () => {
  it('is part of the transaction', async () => {
    const { sql, work } = await site({ echo: plain })
    let id: string | undefined
    await assert.rejects(
      sql.begin(async (tx) => {
        id = await send(tx, 'echo', { n: 1 })
        assert.ok(id)
        throw new Error('changed my mind')
      }),
      /changed my mind/,
    )
    assert.equal(await findJob(sql, id ?? ''), undefined)
    const seen: unknown[] = []
    work({
      echo: {
        async run(_, data, { progress }) {
          progress({ done: 1 })
          seen.push(data)
          return { answer: [1, { two: 'zwei' }] }
        },
      },
    })
    await sql.begin(async (tx) => {
      id = await send(tx, 'echo', { n: 2, text: 'o\'\\ "ü', list: [1], nothing: null })
    })
    const job = await jobWhen(sql, id, 'completed')
    assert.deepEqual(seen, [{ n: 2, text: 'o\'\\ "ü', list: [1], nothing: null }])
    assert.deepEqual(job.result, { answer: [1, { two: 'zwei' }] })
    assert.deepEqual(job.progress, { done: 1 })
    assert.equal(job.error, null)
  })
  it('takes an id once, and of an exclusive key one that waits', async () => {
    const { sql } = await site({ echo: plain, mirror: { ...plain, exclusive: true } })
    const id = '00000000-0000-4000-8000-000000000001'
    assert.equal(await send(sql, 'echo', {}, { id }), id)
    assert.equal(await send(sql, 'echo', {}, { id }), undefined)
    assert.ok(await send(sql, 'mirror', {}, { key: 'a' }))
    assert.equal(await send(sql, 'mirror', {}, { key: 'a' }), undefined)
    assert.ok(await send(sql, 'mirror', {}, { key: 'b' }))
  })
  it('says that a queue is missing', async () => {
    const { sql } = await site({})
    await assert.rejects(send(sql, 'nowhere', {}), /no queue nowhere.*migrate/)
  })
  it('wakes a worker that would not look for a long time', async () => {
    const { sql, work } = await site({ echo: plain })
    work({ echo: { run: async () => ({}) } }, { pollMs: 3_600_000 })
    for (let i = 0; i < 3; i++) {
      const id = await sent(sql, 'echo')
      await jobWhen(sql, id, 'completed')
    }
  })
})

describe('running', () => {
  it('takes the highest priority first, and no more at a time than it may', async () => {
    const { sql, work } = await site({ echo: plain, lone: plain })
    for (const priority of [0, 5, 1]) await sent(sql, 'echo', { priority }, { priority })
    for (let i = 0; i < 3; i++) await sent(sql, 'lone')
    const order: number[] = []
    const most = { lone: 0, all: 0 }
    const now = { lone: 0, all: 0 }
    const count = async (names: readonly (keyof typeof now)[]) => {
      for (const name of names) most[name] = Math.max(most[name], ++now[name])
      // The first waits for another beside it; and each takes a while, in which one too many could begin.
      await waitFor('two to run at a time', () => most.all > 1, { everyMs: 5 })
      await new Promise((resolve) => setTimeout(resolve, 30))
      for (const name of names) now[name]--
    }
    work(
      {
        echo: {
          async run(_, data: { priority: number }) {
            order.push(data.priority)
            await count(['all'])
            return undefined
          },
        },
        lone: {
          concurrency: 1,
          async run() {
            await count(['all', 'lone'])
            return undefined
          },
        },
      },
      { concurrency: 2 },
    )
    await waitFor('six jobs to be completed', async () => {
      return (await listJobs(sql, { state: 'completed', limit: 10 })).length === 6
    })
    assert.deepEqual(order, [5, 1, 0])
    assert.deepEqual(most, { lone: 1, all: 2 })
  })
  it('runs one of an exclusive key at a time, and other keys beside it', async () => {
    const { sql, work } = await site({ mirror: { ...plain, exclusive: true } })
    const begun: string[] = []
    const free = deferred()
    const jobs = {
      mirror: {
        async run(_: Deps, data: { key: string }) {
          begun.push(data.key)
          if (begun.length === 1) await free.promise
          return undefined
        },
      },
    }
    await sent(sql, 'mirror', { key: 'a' }, { key: 'a' })
    for (let i = 0; i < 3; i++) work(jobs)
    await waitFor('the first run to begin', () => begun.length === 1)
    const second = await sent(sql, 'mirror', { key: 'a' }, { key: 'a' })
    const other = await sent(sql, 'mirror', { key: 'b' }, { key: 'b' })
    await jobWhen(sql, other, 'completed')
    assert.equal(await stateOf(sql, second), 'waiting')
    free.resolve()
    await jobWhen(sql, second, 'completed')
    assert.deepEqual(begun, ['a', 'b', 'a'])
  })
  it('tries again with growing pauses, then keeps the job as failed until somebody retries it', async () => {
    // Pauses so long that none of them ends by itself before it has been looked at.
    const { sql, work } = await site({ flaky: { ...plain, retryDelay: 60 } })
    let broken = true
    work({
      flaky: {
        async run() {
          if (broken) throw new Error('postgres://u:hunter2@h/d does not answer')
          return { well: true }
        },
      },
    })
    const id = await sent(sql, 'flaky')
    const pauses: number[] = []
    for (const attempts of [1, 2]) {
      const job = await waitFor(`attempt ${attempts} to fail`, async () => {
        const found = await findJob(sql, id)
        return found?.state === 'waiting' && found.attempts === attempts && found
      })
      assert.match(job.error ?? '', /^postgres:\/\/u:\*\*\*@h\/d does not answer$/)
      pauses.push(Date.parse(job.startAfter) - Date.parse(job.startedAt ?? ''))
      await sql`update pgboss.job set start_after = now() where id = ${id}`
    }
    // One minute and two, and up to as much again by chance.
    assert.ok((pauses[0] ?? 0) >= 60_000 && (pauses[1] ?? 0) >= 120_000, String(pauses))
    const failed = await jobWhen(sql, id, 'failed')
    assert.deepEqual([failed.attempts, failed.maxAttempts], [3, 3])
    assert.ok(failed.finishedAt)
    broken = false
    assert.equal(await retryJob(sql, id), true)
    const job = await jobWhen(sql, id, 'completed')
    assert.deepEqual([job.attempts, job.maxAttempts, job.error, job.result], [4, 6, null, { well: true }])
    assert.equal(await retryJob(sql, id), false)
  })
  it('does not try again what can only fail again', async () => {
    const { sql, work } = await site({ wrong: plain })
    work({
      wrong: {
        async run() {
          throw new Failure('PACK_INVALID', { detail: 'index.json is missing' })
        },
      },
    })
    const id = await sent(sql, 'wrong')
    await jobWhen(sql, id, 'failed')
    const job = await findJob(sql, id)
    assert.deepEqual([job?.attempts, job?.error], [1, 'index.json is missing'])
  })
  it('keeps a long job by its heartbeat, and shows its progress', async () => {
    const { sql, work } = await site({ long: { ...plain, lease: 4 } })
    const free = deferred()
    let runs = 0
    const long: Job = {
      async run(_, __, { progress }) {
        runs++
        progress({ half: true })
        await free.promise
        return undefined
      },
    }
    for (let i = 0; i < 2; i++) work({ long })
    const id = await sent(sql, 'long')
    await waitFor('its progress', async () => (await findJob(sql, id))?.progress)
    await waitFor('the job to run for longer than its lease', async () => {
      const [row] = await sql<{ old: boolean }[]>`select started_on < now() - interval '10 s' as old from pgboss.job`
      return row?.old
    })
    assert.equal(await stateOf(sql, id), 'running')
    free.resolve()
    await jobWhen(sql, id, 'completed')
    assert.equal(runs, 1)
  })
  it('a worker taken for dead is told so, and cannot end the run of the next one', async () => {
    const { sql, work } = await site({ stuck: { ...plain, lease: 4 } })
    const free = deferred()
    const reasons: string[] = []
    let runs = 0
    const stuck: Job = {
      async run(_, __, { signal }) {
        if (++runs === 1) {
          await new Promise((resolve) => signal.addEventListener('abort', resolve))
          reasons.push((signal.reason as Error).name)
          return { by: 'the dead' }
        }
        await free.promise
        return { by: 'the living' }
      },
    }
    work({ stuck })
    const id = await sent(sql, 'stuck')
    await waitFor('the job to run', () => runs === 1)
    await sql`update pgboss.job set expire_in = '0 s' where id = ${id}`
    await waitFor('the second run', () => runs === 2)
    await waitFor('the first run to be told', () => reasons.length === 1)
    assert.equal(await stateOf(sql, id), 'running')
    free.resolve()
    await jobWhen(sql, id, 'completed')
    assert.deepEqual((await findJob(sql, id))?.result, { by: 'the living' })
    assert.deepEqual(reasons, ['Lost'])
  })
})

describe('stopping', () => {
  it('lets a job end, and takes no new one', async () => {
    const { sql, work } = await site({ slow: plain })
    const free = deferred()
    let runs = 0
    const worker = work({
      slow: {
        async run() {
          runs++
          await free.promise
          return undefined
        },
      },
    })
    const first = await sent(sql, 'slow')
    await waitFor('the job to run', () => runs === 1)
    const stopped = worker.stop()
    const second = await sent(sql, 'slow')
    free.resolve()
    await stopped
    assert.deepEqual([await stateOf(sql, first), await stateOf(sql, second)], ['completed', 'waiting'])
  })
  for (const { name, obeys } of [
    { name: 'gives back a job that ends by its signal', obeys: true },
    { name: 'gives back a job that does not end', obeys: false },
  ])
    it(name, async () => {
      const { sql, work } = await site({ slow: { ...plain, retries: 0 } })
      let runs = 0
      const slow: Job = {
        run: (_, __, { signal }) =>
          new Promise((resolve, reject) => {
            if (++runs > 1) resolve({ run: runs })
            if (obeys) signal.addEventListener('abort', () => reject(signal.reason))
          }),
      }
      const worker = work({ slow })
      const id = await sent(sql, 'slow')
      await waitFor('the job to run', () => runs === 1)
      await worker.stop({ graceMs: 50, endMs: 200 })
      const waiting = await findJob(sql, id)
      assert.deepEqual([waiting?.state, waiting?.error], ['waiting', 'its worker was stopped'])
      work({ slow })
      await jobWhen(sql, id, 'completed')
      assert.deepEqual((await findJob(sql, id))?.result, { run: 2 })
    })
})

describe('cancelling', () => {
  it('ends one that waits at once, and no worker takes it', async () => {
    const { deps, sql, work } = await site({ echo: plain })
    const id = await sent(sql, 'echo')
    assert.equal(await cancel(deps, id), true)
    assert.equal(await stateOf(sql, id), 'cancelled')
    assert.equal(await cancel(deps, id), false)
    const seen: string[] = []
    work({
      echo: {
        async run() {
          seen.push('run')
          return undefined
        },
      },
    })
    const next = await sent(sql, 'echo')
    await jobWhen(sql, next, 'completed')
    assert.deepEqual(seen, ['run'])
    assert.equal(await retryJob(sql, id), true)
    await jobWhen(sql, id, 'completed')
  })
  for (const { name, hears } of [
    { name: 'aborts one that runs, and lets no other of its key begin before it has ended', hears: true },
    { name: 'is learned from the heartbeat, where the word of it was missed', hears: false },
  ])
    it(name, async () => {
      const { deps, sql, work } = await site({ slow: { ...plain, exclusive: true, lease: hears ? 60 : 6 } })
      const ending = deferred()
      const events: string[] = []
      work({
        slow: {
          async run(_, data: { n: number }, { signal }) {
            events.push(`begun ${data.n}`)
            if (data.n === 2) return undefined
            await new Promise((resolve) => signal.addEventListener('abort', resolve))
            events.push((signal.reason as Error).name)
            await ending.promise
            throw signal.reason
          },
        },
      })
      const first = await sent(sql, 'slow', { n: 1 }, { key: 'a' })
      await waitFor('the job to begin', () => events.length === 1)
      const second = await sent(sql, 'slow', { n: 2 }, { key: 'a' })
      if (hears) assert.equal(await cancel(deps, first), true)
      else await sql`update pgboss.job set output = '{"cancel": true}' where id = ${first}`
      await waitFor('the job to be aborted', () => events.length === 2)
      const job = await findJob(sql, first)
      assert.deepEqual([job?.state, job?.isCancelled], ['running', true])
      assert.equal(await stateOf(sql, second), 'waiting')
      ending.resolve()
      await jobWhen(sql, second, 'completed')
      const ended = await findJob(sql, first)
      assert.deepEqual([ended?.state, ended?.error], ['cancelled', 'the job was cancelled'])
      assert.deepEqual(events, ['begun 1', 'Cancelled', 'begun 2'])
    })
  it('comes too late for what is done', async () => {
    const { deps, sql, work } = await site({ deaf: plain })
    const free = deferred()
    let runs = 0
    work({
      deaf: {
        async run() {
          runs++
          await free.promise
          return { all: 'done' }
        },
      },
    })
    const id = await sent(sql, 'deaf')
    await waitFor('the job to run', () => runs === 1)
    assert.equal(await cancel(deps, id), true)
    free.resolve()
    await jobWhen(sql, id, 'completed')
    assert.deepEqual((await findJob(sql, id))?.result, { all: 'done' })
  })
  it('is kept to when the worker stops, or dies', async () => {
    const { deps, sql, work } = await site({ stopped: plain, orphan: { ...plain, lease: 1 } })
    let runs = 0
    const jobs: Record<string, Job> = {
      stopped: {
        run: () => {
          runs++
          return new Promise(() => undefined)
        },
      },
    }
    const worker = work(jobs)
    const stopped = await sent(sql, 'stopped')
    await waitFor('the job to run', () => runs === 1)
    await cancel(deps, stopped)
    await worker.stop({ graceMs: 0, endMs: 50 })
    assert.equal(await stateOf(sql, stopped), 'cancelled')
    const orphan = await sent(sql, 'orphan')
    await waitFor('a job to take', () => takeJob(sql, ['orphan']))
    await cancel(deps, orphan)
    work({})
    await jobWhen(sql, orphan, 'cancelled')
  })
})

describe('dead letters', () => {
  const attempts = (sql: Sql) => listJobs(sql, { state: 'failed', limit: 10 })

  it('are counted, by whoever ends them, and told of from the start', async () => {
    const { deps, sql, work } = await site({
      wrong: { ...plain, retries: 0 },
      poison: { ...plain, retries: 0, lease: 1 },
    })
    const deaths = async () =>
      Object.fromEntries((await deps.metrics.jobsDead.get()).values.map(({ labels, value }) => [labels.kind, value]))
    await sent(sql, 'poison')
    await waitFor('a job to take', () => takeJob(sql, ['poison']))
    work({
      wrong: {
        async run() {
          throw new Error('no')
        },
      },
      poison: { run: async () => undefined },
    })
    assert.deepEqual(await deaths(), { wrong: 0, poison: 0 })
    await sent(sql, 'wrong')
    await waitFor('both jobs to fail', async () => (await attempts(sql)).length === 2)
    await waitFor('the failure to be counted', async () => (await deaths()).wrong === 1)
    assert.deepEqual(await deaths(), { wrong: 1, poison: 1 })
    const events = await sql<{ subject: string; data: { job: string; attempts: number; error: string } }[]>`
      select subject, data from (
        select type, subject, data from event_outbox union all select type, subject, data from events) e
      where type = 'job.failed' order by subject`
    assert.deepEqual(
      events.map(({ subject, data }) => [subject, data.attempts, data.error]),
      [
        ['poison', 1, 'its worker ended in the middle of it, or could not be heard of'],
        ['wrong', 1, 'no'],
      ],
    )
  })
  it('of a kind are retried together, but for those beside another of their key; discarding takes one from the list', async () => {
    const { deps, sql } = await site({ echo: plain, mirror: { ...plain, exclusive: true } })
    await sql`update pgboss.queue set retry_limit = 0`
    const die = async (name: string, key?: string) => {
      const id = await sent(sql, name, {}, key ? { key } : {})
      await sql`update pgboss.job set state = 'failed', completed_on = now() where id = ${id}`
      return id
    }
    for (let i = 0; i < 3; i++) await die('echo')
    const [older, newer] = [await die('mirror', 'a'), await die('mirror', 'a')]
    await die('mirror', 'b')
    assert.deepEqual(await retryAll(deps, 'echo'), { retried: 3, left: 0, more: false })
    assert.deepEqual(await retryAll(deps, 'mirror'), { retried: 2, left: 1, more: false })
    assert.deepEqual([await stateOf(sql, older), await stateOf(sql, newer)], ['waiting', 'failed'])
    assert.equal(await discardJob(sql, newer), true)
    assert.equal(await discardJob(sql, newer), false)
    assert.equal(await stateOf(sql, newer), 'cancelled')
    const counts = (await countJobs(sql)).filter(({ waiting }) => waiting > 0)
    assert.deepEqual(
      counts.map(({ name, waiting, failed, oldestFailedSeconds }) => [name, waiting, failed, oldestFailedSeconds]),
      [
        ['echo', 3, 0, 0],
        ['mirror', 2, 0, 0],
      ],
    )
  })
})

describe('faults', () => {
  it('another worker takes over the job of one that was killed', async () => {
    const { url, sql, work } = await site({ victim: { ...plain, lease: 2 } })
    const child = startChild(url)
    const id = await sent(sql, 'victim')
    await jobWhen(sql, id, 'running')
    child.kill('SIGKILL')
    await new Promise((resolve) => child.once('exit', resolve))
    assert.equal(await stateOf(sql, id), 'running')
    work({ victim: { run: async () => ({ by: 'the next' }) } })
    const job = await jobWhen(sql, id, 'completed')
    assert.deepEqual([job.attempts, job.result], [2, { by: 'the next' }])
  })
  it('a job that ends its workers fails in the end', async () => {
    const { sql, work } = await site({ poison: { ...plain, retries: 1, lease: 1 } })
    // A worker that dies is one that takes a job and is not heard of again.
    const id = await sent(sql, 'poison')
    work({ none: { run: async () => undefined } })
    for (let i = 0; i < 2; i++) await waitFor('a job to take', () => takeJob(sql, ['poison']))
    await jobWhen(sql, id, 'failed')
    assert.match((await findJob(sql, id))?.error ?? '', /its worker ended/)
  })
  it('outlives the end of every connection, in mid-job too', async () => {
    const { url, sql, work } = await site({ echo: plain })
    const free = deferred()
    let runs = 0
    work(
      {
        echo: {
          async run() {
            if (++runs === 1) await free.promise
            return undefined
          },
        },
      },
      { pollMs: 200 },
    )
    const first = await sent(sql, 'echo')
    await waitFor('the job to run', () => runs === 1)
    const admin = connect(url, { max: 1 })
    for (let i = 0; i < 3; i++)
      await admin`select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid()`
    free.resolve()
    await jobWhen(admin, first, 'completed')
    const second = await sent(admin, 'echo')
    await jobWhen(admin, second, 'completed')
    await admin.end()
    assert.equal(runs, 2)
  })
  it('waits for a database that takes no connections for a while', async () => {
    const { url, sql, work } = await site({ echo: plain })
    work({ echo: { run: async () => undefined } }, { pollMs: 100 })
    const name = new URL(url).pathname.slice(1)
    const other = connect(await databases.empty(), { max: 1 })
    await other.unsafe(`alter database ${name} with allow_connections false`)
    await other`select pg_terminate_backend(pid) from pg_stat_activity where datname = ${name}`
    await new Promise((resolve) => setTimeout(resolve, 500))
    await other.unsafe(`alter database ${name} with allow_connections true`)
    await other.end()
    const id = await waitFor('the database to take a job', () => send(sql, 'echo', {}))
    await jobWhen(sql, id, 'completed')
  })
  it('ten starts at once on an empty database make the queue once, and all of them work', async () => {
    const url = await databases.empty()
    const applied = await Promise.all(Array.from({ length: 10 }, () => migrate(url)))
    assert.equal(applied.filter((names) => names.some((name) => name.startsWith('job queue'))).length, 1)
    const sites = await Promise.all(
      Array.from({ length: 10 }, () => site({ echo: plain }, url).catch((error) => error)),
    )
    const ready = sites.filter((one): one is Site => !(one instanceof Error))
    assert.deepEqual(
      sites.filter((one) => one instanceof Error),
      [],
    )
    let runs = 0
    for (const one of ready)
      one.work({
        echo: {
          async run() {
            runs++
            return undefined
          },
        },
      })
    const [first] = ready
    assert.ok(first)
    for (let i = 0; i < 20; i++) await sent(first.sql, 'echo', { i })
    await waitFor('20 jobs to be completed', async () => {
      return (await listJobs(first.sql, { state: 'completed', limit: 100 })).length === 20
    })
    assert.equal(runs, 20)
  })
})

describe('schedules', () => {
  it('are sent once however many workers there are, and made up for', async () => {
    const { sql, work } = await site({ often: plain, rare: plain, broken: plain, asked: plain })
    const runs: string[] = []
    const note =
      (name: string): Job['run'] =>
      async () => {
        runs.push(name)
        return undefined
      }
    const jobs: Record<string, Job> = {
      often: { run: note('often'), schedule: `0 0 1 ${((new Date().getUTCMonth() + 6) % 12) + 1} *` },
      broken: { run: note('broken'), schedule: 'now and then' },
      rare: { run: note('rare'), schedule: async () => [{ cron: '0 * * * *', since: new Date() }] },
      asked: {
        run: note('asked'),
        schedule: async () => ['a', 'b'].map((key) => ({ cron: '0 * * * *', key, data: { key } })),
      },
    }
    for (let i = 0; i < 3; i++) work(jobs)
    await waitFor('both that are due', () => runs.length >= 2)
    const id = await sent(sql, 'often')
    await jobWhen(sql, id, 'completed')
    // The hour may have turned meanwhile; then each of the hourly ones was due once more.
    const rows = await listJobs(sql, { limit: 100 })
    const times = rows.filter(({ name }) => name === 'asked').map(({ key }) => key)
    assert.ok(times.length === 2 || times.length === 4, String(times))
    assert.ok(!rows.some(({ name }) => name === 'broken'))
  })
  it('names the times around a moment, in UTC', async () => {
    const now = new Date('2026-03-01T10:20:00.000Z')
    for (const [cron, last, next] of [
      ['*/10 * * * *', '2026-03-01T10:20:00.000Z', '2026-03-01T10:30:00.000Z'],
      ['20 10 * * *', '2026-03-01T10:20:00.000Z', '2026-03-02T10:20:00.000Z'],
      ['0 3 * * 1', '2026-02-23T03:00:00.000Z', '2026-03-02T03:00:00.000Z'],
      ['0 0 29 2 *', '2024-02-29T00:00:00.000Z', '2028-02-29T00:00:00.000Z'],
    ] as const)
      assert.deepEqual(await timesAround(cron, now), { last: Date.parse(last), next: Date.parse(next) }, cron)
    assert.equal(await timesAround('nonsense', now), undefined)
  })
})

function deferred() {
  let resolve: (value?: unknown) => void = () => undefined
  const promise = new Promise((done) => {
    resolve = done
  })
  return { promise, resolve }
}

/** A worker in a process of its own, whose job never ends. */
function startChild(url: string): ChildProcess {
  const place = (file: string) => JSON.stringify(new URL(file, import.meta.url).href)
  const program = `
    const { readConfig } = await import(${place('../config.ts')})
    const { openDeps } = await import(${place('../deps.ts')})
    const { startWorker } = await import(${place('./worker.ts')})
    const deps = await openDeps(readConfig({ BLOB_STORE: ${JSON.stringify(`file:${folder}`)}, LOG_LEVEL: 'silent' }), ${JSON.stringify(url)})
    startWorker(deps, { jobs: { victim: { run: () => new Promise(() => setInterval(() => {}, 1000)) } } })`
  const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '--eval', program], {
    stdio: ['ignore', 'inherit', 'inherit'],
  })
  ends.push(async () => {
    child.kill('SIGKILL')
  })
  return child
}
