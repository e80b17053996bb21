import assert from 'node:assert/strict'
import { after, before, it } from 'node:test'
import type { Sql } from '../db/client.ts'
import { bytesOfOnly } from '../db/retention-facts.ts'
import type { Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { PackId } from '../packs/pack.ts'
import { isPrerelease, precedenceOf, type Version } from '../packs/version.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { publish } from '../testing/packs.ts'
import { startRegistry, type TestRegistry } from '../testing/registry.ts'
import { type Decision, decideVersions } from './retention-decision.ts'
import { decideOnTags, decideOnVersion, type Newest, tagDecisions, versionFacts } from './retention-plan.ts'

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

const repository = 'many/tags' as RepositoryName
const policy = { name: 'few', repositories: ['**'], tags: { keepNewest: 3 } }
const rules = { policies: [policy], acting: new Set(['few']) }

/** The same connection, counting the rows that it brings. */
function counting(sql: Sql): { sql: Sql; rows(): number } {
  let count = 0
  const counted = new Proxy(sql, {
    apply(target, self, args) {
      const query = Reflect.apply(target, self, args)
      const wait = query.then.bind(query)
      const counted = (rows: { length: number }) => {
        count += rows.length
        return rows
      }
      // When it is waited for, and not before: a part of a statement is made in the same way.
      // biome-ignore lint/suspicious/noThenProperty: that is how it is waited for
      return Object.assign(query, { then: (...next: unknown[]) => wait(counted).then(...next) })
    },
  })
  return { sql: counted, rows: () => count }
}

it('decides on the tags of a repository group by group without reading all of them each time', async () => {
  await registry.pushManifest(repository, 'first')
  const { sql } = registry.deps.db
  await sql`
    insert into tags (repository_id, name, manifest_digest, updated_at)
    select repository_id, 't' || i, manifest_digest, now() - make_interval(mins => i)
    from tags, generate_series(1, 2000) i where name = 'first'`
  const memory: { newest?: Newest } = {}
  const now = Date.now()
  const { sql: counted, rows } = counting(sql)
  const names = Array.from({ length: 2000 }, (_, i) => `t${i + 1}`)
  const decided: Decision[] = []
  for (let at = 100; at < names.length; at += 100)
    decided.push(...(await decideOnTags(counted, { repository, names: names.slice(at, at + 100) }, rules, now, memory)))
  // Each tag once, and all of them once more; with every group the three that are kept.
  assert.ok(rows() <= 2 * 2001 + 19 * 3, `${rows()} rows`)
  const whole = await tagDecisions(sql, repository, rules, now)
  const byName = new Map(whole.map((decision) => [decision.name, decision]))
  assert.deepEqual(
    decided,
    names.slice(100).map((name) => byName.get(name)),
  )

  // The newest go, and others take their places: seen at once.
  const ask = async (...some: string[]) =>
    (await decideOnTags(sql, { repository, names: some }, rules, now, memory)).map(({ name, action }) => [name, action])
  assert.deepEqual(await ask('t3', 't4'), [
    ['t3', 'remove'],
    ['t4', 'remove'],
  ])
  await sql`delete from tags where name in ('first', 't1')`
  assert.deepEqual(await ask('t4', 't5'), [
    ['t4', 'keep'],
    ['t5', 'remove'],
  ])
  await sql`update tags set updated_at = now() where name = 't1500'`
  assert.deepEqual(await ask('t1500', 't4'), [
    ['t1500', 'keep'],
    ['t4', 'remove'],
  ])
})

it('decides on a version as if all of its pack were read, and reads those alone that have a say in it', async () => {
  const packId = 'many' as PackId
  assert.equal((await publish(registry, { packId, version: '0.1.0' }, 'content')).status, 201)
  const numbers = Array.from({ length: 100 }, (_, i) => i)
  const releases = numbers.flatMap((i) => [`1.${i}.0`, `1.${i}.0-rc.1`, `1.${i}.1-rc.1`]) as Version[]
  const { sql } = registry.deps.db
  await sql`
    insert into pack_versions (repository_id, release, version, precedence, prerelease, type, document, manifest_digest,
      content_digest, content_size, content_type, published_at)
    select v.repository_id, n.release, n.release, n.precedence, n.pre, v.type, v.document, v.manifest_digest, v.content_digest,
      v.content_size, v.content_type, now() - make_interval(days => 10)
    from pack_versions v, unnest(${releases}::text[], ${releases.map(precedenceOf)}::text[],
      ${releases.map((version) => String(isPrerelease(version)))}::text[]::boolean[]) as n (release, precedence, pre)
    where v.version = '0.1.0'`
  await sql`update pack_versions set state = 'yanked' where release >= '1.95' and release < '1.99.1'`
  await sql`insert into holds (pack_id, version, held_by, reason) values (${packId}, '1.7.0', 'me', 'mine')`
  const kept = { versions: { keepNewest: 2 }, prereleases: { keepNewest: 3, keepUnreleased: true } }
  const pair = { policies: [{ name: 'few', repositories: ['**'], ...kept }], acting: new Set(['few']) }
  const now = Date.now()
  const everything = async () => (await versionFacts(sql, [packId])).get(packId)?.versions ?? []
  const compare = async () => {
    const whole = new Map(decideVersions(await everything(), pair, now).map((decision) => [decision.name, decision]))
    const { sql: counted, rows } = counting(sql)
    for (const version of releases) {
      const { digest, decision } = await decideOnVersion(counted, { packId, version }, pair, now)
      assert.equal(digest === undefined, !whole.has(version))
      assert.deepEqual(decision, whole.get(version))
    }
    // The three that are kept of either kind, the latest of each, itself and its release: named, and then read.
    assert.ok(rows() <= releases.length * 2 * 10, `${rows()} rows`)
    return [...whole.values()].filter(({ action }) => action === 'keep').map(({ name }) => name)
  }
  const stay = await compare()
  assert.ok(
    ['1.99.0', '1.98.0', '1.94.0', '1.7.0', '1.5.1-rc.1'].every((name) => stay.includes(name)),
    stay.join(),
  )
  assert.ok(
    ['1.97.0', '1.5.0', '1.5.0-rc.1'].every((name) => !stay.includes(name)),
    stay.join(),
  )
  await sql`update pack_versions set state = 'yanked'`
  assert.ok(!(await compare()).includes('1.94.0'))
})

it('knows what a manifest needs alone without reading all that need the same', async () => {
  const { sql } = registry.deps.db
  const alike = 'many/alike' as RepositoryName
  const hex = (letter: string, n: number) => `sha256:${`${letter}${n}`.padEnd(64, '0')}` as Digest
  const [shared, own, used, unused] = ['a', 'b', 'c', 'd'].map((letter) => hex(letter, 1)) as Digest[]
  await sql`insert into repositories (name) values (${alike}), ('many/others')`
  for (const [i, digest] of [shared, own, used, unused].entries())
    await sql`insert into blobs (digest, size, storage_key) values (${digest ?? ''}, ${10 ** i}, ${`key-${i}`})`
  await sql`
    insert into repository_blobs (repository_id, digest) select r.id, b.digest from repositories r, blobs b
    where r.name in (${alike}, 'many/others') and b.storage_key like 'key-%'`
  await sql`
    insert into manifests (repository_id, digest, media_type, size, payload)
    select id, 'sha256:' || rpad('e' || n, 64, 'f'), 'text/a', 1, 'x'::bytea from repositories, generate_series(1, 6000) n where name = ${alike}
    union all select id, ${hex('e', 9)}, 'text/a', 1, 'x'::bytea from repositories where name = 'many/others'`
  await sql`
    insert into manifest_blobs (repository_id, manifest_digest, blob_digest)
    select m.repository_id, m.digest, b.digest from manifests m join repositories r on r.id = m.repository_id, blobs b
    where b.digest = ${shared ?? ''} and r.name = ${alike}
      or b.digest in (${own ?? ''}, ${used ?? ''}, ${unused ?? ''}) and m.digest like 'sha256:e1ff%' and r.name = ${alike}
      or b.digest = ${used ?? ''} and r.name = 'many/others'`
  await sql`analyze manifest_blobs`
  const all = (await sql<{ digest: Digest }[]>`select digest from manifests where digest like 'sha256:e%f'`).map(
    ({ digest }) => digest,
  )
  const first = all.filter((digest) => digest.startsWith('sha256:e1ff'))
  assert.equal(await bytesOfOnly(sql, alike, all), 1 + 10 + 1000)
  const others = all.filter((digest) => !first.includes(digest))
  assert.deepEqual([others.length, await bytesOfOnly(sql, alike, others)], [5999, 0])
  const read = await sql.begin(async (tx) => {
    const rows = async () => {
      const [row] = await tx<{ rows: number }[]>`
        select (seq_tup_read + idx_tup_fetch)::int as rows from pg_stat_xact_user_tables where relname = 'manifest_blobs'`
      return row?.rows ?? Number.NaN
    }
    const before = await rows()
    assert.equal(await bytesOfOnly(tx, alike, first), 10 + 1000)
    return (await rows()) - before
  })
  assert.ok(read < 100, `${read} rows`)
})
