import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { connect, type Sql, type Transaction } from '../db/client.ts'
import { insertManifest } from '../db/manifests.ts'
import { setTag } from '../db/tags.ts'
import { type Digest, digestOf } from '../oci/digest.ts'
import { parseManifest } from '../oci/manifest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Tag } from '../oci/reference.ts'
import { untilBlockedOrDone } from '../testing/collect.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { emptyConfig, imageType, startRegistry, type TestRegistry } from '../testing/registry.ts'
import { publish, readPack } from './packs.ts'

// Deletions that meet a publication which is under way: it holds its locks in a transaction that is open, and then the
// deletion comes.

let databases: TestDatabases
let registry: TestRegistry
/** A connection beside the registry's, for the publication. */
let other: Sql
before(async () => {
  databases = await startDatabases()
  const url = await databases.fresh()
  registry = await startRegistry(url)
  other = connect(url, { max: 1 })
})
after(async () => {
  await other?.end()
  await registry?.stop()
  await databases?.stop()
})

/** A manifest that lies in the repository of a pack, and is no version of it yet. */
async function looseManifest(packId: string) {
  const repository = `packs/${packId}` as RepositoryName
  const artifactType = 'application/vnd.stellaops.pack.policy.v1'
  const layers = [await registry.pushBlob(repository, `content of ${packId}`)]
  const document = { schemaVersion: 2, mediaType: imageType, artifactType, config: emptyConfig, layers }
  await registry.pushManifest(repository, 'digest', document)
  const bytes = Buffer.from(JSON.stringify(document))
  return { repository, bytes, digest: digestOf(bytes), manifest: parseManifest(bytes, imageType) }
}

/** Publishes it as version 1.0.0, in a transaction that stays open until the registry waits for one of its locks. */
async function whilePublished<T>({ repository, bytes, digest, manifest }: Loose, then: () => Promise<T>): Promise<T> {
  const tags = ['1.0.0' as Tag]
  const rest = { contentType: imageType, extraTags: [], ifMatch: undefined }
  const push = { repository, bytes, reference: { tag: tags[0] as Tag }, ...rest }
  const pack = await readPack(registry.deps, push, digest, manifest, tags)
  let started: Promise<T> | undefined
  await other.begin(async (open) => {
    const tx = open as unknown as Transaction
    const insert = (names: readonly Tag[]) => insertManifest(tx, repository, digest, manifest, bytes, names)
    const requireMoved = async () => undefined
    assert.equal(await publish(tx, pack, digest, { insert, requireMoved }), 'stored')
    started = then()
    await untilBlockedOrDone(registry, started)
  })
  return (await started) as T
}
type Loose = { repository: RepositoryName; bytes: Buffer; digest: Digest; manifest: ReturnType<typeof parseManifest> }

const statusOf = async (path: string) => {
  const answer = await registry.call('GET', path)
  await answer.arrayBuffer()
  return answer.status
}

describe('a manifest that is published as a version while it is deleted', () => {
  it('by its digest, is deleted as that version', async () => {
    const loose = await looseManifest('by-digest')
    const answer = await whilePublished(loose, () =>
      registry.call('DELETE', `/v2/packs/by-digest/manifests/${loose.digest}`),
    )
    assert.equal(answer.status, 202, await answer.text())
    assert.equal(await statusOf(`/v2/packs/by-digest/manifests/${loose.digest}`), 404)
    assert.equal(await statusOf('/packs/by-digest/1.0.0'), 404)
  })

  it('by its tag, is deleted as that version', async () => {
    const loose = await looseManifest('by-tag')
    // Something that is no version under the name, as it could be pushed before there was a rule.
    const { digest } = await registry.pushManifest('packs/by-tag', 'digest')
    await setTag(other as unknown as Transaction, loose.repository, '1.0.0' as Tag, digest as Digest)
    const answer = await whilePublished(loose, () => registry.call('DELETE', '/v2/packs/by-tag/manifests/1.0.0'))
    assert.equal(answer.status, 202, await answer.text())
    assert.equal(await statusOf('/v2/packs/by-tag/manifests/1.0.0'), 404)
    assert.equal(await statusOf('/packs/by-tag/1.0.0'), 404)
  })
})
