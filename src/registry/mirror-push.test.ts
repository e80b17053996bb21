import assert from 'node:assert/strict'
import { after, afterEach, before, it } from 'node:test'
import type { Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import { openRemote } from '../remote/remote.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { publish } from '../testing/packs.ts'
import { type Descriptor, sampleManifest, startRegistry, type TestRegistry } from '../testing/registry.ts'
import { pushSelected } from './mirror-push.ts'
import type { Mirroring } from './mirroring.ts'
import { openReport, type ParityReport } from './parity.ts'

let databases: TestDatabases
before(async () => {
  databases = await startDatabases()
})
after(() => databases?.stop())

const ends: (() => unknown)[] = []
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end()
})

async function site(): Promise<TestRegistry> {
  const registry = await startRegistry(await databases.fresh())
  ends.push(() => registry.stop())
  return registry
}

const limits = { mostDeep: 3, mostReferrers: 5 }

async function push(from: TestRegistry, to: TestRegistry): Promise<ParityReport> {
  const remote = openRemote({ url: to.url, allowPrivate: true, attempts: 1 })
  ends.push(() => remote.close())
  const report = openReport()
  const run: Mirroring = {
    ...{ deps: from.deps, remote, prefix: 'packs' as RepositoryName, dryRun: false, concurrency: 1, report },
    ...{ places: new Map(), sessions: new Map(), signal: new AbortController().signal },
    selection: { packs: ['app'], closure: false, referrers: true },
    note: () => undefined,
    keepSessions: async () => undefined,
  }
  await pushSelected(run, limits)
  return report.close(false)
}

/** A version of the pack `app`, as a subject. */
async function published(registry: TestRegistry): Promise<Descriptor> {
  const { status, body } = await publish(registry, { packId: 'app', version: '1.0.0' }, 'content')
  assert.equal(status, 201)
  const digest = String(body.manifestDigest) as Digest
  const { headers } = await registry.call('GET', `/v2/packs/app/manifests/${digest}`)
  return { mediaType: String(headers.get('content-type')), digest, size: Number(headers.get('content-length')) }
}

async function refer(registry: TestRegistry, subject: Descriptor, i: number): Promise<Descriptor> {
  return registry.pushManifest('packs/app', `r${i}`, sampleManifest({ subject, annotations: { i: `${i}` } }))
}

const sent = ({ entries }: ParityReport) =>
  entries.filter(({ kind, state }) => kind === 'referrer' && state === 'same').length

it('pushes no more referrers than a pull takes, nor deeper ones, and says so', async () => {
  const many = await site()
  const version = await published(many)
  for (let i = 0; i < 9; i++) await refer(many, version, i)
  const first = await push(many, await site())
  assert.equal(sent(first), limits.mostReferrers)
  assert.match(first.problems.join(), /what refers to sha256:\w+ of app here is more than 5 for one version/)

  const deep = await site()
  let subject = await published(deep)
  for (let i = 0; i < 9; i++) subject = await refer(deep, subject, i)
  const second = await push(deep, await site())
  assert.equal(sent(second), limits.mostDeep + 1)
  assert.match(second.problems.join(), /of app here goes deeper than 3: the rest was left/)
})

it('says nothing of bounds where all fits', async () => {
  const here = await site()
  let subject = await published(here)
  for (let i = 0; i <= limits.mostDeep; i++) subject = await refer(here, subject, i)
  const report = await push(here, await site())
  assert.equal(sent(report), limits.mostDeep + 1)
  assert.deepEqual(report.problems, [])
})
