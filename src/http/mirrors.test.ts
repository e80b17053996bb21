import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import http, { type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { after, afterEach, before, describe, it } from 'node:test'
import { endLostRuns, isEnd, takeJob } from '../db/jobs.ts'
import { Failure } from '../errors.ts'
import { digestOf } from '../oci/digest.ts'
import { noteEnd } from '../registry/jobs.ts'
import { mirrorOf, requestRun } from '../registry/mirrors.ts'
import type { ParityReport } from '../registry/parity.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { startRegistry, type TestRegistry } from '../testing/registry.ts'
import { waitFor } from '../testing/wait.ts'
import { jobs } from '../worker/jobs.ts'
import { startWorker } from '../worker/worker.ts'

let databases: TestDatabases
let here: TestRegistry
let there: TestRegistry
before(async () => {
  databases = await startDatabases()
})
after(() => databases?.stop())

const ends: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end()
})

/** Two registries that share nothing. */
async function twoSites(): Promise<void> {
  here = await startRegistry(await databases.fresh())
  there = await startRegistry(await databases.fresh())
  ends.push(
    () => here.stop(),
    () => there.stop(),
  )
}

type Json = Record<string, unknown>
type Answer = { status: number; body: Json & { detail?: string } }

async function call(method: string, path: string, body?: unknown, at = here): Promise<Answer> {
  const init = body === undefined ? {} : { body: JSON.stringify(body) }
  const answer = await at.call(method, path, init)
  return { status: answer.status, body: (await answer.json()) as Json }
}

async function publish(to: TestRegistry, document: Json, content: Buffer = randomBytes(1000)): Promise<string> {
  const form = new FormData()
  form.append('manifest', new Blob([JSON.stringify({ type: 'policy', version: '1.0.0', ...document })]), 'pack.json')
  form.append('content', new Blob([new Uint8Array(content)]), 'content.tgz')
  const answer = await fetch(`${to.url}/packs?allowMissing=true`, { method: 'POST', body: form })
  const body = (await answer.json()) as { manifestDigest: string }
  assert.equal(answer.status, 201, JSON.stringify(body))
  return body.manifestDigest
}

type Proxy = {
  url: string
  asked: string[]
  fault: ((request: IncomingMessage, response: ServerResponse) => boolean) | undefined
}

/** A way to a registry on which things go wrong, as told by `fault`, which answers whether it has seen to it. */
async function proxyTo(target: TestRegistry): Promise<Proxy> {
  const proxy: Proxy = { url: '', asked: [], fault: undefined }
  const server = http.createServer((request, response) => {
    proxy.asked.push(`${request.method} ${request.url}`)
    if (proxy.fault?.(request, response)) return
    const { method, headers } = request
    const onward = http.request(target.url + request.url, { method, headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers)
      answer.pipe(response)
    })
    onward.on('error', () => response.destroy())
    request.pipe(onward)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  proxy.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  ends.push(() => {
    server.closeAllConnections()
    return new Promise((resolve) => server.close(resolve))
  })
  return proxy
}

async function addMirror(url: string, over: Json = {}): Promise<string> {
  const body = { name: 'site', direction: 'push', url, options: { allowPrivate: true, concurrency: 1 }, ...over }
  const added = await call('POST', '/mirrors', body)
  assert.equal(added.status, 201, JSON.stringify(added.body))
  return (await here.deps.db.sql<{ id: string }[]>`select id from mirrors where name = ${body.name}`)[0]?.id ?? ''
}

/** Runs the job by hand, once, without its retries. */
async function runOnce(id: string, signal = new AbortController().signal): Promise<ParityReport> {
  await jobs.mirror.run(here.deps, { mirror: id } as never, { signal, progress: () => undefined })
  const { body } = await call('GET', '/mirrors/site/parity')
  return body.parity as ParityReport
}

/** Of each event its type, its run, and what it says of the end. */
async function toldOf(types: string): Promise<unknown[]> {
  const { events } = (await call('GET', `/events?type=${types}`)).body as { events: { type: string; data: Json }[] }
  return events.map(({ type, data }) => [type.split('.').slice(3, 5).join('.'), data.run, data.clean ?? data.final])
}

const writes = (asked: readonly string[]) => asked.filter((line) => !/^(?:GET|HEAD) /.test(line))
const states = ({ entries }: ParityReport) =>
  entries.map(({ packId, kind, reference, state }) => `${packId} ${kind} ${reference} ${state}`)

describe('mirrors by REST', () => {
  it('are added, shown without credentials, changed and deleted', async () => {
    await twoSites()
    await addMirror('http://192.0.2.1', {
      credentials: { username: 'u', password: 'hidden-word' },
      schedule: '0 3 * * *',
    })
    const { body } = await call('GET', '/mirrors/site')
    const { createdAt, ...shown } = body.mirror as Json
    assert.ok(Date.parse(String(createdAt)) > 0)
    assert.deepEqual(shown, {
      ...{ name: 'site', direction: 'push', url: 'http://192.0.2.1', prefix: 'packs', schedule: '0 3 * * *' },
      selection: { packs: ['*'], closure: false, referrers: true },
      credentials: true,
      options: { allowPrivate: true, concurrency: 1 },
    })
    const [row] = await here.deps.db.sql<{ credentials: Buffer }[]>`select credentials from mirrors`
    assert.doesNotMatch(String(row?.credentials), /hidden-word/)
    assert.equal((await call('POST', '/mirrors', { name: 'site', direction: 'pull', url: 'http://a' })).status, 409)

    const changed = await call('PATCH', '/mirrors/site', {
      schedule: null,
      selection: { packs: ['a*'], versions: '^1' },
    })
    const mirror = changed.body.mirror as Json
    assert.deepEqual(mirror.selection, { packs: ['a*'], versions: '^1', closure: false, referrers: true })
    assert.deepEqual([mirror.schedule, mirror.credentials, mirror.url], [undefined, true, 'http://192.0.2.1'])
    const stolen = await call('PATCH', '/mirrors/site', { url: 'http://192.0.2.66' })
    assert.equal(stolen.status, 400)
    assert.match(String(stolen.body.detail), /the credentials of site are for http:\/\/192.0.2.1/)
    assert.equal((await call('PATCH', '/mirrors/site', { url: 'http://192.0.2.66', credentials: null })).status, 200)

    assert.deepEqual((await call('GET', '/mirrors')).body.mirrors, [(await call('GET', '/mirrors/site')).body.mirror])
    assert.deepEqual((await call('DELETE', '/mirrors/site')).body, { deleted: true })
    assert.deepEqual((await call('DELETE', '/mirrors/site')).body, { deleted: false })
    for (const [method, path] of [
      ...[
        ['GET', ''],
        ['PATCH', ''],
        ['POST', '/run'],
        ['GET', '/runs'],
        ['GET', '/parity'],
      ],
    ])
      assert.equal((await call(method ?? '', `/mirrors/site${path}`, method === 'GET' ? undefined : {})).status, 404)
  })

  const good = { name: 'x', direction: 'pull', url: 'https://registry.example' }
  const bad: [string, Json, RegExp][] = [
    ['a name that is none', { name: 'A b' }, /lowercase/],
    ['a direction that is none', { direction: 'both' }, /push or pull/],
    ['a url with a path', { url: 'https://a/b' }, /prefix/],
    ['credentials in the url', { url: 'https://u:p@a' }, /their own field/],
    ['another scheme', { url: 'file:///etc/passwd' }, /https/],
    ['a schedule that is none', { schedule: '61 * * * *' }, /five fields/],
    ['a schedule that never comes', { schedule: '0 0 31 4,6 *' }, /of a time that comes/],
    ['a range that is none', { selection: { versions: 'nope!' } }, /range/],
    ['a pattern that is none', { selection: { packs: ['A'] } }, /id of a pack/],
    ['half of credentials', { credentials: { username: 'u' } }, /username, password/],
    ['a line break in credentials', { credentials: { token: 'a\r\nb' } }, /token/],
    ['a field that is none', { other: 1 }, /other/],
  ]
  it('are refused where something about them is none', async () => {
    await twoSites()
    for (const [what, over, words] of bad) {
      const { status, body } = await call('POST', '/mirrors', { ...good, ...over })
      assert.equal(status, 400, `${what}: ${JSON.stringify(body)}`)
      assert.match(JSON.stringify(body), words, what)
    }
  })
})

describe('a mirror', () => {
  it('runs as a job, by hand and by its schedule', async () => {
    await twoSites()
    await publish(here, { packId: 'app' })
    await addMirror(there.url)
    const asked = await call('POST', '/mirrors/site/run')
    assert.equal(asked.status, 202)
    const again = await call('POST', '/mirrors/site/run')
    const [first, second] = [asked, again].map(({ body }) => (body.run as Json).id)
    assert.equal(first, second)
    const dry = await call('POST', '/mirrors/site/run?dryRun=true')
    assert.notEqual((dry.body.run as Json).id, first)
    assert.equal((await call('GET', '/mirrors/site/parity')).status, 404)
    const worker = startWorker(here.deps, { pollMs: 50 })
    ends.push(() => worker.stop({ graceMs: 0 }))
    const completed = await waitFor('the runs to be completed', async () => {
      const { runs } = (await call('GET', '/mirrors/site/runs')).body as { runs: Json[] }
      return runs.every(({ state }) => state === 'completed') && runs
    })
    assert.equal(completed.length, 2)
    assert.equal((await call('GET', '/packs/app', undefined, there)).status, 200)
    // The dry run changed nothing that anybody would have to be told of.
    assert.deepEqual(await toldOf('mirror.*'), [['mirror.completed', first, true]])
    const { schedule } = jobs.mirror
    await call('PATCH', '/mirrors/site', { schedule: '*/5 * * * *' })
    assert.ok(typeof schedule === 'function')
    assert.deepEqual(
      (await schedule(here.deps)).map(({ cron }) => cron),
      ['*/5 * * * *'],
    )
  })

  it('carries what is selected, by patterns, ranges, channels and types', async () => {
    await twoSites()
    for (const version of ['1.0.0', '1.5.0', '2.0.0-rc.1', '2.0.0']) await publish(here, { packId: 'app', version })
    await publish(here, { packId: 'apple', type: 'task' })
    await publish(here, { packId: 'pear' })
    await call('PUT', '/packs/app/channels/stable', { version: '1.5.0' })
    await call('PUT', '/packs/app/channels/edge', { version: '2.0.0' })
    const id = await addMirror(there.url)
    const cases: [Json, string[]][] = [
      [{ packs: ['ap*e', 'pear'] }, ['apple 1.0.0', 'pear 1.0.0']],
      [{ packs: ['app'], versions: '^1.2.0' }, ['app 1.5.0']],
      [{ packs: ['app'], versions: '>=2.0.0-0' }, ['app 2.0.0', 'app 2.0.0-rc.1']],
      [{ channels: ['stable'] }, ['app 1.5.0']],
      [{ types: ['task'] }, ['apple 1.0.0']],
    ]
    for (const [selection, expected] of cases) {
      await call('PATCH', '/mirrors/site', { selection })
      await call('POST', '/mirrors/site/run?dryRun=true')
      const { entries, clean, dryRun } = await runOnce(id)
      const versions = entries
        .filter(({ kind }) => kind === 'version')
        .map((entry) => `${entry.packId} ${entry.reference}`)
      assert.deepEqual([versions, clean, dryRun], [expected, false, true], JSON.stringify(selection))
    }
    assert.deepEqual((await call('GET', '/packs', undefined, there)).body.packs, [])
    await call('PATCH', '/mirrors/site', { selection: { channels: ['stable'] } })
    const report = await runOnce(id)
    assert.deepEqual(states(report), ['app channel stable same', 'app version 1.5.0 same'])
  })

  it('that may not go where it is to is told of', async () => {
    await twoSites()
    await publish(here, { packId: 'app' })
    const id = await addMirror(there.url, { options: {} })
    await assert.rejects(runOnce(id), { key: 'ADDRESS_REFUSED' })
    const [run] = ((await call('GET', '/mirrors/site/runs')).body as { runs: Json[] }).runs
    assert.deepEqual(await toldOf('mirror.*'), [['mirror.failed', run?.id, true]])
  })

  it('that is cut in the middle goes on where it was', async () => {
    await twoSites()
    for (let i = 0; i < 6; i++)
      await publish(here, { packId: `app${i}`, ...(i ? { dependencies: [`app${i - 1}@1.0.0`] } : {}) })
    const proxy = await proxyTo(there)
    const id = await addMirror(proxy.url)
    let puts = 0
    const cut = new AbortController()
    proxy.fault = ({ method, url = '' }, response) => {
      if (method !== 'PUT' || !url.includes('/manifests/') || ++puts < 4) return false
      cut.abort(new Error('the worker stops'))
      return Boolean(response.destroy())
    }
    await assert.rejects(runOnce(id, cut.signal), /the worker stops/)
    proxy.fault = undefined
    const before = proxy.asked.length
    const report = await runOnce(id)
    assert.ok(report.clean, JSON.stringify(report))
    const { runs } = (await call('GET', '/mirrors/site/runs')).body as { runs: Json[] }
    assert.deepEqual([runs.length, runs[0]?.state], [1, 'completed'])
    const again = writes(proxy.asked.slice(before)).filter((line) => /app[0-2]\/blobs/.test(line))
    assert.deepEqual(again, [])
    const last = proxy.asked.length
    const second = await runOnce(id)
    assert.deepEqual([second.clean, writes(proxy.asked.slice(last)), second.moved.bytes], [true, [], 0])
  })

  it('waits for a target that is busy, and reports one that refuses, version by version', async () => {
    await twoSites()
    await publish(here, { packId: 'app' })
    await publish(here, { packId: 'lone', dependencies: ['nowhere@^1.0.0'] })
    const proxy = await proxyTo(there)
    const id = await addMirror(proxy.url)
    let busy = 3
    proxy.fault = (request, response) => {
      if (request.method === 'GET' || busy-- <= 0) return false
      request.resume()
      return Boolean(response.writeHead(429, { 'retry-after': '0' }).end())
    }
    const report = await runOnce(id)
    assert.equal(busy < 0, true)
    assert.equal(report.clean, false)
    const refused = report.entries.filter(({ state }) => state === 'refused')
    assert.deepEqual(
      refused.map(({ packId, kind }) => `${packId} ${kind}`),
      ['lone version'],
    )
    assert.ok(states(report).includes('lone channel latest missing'))
    assert.match(refused.map(({ detail }) => detail).join('\n'), /no published version of nowhere/)
    assert.ok(states(report).includes('app version 1.0.0 same'))
  })

  it('that cannot reach the other registry says so, and waits for its next try', async () => {
    await twoSites()
    await publish(here, { packId: 'app' })
    const closed = await proxyTo(there)
    await ends.pop()?.()
    const id = await addMirror(closed.url)
    await here.deps.db.sql`update mirrors set options = options || '{"attempts": 1}'`
    await assert.rejects(runOnce(id), (error) => error instanceof Failure && error.key === 'REMOTE_UNREACHABLE')
    const { runs } = (await call('GET', '/mirrors/site/runs')).body as { runs: Json[] }
    assert.deepEqual([runs[0]?.state, /cannot be reached/.test(String(runs[0]?.error))], ['waiting', true])
    await call('PATCH', '/mirrors/site', { options: {} })
    await assert.rejects(runOnce(id), (error) => error instanceof Failure && error.key === 'ADDRESS_REFUSED')
    const after = (await call('GET', '/mirrors/site/runs')).body as { runs: Json[] }
    assert.deepEqual(
      after.runs.map(({ state }) => state),
      ['failed'],
    )
  })

  it('says that it failed when its last try did, and when it is cancelled', async () => {
    await twoSites()
    await publish(here, { packId: 'app' })
    const closed = await proxyTo(there)
    await ends.pop()?.()
    await addMirror(closed.url)
    const { deps } = here
    await deps.db.sql`update mirrors set options = options || '{"attempts": 1}'`
    await deps.db.sql`update pgboss.queue set retry_limit = 1, retry_delay = 0 where name = 'mirror'`
    const runs = async () => (await call('GET', '/mirrors/site/runs')).body.runs as Json[]
    const firstRun = async () => (await runs())[0]
    await call('POST', '/mirrors/site/run')
    const worker = startWorker(deps, { pollMs: 50, careMs: 50 })
    ends.push(() => worker.stop({ graceMs: 0 }))
    const ended = () =>
      waitFor('the run to end', async () => {
        const run = await firstRun()
        return run?.finishedAt ? run : undefined
      })
    const failed = await ended()
    assert.equal(failed.state, 'failed')
    assert.match(String(failed.error), /cannot be reached/)
    const [dead] = (await call('GET', '/jobs?state=failed')).body.jobs as Json[]
    assert.deepEqual([dead?.name, dead?.attempts], ['mirror', 2])
    await worker.stop({ graceMs: 0 })
    const told = await deps.db.sql<{ type: string }[]>`
      select type from (
        select type, data from event_outbox union all select type, data from events) e
      where type in ('job.failed', 'mirror.failed') and (type = 'job.failed' or (data ->> 'final')::boolean)
      order by type`
    assert.deepEqual(
      told.map(({ type }) => type),
      ['job.failed', 'mirror.failed'],
    )

    await call('POST', '/mirrors/site/run')
    const [waiting] = (await call('GET', '/jobs?state=waiting&name=mirror')).body.jobs as Json[]
    assert.equal((await call('POST', `/jobs/${waiting?.id}/cancel`)).status, 202)
    const cancelled = await firstRun()
    assert.deepEqual([cancelled?.state, cancelled?.error], ['failed', 'cancelled'])
  })

  it('that is deleted while it runs goes no further', async () => {
    await twoSites()
    await publish(there, { packId: 'one' })
    await publish(there, { packId: 'two' })
    const proxy = await proxyTo(there)
    let held: (() => void) | undefined
    proxy.fault = ({ url = '' }, response) => {
      if (!url.endsWith('/one/tags/list?n=1000')) return false
      held = () => response.end('{"tags":["1.0.0"]}')
      return true
    }
    await addMirror(proxy.url, { direction: 'pull', selection: { packs: ['one', 'two'] } })
    const mirror = await mirrorOf(here.deps, 'site')
    await call('POST', '/mirrors/site/run')
    const worker = startWorker(here.deps, { pollMs: 50, careMs: 50 })
    ends.push(() => worker.stop({ graceMs: 0 }))
    await waitFor('the other registry to be asked', () => held !== undefined)
    assert.deepEqual((await call('DELETE', '/mirrors/site')).body, { deleted: true })
    await waitFor('the job to end', async () => {
      const [job] = (await call('GET', '/jobs?name=mirror')).body.jobs as Json[]
      assert.ok(job?.state === 'running' || job?.state === 'cancelled', String(job?.state))
      return job.state === 'cancelled'
    })
    held?.()
    assert.equal((await call('GET', '/packs/two')).status, 404)
    assert.deepEqual(await toldOf('mirror.*'), [])
    assert.deepEqual((await call('DELETE', '/mirrors/site')).body, { deleted: false })
    await assert.rejects(requestRun(here.deps, mirror, { dryRun: false }), /no such mirror/)
  })

  it('leaves the runs of a job that is dead to the next one of its mirror', async () => {
    await twoSites()
    const id = await addMirror(there.url)
    const { sql } = here.deps.db
    await call('POST', '/mirrors/site/run?dryRun=true')
    const first = (await takeJob(sql, ['mirror'])) ?? assert.fail('nothing waits')
    await call('POST', '/mirrors/site/run')
    await sql`update pgboss.job set retry_limit = 0, expire_in = '0 s' where id = ${first.id}`
    const told = () => sql<Json[]>`select state, error from mirror_runs where mirror_id = ${id}`
    const lost = await sql.begin(async (tx) => {
      const jobs = await endLostRuns(tx)
      for (const job of jobs) if (isEnd(job)) await noteEnd(tx, job)
      return jobs
    })
    assert.deepEqual(
      lost.map(({ state }) => state),
      ['failed'],
    )
    assert.deepEqual(
      (await told()).map(({ state }) => state),
      ['waiting', 'waiting'],
    )
  })

  it('believes no digest of a registry that it pulls from, and stores nothing of a lie', async () => {
    await twoSites()
    const [fine, lied] = [randomBytes(100_000), randomBytes(100_000)]
    await publish(there, { packId: 'fine' }, fine)
    await publish(there, { packId: 'lied' }, lied)
    await publish(there, { packId: 'other' })
    const proxy = await proxyTo(there)
    const id = await addMirror(proxy.url, { direction: 'pull' })
    proxy.fault = ({ url = '', method }, response) => {
      if (method === 'GET' && url.endsWith(digestOf(lied))) return Boolean(response.end(randomBytes(100_000)))
      if (!url.endsWith('other/manifests/1.0.0')) return false
      const headers = { 'content-type': 'a/b', 'docker-content-digest': digestOf(lied) }
      return Boolean(response.writeHead(200, headers).end('{}'))
    }
    const report = await runOnce(id)
    assert.equal(report.problems.length, 1)
    assert.match(report.problems[0] ?? '', /other:1.0.0 cannot be read there.*whose digest is/)
    assert.deepEqual(states(report), ['lied version 1.0.0 refused', 'fine version 1.0.0 same'])
    assert.match(report.entries[0]?.detail ?? '', /sends other bytes/)
    const [held] = await here.deps.db.sql`select count(*)::int as n from blobs where digest = ${digestOf(lied)}`
    assert.equal(held?.n, 0)
    proxy.fault = undefined
    assert.ok((await runOnce(id)).clean)
  })

  it('tells what another registry says, whatever characters there are in it', async () => {
    await twoSites()
    await publish(there, { packId: 'app' })
    const proxy = await proxyTo(there)
    const id = await addMirror(proxy.url, { direction: 'pull' })
    const told = async (message: string, status: number) => {
      proxy.fault = ({ url = '' }, response) =>
        url.includes('/blobs/') && Boolean(response.writeHead(status).end(`{"errors":[{"message":"${message}"}]}`))
      return (await runOnce(id)).entries[0]?.detail ?? ''
    }
    for (const message of ['no\\u0000!', 'no\\ud83d!']) assert.match(await told(message, 403), /no\ufffd!$/)
    proxy.fault = ({ url = '' }, response) =>
      url.includes('/_catalog') && Boolean(response.writeHead(403).end('{"errors":[{"message":"no\\u0000!"}]}'))
    await assert.rejects(runOnce(id), /the other registry refuses this/)
    const { runs } = (await call('GET', '/mirrors/site/runs')).body as { runs: Json[] }
    assert.match(String(runs[0]?.error), /no\ufffd!$/)
  })

  it('pulls a version by the digest that it has there, be it of another algorithm', async () => {
    await twoSites()
    const published = await publish(there, { packId: 'app' })
    const manifest = await there.call('GET', `/v2/packs/app/manifests/${published}`)
    const [type, bytes] = [manifest.headers.get('content-type') ?? '', Buffer.from(await manifest.arrayBuffer())]
    const digest = digestOf(bytes, 'sha512')
    const proxy = await proxyTo(there)
    proxy.fault = ({ url = '' }, response) => {
      if (!/\/manifests\/(?:1\.0\.0|latest|sha512:.*)$/.test(url)) return false
      const headers = { 'content-type': type, 'docker-content-digest': digest }
      return Boolean(response.writeHead(200, headers).end(bytes))
    }
    const report = await runOnce(await addMirror(proxy.url, { direction: 'pull' }))
    assert.deepEqual([states(report), report.clean], [['app version 1.0.0 same'], true])
    const found = await here.call('GET', '/v2/packs/app/manifests/1.0.0')
    assert.equal(found.headers.get('docker-content-digest'), digest)
  })

  it('keeps its last 200 runs, and the last report', async () => {
    await twoSites()
    await publish(there, { packId: 'app' })
    const proxy = await proxyTo(there)
    const id = await addMirror(proxy.url, { direction: 'pull', selection: { packs: ['app'] } })
    await runOnce(id)
    await here.deps.db.sql`
      insert into mirror_runs (mirror_id, dry_run, state, created_at, finished_at)
      select ${id}, false, 'failed', now() + n * interval '1 second', now() from generate_series(1, 300) n`
    proxy.fault = (_, response) => Boolean(response.writeHead(403).end())
    await assert.rejects(runOnce(id))
    const parity = await call('GET', '/mirrors/site/parity')
    assert.deepEqual(states(parity.body.parity as ParityReport), ['app version 1.0.0 same'])
    const kept = await here.deps.db.sql`select report is not null as told from mirror_runs`
    // The one that has failed now among them.
    assert.equal(kept.length, 202)
    const { runs } = (await call('GET', '/mirrors/site/runs')).body as { runs: Json[] }
    assert.equal(runs.length, 100)
  })

  it('pulls again what is missing only, and never changes a version that differs', async () => {
    await twoSites()
    await publish(there, { packId: 'base' }, randomBytes(100_000))
    await publish(there, { packId: 'app', dependencies: ['base@^1.0.0'] })
    await publish(there, { packId: 'twice' })
    await publish(here, { packId: 'twice' })
    const proxy = await proxyTo(there)
    const id = await addMirror(proxy.url, { direction: 'pull', selection: { packs: ['app', 'tw*'], closure: true } })
    const first = await runOnce(id)
    assert.deepEqual(states(first), [
      'twice version 1.0.0 different',
      'app version 1.0.0 same',
      'base version 1.0.0 same',
    ])
    const before = proxy.asked.length
    const second = await runOnce(id)
    assert.deepEqual(states(second), states(first))
    assert.deepEqual(
      proxy.asked.slice(before).filter((line) => line.includes('/blobs/')),
      [],
    )
    assert.deepEqual(
      [second.moved.manifests, second.moved.bytes, second.moved.requests],
      [0, 0, proxy.asked.length - before],
    )
  })
})
