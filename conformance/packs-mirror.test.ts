// Mirrors between real registries: to Debian's docker-registry, which knows nothing of packs nor of referrers, and from it
// and from another instance of this one.
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { freePort, waitFor } from '../scripts/services/processes.ts'
import { call, imageManifest, sha256 } from './registry-client.ts'
import { type Server, startServer, temporaryFolder } from './server.ts'

type Json = Record<string, unknown>
type Entry = { kind: string; packId: string; reference: string; digest: string; state: string; detail?: string }
type Parity = {
  clean: boolean
  dryRun: boolean
  counts: Record<string, number>
  moved: { manifests: number; blobs: number; mounted: number; bytes: number; requests: number }
  problems: string[]
  entries: Entry[]
}
type Plain = { url: string; requests(): string[]; stop(): Promise<void> }

/** Debian's docker-registry, with what mirrors asked of it by its access log. */
async function startPlain(): Promise<Plain> {
  const folder = temporaryFolder()
  const port = await freePort()
  mkdirSync(join(folder, 'data'))
  const lines = [
    'version: 0.1',
    'log: { level: error }',
    `storage: { filesystem: { rootdirectory: ${JSON.stringify(join(folder, 'data'))} } }`,
    `http: { addr: "127.0.0.1:${port}" }`,
  ]
  writeFileSync(join(folder, 'config.yml'), `${lines.join('\n')}\n`)
  const child: ChildProcess = spawn('docker-registry', ['serve', join(folder, 'config.yml')], {
    stdio: ['ignore', 'pipe', 'ignore'],
    env: { PATH: `${process.env.PATH}:/usr/bin`, OTEL_TRACES_EXPORTER: 'none' },
  })
  let log = ''
  child.stdout?.on('data', (piece: Buffer) => {
    log += piece
  })
  const kill = () => void child.kill('SIGKILL')
  process.on('exit', kill)
  const url = `http://127.0.0.1:${port}`
  await waitFor('docker-registry to answer', async () => {
    assert.equal(child.exitCode, null, 'docker-registry ended')
    return (await call('GET', `${url}/v2/`).catch(() => undefined))?.status === 200
  })
  return {
    url,
    requests: () => [...log.matchAll(/"([A-Z]+ \S+) HTTP.*packs-registry/g)].map(([, line = '']) => line),
    async stop() {
      kill()
      await once(child, 'exit')
      process.off('exit', kill)
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

async function json(server: Server, method: string, path: string, body?: unknown): Promise<[number, Json]> {
  const answer = await call(method, server.url + path, {
    headers: { 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  return [answer.status, JSON.parse(answer.body.toString()) as Json]
}

async function publish(server: Server, document: Json, content: Buffer): Promise<string> {
  const form = new FormData()
  form.append('manifest', new Blob([JSON.stringify({ type: 'policy', version: '1.0.0', ...document })]), 'pack.json')
  form.append('content', new Blob([new Uint8Array(content)]), 'content.tgz')
  const answer = await fetch(`${server.url}/packs`, { method: 'POST', body: form })
  const text = await answer.text()
  assert.equal(answer.status, 201, text)
  return (JSON.parse(text) as { manifestDigest: string }).manifestDigest
}

/** A signature over a manifest, as an artifact that refers to it. */
async function sign(server: Server, packId: string, subject: string): Promise<string> {
  const repository = `${server.url}/v2/packs/${packId}`
  const payload = Buffer.from(`signature of ${subject}`)
  for (const bytes of [payload, Buffer.from('{}')]) {
    const upload = await call('POST', `${repository}/blobs/uploads/?digest=${sha256(bytes)}`, { body: bytes })
    assert.equal(upload.status, 201)
  }
  const size = (await call('GET', `${repository}/manifests/${subject}`)).body.length
  const descriptor = (mediaType: string, bytes: Buffer) => ({ mediaType, digest: sha256(bytes), size: bytes.length })
  const body = JSON.stringify({
    ...{ schemaVersion: 2, mediaType: imageManifest, artifactType: 'application/vnd.example.signature' },
    config: descriptor('application/vnd.oci.empty.v1+json', Buffer.from('{}')),
    layers: [descriptor('application/octet-stream', payload)],
    subject: { mediaType: imageManifest, digest: subject, size },
  })
  const digest = sha256(body)
  const put = await call('PUT', `${repository}/manifests/${digest}`, {
    body,
    headers: { 'content-type': imageManifest },
  })
  assert.equal(put.status, 201, put.body.toString())
  return digest
}

/** Runs a mirror to its end, and answers what it found. */
async function runMirror(server: Server, name: string, query = ''): Promise<Parity> {
  const [status, { run }] = await json(server, 'POST', `/mirrors/${name}/run${query}`)
  assert.equal(status, 202)
  const { id } = run as { id: string }
  const ended = await waitFor(
    `mirror ${name} to end`,
    async () => {
      const [, { runs }] = await json(server, 'GET', `/mirrors/${name}/runs`)
      const found = (runs as { id: string; state: string; error?: string }[]).find((one) => one.id === id)
      assert.ok(!found?.error, found?.error)
      return found?.state === 'completed' ? found : undefined
    },
    { timeoutMs: 60_000 },
  )
  assert.ok(ended)
  const [, { parity, run: last }] = await json(server, 'GET', `/mirrors/${name}/parity`)
  assert.equal(last, id)
  return parity as Parity
}

describe('mirrors between registries', () => {
  let home: Server
  let away: Server
  let plain: Plain
  const digests: Record<string, string> = {}
  let signature = ''

  before(async () => {
    ;[home, away, plain] = await Promise.all([startServer(), startServer(), startPlain()])
    digests.base = await publish(home, { packId: 'base', name: 'Base' }, randomBytes(40_000_000))
    digests.tool = await publish(
      home,
      { packId: 'tool', dependencies: ['base@^1.0.0'], name: 'Tool' },
      randomBytes(5000),
    )
    digests.next = await publish(home, { packId: 'tool', version: '2.0.0+b.1', name: 'Tool' }, randomBytes(5000))
    await publish(home, { packId: 'other', name: 'Other' }, randomBytes(100))
    await publish(home, { packId: 'kit', name: 'Kit', type: 'bundle', dependencies: ['tool@^1.0.0'] }, randomBytes(10))
    await json(home, 'PUT', '/packs/tool/channels/stable', { version: '1.0.0' })
    signature = await sign(home, 'tool', digests.tool)
  })
  after(async () => {
    await Promise.all([home?.stop(), away?.stop(), plain?.stop()])
  })

  it('pushes what is selected with closure, channels and signatures, and the second time nothing', async () => {
    const [status, { mirror }] = await json(home, 'POST', '/mirrors', {
      ...{ name: 'out', direction: 'push', url: plain.url, prefix: 'site/packs' },
      selection: { packs: ['to*'], closure: true },
      credentials: { username: 'u', password: 'secret-word' },
      options: { allowPrivate: true },
    })
    assert.equal(status, 201, JSON.stringify(mirror))
    assert.doesNotMatch(JSON.stringify(mirror), /secret-word/)

    const plan = await runMirror(home, 'out', '?dryRun=true')
    assert.deepEqual([plan.clean, plan.dryRun, plan.counts.same, plan.moved.manifests], [false, true, 0, 0])
    assert.equal(plain.requests().filter((line) => !/^(?:GET|HEAD)/.test(line)).length, 0)

    const first = await runMirror(home, 'out')
    assert.ok(first.clean, JSON.stringify(first))
    const seen = first.entries.map(({ kind, packId, reference, digest }) => `${kind} ${packId} ${reference} ${digest}`)
    assert.deepEqual(seen, [
      `version base 1.0.0 ${digests.base}`,
      `channel tool latest ${digests.next}`,
      `channel tool stable ${digests.tool}`,
      `referrer tool ${signature} ${signature}`,
      `version tool 1.0.0 ${digests.tool}`,
      `version tool 2.0.0+b.1 ${digests.next}`,
    ])
    for (const [reference, digest] of [
      ...[
        ['1.0.0', digests.tool],
        ['2.0.0_b.1', digests.next],
      ],
      ...[
        ['stable', digests.tool],
        ['latest', digests.next],
        [signature, signature],
      ],
    ]) {
      const answer = await call('GET', `${plain.url}/v2/site/packs/tool/manifests/${reference}`, {
        headers: { accept: imageManifest },
      })
      assert.deepEqual([answer.status, sha256(answer.body)], [200, digest], reference)
    }
    const fallback = await call('GET', `${plain.url}/v2/site/packs/tool/manifests/${digests.tool?.replace(':', '-')}`, {
      headers: { accept: 'application/vnd.oci.image.index.v1+json' },
    })
    const listed = JSON.parse(fallback.body.toString()).manifests as Json[]
    assert.deepEqual([listed.length, listed[0]?.digest], [1, signature])

    const before = plan.moved.requests + first.moved.requests
    const second = await runMirror(home, 'out')
    // The access log comes a moment later than the answers.
    const asked = await waitFor('the log of every request', () => {
      const lines = plain.requests()
      return lines.length >= before + second.moved.requests ? lines.slice(before) : undefined
    })
    assert.deepEqual([second.clean, second.moved.manifests, second.moved.blobs, second.moved.bytes], [true, 0, 0, 0])
    assert.deepEqual(
      asked.filter((line) => !/^(?:GET|HEAD)/.test(line)),
      [],
    )
    assert.equal(asked.length, second.moved.requests)
  })

  it('pulls from it into another site: equal digests, and the second time nothing', async () => {
    await json(away, 'POST', '/mirrors', {
      ...{ name: 'in', direction: 'pull', url: plain.url, prefix: 'site/packs' },
      selection: { packs: ['tool'], closure: true },
      options: { allowPrivate: true },
    })
    const first = await runMirror(away, 'in')
    assert.ok(first.clean, JSON.stringify(first))
    for (const [packId, version, digest] of [
      ...[
        ['base', '1.0.0', digests.base],
        ['tool', '1.0.0', digests.tool],
        ['tool', '2.0.0+b.1', digests.next],
      ],
    ]) {
      const [, { pack }] = await json(away, 'GET', `/packs/${packId}/${encodeURIComponent(version ?? '')}/manifest`)
      assert.equal((pack as Json | undefined)?.manifestDigest, digest, packId)
      const content = await call('GET', `${away.url}/packs/${packId}/${encodeURIComponent(version ?? '')}`)
      assert.equal(sha256(content.body), (pack as Json).digest)
    }
    const [, { referrers }] = await json(away, 'GET', '/packs/tool/1.0.0/referrers')
    assert.deepEqual(
      (referrers as Json[]).map(({ digest }) => digest),
      [signature],
    )
    const [, { versions }] = await json(away, 'GET', '/packs/tool/versions')
    assert.deepEqual(
      (versions as { channels?: string[] }[]).map(({ channels }) => channels),
      [['latest'], ['stable']],
    )

    const before = plain.requests().length
    const second = await runMirror(away, 'in')
    assert.deepEqual([second.clean, second.moved.manifests, second.moved.blobs], [true, 0, 0])
    assert.deepEqual(
      plain
        .requests()
        .slice(before)
        .filter((line) => /blobs\/sha256/.test(line) && line.startsWith('GET')).length,
      0,
    )
  })

  it('pushes to another instance of this registry, dependencies first, whose rules hold', async () => {
    await json(home, 'POST', '/mirrors', {
      ...{ name: 'all', direction: 'push', url: away.url, options: { allowPrivate: true, concurrency: 1 } },
    })
    const first = await runMirror(home, 'all')
    assert.ok(first.clean, JSON.stringify(first))
    // base and tool have been pulled there before.
    assert.deepEqual(first.counts.same, first.entries.length)
    const second = await runMirror(home, 'all')
    assert.deepEqual([second.clean, second.moved.manifests, second.moved.blobs], [true, 0, 0])
    await publish(away, { packId: 'tool', version: '3.0.0', name: 'Tool of theirs' }, Buffer.from('theirs'))
    await publish(home, { packId: 'tool', version: '3.0.0', name: 'Tool of ours' }, Buffer.from('ours'))
    const third = await runMirror(home, 'all')
    assert.equal(third.clean, false)
    const other = third.entries.filter(({ kind, state }) => kind === 'version' && state !== 'same')
    assert.deepEqual(
      other.map(({ reference, state }) => [reference, state]),
      [['3.0.0', 'different']],
    )
  })
})
