import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { readConfig } from '../config.ts'
import { endGrace, isReadable, storedKeys } from '../testing/collect.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { emptyConfig, sampleManifest, startRegistry, type TestRegistry } from '../testing/registry.ts'
import { type GcFlags, gc } from './gc.ts'
import type { Output } from './output.ts'

type Finding = { kind: string; name: string; repository?: string; size?: number; since: string; reason: string }

describe('packs gc', () => {
  let databases: TestDatabases
  let url: string
  let registry: TestRegistry
  before(async () => {
    databases = await startDatabases()
    url = await databases.fresh()
    registry = await startRegistry(url, { WORKER: 'false' })
  })
  after(async () => {
    await registry?.stop()
    await databases?.stop()
  })

  async function run(flags: GcFlags, { json = true } = {}): Promise<string> {
    let said = ''
    const say = (text: string) => {
      said += text
    }
    const output: Output = {
      ...{ json, quiet: true, live: false, note: () => undefined, bold: (text) => text },
      result: (value, text) => say(json ? JSON.stringify(value) : text()),
    }
    const { blobStore } = registry.deps.config
    assert.equal(await gc(readConfig({ DATABASE_URL: url, BLOB_STORE: blobStore }), flags, output, say), 0)
    return said
  }

  /** Every row that a pass could change, and every object. */
  async function everything(): Promise<unknown> {
    const { sql } = registry.deps.db
    return {
      blobs: [...(await sql`select digest, review_at::text from blobs order by 1`)],
      links: [...(await sql`select repository_id, digest, review_at::text from repository_blobs order by 1, 2`)],
      queue: [...(await sql`select storage_key, attempts from blob_deletions order by 1`)],
      uploads: [...(await sql`select id, state from uploads order by 1`)],
      imports: [...(await sql`select import_id, digest from import_blobs order by 1, 2`)],
      objects: await storedKeys(registry, ''),
    }
  }

  it('says that nothing would go where that is so', async () => {
    assert.equal(await run({ dryRun: true }, { json: false }), 'nothing would go\n')
    assert.deepEqual(JSON.parse(await run({ dryRun: true })), { dryRun: true, findings: [], totals: {} })
  })

  it('says what would go and why, changes nothing, and then takes just that', async () => {
    const { sql } = registry.deps.db
    const layer = await registry.pushBlob('kept', 'a layer')
    await registry.pushManifest('kept', 'v1', sampleManifest({ config: emptyConfig, layers: [layer] }))
    const twice = await registry.pushBlob('loose/a', 'in two repositories')
    await registry.pushBlob('loose/b', 'in two repositories')
    const shared = await registry.pushBlob('loose/a', 'a layer')
    // Reviewed once, as what was part of a manifest is: it goes when its last links go.
    await sql`update blobs set review_at = null where digest = ${twice.digest}`
    const unlinked = await registry.pushBlob('loose/a', 'deleted by hand')
    await registry.call('DELETE', `/v2/loose/a/blobs/${unlinked.digest}`)
    const young = await registry.pushBlob('loose/a', 'within its grace')
    await sql`insert into blob_deletions (storage_key, error) values ('blobs/stuck', 'AccessDenied')`
    await sql`
      insert into uploads (id, repository, "offset", chunks, expires_at)
      values ('8dab7a96-538e-437b-ab1d-b2ad7780c69a', 'loose/a', 7, '[]', now())`
    await endGrace(registry)
    await sql`update repository_blobs set review_at = now() + interval '1 hour' where digest = ${young.digest}`

    const before = await everything()
    const { findings, totals } = JSON.parse(await run({ dryRun: true })) as {
      findings: Finding[]
      totals: Record<string, { count: number; bytes: number }>
    }
    assert.deepEqual(await everything(), before)
    const told = findings.map(({ kind, name, repository }) =>
      [kind, name, ...(repository ? [repository] : [])].join(' '),
    )
    assert.deepEqual(
      told.sort(),
      [
        `link ${twice.digest} loose/a`,
        `link ${twice.digest} loose/b`,
        `link ${shared.digest} loose/a`,
        `blob ${twice.digest}`,
        `blob ${unlinked.digest}`,
        'object blobs/stuck',
        'upload 8dab7a96-538e-437b-ab1d-b2ad7780c69a loose/a',
      ].sort(),
    )
    assert.deepEqual(totals.blob, { count: 2, bytes: twice.size + unlinked.size })
    assert.ok(findings.every(({ since, reason }) => !Number.isNaN(Date.parse(since)) && reason !== ''))
    assert.match(findings.find(({ kind }) => kind === 'object')?.reason ?? '', /AccessDenied/)
    const lines = (await run({ dryRun: true }, { json: false })).split('\n')
    assert.match(
      lines.find((line) => line.startsWith('link')) ?? '',
      /^link {3}sha256:\w+ in loose\/a \(\d+ B, since 20.*Z\): no manifest/,
    )
    assert.match(lines.at(-2) ?? '', /^would go: .*3 links/)

    const done = JSON.parse(await run({})) as Record<string, number>
    assert.deepEqual(
      [done.links, done.blobs, done.bytes, done.objects, done.failed, done.ended],
      [3, 2, twice.size + unlinked.size, 3, 0, 1],
    )
    assert.equal(await isReadable(registry, 'kept', layer.digest), true)
    assert.equal(await isReadable(registry, 'loose/a', young.digest), true)
    assert.equal(await isReadable(registry, 'loose/a', twice.digest), false)
    assert.match(await run({ dryRun: true }, { json: false }), /^nothing would go$/m)
  })

  it('says in words what it did, at any rate', async () => {
    await registry.pushBlob('words', 'to be said')
    await endGrace(registry)
    const said = await run({ rate: 5 }, { json: false })
    assert.match(said, /collected \d+ links and \d+ blobs/)
    assert.match(said, /deleted \d+ objects from the store/)
  })

  it('leaves its figures in the metrics', async () => {
    await registry.pushBlob('metrics', 'due and not collected')
    await endGrace(registry)
    await registry.deps.db.sql`insert into blob_deletions (storage_key) values ('blobs/queued')`
    const text = await (await registry.call('GET', '/metrics')).text()
    assert.match(text, /packs_gc_backlog\{kind="due"\} [1-9]/)
    assert.match(text, /packs_gc_backlog\{kind="queued"\} 1/)
    assert.match(text, /packs_gc_oldest_due_seconds [0-9.]+/)
  })
})
