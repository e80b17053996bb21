// A rolling upgrade: a next version of the registry, which brings a migration, starts beside one that goes on serving.
// The next version is this one and a migration that only adds; that is the rule for every migration within a release.
import assert from 'node:assert/strict'
import { cpSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { type Postgres15, startPostgres15 } from '../scripts/services/postgres15.ts'
import { connect } from '../src/db/client.ts'
import { openBalancer } from './gc/balancer.ts'
import { chanceOf } from './gc/chance.ts'
import { type Entry, Ledger } from './gc/ledger.ts'
import { type Load, openClient, store, verify } from './gc/load.ts'
import { manifestOf, sha256 } from './registry-client.ts'
import { type Server, startRefused, startServer, temporaryFolder } from './server.ts'

const checkout = join(import.meta.dirname, '..')

/** A column with a default, a new table with a foreign key to an old one, an index: what a release may do to the schema. */
const migration = `
alter table manifests add column next_note text not null default 'none';
alter table repository_blobs add column next_count integer;
create table next_things (
  id bigint generated always as identity primary key,
  repository_id bigint not null references repositories (id)
);
create index manifests_next_note on manifests (next_note) where next_note <> 'none';
`

/** The source of this version with one more migration. */
function nextVersion(folder: string): string {
  const copy = join(folder, 'next')
  mkdirSync(copy)
  for (const name of ['src', 'package.json', 'tsconfig.json'])
    cpSync(join(checkout, name), join(copy, name), { recursive: true })
  symlinkSync(join(checkout, 'node_modules'), join(copy, 'node_modules'))
  writeFileSync(join(copy, 'src/db/migrations/9999_next.sql'), migration)
  return copy
}

describe('a rolling upgrade', () => {
  let postgres: Postgres15
  let folder: string
  let env: Record<string, string>
  const servers: Server[] = []
  const start = async (options: Parameters<typeof startServer>[0]) => {
    const server = await startServer({ ...options, env })
    servers.push(server)
    return server
  }
  before(async () => {
    postgres = (await startPostgres15()) ?? assert.fail('PostgreSQL 15 is not installed: scripts/services/clients.sh')
    folder = temporaryFolder()
    env = { DATABASE_URL: postgres.url, BLOB_STORE: `file:${join(folder, 'blobs')}`, LOG_LEVEL: 'warn' }
  })
  after(async () => {
    for (const server of servers) await server.kill()
    await postgres?.stop()
    if (folder) rmSync(folder, { recursive: true, force: true })
  })

  it('the old version goes on while the next one migrates and after; then it may not start again', async () => {
    const [first, second] = [await start({}), await start({})]
    const pushed: Entry[] = []
    const chance = chanceOf(1)
    const load = { ledger: new Ledger(), chance, graceMs: 100, contents: [], repositories: [], isOver: () => false }
    /**
     * Pushes through one server, reads through another. While a migration has a table to itself, a client may be told to
     * come back, and gets through then; it is never told anything else.
     */
    const exchange = async (by: Server, from: Server) => {
      const contents = [chance.bytes(100), chance.bytes(20_000)] as const
      const bytes = manifestOf(contents[0], [contents[1]])
      const digest = sha256(bytes)
      const blobs = contents.map(sha256)
      const entry: Entry = { repository: 'upgrade/pack', digest, bytes, blobs, contents, state: 'unsure' }
      const asked: Load = { ...load, urls: [by.url], repositories: [entry.repository] }
      await store(openClient(asked, pushed.push(entry)), entry, `t${pushed.length}`)
      await verify(openBalancer([from.url]), entry)
    }
    await exchange(first, second)

    // Load on both old replicas from before the migration until the next version is ready.
    let isReady = false
    const loads = [first, second].map(async (server, n) => {
      for (const other = n === 0 ? second : first; !isReady; ) await exchange(server, other)
    })
    const [next] = await Promise.all([
      start({ checkout: nextVersion(folder) }).finally(() => {
        isReady = true
      }),
      ...loads,
    ])
    assert.equal(await newestMigration(postgres.url), '9999_next.sql')

    for (let round = 0; round < 3; round++) {
      await exchange(next, first)
      await exchange(second, next)
    }
    await first.stop()
    // Which version wrote it makes no difference to whoever reads.
    for (const server of [second, next]) for (const entry of pushed) await verify(openBalancer([server.url]), entry)

    const refused = temporaryFolder()
    try {
      const { code, said } = await startRefused({ dataDir: refused, env })
      assert.notEqual(code, 0)
      assert.match(said, /schema \(9999_next\.sql\) is newer than this version knows/)
      assert.match(said, /Start the newer version again, or restore a backup/)
    } finally {
      rmSync(refused, { recursive: true, force: true })
    }
    // The one that was not restarted still serves, and the refused start has changed nothing.
    await exchange(second, next)
    await second.stop()
    await next.stop()
  })
})

async function newestMigration(url: string): Promise<string | undefined> {
  const sql = connect(url, { max: 1 })
  try {
    const [row] = await sql<{ name: string }[]>`select name from schema_migrations order by number desc limit 1`
    return row?.name
  } finally {
    await sql.end()
  }
}
