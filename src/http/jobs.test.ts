import assert from 'node:assert/strict'
import { after, before, it } from 'node:test'
import { deadRun, endLostRuns, takeJob } from '../db/jobs.ts'
import { failJob, send } from '../db/queue.ts'
import { queues } from '../db/queues.ts'
import { noteEnd } from '../registry/jobs.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { startRegistry, type TestRegistry } from '../testing/registry.ts'

let databases: TestDatabases
let registry: TestRegistry
before(async () => {
  databases = await startDatabases()
  registry = await startRegistry(await databases.fresh())
})
after(async () => {
  await registry?.stop()
  await databases?.stop()
})

type Shown = { id: string; state: string; [fact: string]: unknown }
type Body = { jobs: Shown[]; job: Shown; next?: string; type: string; detail: string; [fact: string]: unknown }
type Answer = { status: number; body: Body }

async function call(method: string, path: string, body?: object): Promise<Answer> {
  const init = body ? { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } } : {}
  const answer = await registry.call(method, path, init)
  return { status: answer.status, body: (await answer.json()) as Answer['body'] }
}

/** Jobs of the queue that every registry has; each key is one of its own. */
async function sendJobs(count: number, batch: string): Promise<string[]> {
  const ids: string[] = []
  for (let i = 0; i < count; i++) {
    const id = await send(registry.deps.db.sql, 'tidy', { i }, { key: `${batch}-${i}` })
    ids.push(id ?? assert.fail('not taken'))
  }
  return ids
}

async function failNext(error: string): Promise<string> {
  const { sql } = registry.deps.db
  const run = (await takeJob(sql, ['tidy'])) ?? assert.fail('nothing waits')
  // Its tries are spent.
  await sql`update pgboss.job set retry_limit = retry_count where id = ${run.id}`
  await sql.begin((tx) => failJob(tx, run.name, run.id, { error }))
  return run.id
}

it('lists jobs page by page, the newest first, shows one, and retries one that failed', async () => {
  const ids = await sendJobs(5, 'page')
  const failed = await failNext('the disk is full')
  assert.equal(failed, ids[0])

  const first = await call('GET', '/jobs?limit=3')
  const second = await call('GET', `/jobs?limit=3&after=${first.body.next}`)
  assert.deepEqual(
    [...first.body.jobs, ...second.body.jobs].map(({ id }) => id),
    ids.toReversed(),
  )
  assert.equal(second.body.next, undefined)
  assert.deepEqual(
    (await call('GET', '/jobs?state=failed&name=tidy')).body.jobs.map(({ id }) => id),
    [failed],
  )
  assert.deepEqual((await call('GET', '/jobs?name=other')).body.jobs, [])

  const { job } = (await call('GET', `/jobs/${failed}`)).body
  const { createdAt, startedAt, finishedAt, ...facts } = job
  for (const time of [createdAt, startedAt, finishedAt]) assert.ok(Date.parse(String(time)) > 0, String(time))
  assert.deepEqual(facts, {
    ...{ id: failed, name: 'tidy', state: 'failed', key: 'page-0', priority: 0, data: { i: 0 } },
    ...{ attempts: 1, maxAttempts: 1, error: 'the disk is full' },
  })

  const retried = await call('POST', `/jobs/${failed}/retry`)
  assert.deepEqual([retried.status, retried.body.job.state], [202, 'waiting'])
  const again = await call('POST', `/jobs/${failed}/retry`)
  assert.equal(again.status, 409)
  assert.match(again.body.detail, /is waiting: only one that failed/)
})

it('refuses to retry a job beside another one of its key that is to be tried again', async () => {
  const { sql } = registry.deps.db
  await sql`delete from pgboss.job`
  const failed: string[] = []
  for (let i = 0; i < 2; i++) {
    await send(sql, 'tidy', {}, { key: 'same' })
    failed.push(await failNext('no'))
  }
  assert.equal((await call('POST', `/jobs/${failed[0]}/retry`)).status, 202)
  const second = await call('POST', `/jobs/${failed[1]}/retry`)
  assert.equal(second.status, 409)
  assert.match(second.body.detail, /another job tidy of same waits/)
})

it('runs a job by hand, and says what waits and runs already', async () => {
  const { sql } = registry.deps.db
  await sql`delete from pgboss.job`
  const first = await call('POST', '/jobs', { name: 'tidy' })
  assert.deepEqual([first.status, first.body.isNew, first.body.job.state], [202, true, 'waiting'])
  const second = await call('POST', '/jobs', { name: 'tidy', data: {} })
  assert.deepEqual([second.status, second.body.isNew, second.body.job.id], [200, false, first.body.job.id])
  assert.ok(await takeJob(sql, ['tidy']))
  const third = await call('POST', '/jobs', { name: 'tidy' })
  assert.deepEqual([third.status, third.body.isNew, third.body.behind], [202, true, first.body.job.id])
  const both = await Promise.all(Array.from({ length: 8 }, () => call('POST', '/jobs', { name: 'tidy' })))
  for (const { body } of both) assert.equal(body.job.id, third.body.job.id)
})

it('cancels, discards, and counts by kind', async () => {
  const { sql } = registry.deps.db
  await sql`delete from pgboss.job`
  const [waiting = '', dead = ''] = await sendJobs(2, 'cancel')
  const cancelled = await call('POST', `/jobs/${waiting}/cancel`)
  assert.deepEqual([cancelled.status, cancelled.body.job.state], [202, 'cancelled'])
  const again = await call('POST', `/jobs/${waiting}/cancel`)
  assert.deepEqual([again.status, again.body.type], [409, 'urn:packs-registry:JOB_ENDED'])
  assert.equal(await failNext('no'), dead)
  await sql`update pgboss.job set completed_on = now() - interval '1 h' where id = ${dead}`
  const kinds = (await call('GET', '/jobs/kinds')).body.kinds as Record<string, unknown>[]
  assert.deepEqual(kinds.map(({ name }) => name).sort(), Object.keys(queues).sort())
  const tidy = kinds.find(({ name }) => name === 'tidy')
  assert.deepEqual([tidy?.failed, tidy?.cancelled, tidy?.byHand], [1, 1, true])
  assert.ok(Number(tidy?.oldestFailedSeconds) >= 3600)
  const discarded = await call('POST', `/jobs/${dead}/discard`)
  assert.deepEqual([discarded.status, discarded.body.job.state, discarded.body.job.error], [200, 'cancelled', 'no'])
  assert.equal((await call('POST', `/jobs/${dead}/discard`)).status, 409)
  assert.deepEqual((await call('GET', '/jobs?state=failed')).body.jobs, [])

  const [running = ''] = await sendJobs(1, 'running')
  assert.equal((await takeJob(sql, ['tidy']))?.id, running)
  const told = await call('POST', `/jobs/${running}/cancel`)
  assert.deepEqual([told.status, told.body.job.state, told.body.job.isCancelled], [202, 'running', true])
})

it('of every kind go to the next worker where the first was killed, and are no dead letters', async () => {
  const { sql } = registry.deps.db
  await sql`delete from pgboss.job`
  const kinds = Object.keys(queues)
  for (const name of kinds) {
    await send(sql, name, {}, { key: 'of a killed one' })
    assert.ok(await takeJob(sql, [name]), name)
  }
  await sql`update pgboss.job set started_on = started_on - interval '1 h'`
  const lost = await sql.begin((tx) => endLostRuns(tx))
  assert.deepEqual(
    lost.map(({ name, state }) => `${name} ${state}`).sort(),
    kinds.map((name) => `${name} retry`).sort(),
  )
  for (const name of kinds) assert.equal((await takeJob(sql, [name]))?.attempt, 1, name)
  await sql`delete from pgboss.job`
})

for (const { kind, key, made, told } of [
  {
    kind: 'export',
    key: 'e'.repeat(64),
    made: `insert into exports (id, principal, state, size, file, expires_at)
      values ('${'e'.repeat(64)}', 'p', 'running', 1, '{}', now() + interval '1 d')`,
    told: `select state, error from exports`,
  },
  {
    kind: 'import',
    key: '00000000-0000-4000-8000-0000000000aa',
    made: `insert into imports (id, principal, state, publishing, leased_until, expires_at)
      values ('00000000-0000-4000-8000-0000000000aa', 'p', 'publishing', '{}', now(), now() + interval '1 d')`,
    told: `select state, error ->> 'detail' as error from imports`,
  },
  {
    kind: 'retention',
    key: 'retention',
    made: `insert into retention_runs (asked_by, state) values ('p', 'removing')`,
    told: `select state, error from retention_runs`,
  },
] as const)
  it(`what a job ${kind} was to do has failed when the job is cancelled, or is a dead letter`, async () => {
    const { sql } = registry.deps.db
    await sql`delete from pgboss.job`
    for (const words of ['cancelled', 'the disk is full']) {
      await sql.unsafe('delete from exports; delete from imports; delete from retention_runs')
      await sql.unsafe(made)
      const id = (await send(sql, kind, {}, { key })) ?? assert.fail('not taken')
      if (words === 'cancelled') assert.equal((await call('POST', `/jobs/${id}/cancel`)).status, 202)
      else {
        await takeJob(sql, [kind])
        await sql`
          update pgboss.job set state = 'failed', output = ${sql.json({ error: words })}, completed_on = now()
          where id = ${id}`
        await sql.begin(async (tx) => {
          await noteEnd(tx, (await deadRun(tx, { name: kind, id, attempt: 0 })) ?? assert.fail('not dead'))
        })
      }
      const [row] = await sql.unsafe<{ state: string; error: string }[]>(told)
      assert.equal(row?.state, 'failed')
      assert.match(row?.error ?? '', new RegExp(words))
    }
  })

it('retries all dead letters of a kind', async () => {
  await registry.deps.db.sql`delete from pgboss.job`
  await sendJobs(2, 'all')
  for (let i = 0; i < 2; i++) await failNext('no')
  assert.deepEqual((await call('POST', '/jobs/retry?name=tidy')).body, { retried: 2, left: 0, more: false })
  assert.equal((await call('GET', '/jobs?state=waiting')).body.jobs.length, 2)
  assert.equal((await call('POST', '/jobs/retry')).status, 400)
})

for (const { name, body, detail } of [
  { name: 'a kind that there is not', body: { name: 'nap' }, detail: /no kind of job nap; by hand there are .*tidy/ },
  { name: 'a kind that is not run by hand', body: { name: 'mirror' }, detail: /use POST \/mirrors\/\{name\}\/run/ },
  { name: 'data that the kind does not take', body: { name: 'tidy', data: { a: 1 } }, detail: /data of tidy: .*a/ },
  { name: 'a key where there are none', body: { name: 'tidy', key: 'a' }, detail: /have no key/ },
  { name: 'a field that there is not', body: { name: 'tidy', when: 'now' }, detail: /when/ },
  { name: 'no name', body: {}, detail: /name/ },
])
  it(`does not run ${name}`, async () => {
    const answer = await call('POST', '/jobs', body)
    assert.deepEqual([answer.status, answer.body.type], [400, 'urn:packs-registry:REQUEST_INVALID'])
    assert.match(answer.body.detail, detail)
  })

for (const { name, method, path, status, type, detail } of [
  {
    name: 'an id of no job',
    method: 'GET',
    path: `/jobs/00000000-0000-4000-8000-000000000000`,
    status: 404,
    type: 'JOB_UNKNOWN',
    detail: /forgotten/,
  },
  {
    name: 'what is no id',
    method: 'POST',
    path: '/jobs/x%00y/retry',
    status: 404,
    type: 'JOB_UNKNOWN',
    detail: /no job/,
  },
  {
    name: 'a state that there is not',
    method: 'GET',
    path: '/jobs?state=lazy',
    status: 400,
    type: 'QUERY_INVALID',
    detail: /waiting, running/,
  },
  {
    name: 'a limit out of bounds',
    method: 'GET',
    path: '/jobs?limit=0',
    status: 400,
    type: 'QUERY_INVALID',
    detail: /1 to 1000/,
  },
  {
    name: 'a foreign cursor',
    method: 'GET',
    path: '/jobs?after=abc.def',
    status: 400,
    type: 'QUERY_INVALID',
    detail: /cursor/,
  },
])
  it(`refuses ${name}`, async () => {
    const answer = await call(method, path)
    assert.equal(answer.status, status)
    assert.equal(answer.body.type, `urn:packs-registry:${type}`)
    assert.match(answer.body.detail, detail)
  })

it('counts jobs for the metrics', async () => {
  await registry.deps.db.sql`delete from pgboss.job`
  await sendJobs(2, 'counted')
  await failNext('no')
  const text = await (await registry.call('GET', '/metrics')).text()
  for (const figure of [
    /packs_jobs\{kind="tidy",state="waiting"\} 1/,
    /packs_jobs\{kind="tidy",state="failed"\} 1/,
    /packs_jobs\{kind="mirror",state="failed"\} 0/,
    /packs_jobs_oldest_waiting_seconds\{kind="tidy"\} [0-9.e-]+\n/,
    /packs_jobs_oldest_dead_seconds\{kind="tidy"\} [0-9.e-]+\n/,
    /packs_part_up\{part="database"\} 1/,
    /packs_part_up\{part="blobStore"\} 1/,
    /packs_blob_store_space_bytes\{state="free"\} [1-9]/,
    /packs_audit_oldest_unsealed_seconds \d/,
    /packs_database_connections\{state="max"\} 12/,
    /packs_http_received_bytes_total [1-9]/,
    /# TYPE packs_job_duration_seconds histogram/,
  ])
    assert.match(text, figure)
})
