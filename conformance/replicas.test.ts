// Many replicas over one PostgreSQL and one S3, while each process, the database and the store are killed, frozen and
// restarted in turn: what was acknowledged is seen at once through every other replica and never lost, and clients meet
// nothing but 503 with Retry-After, and connections that a killed process has dropped.
import assert from 'node:assert/strict'
import { execFile, execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { promisify } from 'node:util'
import { type Replica, type Replicas, startReplicas } from '../scripts/services/replicas.ts'
import { waitFor } from '../src/testing/wait.ts'
import { openBalancer } from './gc/balancer.ts'
import { chanceOf } from './gc/chance.ts'
import { type Entry, Ledger } from './gc/ledger.ts'
import { type Client, expectStatus, type Load, openClient, store, verify } from './gc/load.ts'
import { call, imageManifest, manifestOf, sha256 } from './registry-client.ts'

const run = promisify(execFile)
const bin = execFileSync('bash', [join(import.meta.dirname, '../scripts/services/clients.sh')])
  .toString()
  .trim()
const writers = 4
/** As much as each client has acknowledged before, during and after a fault. */
const pushes = 3

describe('three replicas and two workers', () => {
  let replicas: Replicas
  let folder: string
  const ledger = new Ledger()
  const clients: Client[] = []
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'packs-registry-oras-'))
    replicas = await startReplicas({ apis: 3, workers: 2, store: 's3', env: { BLOB_REDIRECT: 'false' } })
    const chance = chanceOf(Date.now() % 1_000_000)
    const load: Load = {
      ...{ ledger, chance, graceMs: 1000, isOver: () => false },
      urls: replicas.apis.map(({ url }) => url),
      contents: Array.from({ length: 10 }, () => chance.bytes(50 + chance.below(100_000))),
      repositories: ['replicas/a', 'replicas/b'],
    }
    for (let n = 0; n < writers; n++) clients.push(openClient(load, n))
  })
  after(async () => {
    await replicas?.stop()
    rmSync(folder, { recursive: true, force: true })
  })

  const replicaNamed = (name: string): Replica =>
    [...replicas.apis, ...replicas.workers].find((one) => one.name === name) ?? assert.fail(name)
  const restarted = (name: string) => ({
    begin: () => replicaNamed(name).kill(),
    end: () => replicaNamed(name).start(),
  })
  /** `felt`: clients have to run into it before it ends. */
  const faults: { what: string; felt: boolean; begin(): Promise<void> | void; end(): Promise<void> | void }[] = [
    { what: 'api 1 is killed and started again', felt: true, ...restarted('api 1') },
    { what: 'api 2 is killed and started again', felt: true, ...restarted('api 2') },
    { what: 'api 3 is killed and started again', felt: true, ...restarted('api 3') },
    { what: 'worker 1 is killed and started again', felt: false, ...restarted('worker 1') },
    { what: 'worker 2 is killed and started again', felt: false, ...restarted('worker 2') },
    {
      what: 'PostgreSQL is restarted',
      felt: true,
      begin: () => replicas.postgres.down(),
      end: () => replicas.postgres.up(),
    },
    {
      what: 'PostgreSQL hangs',
      felt: true,
      begin: () => replicas.postgres.freeze(),
      end: () => replicas.postgres.thaw(),
    },
    { what: 'S3 hangs', felt: true, begin: async () => replicas.s3?.freeze(), end: async () => replicas.s3?.thaw() },
    {
      what: 'S3 is killed and started again',
      felt: false,
      begin: async () => replicas.s3?.restart(),
      end: () => undefined,
    },
  ]
  for (const [n, { what, felt, begin, end }] of faults.entries()) {
    it(`${what}: what is acknowledged is seen everywhere, and stays`, async () => {
      let isOver = false
      const atFirst = answers(clients, isAnswer)
      const fault = async () => {
        await waitFor('clients to be at work', () => answers(clients, isAnswer) > atFirst)
        const [answered, refused] = [answers(clients, isAnswer), answers(clients, isRefusal)]
        try {
          await begin()
          await waitFor(felt ? 'clients to run into it' : 'clients to go on', () =>
            felt ? answers(clients, isRefusal) > refused : answers(clients, isAnswer) > answered,
          )
        } finally {
          await end()
        }
      }
      const ends = await Promise.allSettled([
        fault().finally(() => {
          isOver = true
        }),
        ...clients.map((client) => keepPushing(client, () => isOver)),
        orasRoundTrip(replicas, folder, n),
      ])
      for (const one of ends) if (one.status === 'rejected') throw one.reason
      for (const entry of ledger.manifests) await verify(openBalancer(replicas.apis.map(({ url }) => url)), entry)
    })
  }

  it('at the end every replica has all of it', async () => {
    assert.ok(ledger.manifests.length >= faults.length * writers * pushes)
    for (const { url } of replicas.apis) {
      const balancer = openBalancer([url])
      for (const entry of ledger.manifests) await verify(balancer, entry)
      for (const [place, digest] of ledger.tags) {
        const [repository, tag] = place.split(':')
        const answer = await balancer.ask('GET', `/v2/${repository}/manifests/${tag}`)
        expectStatus(answer, [200], `GET ${place} from ${url}`)
        assert.equal(sha256(answer.body), digest)
      }
    }
  })
})

const isAnswer = (met: string) => /^[234]/.test(met)
const isRefusal = (met: string) => !isAnswer(met)

/** How many of the answers that clients have had were of a kind. */
function answers(clients: readonly Client[], isOfKind: (met: string) => boolean): number {
  const met = clients.flatMap(({ balancer }) => [...balancer.met])
  return met.reduce((sum, [what, count]) => sum + (isOfKind(what) ? count : 0), 0)
}

/** Pushes and reads back through the other replicas until `isOver`, and a number of times in any case. */
async function keepPushing(client: Client, isOver: () => boolean): Promise<void> {
  const { load, chance, name } = client
  for (let n = 0; n < pushes || !isOver(); n++) {
    const repository = chance.pick(load.repositories)
    const contents = [
      Buffer.from(JSON.stringify({ by: name, salt: chance.below(2 ** 32) })),
      chance.pick(load.contents),
    ]
    const [config, layer] = contents as [Buffer, Buffer]
    const bytes = manifestOf(config, [layer])
    const blobs = [...new Set(contents.map(sha256))]
    const entry: Entry = { repository, digest: sha256(bytes), bytes, blobs, contents, state: 'unsure' }
    // One tag, moved each time: what any replica answers for it can only become newer.
    const tag = name.replace(' ', '-')
    await store(client, entry, tag)
    load.ledger.manifests.push(entry)
    for (const url of load.urls) await readYourWrites(url, entry, tag)
  }
}

/** Through one replica: what it answers is what was acknowledged last, whatever it has answered before. */
async function readYourWrites(url: string, { repository, digest }: Entry, tag: string): Promise<void> {
  for (const reference of [tag, digest]) {
    const answer = await call('GET', `${url}/v2/${repository}/manifests/${reference}`, {
      headers: { accept: imageManifest },
    }).catch(() => undefined)
    // A replica that is down, or cannot ask, says so: it says nothing that is not so.
    if (answer === undefined || answer.status === 503) continue
    assert.equal(answer.status, 200, `${repository}:${reference} was acknowledged; ${url} answers ${answer.status}`)
    assert.equal(sha256(answer.body), digest, `${url} answers for ${reference} what it was before`)
  }
}

/** A real client pushes through one replica and pulls from the next; it comes back as a script would. */
async function orasRoundTrip(replicas: Replicas, folder: string, n: number): Promise<void> {
  const oras = (args: string[], cwd: string) => run(join(bin, 'oras'), args, { cwd })
  const host = (turn: number) => new URL(replicas.apis[turn % replicas.apis.length]?.url ?? '').host
  const [from, into] = [mkdtempSync(join(folder, 'from-')), mkdtempSync(join(folder, 'into-'))]
  const content = `round ${n}, ${Math.random()}`
  writeFileSync(join(from, 'file.txt'), content)
  let turn = n
  await waitFor('oras push', () => oras(['push', '--plain-http', `${host(turn++)}/oras/sample:${n}`, 'file.txt'], from))
  await waitFor('oras pull', () => oras(['pull', '--plain-http', `${host(turn++)}/oras/sample:${n}`, '-o', into], into))
  assert.equal(readFileSync(join(into, 'file.txt'), 'utf8'), content)
}
