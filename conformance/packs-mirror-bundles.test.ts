// Bundles that are indexes, there and back by way of other registries, over TLS: members, referrers and digests are the
// same everywhere, and ordinary clients read them there.
import assert from 'node:assert/strict'
import { execFile, execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { promisify } from 'node:util'
import { waitFor } from '../src/testing/wait.ts'
import { type Json, json, makeCertificates, type Peer, publish, runMirror, sign, startPeer } from './mirror-peer.ts'
import { call, sha256 } from './registry-client.ts'
import { type Server, startServer, temporaryFolder } from './server.ts'

const script = join(import.meta.dirname, '..', 'scripts', 'services', 'clients.sh')
const clients = execFileSync('bash', [script], { encoding: 'utf8' }).trim()
const work = temporaryFolder()
const { ca, cert, key } = makeCertificates(work)
const trusting = { NODE_EXTRA_CA_CERTS: ca }
const options = { allowPrivate: true }
let home: Server
const digests: Record<string, string> = {}
let signature = ''

async function run(program: string, ...args: string[]): Promise<string> {
  const env = { PATH: `${clients}:${process.env.PATH}`, HOME: work, SSL_CERT_FILE: ca }
  const { stdout } = await promisify(execFile)(program, args, { cwd: work, env, timeout: 180_000 })
  return stdout.trim()
}

/** A bundle without content of its own: an index of all that it needs. */
async function publishIndex(server: Server, document: Json): Promise<string> {
  const [status, body] = await json(server, 'POST', '/packs', { manifest: { version: '1.0.0', ...document } })
  assert.equal(status, 201, JSON.stringify(body))
  return body.manifestDigest as string
}

const contentOf = async (server: Server, packId: string) =>
  (await call('GET', `${server.url}/packs/${packId}/1.0.0`)).body

before(async () => {
  home = await startServer({ env: trusting })
  digests.base = await publish(home, { packId: 'base' }, randomBytes(300_000))
  digests.tool = await publish(home, { packId: 'tool', dependencies: ['base@^1.0.0'] }, randomBytes(5000))
  digests.kit = await publishIndex(home, { packId: 'kit', type: 'bundle', dependencies: ['tool@^1.0.0'] })
  signature = await sign(home, 'kit', digests.kit)
})
after(async () => {
  await home?.stop()
  rmSync(work, { recursive: true, force: true })
})

const peers = [
  { name: "Debian's docker-registry, https by an authority of ours", start: () => startPeer({ tls: { cert, key } }) },
  {
    name: 'distribution 3, https by an authority of ours',
    start: () => startPeer({ program: join(clients, 'registry'), tls: { cert, key } }),
  },
]
for (const { name, start } of peers)
  describe(`a bundle by way of ${name}`, () => {
    let peer: Peer
    before(async () => {
      peer = await start()
    })
    after(() => peer?.stop())
    const place = () => `${peer.url}/v2/site/packs/kit`

    it('is pushed with its members and what refers to it, and the second time nothing', async () => {
      const mirror = `out-${peer.host.split(':')[1]}`
      const selection = { packs: ['kit'], closure: true }
      await json(home, 'POST', '/mirrors', {
        ...{ name: mirror, direction: 'push', url: peer.url, prefix: 'site/packs', selection, options },
      })
      const first = await runMirror(home, mirror)
      assert.ok(first.clean, JSON.stringify(first))
      const seen = first.entries.map(({ kind, packId, reference, digest }) => [kind, packId, reference, digest])
      assert.deepEqual(seen, [
        ['version', 'base', '1.0.0', digests.base],
        ['channel', 'kit', 'latest', digests.kit],
        ['referrer', 'kit', signature, signature],
        ['version', 'kit', '1.0.0', digests.kit],
        ['version', 'tool', '1.0.0', digests.tool],
      ])
      const second = await runMirror(home, mirror)
      assert.deepEqual([second.clean, second.moved.manifests, second.moved.blobs], [true, 0, 0])
    })

    it('is copied and pulled there by oras: the index, every member, the signature', async () => {
      const layout = `copied-${peer.host.split(':')[1]}`
      await run('oras', 'cp', '-r', `${peer.host}/site/packs/kit:1.0.0`, '--to-oci-layout', `${layout}:1.0.0`)
      const blob = (digest = '') => readFileSync(join(work, layout, 'blobs', digest.replace(':', '/')))
      const index = JSON.parse(blob(digests.kit).toString()) as { manifests: { digest: string }[] }
      const members = index.manifests.map(({ digest }) => digest)
      assert.deepEqual(members.sort(), [digests.base, digests.tool].sort())
      for (const digest of [digests.kit, ...members, signature]) assert.equal(sha256(blob(digest)), digest)
      await run('oras', 'pull', `${peer.host}/site/packs/tool:1.0.0`, '--output', `pulled-${layout}`)
      const [file = ''] = (await run('ls', `pulled-${layout}`)).split('\n')
      assert.deepEqual(readFileSync(join(work, `pulled-${layout}`, file)), await contentOf(home, 'tool'))
      const resolved = await run('oras', 'resolve', `${peer.host}/site/packs/kit@${members[0]}`)
      assert.equal(resolved, members[0], `a member is in the repository of the bundle: ${place()}`)
    })

    it('is pulled from there into a third registry: the same bytes by every door', async () => {
      const away = await startServer({ env: trusting })
      try {
        const selection = { packs: ['kit'], closure: true }
        await json(away, 'POST', '/mirrors', {
          ...{ name: 'in', direction: 'pull', url: peer.url, prefix: 'site/packs', selection, options },
        })
        const first = await runMirror(away, 'in')
        assert.ok(first.clean, JSON.stringify(first))
        for (const packId of ['kit', 'tool', 'base']) {
          const [, { pack }] = await json(away, 'GET', `/packs/${packId}/1.0.0/manifest`)
          assert.equal((pack as Json).manifestDigest, digests[packId])
          assert.equal(sha256(await contentOf(away, packId)), sha256(await contentOf(home, packId)), packId)
        }
        const [, { referrers }] = await json(away, 'GET', '/packs/kit/1.0.0/referrers')
        assert.deepEqual(
          (referrers as Json[]).map(({ digest }) => digest),
          [signature],
        )
        for (const digest of [digests.base, digests.tool]) {
          const member = await call('GET', `${away.url}/v2/packs/kit/manifests/${digest}`)
          assert.deepEqual([member.status, sha256(member.body)], [200, digest])
        }
        const second = await runMirror(away, 'in')
        assert.deepEqual([second.clean, second.moved.manifests, second.moved.blobs], [true, 0, 0])
      } finally {
        await away.stop()
      }
    })
  })

it('a certificate that is not trusted is refused in words that say what to do', async () => {
  const peer = await startPeer({ tls: { cert, key } })
  const away = await startServer()
  try {
    await json(away, 'POST', '/mirrors', { name: 'in', direction: 'pull', url: peer.url, options })
    await json(away, 'POST', '/mirrors/in/run')
    const failed = await waitFor('the run to fail', async () => {
      const [, { runs }] = await json(away, 'GET', '/mirrors/in/runs')
      return (runs as { state: string; error?: string }[]).find(({ state }) => state === 'failed')
    })
    assert.match(failed.error ?? '', /certificate of 127\.0\.0\.1:\d+ is not trusted.*NODE_EXTRA_CA_CERTS/)
  } finally {
    await Promise.all([peer.stop(), away.stop()])
  }
})
