// Mirrors between real registries: to Debian's docker-registry, which knows nothing of packs nor of referrers, and from it
// and from another instance of this one.
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, describe, it } from 'node:test'
import { waitFor } from '../src/testing/wait.ts'
import { type Json, json, type Peer, publish, runMirror, sign, startPeer } from './mirror-peer.ts'
import { call, imageManifest, sha256 } from './registry-client.ts'
import { type Server, startServer } from './server.ts'

describe('mirrors between registries', () => {
  let home: Server
  let away: Server
  let plain: Peer
  const digests: Record<string, string> = {}
  let signature = ''

  before(async () => {
    ;[home, away, plain] = await Promise.all([startServer(), startServer(), startPeer()])
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
