// Workers as processes of their own, beside a server that runs no jobs: what they owe an operator when they are many, when
// one is killed in the middle, when a job kills every one that takes it, and when they are told to stop.
import assert from 'node:assert/strict'
import { rmSync } from 'node:fs'
import http, { type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { after, before, describe, it } from 'node:test'
import { type Postgres15, startPostgres15 } from '../scripts/services/postgres15.ts'
import { freePort } from '../scripts/services/processes.ts'
import { connect, type Sql } from '../src/db/client.ts'
import { waitFor } from '../src/testing/wait.ts'
import { call } from './registry-client.ts'
import { type Server, startServer, temporaryFolder } from './server.ts'

type Json = Record<string, unknown>

/** Seconds that a killed worker keeps its job from the next one: more than a living one may fail to say so on a slow machine. */
const lease = 6
const count = 4

describe('packs worker', () => {
  let postgres: Postgres15 | undefined
  let folder: string
  let sql: Sql
  let server: Server
  let gate: Gate
  let workers: Server[] = []

  before(async () => {
    postgres = (await startPostgres15()) ?? assert.fail('PostgreSQL 15 is not installed')
    folder = temporaryFolder()
    const env = { DATABASE_URL: postgres.url, BLOB_STORE: `file:${folder}`, LOG_LEVEL: 'debug' }
    server = await startServer({ env: { ...env, WORKER: 'false' } })
    const command = [process.execPath, '--import', 'tsx', 'src/main.ts', 'worker'] as const
    for (let i = 0; i < count; i++) {
      const port = await freePort()
      workers.push(await startServer({ command: [...command], port, env: { ...env, WORKER_PORT: String(port) } }))
    }
    sql = connect(postgres.url, { max: 1 })
    // Whoever starts brings the queues to what they should be, so this comes last.
    await sql`update pgboss.queue set expire_seconds = ${lease}, retry_limit = 1, retry_delay = 0 where name = 'mirror'`
    gate = await openGate(server)
  })
  after(async () => {
    gate?.close()
    await sql?.end()
    for (const worker of workers) await worker.kill()
    await server?.stop()
    await postgres?.stop()
    if (folder) rmSync(folder, { recursive: true, force: true })
  })

  async function ask(method: string, path: string, body?: Json): Promise<Json> {
    const answer = await call(method, server.url + path, {
      headers: { 'content-type': 'application/json' },
      ...(body ? { body: JSON.stringify(body) } : {}),
    })
    assert.ok(answer.status < 300, `${method} ${path}: ${answer.status} ${answer.body}`)
    return JSON.parse(answer.body.toString()) as Json
  }

  /** How often a worker has begun with a job. One that finds a job whose worker is gone names it too. */
  const begun = (worker: Server, id: unknown) =>
    worker
      .log()
      .split('\n')
      .filter((line) => line.includes(`"id":"${id}"`) && line.includes('"job begun"')).length
  /** The worker that has begun with a job, of those that live. */
  const takenBy = (id: unknown, but: readonly Server[] = []) =>
    waitFor(`a worker to take ${id}`, () => workers.find((one) => !but.includes(one) && begun(one, id) > 0))
  const jobOf = async (id: unknown) => (await ask('GET', `/jobs/${id}`)).job as Json
  const ended = (id: unknown, state: string) =>
    waitFor(`${id} to be ${state}`, async () => {
      const job = await jobOf(id)
      return job.state === state && job
    })

  /** Has the mirror run; answers its job. */
  async function runMirror(): Promise<unknown> {
    await ask('POST', '/mirrors/copy/run')
    const { jobs } = (await ask('GET', '/jobs?name=mirror&limit=1')) as { jobs: Json[] }
    return jobs[0]?.id
  }

  async function kill(worker: Server): Promise<void> {
    await worker.kill()
    workers = workers.filter((one) => one !== worker)
  }

  it('does what is due by a schedule once, however many there are', async () => {
    const { jobs } = await waitFor('something due to be done', async () => {
      const found = (await ask('GET', '/jobs?name=seal-audit&state=completed')) as { jobs: Json[] }
      return found.jobs.length > 0 && found
    })
    for (const { id, attempts } of jobs) {
      assert.equal(attempts, 1)
      const lines = workers.flatMap((one) => one.log().split('\n')).filter((line) => line.includes(String(id)))
      assert.equal(lines.filter((line) => line.includes('"job begun"')).length, 1, lines.join('\n'))
    }
  })

  it('takes over from one that is killed in the middle', async () => {
    const content = Buffer.from('{}').toString('base64')
    await ask('POST', '/packs', { manifest: { packId: 'app', version: '1.0.0', type: 'policy' }, content })
    const mirror = { name: 'copy', direction: 'push', url: gate.url, prefix: 'copies' }
    await ask('POST', '/mirrors', { ...mirror, options: { allowPrivate: true } })
    gate.shut()
    const id = await runMirror()
    const first = await takenBy(id)
    await kill(first)
    const second = await takenBy(id)
    assert.notEqual(second, first)
    gate.open()
    const { attempts } = await ended(id, 'completed')
    assert.equal(attempts, 2)
    assert.equal((await call('GET', `${server.url}/v2/copies/app/manifests/1.0.0`)).status, 200)
  })

  it('ends a job that kills whoever takes it as a dead letter, and says so wherever somebody looks', async () => {
    gate.shut()
    const id = await runMirror()
    for (let tries = 0; tries < 2; tries++) await kill(await takenBy(id))
    const job = await ended(id, 'failed')
    assert.deepEqual([job.attempts, job.maxAttempts], [2, 2])
    assert.match(String(job.error), /its worker ended in the middle/)
    const { runs } = (await ask('GET', '/mirrors/copy/runs')) as { runs: Json[] }
    assert.deepEqual([runs[0]?.state, runs[0]?.error], ['failed', job.error])
    const [last] = workers
    assert.equal(workers.length, 1)
    await waitFor('its figures to say so', async () => {
      const figures = (await call('GET', `${last?.url}/metrics`)).body.toString()
      assert.match(figures, /packs_jobs\{kind="mirror",state="failed"\} 1\n/)
      assert.match(figures, /packs_jobs_dead_total\{kind="mirror"\} 1\n/)
      return true
    })
  })

  it('ends a running job that is cancelled, and goes on', async () => {
    const id = await runMirror()
    await takenBy(id)
    await ask('POST', `/jobs/${id}/cancel`)
    await ended(id, 'cancelled')
    const { runs } = (await ask('GET', '/mirrors/copy/runs')) as { runs: Json[] }
    assert.deepEqual([runs[0]?.state, runs[0]?.error], ['failed', 'cancelled'])
  })

  it('gives back what it has when it is told to stop, and says meanwhile that it is about to', async () => {
    const [worker] = workers
    assert.ok(worker)
    const id = await runMirror()
    await takenBy(id)
    const stopped = worker.stop()
    await waitFor('it to say so', async () => {
      const { status, body } = await call('GET', `${worker.url}/readyz`)
      return status === 503 && JSON.parse(body.toString()).parts.server === 'draining'
    })
    await stopped
    workers = []
    const job = await jobOf(id)
    assert.deepEqual([job.state, job.error], ['waiting', 'its worker was stopped'])
  })
})

type Gate = { url: string; shut(): void; open(): void; close(): void }

/** A way to a server that may be shut: requests then wait until it is opened. */
async function openGate(server: Server): Promise<Gate> {
  let held: (() => void)[] | undefined
  const forward = (request: IncomingMessage, response: ServerResponse) => {
    const { method, headers } = request
    const onward = http.request(server.url + request.url, { method, headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers)
      answer.pipe(response)
    })
    onward.on('error', () => response.destroy())
    request.pipe(onward)
  }
  const front = http.createServer((request, response) => {
    if (held) held.push(() => forward(request, response))
    else forward(request, response)
  })
  await new Promise<void>((resolve) => front.listen(0, '127.0.0.1', resolve))
  const gate: Gate = {
    url: `http://127.0.0.1:${(front.address() as AddressInfo).port}`,
    shut() {
      held = []
    },
    open() {
      for (const go of held ?? []) go()
      held = undefined
    },
    close() {
      front.closeAllConnections()
      front.close()
    },
  }
  return gate
}
