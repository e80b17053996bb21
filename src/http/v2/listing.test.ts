import assert from 'node:assert/strict'
import { after, before, it } from 'node:test'
import fc from 'fast-check'
import { amongEverybody, anonymousWith, compileGrants, type Grant, listFilter, mayAccess } from '../../auth/access.ts'
import { listRepositories } from '../../db/catalog.ts'
import { connect, type Sql } from '../../db/client.ts'
import type { RepositoryName } from '../../oci/name.ts'
import { startDatabases, type TestDatabases } from '../../testing/database.ts'

let databases: TestDatabases
let sql: Sql

const parts = ['a', 'b', 'ab', 'a.b', 'a-b', 'a_b', 'axb', 'a0']
const names = [...parts, ...parts.flatMap((one) => parts.map((two) => `${one}/${two}`)), 'a/b/a', 'a/b/b', 'b/a/a/b']

before(async () => {
  databases = await startDatabases()
  sql = connect(await databases.fresh(), { max: 1 })
  await sql`
    with added as (insert into repositories (name) select unnest(${names}::text[]) returning id)
    insert into manifests (repository_id, digest, media_type, size, payload) select id, 'sha256:1', 'a/b', 1, '1' from added`
})
after(async () => {
  await sql?.end()
  await databases?.stop()
})

const glob = fc
  .array(fc.constantFrom('a', 'b', '.', '-', '_', '/', '*', '**', 'a/', 'a/b', '/*'), { minLength: 1, maxLength: 4 })
  .map((pieces) => pieces.join(''))
  .filter((text) => !text.includes('***'))
const grants = fc.array(fc.record({ glob, actions: fc.constantFrom(['pull'], ['push']) }), { maxLength: 5 })

const exactly = (name: string) => ({ glob: name, actions: ['pull'] as const })

it('lists, page by page, exactly what may be read', async () => {
  await fc.assert(
    fc.asyncProperty(
      grants,
      fc.array(glob, { maxLength: 2 }),
      fc.integer({ min: 1, max: 20 }),
      async (given, all, limit) => {
        const compiled = compileGrants(given as Grant[])
        const somebody = { name: 'x', kind: 'user', shown: 'credential', admin: false } as const
        const principal = amongEverybody({ ...somebody, grants: compiled, listing: compiled }, anonymousWith(all))
        const filter = listFilter(principal.grants)
        const found: string[] = []
        for (let page = limit; page === limit; ) {
          const more = await listRepositories(sql, { last: found.at(-1) ?? '', limit, filter })
          page = more.length
          found.push(...more)
        }
        const readable = names.filter((name) => mayAccess(principal, name as RepositoryName, 'pull'))
        assert.deepEqual(found, readable.sort())
      },
    ),
    { numRuns: 300, examples: [[[exactly('a'), exactly('a/b')], [], 1]] },
  )
})
