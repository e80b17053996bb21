import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { claimBlobs } from '../db/import-blobs.ts'
import { expireImports, insertImport } from '../db/imports.ts'
import type { Digest } from '../oci/digest.ts'
import { endGrace, isReadable, storedKeys } from '../testing/collect.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import {
  codeOf,
  type Descriptor,
  emptyConfig,
  imageType,
  indexType,
  sampleManifest,
  startRegistry,
  type TestRegistry,
} from '../testing/registry.ts'
import { waitFor } from '../testing/wait.ts'
import { collectContent } from './collect.ts'
import { collectGarbage } from './collect-pass.ts'
import { emptyQueue } from './deletions.ts'

let databases: TestDatabases
let registry: TestRegistry
before(async () => {
  databases = await startDatabases()
  registry = await startRegistry(await databases.fresh())
})
after(async () => {
  await registry?.stop()
  await databases?.stop()
})

const nothing = { links: 0, blobs: 0, bytes: 0, kept: 0 }

/** A pass over everything whose grace is over. */
async function collect() {
  await endGrace(registry)
  return collectContent(registry.deps)
}

async function push(repository: string, tag: string, layers: Descriptor[], over: object = {}): Promise<Descriptor> {
  return registry.pushManifest(repository, tag, sampleManifest({ config: emptyConfig, layers, ...over }))
}

async function remove(path: string): Promise<void> {
  const { status } = await registry.call('DELETE', path)
  assert.ok(status === 202 || status === 200, `DELETE ${path}: ${status}`)
}

describe('collecting content', () => {
  it('waits for the grace', async () => {
    await registry.pushBlob('grace', 'new')
    assert.deepEqual(await collectContent(registry.deps), nothing)
  })

  it('takes what no manifest needs, and what is needed is looked at no more', async () => {
    const layer = await registry.pushBlob('one', 'a layer')
    const loose = await registry.pushBlob('one', 'nobody needs this')
    await push('one', 'v1', [layer])
    const { links, kept } = await collect()
    assert.ok(links >= 1 && kept >= 4)
    assert.deepEqual(
      await Promise.all([layer, emptyConfig, loose].map(({ digest }) => isReadable(registry, 'one', digest))),
      [true, true, false],
    )
    assert.deepEqual(await collect(), nothing)
  })

  it('takes the objects along', async () => {
    await emptyQueue(registry.deps)
    const before = await storedKeys(registry)
    await registry.pushBlob('objects', 'with an object')
    assert.equal((await storedKeys(registry)).length, before.length + 1)
    await endGrace(registry)
    const { blobs, objects, failed } = await collectGarbage(registry.deps)
    assert.deepEqual({ blobs, objects, failed }, { blobs: 1, objects: 1, failed: 0 })
    assert.deepEqual(await storedKeys(registry), before)
    assert.equal((await registry.deps.db.sql`select from blob_deletions`).length, 0)
  })

  it('leaves what another repository has', async () => {
    const layer = await registry.pushBlob('shared/a', 'shared')
    await push('shared/a', 'v1', [layer])
    await registry.pushBlob('shared/b', 'shared')
    await collect()
    assert.equal(await isReadable(registry, 'shared/a', layer.digest), true)
    assert.equal(await isReadable(registry, 'shared/b', layer.digest), false)
    await registry.pushBlob('shared/b', 'shared')
    await push('shared/b', 'v1', [layer])
    const { digest } = await push('shared/a', 'v1', [layer])
    await remove(`/v2/shared/a/manifests/${digest}`)
    await collect()
    assert.equal(await isReadable(registry, 'shared/a', layer.digest), false)
    assert.equal(await isReadable(registry, 'shared/b', layer.digest), true)
  })

  it('follows a manifest that is deleted, with its signatures, but no tag', async () => {
    const layer = await registry.pushBlob('gone', 'of a manifest')
    const signature = await registry.pushBlob('gone', 'of its signature')
    const { digest, size } = await push('gone', 'v1', [layer])
    await push('gone', 'digest', [signature], { subject: { mediaType: imageType, digest, size } })
    await collect()
    await push('gone', 'v1', [], { annotations: { other: 'manifest' } })
    await remove('/v2/gone/manifests/v1')
    assert.equal((await collect()).links, 0)
    await remove(`/v2/gone/manifests/${digest}`)
    const before = await collectContent(registry.deps)
    assert.deepEqual(before, nothing, 'the grace begins with the deletion')
    const { links, blobs } = await collect()
    assert.deepEqual({ links, blobs }, { links: 2, blobs: 2 })
  })

  it('leaves the members of an index alone, tagged or not', async () => {
    const layer = await registry.pushBlob('index', 'of a member')
    const member = await push('index', 'digest', [layer])
    const manifests = [{ mediaType: imageType, digest: member.digest, size: member.size }]
    const index = { schemaVersion: 2, mediaType: indexType, manifests }
    const { digest } = await registry.pushManifest('index', 'v1', index)
    await collect()
    await remove(`/v2/index/manifests/${digest}`)
    await collect()
    assert.equal(await isReadable(registry, 'index', layer.digest), true)
  })

  it('follows a blob that is deleted', async () => {
    const { digest } = await registry.pushBlob('unlinked', 'deleted by hand')
    await remove(`/v2/unlinked/blobs/${digest}`)
    assert.equal((await collectContent(registry.deps)).blobs, 0)
    assert.equal((await collect()).blobs, 1)
  })

  it('follows a version of a pack that is deleted', async () => {
    const publish = async (version: string) => {
      const form = new FormData()
      form.append('manifest', JSON.stringify({ packId: 'net', version, type: 'policy' }))
      form.append('content', new Blob([`content ${version}`]), 'content.tgz')
      assert.equal((await registry.call('POST', '/packs', { body: form })).status, 201)
    }
    await publish('1.0.0')
    await publish('1.1.0')
    assert.deepEqual({ ...(await collect()), kept: 0 }, nothing)
    await remove('/packs/net/1.0.0')
    const { links, blobs } = await collect()
    // The content and its config.
    assert.deepEqual({ links, blobs }, { links: 2, blobs: 2 })
    const content = await registry.call('GET', '/packs/net/1.1.0', {
      headers: { accept: 'application/octet-stream' },
    })
    assert.equal(await content.text(), 'content 1.1.0')
  })

  it('keeps what a mirrored manifest still waits for', async () => {
    const { sql } = registry.deps.db
    const { digest } = await registry.pushBlob('awaited', 'waited for')
    const manifest = await push('awaited', 'v1', [])
    await sql`
      insert into awaited_blobs (repository_id, manifest_digest, blob_digest)
      select id, ${manifest.digest}, ${digest} from repositories where name = 'awaited'`
    await collect()
    assert.equal(await isReadable(registry, 'awaited', digest), true)
    await remove(`/v2/awaited/manifests/${manifest.digest}`)
    await collect()
    assert.equal(await isReadable(registry, 'awaited', digest), false)
  })

  it('keeps what an import relies on, until the import is over', async () => {
    const { sql } = registry.deps.db
    const { digest } = await registry.pushBlob('import', 'relied on')
    const id = '6f1c2f2e-8a43-4c43-9b4e-3a1f0c5f7d10'
    const life = { principal: 'somebody', total: undefined, lifeSeconds: 60 }
    const attempt = (await insertImport(sql, id, life)) ?? assert.fail('there is such an import')
    assert.deepEqual(await claimBlobs(sql, attempt, [digest as Digest], 1), [{ digest, key: undefined }])
    await collect()
    assert.equal(await isReadable(registry, 'import', digest), false, 'the link is nobody’s')
    assert.deepEqual(await claimBlobs(sql, attempt, [digest as Digest], 1), [{ digest, key: undefined }])
    await sql`update imports set expires_at = now(), leased_until = now() where id = ${id}`
    assert.equal(await expireImports(sql, 1), 1)
    assert.equal((await collect()).blobs, 1)
    const other = { ...attempt, attempt: attempt.attempt + 1 }
    assert.deepEqual(await claimBlobs(sql, other, [digest as Digest], 1), [])
  })

  it('says of a finished upload that it is unknown, once its blob is gone', async () => {
    const start = await registry.call('POST', '/v2/closed/blobs/uploads/')
    const patch = await registry.call('PATCH', start.headers.get('location') ?? '', { body: 'chunked' })
    const { digest } = await registry.pushBlob('elsewhere', 'chunked')
    const close = `${patch.headers.get('location')}?digest=${digest}`
    assert.equal((await registry.call('PUT', close)).status, 201)
    assert.equal((await registry.call('PUT', close)).status, 201)
    await collect()
    const answer = await registry.call('PUT', close)
    assert.equal(answer.status, 404)
    assert.equal(await codeOf(answer), 'BLOB_UPLOAD_UNKNOWN')
  })

  it('goes through thousands, and any number of collectors share them', async () => {
    const { sql } = registry.deps.db
    await sql`insert into repositories (name) values ('many')`
    await sql`
      insert into blobs (digest, size, storage_key, review_at)
      select 'sha256:' || encode(sha256(n::text::bytea), 'hex'), 10, 'blobs/stub/' || n,
        now() - case when n % 2 = 0 then interval '1 hour' else make_interval(secs => n) end
      from generate_series(1, 12000) n`
    await sql`
      insert into repository_blobs (repository_id, digest, review_at)
      select r.id, b.digest, b.review_at from blobs b, repositories r
      where b.storage_key like 'blobs/stub/%' and r.name = 'many'`
    const passes = await Promise.all([1, 2, 3].map(() => collectContent(registry.deps)))
    const again = await collectContent(registry.deps)
    const all = [...passes, again].reduce(
      (sum, one) => ({ links: sum.links + one.links, blobs: sum.blobs + one.blobs }),
      {
        links: 0,
        blobs: 0,
      },
    )
    assert.deepEqual(all, { links: 12_000, blobs: 12_000 })
    assert.deepEqual(await collectContent(registry.deps), nothing)
    const { objects } = await emptyQueue(registry.deps)
    assert.ok(objects >= 12_000)
  })
})

it('needs no more than a grace of a second', async () => {
  const short = await startRegistry(await databases.fresh(), { GC_GRACE: '1s' })
  try {
    const { digest } = await short.pushBlob('short', 'for a second')
    assert.equal((await short.call('HEAD', `/v2/short/blobs/${digest}`)).status, 200)
    await waitFor('its grace to be over', async () => (await collectContent(short.deps)).blobs)
    assert.equal((await short.call('HEAD', `/v2/short/blobs/${digest}`)).status, 404)
  } finally {
    await short.stop()
  }
})
