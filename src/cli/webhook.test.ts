import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { createServer } from 'node:http'
import { type AddressInfo, connect, createServer as createProxy, type Socket } from 'node:net'
import { after, before, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { openClient } from '../client/client.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { publish } from '../testing/packs.ts'
import { startRegistry, type TestRegistry } from '../testing/registry.ts'
import { waitFor } from '../testing/wait.ts'
import { startDeliveries } from '../worker/deliveries.ts'
import type { RunningWorker } from '../worker/worker.ts'

// The commands as processes, and the library, against a real registry and a receiver that fails until it is told not to.

const main = fileURLToPath(new URL('../main.ts', import.meta.url))
let databases: TestDatabases
let registry: TestRegistry
let deliveries: RunningWorker
let status = 500
const bodies: string[] = []
const receiver = createServer((request, response) => {
  let body = ''
  request.on('data', (piece) => {
    body += piece
  })
  request.on('end', () => {
    bodies.push(body)
    response.writeHead(status).end()
  })
})
before(async () => {
  databases = await startDatabases()
  registry = await startRegistry(await databases.fresh())
  deliveries = startDeliveries(registry.deps, { pollMs: 50, baseDelaySeconds: 0.05 })
  await new Promise<void>((resolve) => receiver.listen(0, '127.0.0.1', resolve))
})
after(async () => {
  receiver.closeAllConnections()
  receiver.close()
  await deliveries?.stop({ graceMs: 0 })
  await registry?.stop()
  await databases?.stop()
})

function start(...args: string[]): ChildProcess & { text: string } {
  const env = { PATH: process.env.PATH, HOME: '/nonexistent', PACKS_REGISTRY: registry.url }
  const child = spawn(process.execPath, ['--import', import.meta.resolve('tsx'), main, ...args], { env })
  const told = Object.assign(child, { text: '' })
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (piece) => {
      told.text += piece
    })
  return told
}

async function packs(...args: string[]): Promise<{ code: number | null; text: string }> {
  const child = start(...args)
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve))
  return { code, text: child.text }
}

it('a webhook is set up, tested, fails, is looked into, and sent again', async () => {
  const url = `http://127.0.0.1:${(receiver.address() as AddressInfo).port}/hook`
  const refused = await packs('webhook', 'add', 'ci', url)
  assert.equal(refused.code, 1)
  assert.match(refused.text, /allowHttp/)
  const flags = ['--allow-http', '--allow-private', '--tries', '2', '--type', 'pack.published']
  const added = await packs('webhook', 'add', 'ci', url, ...flags)
  assert.equal(added.code, 0, added.text)
  assert.match(added.text, /^whsec_[A-Za-z0-9+/]{43}=$/m)
  const tested = await packs('webhook', 'test', 'ci')
  assert.equal(tested.code, 1)
  assert.match(tested.text, /refused, status 500/)
  assert.equal((await publish(registry, { packId: 'told' })).status, 201)
  const { webhooks } = openClient({ url: registry.url })
  await waitFor('the delivery to be given up', async () => (await webhooks.show('ci')).dead === 1)
  const listed = await packs('webhook', 'deliveries', 'ci', '--state', 'dead')
  assert.match(listed.text, /dead +2 +pack\.published +told@1\.0\.0/)
  const [id = ''] = /[0-9a-f-]{36}/.exec(listed.text) ?? []
  assert.equal((await packs('webhook', 'deliveries', 'ci', id)).text.match(/refused, status 500/g)?.length, 2)
  status = 204
  assert.match((await packs('webhook', 'redeliver', 'ci', '--dead')).text, /^1 waits to be sent again/)
  await waitFor('the delivery', async () => (await webhooks.delivery('ci', id)).delivery.state === 'delivered')
  assert.match((await packs('webhook', 'list')).text, /ci +ok +0 +0 +pack\.published/)
  assert.match((await packs('webhook', 'disable', 'ci')).text, /ci is disabled/)
  assert.match((await packs('webhook', 'show', 'ci')).text, /enabled +false/)
  assert.match((await packs('webhook', 'remove', 'ci')).text, /removed ci/)
  assert.equal((await packs('webhook', 'show', 'ci')).code, 1)
  // The test, two tries, and the one by hand.
  assert.equal(bodies.length, 4)
})

it('events are listed, gone on with, and followed', async () => {
  const all = await packs('events', '--pack', 'told')
  assert.match(all.text, /pack\.published +told@1\.0\.0/)
  const [first = ''] = all.text.split(' ')
  const rest = await packs('events', '--pack', 'told', '--after', first, '--json')
  assert.deepEqual(
    rest.text
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line).data.channel),
    ['latest'],
  )
  const following = start('events', '--follow', '--pack', 'told', '--after', first, '--type', 'pack.*')
  assert.equal((await publish(registry, { packId: 'told', version: '1.1.0' })).status, 201)
  await waitFor('the event to be told', () => following.text.includes('told@1.1.0'))
  following.kill('SIGINT')
  assert.equal(await new Promise((resolve) => following.once('close', resolve)), 130)
})

/** A way to the registry that can be cut. */
async function cuttable(): Promise<{ url: string; cut(): void; close(): void }> {
  const sockets = new Set<Socket>()
  const proxy = createProxy((client) => {
    const server = connect(Number(new URL(registry.url).port), '127.0.0.1')
    for (const [from, to] of [
      [client, server],
      [server, client],
    ] as const) {
      sockets.add(from)
      from
        .on('error', () => undefined)
        .once('close', () => {
          sockets.delete(from)
          to.destroy()
        })
      from.pipe(to)
    }
  })
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve))
  const cut = () => {
    for (const socket of sockets) socket.destroy()
  }
  return {
    url: `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`,
    cut,
    close() {
      cut()
      proxy.close()
    },
  }
}

it('the library follows on over cut connections, with none left out and none twice', async () => {
  const way = await cuttable()
  const client = openClient({ url: way.url, baseDelayMs: 20 })
  const seen: string[] = []
  const total = 6
  const following = (async () => {
    for await (const { subject } of client.events.follow({ packs: ['cut'], types: ['pack.published'], after: '0' })) {
      seen.push(subject)
      if (seen.length === total) return
    }
  })()
  for (let n = 0; n < total; n += 2) {
    for (const version of [`1.0.${n}`, `1.0.${n + 1}`])
      assert.equal((await publish(registry, { packId: 'cut', version }, version)).status, 201)
    // The first is there; whether the second is on its way, has come, or is yet to come, nobody knows.
    await waitFor(`event ${n + 1}`, () => seen.length > n)
    way.cut()
  }
  await following
  way.close()
  assert.deepEqual(
    seen,
    Array.from({ length: total }, (_, n) => `cut@1.0.${n}`),
  )
})
