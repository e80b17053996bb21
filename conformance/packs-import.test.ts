// Bundles come in whole or not at all, whatever happens to the server meanwhile; and the layouts of real clients come in.
import assert from 'node:assert/strict'
import { execFile, execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { promisify } from 'node:util'
import { connect } from '../src/db/client.ts'
import { sampleBundle } from '../src/testing/bundle.ts'
import { startDatabases } from '../src/testing/database.ts'
import { waitFor } from '../src/testing/wait.ts'
import { call, sha256 } from './registry-client.ts'
import { startObjectStore } from './s3.ts'
import { type Server, startServer, temporaryFolder } from './server.ts'

const packs = Array.from({ length: 150 }, (_, i) => ({
  ...{ packId: `pack-${String(i).padStart(3, '0')}`, version: '1.0.0' },
  content: i % 30 === 0 ? randomBytes(6_000_000) : randomBytes(40_000),
}))
const { bytes } = sampleBundle({ packs, channels: [{ packId: 'pack-000', channel: 'stable' }] })
const id = '5f1f0c1e-7a55-4c8a-9d2b-3c4d5e6f7081'

/** Starts sending the bundle; `sent` is called as it goes, and the rest waits for it. Resolves when it has ended. */
function sending(server: Server, sent: (length: number) => Promise<void>): Promise<number | undefined> {
  return new Promise((resolve) => {
    const post = request(`${server.url}/bundles/import?resume=${id}`, {
      method: 'POST',
      headers: { 'content-length': bytes.length },
    })
    post.on('error', () => resolve(undefined))
    post.on('response', (answer) => {
      answer.resume().on('error', () => undefined)
      answer.on('close', () => resolve(answer.complete ? answer.statusCode : undefined))
    })
    const feed = async () => {
      const step = 512 * 1024
      for (let at = 0; at < bytes.length && !post.destroyed; at += step) {
        await sent(at)
        const isTaken = post.write(bytes.subarray(at, at + step))
        if (!isTaken && !post.destroyed)
          await new Promise<void>((done) => {
            const go = () => {
              post.off('drain', go).off('close', go)
              done()
            }
            post.on('drain', go).on('close', go)
          })
      }
      post.end()
      await sent(bytes.length)
    }
    feed().catch(() => resolve(undefined))
  })
}

async function listed(server: Server): Promise<number> {
  const { body } = await call('GET', `${server.url}/packs?limit=1000`)
  return (JSON.parse(body.toString()) as { packs: unknown[] }).packs.length
}

describe('an import under which the server is killed', () => {
  let dataDir: string
  let server: Server
  before(async () => {
    dataDir = temporaryFolder()
    server = await startServer({ dataDir })
  })
  after(async () => {
    await server?.stop()
    rmSync(dataDir, { recursive: true, force: true })
  })

  // While it is received, when the last byte is out, and at moments after that: verifying, publishing, answering.
  const points = [0, 0.1, 0.3, 0.5, 0.7, 0.9, 1, 1, 1, 1]
  for (const [i, point] of points.entries())
    it(`is all there or not at all: ${i + 1} of ${points.length}`, async () => {
      // Once, and before the next start in any case: what is there already is answered before all of it is sent.
      let killing: Promise<void> | undefined
      const laterMs = i < 6 ? 0 : (i - 6) * 120
      const kill = async () => {
        if (laterMs > 0) await new Promise((resolve) => setTimeout(resolve, laterMs))
        await server.kill()
      }
      const status = await sending(server, async (length) => {
        if (length >= point * bytes.length) killing ??= kill()
        await killing
      })
      killing ??= kill()
      await killing
      server = await startServer({ dataDir })
      const there = await listed(server)
      assert.ok(there === 0 || there === packs.length, `${there} packs are visible`)
      if (status === 201) assert.equal(there, packs.length)
    })

  it('is complete at the next try', async () => {
    const status = await sending(server, async () => undefined)
    assert.ok(status === 201 || status === 200, String(status))
    for (const { packId, content } of packs.slice(0, 40)) {
      const { body } = await call('GET', `${server.url}/packs/${packId}/latest`)
      assert.equal(sha256(body), sha256(content), packId)
    }
    assert.ok([200, 201].includes((await sending(server, async () => undefined)) ?? 0), 'told again')
  })
})

describe('an import that is whole when the server is killed', () => {
  const stores = [
    { name: 'in a folder', open: async () => ({ env: () => ({}), stop: async () => undefined }) },
    { name: 'in S3', open: startObjectStore },
  ]
  for (const { name, open } of stores)
    it(`is published by the next one, and nobody comes back for it: ${name}`, async () => {
      const store = await open()
      const databases = await startDatabases()
      const dataDir = temporaryFolder()
      const env = { DATABASE_URL: await databases.fresh(), ...store.env('import') }
      const sql = connect(env.DATABASE_URL, { max: 2 })
      let server = await startServer({ dataDir, env })
      try {
        // Who holds this lock keeps it in the middle of publishing: rows are written, and nothing is committed.
        let release = () => {}
        const held = new Promise<void>((resolve) => {
          release = resolve
        })
        const holding = sql.begin(async (tx) => {
          await tx`lock table tags in exclusive mode`
          await held
        })
        const status = sending(server, async () => undefined)
        await waitFor('the import to wait in the middle of publishing', async () => {
          const waiting = await sql`select 1 from pg_locks where relation = 'tags'::regclass and not granted`
          return waiting.length > 0
        })
        assert.equal(await listed(server), 0)
        await server.kill()
        assert.equal(await status, undefined)
        release()
        await holding
        server = await startServer({ dataDir, env })
        await waitFor('a worker to publish it', async () => (await listed(server)) === packs.length)
        const { body } = await call('GET', `${server.url}/bundles/imports/${id}`)
        const told = JSON.parse(body.toString()) as { import: { state: string; report: { packs: unknown[] } } }
        assert.deepEqual([told.import.state, told.import.report.packs.length], ['published', packs.length])
        for (const { packId, content } of packs.slice(0, 3)) {
          const got = await fetch(`${server.url}/packs/${packId}/latest`)
          assert.equal(sha256(Buffer.from(await got.arrayBuffer())), sha256(content), packId)
        }
        const file = await fetch(`${server.url}/bundles`, { method: 'POST', body: '{"all":true}' })
        const again = Buffer.from(await file.arrayBuffer())
        assert.ok(again.length > 30_000_000, 'and it leaves again')
      } finally {
        await server.kill()
        await sql.end({ timeout: 1 })
        await databases.stop()
        await store.stop()
        rmSync(dataDir, { recursive: true, force: true })
      }
    })
})

describe('layouts of real clients', () => {
  const script = join(import.meta.dirname, '..', 'scripts', 'services', 'clients.sh')
  const newerClients = execFileSync('bash', [script], { encoding: 'utf8' }).trim()
  const work = temporaryFolder()
  let [home, away] = [undefined, undefined] as unknown as [Server, Server]

  async function run(program: string, ...args: string[]): Promise<string> {
    const env = { PATH: `${newerClients}:${process.env.PATH}`, HOME: work, TMPDIR: work }
    const options = { cwd: work, env, maxBuffer: 1 << 26, timeout: 180_000 }
    const { stdout } = await promisify(execFile)(program, args, options)
    return stdout.trim()
  }
  async function publish(packId: string): Promise<void> {
    const form = new FormData()
    form.append('manifest', new Blob([JSON.stringify({ packId, version: '1.0.0', type: 'policy' })]), 'pack.json')
    form.append('content', new Blob([new Uint8Array(randomBytes(50_000))]), 'content.tgz')
    assert.equal((await fetch(`${home.url}/packs`, { method: 'POST', body: form })).status, 201)
  }
  const digestAt = async (server: Server, name: string) =>
    (await call('HEAD', `${server.url}/v2/packs/${name}/manifests/1.0.0`)).headers['docker-content-digest']

  async function imported(file: string, name: string, query = ''): Promise<void> {
    const body = new Uint8Array(readFileSync(join(work, file)))
    const answer = await fetch(`${away.url}/bundles/import${query}`, { method: 'POST', body })
    assert.equal(answer.status, 201, await answer.text())
    assert.equal(await digestAt(away, name), await digestAt(home, name))
  }

  before(async () => {
    ;[home, away] = await Promise.all([startServer(), startServer()])
    for (const name of ['by-oras', 'by-skopeo', 'by-crane', 'by-regctl']) await publish(name)
    writeFileSync(join(work, 'sbom.json'), '{"bomFormat":"CycloneDX"}')
    const sbom = ['--artifact-type', 'application/vnd.cyclonedx+json']
    await run('oras', 'attach', '--plain-http', ...sbom, `${home.host}/packs/by-oras:1.0.0`, 'sbom.json')
  })
  after(async () => {
    await Promise.all([home?.stop(), away?.stop()])
    rmSync(work, { recursive: true, force: true })
  })

  it('oras backup, with what hangs on it', async () => {
    const from = `${home.host}/packs/by-oras:1.0.0`
    await run('oras', 'backup', '--plain-http', '--include-referrers', '--output', 'oras.tar', from)
    await imported('oras.tar', 'by-oras')
    const digest = await digestAt(away, 'by-oras')
    const { body } = await call('GET', `${away.url}/v2/packs/by-oras/referrers/${digest}`)
    assert.equal(JSON.parse(body.toString()).manifests.length, 1)
  })
  it('skopeo copy to an archive', async () => {
    const from = `docker://${home.host}/packs/by-skopeo:1.0.0`
    await run('skopeo', 'copy', '--src-tls-verify=false', from, 'oci-archive:skopeo.tar:1.0.0')
    await imported('skopeo.tar', 'by-skopeo')
  })
  it('crane pull, packed by tar', async () => {
    await run('crane', 'pull', '--insecure', '--format=oci', `${home.host}/packs/by-crane:1.0.0`, 'crane')
    await run('tar', '-czf', 'crane.tar.gz', '-C', 'crane', '.')
    await imported('crane.tar.gz', 'by-crane')
  })
  it('regctl image export, with what hangs on it', async () => {
    const plain = ['--host', `reg=${home.host},tls=disabled`]
    await run('regctl', ...plain, 'image', 'export', `${home.host}/packs/by-regctl:1.0.0`, 'regctl.tar')
    await imported('regctl.tar', 'by-regctl')
    writeFileSync(join(work, 'signature'), 'signed')
    const put = ['artifact', 'put', '--artifact-type', 'application/vnd.example.signature', '-f', 'signature']
    await run('regctl', ...plain, ...put, '--subject', `${home.host}/packs/by-regctl:1.0.0`)
    const copy = ['image', 'copy', '--referrers', `${home.host}/packs/by-regctl:1.0.0`, 'ocidir://regctl:1.0.0']
    await run('regctl', ...plain, ...copy)
    await run('tar', '-cf', 'regctl-dir.tar', '-C', 'regctl', '.')
    const body = new Uint8Array(readFileSync(join(work, 'regctl-dir.tar')))
    const answer = await fetch(`${away.url}/bundles/import`, { method: 'POST', body })
    assert.ok(answer.ok, await answer.text())
    const digest = await digestAt(away, 'by-regctl')
    const { body: listed } = await call('GET', `${away.url}/v2/packs/by-regctl/referrers/${digest}`)
    assert.equal(JSON.parse(listed.toString()).manifests.length, 1)
  })
  it('regctl reads what leaves here', async () => {
    const asked = { method: 'POST', body: '{"roots":["by-regctl@1"]}' }
    const bundle = await fetch(`${home.url}/bundles`, asked)
    writeFileSync(join(work, 'bundle.tar'), Buffer.from(await bundle.arrayBuffer()))
    const plain = ['--host', `reg=${away.host},tls=disabled`]
    const target = `${away.host}/mirror/by-regctl:1.0.0`
    await run('regctl', ...plain, 'image', 'import', '--name', 'by-regctl--1.0.0', target, 'bundle.tar')
    const digest = await run('regctl', ...plain, 'image', 'digest', target)
    assert.equal(digest, await digestAt(home, 'by-regctl'))
  })
  it('an artifact without a config, of a name that is told', async () => {
    const type = ['--artifact-type', 'application/vnd.stellaops.pack.policy.v1']
    writeFileSync(join(work, 'one.bin'), randomBytes(1000))
    await run('oras', 'push', '--plain-http', ...type, `${home.host}/packs/bare:1.0.0`, 'one.bin')
    await run('oras', 'backup', '--plain-http', '--output', 'bare.tar', `${home.host}/packs/bare:1.0.0`)
    const body = new Uint8Array(readFileSync(join(work, 'bare.tar')))
    const answer = await fetch(`${away.url}/bundles/import`, { method: 'POST', body })
    assert.match(await answer.text(), /\?repository=packs/)
    await imported('bare.tar', 'bare', '?repository=packs/bare')
  })
  it('an image is no pack, and the message says so', async () => {
    await run('oras', 'push', '--plain-http', `${home.host}/images/app:1.0.0`, 'one.bin')
    await run('oras', 'backup', '--plain-http', '--output', 'image.tar', `${home.host}/images/app:1.0.0`)
    const body = new Uint8Array(readFileSync(join(work, 'image.tar')))
    const answer = await fetch(`${away.url}/bundles/import`, { method: 'POST', body })
    assert.equal(answer.status, 422)
    assert.match(await answer.text(), /is no pack/)
  })
})

describe('what one site exports', () => {
  it('is at the other, digest by digest, and the next bundle holds only what is new', async () => {
    const [home, away] = await Promise.all([startServer(), startServer()])
    try {
      const made = sampleBundle().bytes
      await fetch(`${home.url}/bundles/import`, { method: 'POST', body: new Uint8Array(made) })
      const carry = async (inventory?: unknown) => {
        const answer = await fetch(`${home.url}/bundles`, {
          ...{ method: 'POST', headers: { 'content-type': 'application/json' } },
          body: JSON.stringify({ all: true, ...(inventory ? { inventory } : {}) }),
        })
        assert.ok(answer.ok, String(answer.status))
        const file = new Uint8Array(await answer.arrayBuffer())
        const done = await fetch(`${away.url}/bundles/import`, { method: 'POST', body: file })
        return {
          status: done.status,
          length: file.length,
          report: (await done.json()) as { blobs: { leftOut: number } },
        }
      }
      const first = await carry()
      assert.equal(first.status, 201, JSON.stringify(first.report))
      for (const path of ['/packs/alpha/stable', '/packs/beta/latest'])
        assert.deepEqual((await call('GET', away.url + path)).body, (await call('GET', home.url + path)).body)
      const inventory = JSON.parse((await call('GET', `${away.url}/inventory`)).body.toString())
      const second = await carry(inventory)
      assert.equal(second.status, 200, JSON.stringify(second.report))
      assert.ok(second.report.blobs.leftOut > 0)
    } finally {
      await Promise.all([home.stop(), away.stop()])
    }
  })
})
