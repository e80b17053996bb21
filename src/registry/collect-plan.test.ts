import assert from 'node:assert/strict'
import { after, before, it } from 'node:test'
import { endGrace } from '../testing/collect.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { sampleManifest, startRegistry, type TestRegistry } from '../testing/registry.ts'
import { planCollection } from './collect-plan.ts'

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

/** Gives many repositories a link to content, which is due. */
async function linkInMany(digest: string, count: number): Promise<void> {
  await registry.deps.db.sql`
    with made as (
      insert into repositories (name) select ${digest.slice(-8)} || '/r' || n from generate_series(1, ${count}::int) as n
      returning id
    )
    insert into repository_blobs (repository_id, digest, review_at) select id, ${digest}, now() from made`
}

// Where each link looked at all the others, each page took minutes, and a statement ends long before.
it('says of content that very many repositories have, and none needs, that it goes once', async () => {
  const many = 20_000
  const gone = await registry.pushBlob('first', 'what nobody needs')
  const kept = await registry.pushBlob('zlast', 'what one needs')
  await linkInMany(gone.digest, many)
  await linkInMany(kept.digest, 100)
  await registry.pushManifest('zlast', 'v1', sampleManifest({ layers: [kept] }))
  await registry.deps.db.sql`analyze repository_blobs`
  await endGrace(registry)
  await registry.deps.db.sql`update blobs set review_at = null`
  const found = new Map<string, number>()
  for await (const { kind, name } of planCollection(registry.deps)) {
    const what = `${kind} ${name}`
    found.set(what, (found.get(what) ?? 0) + 1)
  }
  assert.deepEqual(Object.fromEntries(found), {
    [`link ${gone.digest}`]: many + 1,
    [`blob ${gone.digest}`]: 1,
    [`link ${kept.digest}`]: 100,
  })
})
