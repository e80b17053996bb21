import assert from 'node:assert/strict'
import { after, before, it } from 'node:test'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { connect, type Sql } from './client.ts'
import { beginLoad, copyOut, dumpedTables, firstFilled } from './dump.ts'
import { migrate } from './migrate.ts'

let databases: TestDatabases
let sql: Sql
before(async () => {
  databases = await startDatabases()
  sql = connect(await databases.fresh(), { max: 1 })
})
after(async () => {
  await sql?.end({ timeout: 5 })
  await databases?.stop()
})

for (const length of [100, 20_000, 70_000, 1_000_000])
  it(`a table of ${length} bytes is read to its end, and the connection goes on`, async () => {
    await sql`drop table if exists big`
    await sql`create table big (line text)`
    await sql`insert into big select repeat('x', 99) from generate_series(1, ${length / 100}::int)`
    await sql.begin(async (tx) => {
      let bytes = 0
      for await (const piece of copyOut(tx, { name: 'big', columns: ['line'] })) bytes += piece.length
      assert.equal(bytes, length)
      assert.equal((await tx`select 1`).length, 1)
    })
  })

it('a database that was migrated and never used is empty, until somebody has something in it', async () => {
  const url = await databases.empty()
  await migrate(url)
  const migrated = connect(url, { max: 1 })
  try {
    assert.equal(await firstFilled(migrated), undefined)
    await migrated`insert into repositories (name) values ('team/app')`
    assert.equal(await firstFilled(migrated), 'repositories')
  } finally {
    await migrated.end({ timeout: 5 })
  }
})

it('a restore does not touch the files of a table that is not logged, also where a backup names it', async () => {
  const tables = await dumpedTables(sql)
  const name = 'upstream_fetches'
  assert.ok(!tables.some((table) => table.name === name))
  await sql.begin(async (tx) => {
    const file = () =>
      tx`select pg_relation_filenode(${name}::text::regclass) as unlogged, pg_relation_filenode('tags') as logged`
    const [before] = await file()
    await beginLoad(tx, [...tables, { name, columns: ['thing', 'holder', 'leased_until'] }])
    const [after] = await file()
    assert.equal(after?.unlogged, before?.unlogged)
    assert.notEqual(after?.logged, before?.logged)
  })
})
