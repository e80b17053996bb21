import assert from 'node:assert/strict'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { after, afterEach, before, it } from 'node:test'
import type { Digest } from '../oci/digest.ts'
import { digestOf } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import { openRemote, type RemoteOptions } from '../remote/remote.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { emptyConfig, imageType, indexType, sampleManifest, startRegistry } from '../testing/registry.ts'
import { pullSelected } from './mirror-pull.ts'
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

type Json = Record<string, unknown>
type Fake = {
  url: string
  asked: string[]
  slow: Set<string>
  objects: Map<string, string>
  lists: Map<string, Json[]>
}

/** Another registry: manifests and blobs by digest or `<pack>:<tag>`, and whatever it likes to list as referrers. */
async function fakeRegistry(answer?: (path: string) => string | undefined): Promise<Fake> {
  const objects = new Map([[emptyConfig.digest as string, '{}']])
  const fake: Fake = { url: '', asked: [], slow: new Set(), objects, lists: new Map() }
  const bodyOf = (path: string): string | undefined => {
    const [, packId = '', kind = '', reference = ''] = /^\/v2\/packs\/([^/]+)\/(\w+)\/([^?]+)/.exec(path) ?? []
    if (kind === 'referrers') return JSON.stringify({ manifests: fake.lists.get(reference) ?? [] })
    if (kind !== 'tags') return fake.objects.get(reference) ?? fake.objects.get(`${packId}:${reference}`)
    const tags = [...fake.objects.keys()].filter((key) => key.startsWith(`${packId}:`))
    return JSON.stringify({ tags: tags.map((key) => key.slice(packId.length + 1)) })
  }
  const server = http.createServer(({ url = '' }, response) => {
    fake.asked.push(url)
    const body = answer?.(url) ?? bodyOf(url)
    if ([...fake.slow].some((reference) => url.endsWith(reference))) {
      response.writeHead(200, { 'content-type': imageType, 'content-length': 1_000_000 })
      const drip = setInterval(() => response.write(' '), 50)
      response.on('close', () => clearInterval(drip))
      return
    }
    const type = url.includes('/manifests/') && body ? (JSON.parse(body).mediaType as string) : 'application/json'
    response.writeHead(body === undefined ? 404 : 200, { 'content-type': type }).end(body)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  fake.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  ends.push(() => {
    server.closeAllConnections()
    server.close()
  })
  return fake
}

/** Puts a manifest there and answers its descriptor. */
function put({ objects }: Fake, manifest: object, ...names: string[]) {
  const text = JSON.stringify(manifest)
  const digest = digestOf(Buffer.from(text))
  for (const name of [digest, ...names]) objects.set(name, text)
  const { mediaType = imageType } = manifest as { mediaType?: string }
  return { mediaType, digest, size: text.length }
}

function packOf(fake: Fake, annotations: Json = {}) {
  const content = 'content'
  fake.objects.set(digestOf(Buffer.from(content)), content)
  const layer = { mediaType: 'application/gzip', digest: digestOf(Buffer.from(content)), size: content.length }
  const titled = { ...layer, annotations: { 'org.opencontainers.image.title': 'content.tgz' } }
  const artifactType = 'application/vnd.stellaops.pack.policy.v1'
  return sampleManifest({ artifactType, layers: [titled], annotations: { ...annotations } })
}

const limits = { mostDeep: 3, mostReferrers: 5, mostDependencies: 4 }

async function pull(
  fake: Fake,
  selection: Partial<Mirroring['selection']> = {},
  over = {},
  options: Partial<RemoteOptions> = {},
): Promise<ParityReport> {
  const registry = await startRegistry(await databases.fresh())
  ends.push(() => registry.stop())
  const remote = openRemote({ url: fake.url, allowPrivate: true, attempts: 1, ...options })
  ends.push(() => remote.close())
  const report = openReport()
  const run: Mirroring = {
    ...{ deps: registry.deps, remote, prefix: 'packs' as RepositoryName, dryRun: false, concurrency: 1, report },
    ...{ places: new Map(), sessions: new Map(), signal: new AbortController().signal },
    selection: { packs: ['app'], closure: false, referrers: true, ...selection },
    note: () => undefined,
    keepSessions: async () => undefined,
  }
  await pullSelected(run, { ...limits, ...over })
  return report.close(false)
}

const told = ({ entries }: ParityReport) =>
  entries.map(({ kind, reference, state }) => `${kind} ${reference.slice(0, 17)} ${state}`)
const short = ({ digest }: { digest: Digest }) => digest.slice(0, 17)

it('takes what refers to a version once, however often it is listed, and only under what it says itself', async () => {
  const fake = await fakeRegistry()
  const version = put(fake, packOf(fake), 'app:1.0.0')
  const sbom = put(fake, sampleManifest({ subject: version, artifactType: 'a/sbom' }))
  const signature = put(fake, sampleManifest({ subject: sbom, artifactType: 'a/signature' }))
  const stray = put(fake, sampleManifest({ artifactType: 'a/stray' }))
  // Each of them claims everything, itself too.
  for (const subject of [version, sbom, signature, stray])
    fake.lists.set(subject.digest, [signature, sbom, sbom, signature, stray])
  const report = await pull(fake, {}, { mostReferrers: 50 })
  assert.deepEqual(
    new Set(told(report)),
    new Set([
      'version 1.0.0 same',
      `referrer ${short(sbom)} same`,
      `referrer ${short(signature)} same`,
      `referrer ${short(signature)} refused`,
      `referrer ${short(stray)} refused`,
    ]),
  )
  const detail = report.entries.find(({ digest }) => digest === stray.digest)?.detail
  assert.match(String(detail), /it is listed there under sha256:\w+, and refers to nothing/)
})

it('gives up what comes byte by byte, says so, and goes on with the next', async () => {
  const fake = await fakeRegistry()
  const version = put(fake, packOf(fake), 'app:1.0.0')
  const slow = put(fake, sampleManifest({ subject: version, i: 1 }))
  const quick = put(fake, sampleManifest({ subject: version, i: 2 }))
  fake.lists.set(version.digest, [slow, quick])
  fake.slow.add(slow.digest)
  // Twice as much as drips; an answer in one piece is enough for seconds.
  const report = await pull(fake, {}, {}, { slowest: { bytesPerSecond: 40, waitedMs: 2500 } })
  const detail = report.entries.find(({ digest }) => digest === slow.digest)
  assert.equal(detail?.state, 'refused')
  assert.match(String(detail?.detail), /too slowly: less than 40 bytes a second/)
  assert.equal(report.entries.find(({ digest }) => digest === quick.digest)?.state, 'same')
})

it('leaves referrers that are too many or too deep, and says so', async () => {
  const many = await fakeRegistry()
  const version = put(many, packOf(many), 'app:1.0.0')
  const referrers = Array.from({ length: 9 }, (_, i) => put(many, sampleManifest({ subject: version, i })))
  many.lists.set(version.digest, referrers)
  const first = await pull(many)
  assert.equal(first.entries.filter(({ kind }) => kind === 'referrer').length, limits.mostReferrers)
  assert.match(first.problems.join(), /what refers to sha256:\w+ of app there is more than 5 for one version/)

  const deep = await fakeRegistry()
  let subject = put(deep, packOf(deep), 'app:1.0.0')
  for (let i = 0; i < 9; i++) {
    const referrer = put(deep, sampleManifest({ subject, i }))
    deep.lists.set(subject.digest, [referrer])
    subject = referrer
  }
  const second = await pull(deep)
  assert.equal(second.entries.filter(({ state }) => state === 'same').length, 1 + limits.mostDeep + 1)
  assert.match(second.problems.join(), /there goes deeper than 3/)
})

it('takes no index in which indexes go on and on', async () => {
  const fake = await fakeRegistry()
  let member = put(fake, sampleManifest())
  for (let i = 0; i < 12; i++)
    member = put(fake, { schemaVersion: 2, mediaType: indexType, manifests: [member], annotations: { i: `${i}` } })
  const version = put(fake, packOf(fake), 'app:1.0.0')
  const index = { schemaVersion: 2, mediaType: indexType, manifests: [member], subject: version }
  fake.lists.set(version.digest, [put(fake, index)])
  const refused = (await pull(fake)).entries.filter(({ state }) => state === 'refused')
  assert.equal(refused.length, 1)
  assert.match(String(refused[0]?.detail), /is too large: no more than 50000 members are taken, in indexes 8 deep/)
})

it('follows no dependencies without end, and asks for each once', async () => {
  let made: Fake | undefined
  const fake = await fakeRegistry((path) => {
    const [, n = '0', rest = ''] = /^\/v2\/packs\/endless-(\d+)\/(.+)$/.exec(path) ?? []
    if (rest.startsWith('tags/')) return JSON.stringify({ tags: ['1.0.0'] })
    const dependencies = `["endless-${Number(n) + 1}@^1.0.0"]`
    if (rest === 'manifests/1.0.0' && made)
      return JSON.stringify(packOf(made, { 'vnd.stellaops.pack.dependencies': dependencies }))
    return undefined
  })
  made = fake
  const needs = { 'vnd.stellaops.pack.dependencies': '["endless-1@^1.0.0"]' }
  for (const version of ['1.0.0', '1.1.0']) put(fake, packOf(fake, { ...needs, version }), `app:${version}`)
  const report = await pull(fake, { closure: true })
  const versions = report.entries.map(({ packId, reference, state }) => `${packId} ${reference} ${state}`)
  assert.deepEqual(versions, [
    ...['app 1.0.0 same', 'app 1.1.0 same'],
    ...[1, 2, 3, 4].map((n) => `endless-${n} 1.0.0 same`),
  ])
  assert.match(report.problems.join(), /more than 4 dependencies follow from what is selected/)
  assert.equal(fake.asked.filter((path) => path.includes('endless-1/tags')).length, 1)
})
