// Garbage collection under clients that do everything at once, with a grace of a second and processes that are killed all
// the time: what was acknowledged stays and verifies byte for byte, what was deleted is gone, and in the end nothing is
// left that nobody needs. What clients do is drawn by chance from a seed: LOAD_SEED=… repeats it (who comes first remains
// the machine's choice).
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { describe, it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { type Replica, type Replicas, startReplicas } from '../scripts/services/replicas.ts'
import { waitFor } from '../src/testing/wait.ts'
import { type Balancer, openBalancer } from './gc/balancer.ts'
import { type Chance, chanceOf } from './gc/chance.ts'
import { Ledger } from './gc/ledger.ts'
import { findLeftovers } from './gc/leftovers.ts'
import { type Client, expectStatus, type Load, openClient, verify, work } from './gc/load.ts'
import { sha256 } from './registry-client.ts'

const run = promisify(execFile)
const clientCount = 16
const graceMs = 1000
/** It ends when so much has happened; and in any case after so long, if each process has been killed by then. */
const enough = { acknowledged: 2500, kills: 6 }
const longestMs = 60_000

for (const store of ['file', 's3'] as const) {
  describe(`collecting under load, ${store === 's3' ? 'S3' : 'folder'}`, () => {
    it('loses nothing that was acknowledged, and leaves nothing that nobody needs', async () => {
      const seed = Number(process.env.LOAD_SEED ?? Date.now() % 1_000_000)
      const ledger = new Ledger()
      const env = { GC_GRACE: `${graceMs / 1000}s`, BLOB_REDIRECT: 'false', LOG_LEVEL: 'warn' }
      const replicas = await startReplicas({ apis: 2, workers: 2, store, env })
      try {
        await underLoad(replicas, ledger, chanceOf(seed))
        const balancer = openBalancer(replicas.apis.map(({ url }) => url))
        await verifyAll(balancer, ledger)
        await collectAll(replicas, ledger)
        await verifyAll(balancer, ledger)
        const told = Object.entries(ledger.counts).map(([what, count]) => `${what} ${count}`)
        console.log(`seed ${seed}: ${told.join(', ')}`)
      } catch (error) {
        const { message } = error as Error
        const digests = message.match(/sha256:[0-9a-f]{64}/g) ?? []
        throw new Error(`LOAD_SEED=${seed}: ${message}\n${ledger.history(...new Set(digests))}`, { cause: error })
      } finally {
        await replicas.stop()
      }
    })
  })
}

/** Clients, collectors and killings, until enough has happened. */
async function underLoad(replicas: Replicas, ledger: Ledger, chance: Chance): Promise<void> {
  const started = Date.now()
  const killed = new Map<Replica, number>()
  let failed = false
  const acknowledged = () => (ledger.counts.put ?? 0) + (ledger.counts.delete ?? 0) + (ledger.counts.blob ?? 0)
  const all = [...replicas.apis, ...replicas.workers]
  const isOver = () => {
    const kills = [...killed.values()].reduce((sum, count) => sum + count, 0)
    const everyoneDied = all.every((replica) => killed.has(replica))
    if (failed || (everyoneDied && Date.now() - started > longestMs)) return true
    return everyoneDied && kills >= enough.kills && acknowledged() >= enough.acknowledged
  }
  const load: Load = {
    ...{ ledger, chance, graceMs, isOver },
    urls: replicas.apis.map(({ url }) => url),
    contents: Array.from({ length: 40 }, (_, n) => chance.bytes(n === 0 ? 1024 * 1024 : 20 + chance.below(120_000))),
    repositories: ['load/a', 'load/b', 'load/c', 'load/d/e'],
  }
  const clients = Array.from({ length: clientCount }, (_, n) => openClient(load, n))
  const watched = async (doing: Promise<void>) => {
    await doing.catch((error) => {
      failed = true
      throw error
    })
  }
  const ends = await Promise.allSettled([
    ...clients.map((client: Client) => watched(work(client))),
    watched(keepCollecting(replicas, ledger, isOver)),
    watched(keepKilling(all, killed, ledger, chance.branch('killer'), isOver)),
  ])
  for (const replica of all) if (!replica.server) await replica.start()
  for (const end of ends) if (end.status === 'rejected') throw end.reason
}

/** Has the workers collect all the time, not only every few minutes; and now and then a process that does nothing else. */
async function keepCollecting(replicas: Replicas, ledger: Ledger, isOver: () => boolean): Promise<void> {
  const balancer = openBalancer(replicas.apis.map(({ url }) => url))
  const headers = { 'content-type': 'application/json' }
  for (let n = 0; !isOver(); n++) {
    const answer = await balancer.ask('POST', '/jobs', { headers, body: JSON.stringify({ name: 'gc' }) })
    expectStatus(answer, [200, 202], 'POST /jobs')
    ledger.note('collector', 'pass: by a worker')
    if (n % 20 === 10) {
      await gc(replicas)
      ledger.note('collector', 'pass: packs gc')
    }
    await sleep(250)
  }
}

/** `packs gc`, a process of its own. */
async function gc({ env }: Replicas): Promise<string> {
  const { PATH, HOME } = process.env
  const { stdout } = await run(process.execPath, ['--import', 'tsx', 'src/main.ts', 'gc'], {
    env: { PATH, HOME, ...env },
  })
  return stdout
}

/** Kills one process after the other, and starts it again. */
async function keepKilling(
  all: readonly Replica[],
  killed: Map<Replica, number>,
  ledger: Ledger,
  chance: Chance,
  isOver: () => boolean,
): Promise<void> {
  for (let n = 0; !isOver(); n++) {
    await sleep(chance.below(1500))
    // Each in its turn at first, so that each is killed.
    const replica = all[n < all.length ? n : chance.below(all.length)]
    if (!replica) continue
    await replica.kill()
    ledger.note('killer', `kill: ${replica.name}`)
    await sleep(chance.below(500))
    await replica.start()
    killed.set(replica, (killed.get(replica) ?? 0) + 1)
  }
}

/** The registry is as the ledger says. */
async function verifyAll(balancer: Balancer, ledger: Ledger): Promise<void> {
  assert.ok(ledger.manifests.some(({ state }) => state === 'there'))
  assert.ok(ledger.manifests.some(({ state }) => state === 'deleted'))
  for (const entry of ledger.manifests) {
    assert.notEqual(entry.state, 'unsure', `${entry.digest}: its owner went on before it was sure`)
    if (entry.state === 'there') await verify(balancer, entry)
    else {
      const answer = await balancer.ask('GET', `/v2/${entry.repository}/manifests/${entry.digest}`)
      expectStatus(answer, [404], `GET ${entry.repository}@${entry.digest}, which was deleted`)
    }
  }
  for (const [place, digest] of ledger.tags) {
    const [repository, tag] = place.split(':')
    const answer = await balancer.ask('GET', `/v2/${repository}/manifests/${tag}`)
    expectStatus(answer, [digest === 'gone' ? 404 : 200], `GET ${place}, which names ${digest}`)
    if (digest !== 'gone') assert.equal(sha256(answer.body), digest, place)
  }
  for (const [version, { content, state }] of ledger.versions) {
    const answer = await balancer.ask('GET', `/packs/${version}`)
    expectStatus(answer, state === 'there' ? [200] : [404, 410], `GET /packs/${version} (${content}), ${state}`)
    if (state === 'there') assert.equal(sha256(answer.body), content, version)
  }
}

/** Nobody comes any more: when the grace is over and all is collected, there is what manifests need, and nothing else. */
async function collectAll(replicas: Replicas, ledger: Ledger): Promise<void> {
  const last = await waitFor(
    'nothing to be left to collect',
    async () => {
      await gc(replicas)
      const found = await findLeftovers(replicas)
      if (found.rows.length > 0) throw new Error(`left: ${found.rows.slice(0, 20).join('; ')}`)
      return found
    },
    { everyMs: 500 },
  ).catch((error: Error) => {
    throw new Error(`${error.message}: ${(error.cause as Error)?.message}`, { cause: error })
  })
  // Where a process dies between an object and its row, the object stays until reconciling finds it. Of every object that
  // no row names, a client must have seen its push cut off.
  const staged = last.objects.filter((key) => key.startsWith('uploads/'))
  const unexplained = last.objects.filter((key) => {
    const [, digest] = /^blobs\/sha256\/..\/([0-9a-f]{64})\./.exec(key) ?? []
    return digest ? !ledger.interrupted.has(`sha256:${digest}`) : !key.startsWith('uploads/')
  })
  const digests = unexplained.map((key) => key.replace(/^blobs\/sha256\/..\/([0-9a-f]{64}).*/, 'sha256:$1'))
  // A version is two blobs.
  assert.ok(digests.length <= 2 * ledger.cutOffPublishing, `objects without a row: ${digests.join(' ')}`)
  if (ledger.interrupted.size === 0) assert.deepEqual(staged, [])
  ledger.counts['objects that crashes left'] = last.objects.length
}
