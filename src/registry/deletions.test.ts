import assert from 'node:assert/strict'
import { after, before, it } from 'node:test'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { startRegistry, type TestRegistry } from '../testing/registry.ts'
import { tidy } from './deletions.ts'

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

async function objects(prefix: string): Promise<string[]> {
  const keys: string[] = []
  for await (const { key } of registry.deps.blobs.list(prefix)) keys.push(key)
  return keys
}

it('ends forgotten uploads with their chunks, and leaves the others alone', async () => {
  const start = async () => {
    const location = (await registry.call('POST', '/v2/tidy/blobs/uploads/')).headers.get('location') ?? ''
    const patch = await registry.call('PATCH', location, { body: 'a chunk' })
    return patch.headers.get('location') ?? ''
  }
  const [forgotten, current] = [await start(), await start()]
  assert.equal((await objects('uploads/')).length, 2)
  const { sql } = registry.deps.db
  await sql`update uploads set expires_at = now() where id = ${forgotten.split('/').at(-1) ?? ''}`
  assert.equal((await registry.call('GET', forgotten)).status, 404)
  const rounds = await Promise.all([tidy(registry.deps), tidy(registry.deps)])
  assert.equal(rounds[0].expired + rounds[1].expired, 1)
  assert.equal((await objects('uploads/')).length, 1)
  assert.equal((await registry.call('GET', current)).status, 204)
  assert.equal((await sql`select 1 from blob_deletions`).length, 0)
})
