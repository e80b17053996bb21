import assert from 'node:assert/strict'
import { after, before, it } from 'node:test'
import type { Dependent } from '../db/packs.ts'
import type { PackId } from '../packs/pack.ts'
import type { Version } from '../packs/version.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { startRegistry, type TestRegistry } from '../testing/registry.ts'
import { dependentsOn, firstDependents } from './dependents.ts'

const packId = 'popular' as PackId
let databases: TestDatabases
let registry: TestRegistry
before(async () => {
  databases = await startDatabases()
  registry = await startRegistry(await databases.fresh())
  await dependOn(packId, 2_500, ['^1.0.0', '>=2.5.0', '^2.0.0', 'nonsense', '1.x || 2.x'])
  await registry.deps.db.sql`analyze packs, pack_versions, pack_dependencies`
})
after(async () => {
  await registry?.stop()
  await databases?.stop()
})

/** Makes many packs of one version each that depend on a pack, by these ranges in turn. */
async function dependOn(popular: PackId, count: number, ranges: readonly string[]): Promise<void> {
  await registry.deps.db.sql`
    with made as (
      insert into repositories (name) select 'packs/user-' || lpad(n::text, 6, '0') from generate_series(1, ${count}::int) as n
      returning id, substr(name, 7) as pack, substr(name, 12)::int as n
    ), manifest as (
      insert into manifests (repository_id, digest, media_type, size, payload) select id, 'sha256:a', 'a/b', 1, 'a' from made
    ), pack as (
      insert into packs (repository_id, pack_id) select id, pack from made
    ), version as (
      insert into pack_versions (repository_id, release, version, precedence, prerelease, type, document, manifest_digest,
        content_digest, content_size, content_type)
      select id, '1.0.0', '1.0.0', '1', false, 'policy', '{}', 'sha256:a', 'sha256:b', 1, 'a/b' from made
    )
    insert into pack_dependencies (repository_id, release, depends_on, range, optional)
    select id, '1.0.0', ${popular}, (${ranges as string[]}::text[])[n % ${ranges.length}::int + 1], false from made`
}

it('the first dependents are those of the list, and are counted without it', async () => {
  const { sql } = registry.deps.db
  const everybody = () => true
  const late = (id: PackId) => id >= 'user-002480'
  for (const version of ['1.2.0', '2.0.0', '2.6.0', '0.1.0', '3.0.0-rc.1'] as Version[])
    for (const mayList of [everybody, late, () => false]) {
      const all: Dependent[] = []
      for await (const { dependent } of dependentsOn(sql, { packId, version })) all.push(dependent)
      const listed = all.filter((dependent) => mayList(dependent.packId)).slice(0, 20)
      const first = await firstDependents(sql, { packId, version }, { most: 20, mayList })
      assert.deepEqual(first, { count: all.length, listed }, version)
    }
})

it('where none of them accepts a version, nobody is looked up by name', async () => {
  const { sql } = registry.deps.db
  await sql.begin(async (tx) => {
    const read = async () => {
      const [row] = await tx<{ rows: number }[]>`
        select (coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::int as rows
        from pg_stat_xact_user_tables where relname = 'packs'`
      return row?.rows
    }
    const before = await read()
    const most = { most: 20, mayList: () => true }
    const first = await firstDependents(tx, { packId, version: '0.1.0' as Version }, most)
    assert.deepEqual([first, await read()], [{ count: 0, listed: [] }, before])
  })
})
