// Mirrors and the registries that they go to, for tests.
import assert from 'node:assert/strict'
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { freePort } from '../scripts/services/processes.ts'
import { waitFor } from '../src/testing/wait.ts'
import { call, imageManifest, sha256 } from './registry-client.ts'
import { type Server, temporaryFolder } from './server.ts'

export type Json = Record<string, unknown>
type Entry = { kind: string; packId: string; reference: string; digest: string; state: string; detail?: string }
type Parity = {
  clean: boolean
  dryRun: boolean
  counts: Record<string, number>
  moved: { manifests: number; blobs: number; mounted: number; bytes: number; requests: number }
  problems: string[]
  entries: Entry[]
}
export type Peer = { url: string; host: string; requests(): string[]; stop(): Promise<void> }

/** Certificates for 127.0.0.1 by an authority that nobody knows: `ca` is its own. */
export function makeCertificates(folder: string): { ca: string; cert: string; key: string } {
  const file = (name: string) => join(folder, name)
  const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: folder, stdio: 'ignore' })
  const fresh = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj']
  openssl(
    'req',
    '-x509',
    ...fresh,
    '/CN=An authority of the tests',
    '-keyout',
    'ca.key',
    '-out',
    'ca.pem',
    '-days',
    '2',
  )
  openssl('req', ...fresh, '/CN=127.0.0.1', '-keyout', 'peer.key', '-out', 'peer.csr')
  writeFileSync(file('names'), 'subjectAltName=IP:127.0.0.1\n')
  const signing = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2', '-extfile', 'names']
  openssl('x509', '-req', '-in', 'peer.csr', ...signing, '-out', 'peer.pem')
  return { ca: file('ca.pem'), cert: file('peer.pem'), key: file('peer.key') }
}

/**
 * A registry by distribution, Debian's docker-registry unless another `program` is named, with what mirrors asked of it
 * by its access log. `tls`: it serves https with this certificate.
 */
export async function startPeer({
  program = 'docker-registry',
  tls,
}: {
  program?: string
  tls?: { cert: string; key: string }
} = {}): Promise<Peer> {
  const folder = temporaryFolder()
  const port = await freePort()
  mkdirSync(join(folder, 'data'))
  const certificate = tls ? `, tls: { certificate: ${tls.cert}, key: ${tls.key} }` : ''
  const lines = [
    'version: 0.1',
    'log: { level: error }',
    `storage: { filesystem: { rootdirectory: ${JSON.stringify(join(folder, 'data'))} } }`,
    `http: { addr: "127.0.0.1:${port}"${certificate} }`,
  ]
  writeFileSync(join(folder, 'config.yml'), `${lines.join('\n')}\n`)
  const child: ChildProcess = spawn(program, ['serve', join(folder, 'config.yml')], {
    stdio: ['ignore', 'pipe', 'ignore'],
    env: { PATH: `${process.env.PATH}:/usr/bin`, OTEL_TRACES_EXPORTER: 'none' },
  })
  let log = ''
  child.stdout?.on('data', (piece: Buffer) => {
    log += piece
  })
  const kill = () => void child.kill('SIGKILL')
  process.on('exit', kill)
  await waitFor(`${program} to answer`, async () => {
    assert.equal(child.exitCode, null, `${program} ended`)
    return isListening(port)
  })
  return {
    url: `${tls ? 'https' : 'http'}://127.0.0.1:${port}`,
    host: `127.0.0.1:${port}`,
    requests: () => [...log.matchAll(/"([A-Z]+ \S+) HTTP.*packs-registry/g)].map(([, line = '']) => line),
    async stop() {
      kill()
      await once(child, 'exit')
      process.off('exit', kill)
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

function isListening(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.on('connect', () => resolve(true)).on('error', () => resolve(false))
    socket.on('connect', () => socket.destroy())
  })
}

export async function json(server: Server, method: string, path: string, body?: unknown): Promise<[number, Json]> {
  const answer = await call(method, server.url + path, {
    headers: { 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  return [answer.status, JSON.parse(answer.body.toString()) as Json]
}

export async function publish(server: Server, document: Json, content: Buffer): Promise<string> {
  const form = new FormData()
  form.append('manifest', new Blob([JSON.stringify({ type: 'policy', version: '1.0.0', ...document })]), 'pack.json')
  form.append('content', new Blob([new Uint8Array(content)]), 'content.tgz')
  const answer = await fetch(`${server.url}/packs`, { method: 'POST', body: form })
  const text = await answer.text()
  assert.equal(answer.status, 201, text)
  return (JSON.parse(text) as { manifestDigest: string }).manifestDigest
}

/** A signature over a manifest, as an artifact that refers to it. */
export async function sign(server: Server, packId: string, subject: string): Promise<string> {
  const repository = `${server.url}/v2/packs/${packId}`
  const payload = Buffer.from(`signature of ${subject}`)
  for (const bytes of [payload, Buffer.from('{}')]) {
    const upload = await call('POST', `${repository}/blobs/uploads/?digest=${sha256(bytes)}`, { body: bytes })
    assert.equal(upload.status, 201)
  }
  const signed = await call('GET', `${repository}/manifests/${subject}`)
  const mediaType = signed.headers['content-type']
  const descriptor = (mediaType: string, bytes: Buffer) => ({ mediaType, digest: sha256(bytes), size: bytes.length })
  const body = JSON.stringify({
    ...{ schemaVersion: 2, mediaType: imageManifest, artifactType: 'application/vnd.example.signature' },
    config: descriptor('application/vnd.oci.empty.v1+json', Buffer.from('{}')),
    layers: [descriptor('application/octet-stream', payload)],
    subject: { mediaType, digest: subject, size: signed.body.length },
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
export async function runMirror(server: Server, name: string, query = ''): Promise<Parity> {
  const [status, { run }] = await json(server, 'POST', `/mirrors/${name}/run${query}`)
  assert.equal(status, 202)
  const { id } = run as { id: string }
  const ended = await waitFor(`mirror ${name} to end`, async () => {
    const [, { runs }] = await json(server, 'GET', `/mirrors/${name}/runs`)
    const found = (runs as { id: string; state: string; error?: string }[]).find((one) => one.id === id)
    assert.ok(!found?.error, found?.error)
    return found?.state === 'completed' ? found : undefined
  })
  assert.ok(ended)
  const [, { parity, run: last }] = await json(server, 'GET', `/mirrors/${name}/parity`)
  assert.equal(last, id)
  return parity as Parity
}
