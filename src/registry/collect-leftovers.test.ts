import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { mkdir, readdir, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, it } from 'node:test'
import { chunkKey, type ObjectKey } from '../blobs/keys.ts'
import { storedKeys } from '../testing/collect.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { startRegistry, type TestRegistry } from '../testing/registry.ts'
import { findLeftovers, sweepLeftovers } from './collect-leftovers.ts'

let databases: TestDatabases
let registry: TestRegistry
let folder: string
before(async () => {
  databases = await startDatabases()
  registry = await startRegistry(await databases.fresh())
  folder = registry.deps.config.blobStore.slice('file:'.length)
})
after(async () => {
  await registry?.stop()
  await databases?.stop()
})

async function ageFile(path: string, hours: number): Promise<void> {
  const then = Date.now() / 1000 - hours * 3600
  await utimes(path, then, then)
}

async function stage(hours: number, id: string = randomUUID()): Promise<string> {
  const key = chunkKey(id)
  await registry.deps.blobs.put(key, Buffer.from('staged'))
  await ageFile(join(folder, key), hours)
  return key
}

it('removes what crashes have left, by age, and nothing that a session names', async () => {
  const location = (await registry.call('POST', '/v2/left/blobs/uploads/')).headers.get('location') ?? ''
  await registry.call('PATCH', location, { body: 'a chunk' })
  const [named = ''] = await storedKeys(registry, 'uploads/')
  await ageFile(join(folder, named), 100)
  const foreign = 'uploads/not-a-session/x' as ObjectKey
  await registry.deps.blobs.put(foreign, Buffer.from('x'))
  await ageFile(join(folder, foreign), 100)
  const [old, young] = [await stage(49), await stage(47)]
  for (const [name, hours] of [
    ['crashed', 49],
    ['writing', 1],
  ] as const) {
    await writeFile(join(folder, 'tmp', name), 'x')
    await ageFile(join(folder, 'tmp', name), hours)
  }
  await mkdir(join(folder, 'tmp', 'probe-crashed'))
  await ageFile(join(folder, 'tmp', 'probe-crashed'), 49)

  const found = []
  for await (const { kind, name } of findLeftovers(registry.deps))
    found.push(`${kind} ${name.split('/').slice(-2).join('/')}`)
  const last = (key: string) => key.split('/').slice(-2).join('/')
  const expected = [
    'file tmp/crashed',
    'file tmp/probe-crashed',
    `staged object ${last(foreign)}`,
    `staged object ${last(old)}`,
  ]
  assert.deepEqual(found.sort(), expected.sort())

  assert.deepEqual(await sweepLeftovers(registry.deps), { files: 2, multipartUploads: 0, stagedObjects: 2 })
  assert.deepEqual(await storedKeys(registry, 'uploads/'), [named, young].sort())
  assert.deepEqual(await readdir(join(folder, 'tmp')), ['writing'])
  assert.equal((await registry.deps.db.sql`select from blob_deletions`).length, 0)
  assert.deepEqual(await sweepLeftovers(registry.deps), { files: 0, multipartUploads: 0, stagedObjects: 0 })
})

it('goes through many staged objects', async () => {
  const ids = [randomUUID(), randomUUID()]
  for (let n = 0; n < 1100; n++) await stage(60, ids[n % 2])
  assert.equal((await sweepLeftovers(registry.deps)).stagedObjects, 1100)
})
