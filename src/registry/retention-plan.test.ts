import assert from 'node:assert/strict'
import { after, before, it } from 'node:test'
import type { Sql } from '../db/client.ts'
import type { RepositoryName } from '../oci/name.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { startRegistry, type TestRegistry } from '../testing/registry.ts'
import type { Decision } from './retention-decision.ts'
import { decideOnTags, type Newest, tagDecisions } from './retention-plan.ts'

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
    apply: (target, self, args) =>
      Reflect.apply(target, self, args).then((rows: { length: number }) => {
        count += rows.length
        return rows
      }),
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
