import assert from 'node:assert/strict'
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { createHmac, timingSafeEqual } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, before, describe, it } from 'node:test'
import { recordEvents } from '../db/events.ts'
import type { PackId } from '../packs/pack.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { ask, codeIn, publish } from '../testing/packs.ts'
import { startRegistry, type TestRegistry } from '../testing/registry.ts'
import { waitFor } from '../testing/wait.ts'
import { type DeliveriesOptions, startDeliveries } from '../worker/deliveries.ts'

let databases: TestDatabases
before(async () => {
  databases = await startDatabases()
})
after(() => databases?.stop())

const ends: (() => unknown)[] = []
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end()
})

type Message = { id: string; headers: IncomingMessage['headers']; body: string; event: Told }
type Told = { id: string; type: string; subject: string; sequence: string; data: Record<string, unknown> }
type Reaction = (message: Message, response: ServerResponse, nth: number) => void

/** What an event is sent to; `react` answers, and 204 is answered unless it does. */
async function receiver(react: Reaction = (_, response) => void response.writeHead(204).end()) {
  const messages: Message[] = []
  const server = createServer((request, response) => {
    let body = ''
    request.setEncoding('utf8').on('data', (piece) => {
      body += piece
    })
    request.on('end', () => {
      const event = JSON.parse(body) as Told
      const message = { id: String(request.headers['webhook-id']), headers: request.headers, body, event }
      messages.push(message)
      react(message, response, messages.length)
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  ends.push(() => {
    server.closeAllConnections()
    server.close()
  })
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`,
    messages,
    subjects: () => messages.map(({ event }) => event.subject),
    until: (count: number) => waitFor(`${count} messages`, () => messages.length >= count),
  }
}

const here = { allowHttp: true, allowPrivate: true }

/** A registry that sends; `webhook` sets one up and answers its secret. */
async function sending(options: DeliveriesOptions = {}, url?: string) {
  const registry = await startRegistry(url ?? (await databases.fresh()))
  ends.push(() => registry.stop())
  deliver(registry, options)
  return { registry, webhook: (body: object) => webhook(registry, body) }
}

function deliver(registry: TestRegistry, options: DeliveriesOptions): void {
  const deliveries = startDeliveries(registry.deps, { pollMs: 50, baseDelaySeconds: 0.05, ...options })
  ends.push(() => deliveries.stop({ graceMs: 0, endMs: 1_000 }))
}

async function webhook(registry: TestRegistry, body: object): Promise<string> {
  const answer = await ask(registry, 'POST', '/webhooks', { name: 'hook', options: here, ...body })
  assert.equal(answer.status, 201, JSON.stringify(answer.body))
  return String(answer.body.secret)
}

const told = (packId: string, n: number) => ({
  type: 'pack.published' as const,
  packId: packId as PackId,
  subject: `${packId}@${n}`,
  data: { packId, n },
})

const json = async (answer: Response) => (await answer.json()) as Record<string, unknown>

type Delivery = { id: string; state: string; tries: number; subject: string; status?: number; error?: string }

async function deliveriesOf(registry: TestRegistry, query = ''): Promise<Delivery[]> {
  const { status, body } = await ask(registry, 'GET', `/webhooks/hook/deliveries${query}`)
  assert.equal(status, 200)
  return body.deliveries as Delivery[]
}

/** The first delivery for which it holds, as soon as it does. */
function deliveryWhen(what: string, registry: TestRegistry, holds: (delivery: Delivery) => boolean): Promise<Delivery> {
  return waitFor(what, async () => (await deliveriesOf(registry)).find(holds))
}

/** What a receiver does by the text of Standard Webhooks; it shares no code with the registry. */
function isSigned(secret: string, { headers, body }: Message): boolean {
  const { 'webhook-id': id, 'webhook-timestamp': at, 'webhook-signature': signature } = headers
  if (Math.abs(Date.now() / 1000 - Number(at)) > 300) return false
  const expected = createHmac('sha256', Buffer.from(secret.replace('whsec_', ''), 'base64'))
    .update([id, at, body].join('.'))
    .digest()
  return String(signature)
    .split(' ')
    .some((part) => {
      const given = Buffer.from(part.replace('v1,', ''), 'base64')
      return part.startsWith('v1,') && given.length === expected.length && timingSafeEqual(given, expected)
    })
}

describe('a message', () => {
  it('is a CloudEvent, signed, and comes of a publish', async () => {
    const { registry, webhook } = await sending()
    const sink = await receiver()
    const secret = await webhook({ url: sink.url, types: ['pack.*'], packs: ['net-*', 'o_her', 'othe'] })
    assert.equal((await publish(registry, { packId: 'other' })).status, 201)
    assert.equal((await publish(registry, { packId: 'net-policy' })).status, 201)
    await sink.until(1)
    const [message] = sink.messages as [Message]
    assert.ok(isSigned(secret, message))
    assert.ok(!isSigned(secret, { ...message, body: message.body.replace('net-policy', 'net-malice') }))
    assert.equal(message.headers['content-type'], 'application/cloudevents+json')
    const { id, type, subject, data } = message.event
    assert.equal(id, message.id)
    assert.deepEqual(
      [type, subject, data.version],
      ['org.stellaops.registry.pack.published.v1', 'net-policy@1.0.0', '1.0.0'],
    )
    const [delivery] = await deliveriesOf(registry)
    const settled = await deliveryWhen('the delivery', registry, ({ state }) => state === 'delivered')
    assert.equal(settled.id, delivery?.id)
    assert.equal(sink.messages.length, 1)
  })

  it('of a test says what came of it', async () => {
    const { registry, webhook } = await sending()
    const sink = await receiver(
      (_, response, nth) => void response.writeHead(nth === 1 ? 200 : 500).end('not to be seen'),
    )
    const secret = await webhook({ url: sink.url, enabled: false })
    const first = await ask(registry, 'POST', '/webhooks/hook/test')
    assert.deepEqual([first.body.delivered, first.body.status], [true, 200])
    const second = await ask(registry, 'POST', '/webhooks/hook/test')
    assert.deepEqual([second.body.delivered, second.body.status, second.body.error], [false, 500, 'refused'])
    assert.ok(!JSON.stringify(second.body).includes('not to be seen'))
    assert.ok(isSigned(secret, sink.messages[0] as Message))
  })
})

describe('the order of a pack', () => {
  it('holds while one fails, and others go on', async () => {
    const { registry, webhook } = await sending()
    let broken = true
    const sink = await receiver(({ event }, response) => {
      response.writeHead(broken && event.data.packId === 'ill' ? 500 : 204).end()
    })
    await webhook({ url: sink.url })
    const sql = registry.deps.db.sql
    await recordEvents(sql, [told('ill', 1), told('well', 1), told('ill', 2), told('well', 2)])
    registry.deps.relay.ring()
    await deliveryWhen('three tries', registry, ({ subject, tries }) => subject === 'ill@1' && tries >= 3)
    const wells = sink.subjects().filter((subject) => subject.startsWith('well'))
    assert.deepEqual(wells, ['well@1', 'well@2'])
    assert.ok(!sink.subjects().includes('ill@2'))
    broken = false
    const isDelivered = ({ subject, state }: Delivery) => subject === 'ill@2' && state === 'delivered'
    await deliveryWhen('the delivery of ill@2', registry, isDelivered)
    assert.equal(sink.subjects().lastIndexOf('ill@1') < sink.subjects().indexOf('ill@2'), true)
  })

  it('holds for many packs, over several processes that send', async () => {
    const url = await databases.fresh()
    const { registry, webhook } = await sending({}, url)
    const other = await startRegistry(url)
    ends.push(() => other.stop())
    deliver(other, {})
    // A receiver that takes its time, differently each time.
    const sink = await receiver((_, response, nth) => void setTimeout(() => response.writeHead(204).end(), nth % 7))
    await webhook({ url: sink.url })
    const [packs, each] = [8, 15]
    await Promise.all(
      Array.from({ length: packs }, async (_, pack) => {
        for (let n = 0; n < each; n++) {
          const { deps } = (pack + n) % 2 ? registry : other
          await deps.db.sql.begin((tx) => recordEvents(tx, [told(`p${pack}`, n)]))
          deps.relay.ring()
        }
      }),
    )
    await sink.until(packs * each)
    for (let pack = 0; pack < packs; pack++)
      assert.deepEqual(
        sink.messages.filter(({ event }) => event.data.packId === `p${pack}`).map(({ event }) => event.data.n),
        Array.from({ length: each }, (_, n) => n),
      )
  })
})

describe('a receiver that', () => {
  const failures: { name: string; react: Reaction; error: string; status?: number }[] = [
    {
      name: 'fails',
      react: (_, response) => void response.writeHead(500, { 'x-inside': 'confided' }).end('confided'),
      ...{ error: 'refused', status: 500 },
    },
    {
      name: 'redirects to a private address',
      react: (_, response) => void response.writeHead(307, { location: 'http://169.254.169.254/' }).end(),
      ...{ error: 'redirect', status: 307 },
    },
    { name: 'hangs', react: () => undefined, error: 'timeout' },
    { name: 'hangs up', react: (_, response) => void response.socket?.destroy(), error: 'ECONNRESET' },
    {
      name: 'never ends its head',
      react: (_, response) => void response.socket?.write('HTTP/1.1 200 OK\r\nx: '),
      error: 'timeout',
    },
  ]
  for (const { name, react, error, status } of failures)
    it(`${name}: tried as often as is set, then given up, and sent again by hand`, async () => {
      // Long enough for an answer that comes, on a slow machine too.
      const { registry, webhook } = await sending({ timeoutMs: error === 'timeout' ? 1_500 : 30_000 })
      let ill = true
      const sink = await receiver((message, response, nth) => {
        if (ill) react(message, response, nth)
        else response.writeHead(204).end()
      })
      await webhook({ url: sink.url, options: { ...here, tries: 2 } })
      await recordEvents(registry.deps.db.sql, [told('a', 1)])
      registry.deps.relay.ring()
      const dead = await deliveryWhen('the delivery to be given up', registry, ({ state }) => state === 'dead')
      assert.deepEqual([dead.tries, dead.error, dead.status], [2, error, status])
      const { body } = await ask(registry, 'GET', `/webhooks/hook/deliveries/${dead.id}`)
      assert.equal((body.attempts as unknown[]).length, 2)
      assert.ok(!JSON.stringify(body).includes('confided'), 'nothing of what a receiver answers is shown')
      assert.equal(((await ask(registry, 'GET', '/webhooks/hook')).body.webhook as { dead: number }).dead, 1)
      ill = false
      const again = await ask(registry, 'POST', `/webhooks/hook/deliveries/${dead.id}/redeliver`)
      assert.equal(again.status, 202)
      await deliveryWhen('the delivery', registry, ({ state }) => state === 'delivered')
      // The same message: whoever has seen it knows it by its id.
      assert.equal(new Set(sink.messages.map(({ id }) => id)).size, 1)
    })

  it('is busy is left alone for as long as it asks', async () => {
    const { registry, webhook } = await sending()
    const sink = await receiver((_, response) => void response.writeHead(429, { 'retry-after': '3600' }).end())
    await webhook({ url: sink.url })
    await recordEvents(registry.deps.db.sql, [told('a', 1)])
    registry.deps.relay.ring()
    const { tries, status, ...rest } = await deliveryWhen('a try', registry, ({ tries }) => tries > 0)
    assert.deepEqual([tries, status], [1, 429])
    const inSeconds = (Date.parse((rest as unknown as { nextAt: string }).nextAt) - Date.now()) / 1000
    assert.ok(inSeconds > 3_000 && inSeconds <= 3_600, String(inSeconds))
  })

  it('dies is no hindrance to what comes behind it in the same pack, once that is given up', async () => {
    const { registry, webhook } = await sending()
    const sink = await receiver(({ event }, response) => void response.writeHead(event.data.n === 1 ? 500 : 204).end())
    await webhook({ url: sink.url, options: { ...here, tries: 2 } })
    await recordEvents(registry.deps.db.sql, [told('a', 1), told('a', 2)])
    registry.deps.relay.ring()
    const isDelivered = ({ subject, state }: Delivery) => subject === 'a@2' && state === 'delivered'
    await deliveryWhen('the delivery of a@2', registry, isDelivered)
    assert.deepEqual(sink.subjects(), ['a@1', 'a@1', 'a@2'])
    const { body } = await ask(registry, 'POST', '/webhooks/hook/deliveries/redeliver')
    assert.equal(body.redelivered, 1)
    await sink.until(5)
  })
})

describe('where messages may go', () => {
  const refused: { name: string; body: object; words: RegExp }[] = [
    { name: 'http', body: { url: 'http://ci.example/x' }, words: /allowHttp/ },
    { name: 'a user in it', body: { url: 'https://a:b@ci.example/x' }, words: /user/ },
    { name: 'another scheme', body: { url: 'file:///etc/passwd' }, words: /not understood/ },
    { name: 'no address', body: { url: 'ci' }, words: /this is none/ },
    { name: 'no such type', body: { url: 'https://ci.example', types: ['nonsense'] }, words: /types/ },
  ]
  it('is refused at once where it can never be right', async () => {
    const registry = await startRegistry(await databases.fresh())
    ends.push(() => registry.stop())
    for (const { name, body, words } of refused) {
      const answer = await ask(registry, 'POST', '/webhooks', { name: 'bad', options: {}, ...body })
      assert.deepEqual([answer.status, codeIn(answer.body)], [400, 'REQUEST_INVALID'], name)
      assert.match(String(answer.body.detail), words)
    }
  })

  it('is nowhere private, by name or number, unless that is said', async () => {
    const { registry, webhook } = await sending()
    const sink = await receiver()
    const { port } = new URL(sink.url)
    const options = { allowHttp: true, tries: 1 }
    for (const host of ['127.0.0.1', 'localhost', '[::ffff:127.0.0.1]', '2130706433']) {
      await webhook({ name: 'hook', url: `http://${host}:${port}/`, options })
      const { body } = await ask(registry, 'POST', '/webhooks/hook/test')
      assert.deepEqual([body.delivered, body.error], [false, 'address refused'], host)
      await registry.call('DELETE', '/webhooks/hook')
    }
    assert.equal(sink.messages.length, 0)
  })
})

it('a certificate that nobody vouches for is not believed', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'packs-webhook-'))
  ends.push(() => rm(folder, { recursive: true, force: true }))
  const [cert, key] = [join(folder, 'cert.pem'), join(folder, 'key.pem')]
  const options = ['-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '1', '-subj', '/CN=127.0.0.1']
  execFileSync('openssl', ['req', ...options, '-keyout', key, '-out', cert], { stdio: 'ignore' })
  const secure = await startRegistry(await databases.fresh(), { TLS_CERT_FILE: cert, TLS_KEY_FILE: key })
  ends.push(() => secure.stop())
  const registry = await startRegistry(await databases.fresh())
  ends.push(() => registry.stop())
  await webhook(registry, { url: `${secure.url}/hook`, options: { allowPrivate: true } })
  const { body } = await ask(registry, 'POST', '/webhooks/hook/test')
  assert.deepEqual([body.delivered, body.error, body.status], [false, 'certificate not trusted', undefined])
})

it('secrets are told once, and stand in no answer, row or list', async () => {
  const registry = await startRegistry(await databases.fresh())
  ends.push(() => registry.stop())
  const secret = await webhook(registry, { url: 'https://ci.example/hook', description: 'for the CI' })
  const textOf = async (path: string) => (await registry.call('GET', path)).text()
  // What was done is written down behind the answer.
  await waitFor('it to be written down', async () => (await textOf('/audit')).includes('POST /webhooks'))
  const answers = await Promise.all(['/webhooks', '/webhooks/hook', '/webhooks/hook/deliveries', '/audit'].map(textOf))
  const changed = await ask(registry, 'PATCH', '/webhooks/hook', { enabled: false, description: null })
  assert.equal((changed.body.webhook as { enabled: boolean }).enabled, false)
  const rows = await registry.deps.db.sql`select w::text from webhooks w`
  const all = [...answers, JSON.stringify(changed.body), JSON.stringify(rows)].join('\n')
  assert.ok(!all.includes(secret.slice(6)))
  assert.ok(!all.includes(Buffer.from(secret.slice(6), 'base64').toString('hex')))
})

it('what nobody has heard of is said to be unknown, whatever it is', async () => {
  const registry = await startRegistry(await databases.fresh())
  ends.push(() => registry.stop())
  await webhook(registry, { url: 'https://ci.example/hook' })
  for (const name of ['none', '%00', '%F0%9F%92%A5', 'a'.repeat(1_500), '..%2f'])
    for (const [method, path] of [
      ...[['GET', ''] as const, ['PATCH', ''] as const, ['POST', '/test'] as const],
      ...[['GET', '/deliveries'] as const, ['POST', '/deliveries/redeliver'] as const],
    ]) {
      const body = method === 'PATCH' ? '{}' : undefined
      const headers = { 'content-type': 'application/json' }
      const answer = await registry.call(method, `/webhooks/${name}${path}`, { headers, ...(body ? { body } : {}) })
      assert.deepEqual(
        [answer.status, codeIn(await json(answer))],
        [404, 'WEBHOOK_UNKNOWN'],
        `${method} ${name}${path}`,
      )
    }
  for (const id of ['none', '%00', '0199f0a2-5c1e-7a40-8a3b-2f6d1c9e4b59'])
    for (const [method, rest] of [['GET', ''] as const, ['POST', '/redeliver'] as const]) {
      const answer = await registry.call(method, `/webhooks/hook/deliveries/${id}${rest}`)
      assert.deepEqual([answer.status, codeIn(await json(answer))], [404, 'DELIVERY_UNKNOWN'], id)
    }
  assert.deepEqual((await ask(registry, 'DELETE', '/webhooks/%00')).body, { deleted: false })
  assert.equal((await ask(registry, 'GET', '/webhooks/hook/deliveries?after=x')).status, 400)
})

describe('a worker', () => {
  const script = `
    const [{ readConfig }, { openDeps }, { openLog }, { startDeliveries }] = await Promise.all(
      ['config', 'deps', 'log', 'worker/deliveries'].map((part) => import(process.env.SOURCE + part + '.ts')))
    const deps = await openDeps(readConfig({ BLOB_STORE: process.env.BLOB_STORE }), process.env.URL_OF_DATABASE, openLog('silent'))
    startDeliveries(deps, { leaseSeconds: 2, pollMs: 50 })`

  it('that is killed in the middle of a delivery leaves it to the next, which sends it again', async () => {
    const url = await databases.fresh()
    const registry = await startRegistry(url)
    ends.push(() => registry.stop())
    let kill: () => void = () => undefined
    // The first time it is never answered: whoever sent it is killed meanwhile.
    const sink = await receiver((_, response, nth) => void (nth === 1 ? kill() : response.writeHead(204).end()))
    await webhook(registry, { url: sink.url })
    const child: ChildProcess = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '--eval', script], {
      env: {
        ...process.env,
        SOURCE: new URL('../', import.meta.url).href,
        URL_OF_DATABASE: url,
        BLOB_STORE: registry.deps.config.blobStore,
      },
      stdio: 'inherit',
    })
    ends.push(() => child.kill('SIGKILL'))
    const killed = new Promise((resolve) => child.once('exit', resolve))
    kill = () => child.kill('SIGKILL')
    await recordEvents(registry.deps.db.sql, [told('a', 1), told('a', 2)])
    registry.deps.relay.ring()
    await killed
    assert.deepEqual(sink.subjects(), ['a@1'])
    deliver(registry, {})
    await sink.until(3)
    assert.deepEqual(sink.subjects(), ['a@1', 'a@1', 'a@2'])
    assert.equal(sink.messages[0]?.id, sink.messages[1]?.id)
  })

  it('goes on after the database has cut all its connections', async () => {
    const { registry, webhook } = await sending({ leaseSeconds: 2 })
    const sink = await receiver()
    await webhook({ url: sink.url })
    const sql = registry.deps.db.sql
    for (let n = 1; n <= 3; n++) {
      await sql`
        select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid() and query <> ''
          -- The driver cannot bear to lose a connection while it asks this on it.
          and query not like '%typarray%'`
      await waitFor('the database to take an event', () => recordEvents(sql, [told('a', n)]).then(() => true))
      registry.deps.relay.ring()
      await waitFor(`a@${n} to be sent`, () => sink.subjects().includes(`a@${n}`))
    }
    assert.deepEqual([...new Set(sink.subjects())], ['a@1', 'a@2', 'a@3'])
  })
})
