import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { chmod, cp, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { storedKey } from '../blobs/keys.ts'
import { openMemoryStore } from '../blobs/memory.ts'
import { openClient, type Pack } from '../client/client.ts'
import { readConfig } from '../config.ts'
import { connect } from '../db/client.ts'
import { startEmbedded } from '../db/embedded.ts'
import { migrate } from '../db/migrate.ts'
import type { BackupFile } from '../registry/backup.ts'
import { RestoreRefused } from '../registry/backup-documents.ts'
import { emptyQueue } from '../registry/deletions.ts'
import { restoreBackup } from '../registry/restore.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { type Descriptor, sampleManifest, startRegistry, type TestRegistry } from '../testing/registry.ts'
import { noS3, startS3, type TestS3 } from '../testing/s3.ts'
import { waitFor } from '../testing/wait.ts'
import { exitCodeOf } from './failure.ts'
import { openOutput } from './output.ts'
import { restore } from './restore.ts'

const main = new URL('../main.ts', import.meta.url).pathname

let databases: TestDatabases
let s3: TestS3 | undefined
let credentials = {}
let work: string
let registry: TestRegistry
let url: string
const layers: { descriptor: Descriptor; bytes: Buffer }[] = []

before(async () => {
  work = await mkdtemp(join(tmpdir(), 'packs-backup-'))
  databases = await startDatabases()
  s3 = await startS3()
  if (s3) credentials = { AWS_ACCESS_KEY_ID: s3.accessKey, AWS_SECRET_ACCESS_KEY: s3.secretKey }
  Object.assign(process.env, credentials)
  url = await databases.fresh()
  registry = await startRegistry(url, { BLOB_REDIRECT: 'false' })
  await fill()
})
after(async () => {
  await registry?.stop()
  await s3?.stop()
  await databases?.stop()
  await rm(work, { recursive: true, force: true })
})

async function fill(): Promise<void> {
  for (const size of [10, 100_000, 5_000_000]) {
    const bytes = randomBytes(size)
    layers.push({ bytes, descriptor: await registry.pushBlob('lib/app', bytes) })
  }
  const manifest = sampleManifest({ layers: layers.map(({ descriptor }) => descriptor) })
  await registry.pushManifest('lib/app', 'v1', manifest)
  await registry.pushManifest('lib/app', 'v1', sampleManifest({ annotations: { 'a\tb': 'tab\nand \\ line' } }))
  await registry.pushManifest('lib/app', 'v2', manifest)
  const form = new FormData()
  form.append('manifest', new Blob([JSON.stringify({ packId: 'net', type: 'policy', version: '1.0.0' })]), 'pack.json')
  form.append('content', new Blob(['rules']), 'content.tgz')
  assert.equal((await fetch(`${registry.url}/packs`, { method: 'POST', body: form })).status, 201)
  // Work under way is not carried along.
  const location = (await registry.call('POST', '/v2/lib/app/blobs/uploads/')).headers.get('location') ?? ''
  await registry.call('PATCH', location, { body: 'a chunk' })
}

type Ended = { code: number; out: string; err: string }

const { PATH, HOME } = process.env

async function packs(args: string[], env: Record<string, string> = {}): Promise<Ended> {
  const child = execFile(process.execPath, ['--import', 'tsx', main, ...args], {
    env: { PATH, HOME, LOG_LEVEL: 'warn', ...credentials, ...env },
  })
  let [out, err] = ['', '']
  child.stdout?.on('data', (text) => {
    out += text
  })
  child.stderr?.on('data', (text) => {
    err += text
  })
  const [code] = await once(child, 'close')
  return { code, out, err }
}

/** `packs restore`, in this process: to start one takes longer than to restore. */
async function restored(file: string, env: Record<string, string>): Promise<Ended> {
  let out = ''
  const result = (value: unknown) => {
    out = JSON.stringify(value)
  }
  const output = { ...openOutput({}), json: true, result }
  try {
    return { code: await restore(readConfig(env), file, output), out, err: '' }
  } catch (error) {
    return { code: exitCodeOf(error), out, err: (error as Error).message }
  }
}

const here = () => ({ DATABASE_URL: url, BLOB_STORE: registry.deps.config.blobStore })

async function backup(name: string, ...flags: string[]): Promise<string> {
  const file = join(work, name)
  const ended = await packs(['backup', '-o', file, ...flags], here())
  assert.equal(ended.code, 0, ended.out + ended.err)
  return file
}

/** What there is to read, by both doors; a registry over another place answers the same. */
async function told({ call }: TestRegistry): Promise<unknown> {
  const manifests = await Promise.all(
    ['v1', 'v2'].map(async (tag) => (await call('GET', `/v2/lib/app/manifests/${tag}`)).text()),
  )
  const blobs = await Promise.all(
    layers.map(async ({ descriptor, bytes }) => {
      const answer = await call('GET', `/v2/lib/app/blobs/${descriptor.digest}`)
      return Buffer.from(await answer.arrayBuffer()).equals(bytes)
    }),
  )
  const pack = await (await call('GET', '/packs/net/1.0.0/manifest')).json()
  const content = await (await call('GET', '/packs/net/latest')).text()
  const listed = await (await call('GET', '/packs')).json()
  return { manifests, blobs, pack, content, listed }
}

async function history(address: string): Promise<unknown> {
  const sql = connect(address, { max: 1 })
  const rows = await sql`select name, manifest_digest from tag_history order by id`
  await sql.end()
  return [...rows]
}

async function requireEmpty(address: string): Promise<void> {
  const sql = connect(address, { max: 1 })
  const tables = await sql`select to_regclass('public.repositories') as there`
  if (tables[0]?.there) {
    assert.equal((await sql`select 1 from repositories union all select 1 from blobs`).length, 0)
    const off = await sql`select tgname from pg_trigger where not tgisinternal and tgenabled = 'D'`
    assert.deepEqual([...off], [])
  }
  await sql.end()
}

type TarFile = { name: string; size: number; content: Buffer }

/** The files of a tar whose names are short. */
function filesIn(tar: Buffer): TarFile[] {
  const files: TarFile[] = []
  for (let at = 0; tar[at] !== 0; ) {
    const name = tar.toString('latin1', at, tar.indexOf(0, at))
    const size = Number.parseInt(tar.toString('latin1', at + 124, at + 136), 8)
    files.push({ name, size, content: tar.subarray(at + 512, at + 512 + size) })
    at += 512 + Math.ceil(size / 512) * 512
  }
  return files
}

/** The tar with a file in it changed, to one as long. */
function changedIn(tar: Buffer, name: string, change: (text: string) => string): Buffer {
  const changed = Buffer.from(tar)
  const { content } = filesIn(changed).find((file) => file.name === name) ?? assert.fail(name)
  const before = content.toString('latin1')
  assert.equal(content.write(change(before), 'latin1'), before.length)
  assert.notEqual(content.toString('latin1'), before)
  return changed
}

const places = [
  { name: 'a folder', store: async () => `file:${await mkdtemp(join(work, 'store-'))}`, needsS3: false },
  {
    name: 'S3',
    store: async () => `s3://${s3?.bucket}/${randomBytes(4).toString('hex')}?endpoint=${s3?.endpoint}&pathStyle=true`,
    needsS3: true,
  },
]

describe('packs backup and packs restore', () => {
  for (const { name, store, needsS3 } of places)
    it(`restore what was backed up to ${name}, clean, and the same by both doors`, async (t) => {
      if (needsS3 && !s3) return t.skip(noS3)
      const file = await backup(`whole-${name}.tar`, '--with-blobs')
      assert.equal((await stat(file)).mode & 0o777, 0o600)
      const [address, blobStore] = [await databases.empty(), await store()]
      const target = { DATABASE_URL: address, BLOB_STORE: blobStore }
      const ended = await restored(file, target)
      assert.equal(ended.code, 0, ended.out + ended.err)
      assert.deepEqual(JSON.parse(ended.out).open, {})

      const scrubbed = await packs(['scrub', '--rate', '0', '--json'], target)
      assert.equal(scrubbed.code, 0, scrubbed.out + scrubbed.err)
      const twin = await startRegistry(address, { BLOB_STORE: blobStore, BLOB_REDIRECT: 'false' })
      try {
        assert.deepEqual(await told(twin), await told(registry))
        assert.deepEqual(await history(address), await history(url))
        await twin.pushManifest('lib/new', 'v1')
        const { pack } = (await (await twin.call('GET', '/packs/net/1.0.0/manifest')).json()) as { pack: Pack }
        const pulled = await openClient({ url: twin.url }).pullOne(pack, { into: await mkdtemp(join(work, 'pull-')) })
        assert.equal(await readFile(pulled.file, 'utf8'), 'rules')
      } finally {
        await twin.stop()
      }
      assert.equal((await restored(file, target)).code, 11, 'it is not empty any more')
    })

  it('without content: the list of it, for a store that is replicated by other means', async () => {
    const file = await backup('listed.tar', '--hold', '1h')
    const store = await mkdtemp(join(work, 'replica-'))
    await cp(new URL(registry.deps.config.blobStore).pathname, store, { recursive: true })
    const target = { DATABASE_URL: await databases.empty(), BLOB_STORE: `file:${store}` }
    const ended = await restored(file, target)
    assert.equal(ended.code, 0, ended.out + ended.err)
    const twin = await startRegistry(target.DATABASE_URL, { BLOB_STORE: target.BLOB_STORE })
    assert.deepEqual(await told(twin), await told(registry))
    await twin.stop()

    // The hold outlasts the backup: what is collected keeps its object until it ends.
    const { sql } = registry.deps.db
    await registry.deps.blobs.put(storedKey('blobs/held'), Buffer.from('x'))
    await sql`insert into blob_deletions (storage_key) values ('blobs/held')`
    assert.equal((await emptyQueue(registry.deps)).objects, 0)
    assert.equal(await registry.deps.blobs.size(storedKey('blobs/held')), 1)
    await sql`update backup_holds set until = now()`
    assert.equal((await emptyQueue(registry.deps)).objects, 1)
  })

  it('a store that lost something is restored, and what is missing is said', async () => {
    const file = await backup('lossy.tar')
    const store = await mkdtemp(join(work, 'lossy-'))
    await cp(new URL(registry.deps.config.blobStore).pathname, store, { recursive: true })
    const digest = layers[1]?.descriptor.digest ?? ''
    const [row] = await registry.deps.db.sql<{ key: string }[]>`
      select storage_key as key from blobs where digest = ${digest}`
    await rm(join(store, row?.key ?? ''))
    const target = { DATABASE_URL: await databases.empty(), BLOB_STORE: `file:${store}` }
    const ended = await restored(file, target)
    assert.equal(ended.code, 2, ended.err)
    assert.deepEqual(JSON.parse(ended.out).open, { 'object-missing': 1 })
  })

  it('content that is wrong already is told when it is backed up', async () => {
    const bytes = randomBytes(1000)
    const { digest } = await registry.pushBlob('lib/bad', bytes)
    const { sql } = registry.deps.db
    const [row] = await sql<{ key: string }[]>`select storage_key as key from blobs where digest = ${digest}`
    const path = registry.deps.blobs.filePath?.(storedKey(row?.key ?? '')) ?? ''
    await writeFile(path, Buffer.from(bytes).fill(0, 3, 4))
    const made = await packs(['backup', '-o', join(work, 'bad.tar'), '--with-blobs', '--json'], here())
    assert.equal(made.code, 2, made.out + made.err)
    assert.deepEqual(JSON.parse(made.out).damaged, [digest])
    const target = { DATABASE_URL: await databases.empty(), BLOB_STORE: `file:${await mkdtemp(join(work, 'bad-'))}` }
    const ended = await restored(join(work, 'bad.tar'), target)
    assert.equal(ended.code, 2, ended.err)
    assert.deepEqual(JSON.parse(ended.out).open, { 'object-missing': 1 })
    await registry.pushBlob('lib/bad', bytes)
    assert.equal((await registry.call('DELETE', `/v2/lib/bad/blobs/${digest}`)).status, 202)
    await sql`delete from blobs where digest = ${digest}`
  })

  it('beside a server that has the embedded database', async () => {
    const dataDir = await mkdtemp(join(tmpdir(), 'packs-embedded-'))
    await chmod(dataDir, 0o755)
    const owner = await startEmbedded({ dataDir, settings: { fsync: 'off' } })
    try {
      await migrate(owner.url)
      const scrubbed = await packs(['scrub', '--data-dir', dataDir, '--json'])
      assert.equal(scrubbed.code, 0, scrubbed.out + scrubbed.err)
      const ended = await packs(['backup', '--data-dir', dataDir, '-o', work, '--json'])
      assert.equal(ended.code, 0, ended.out + ended.err)
      assert.match(JSON.parse(ended.out).file, /packs-backup-\d{8}T\d{6}Z\.tar$/)
    } finally {
      await owner.stop()
      await rm(dataDir, { recursive: true, force: true })
    }
  })

  describe('refuses', () => {
    const files: Record<string, string> = {}
    before(async () => {
      files['with content'] = await backup('refused.tar', '--with-blobs')
      files['without content'] = await backup('refused-listed.tar')
    })
    const changes: { name: string; change(bytes: Buffer): Buffer; says: RegExp; only?: string; code?: number }[] = [
      { name: 'a file that is cut off', change: (bytes) => bytes.subarray(0, bytes.length / 2), says: /cut off/ },
      {
        name: 'rows that were changed',
        change: (bytes) => Buffer.from(bytes.toString('latin1').replace('\tlib/app\t', '\tlib/apx\t'), 'latin1'),
        says: /tables\/\w+\/1 of the backup is not what it was/,
      },
      {
        name: 'rows of another form',
        change: (bytes) => changedIn(bytes, 'tables/blobs/1', (text) => text.replace(/\t\d/, '\tx')),
        says: /the database does not take tables\/blobs of the backup: it is damaged/,
      },
      {
        name: 'rows that refer to none',
        change: (bytes) =>
          changedIn(bytes, 'tables/repository_blobs/1', (text) =>
            text.replace(/sha256:(.)/, (_, digit) => `sha256:${digit === '0' ? 1 : 0}`),
          ),
        says: /the database does not take tables\/repository_blobs of the backup: it is damaged, unless/,
      },
      {
        name: 'a column that is none',
        change: (bytes) => changedIn(bytes, 'backup.json', (text) => text.replace('"storage_key"', '"storage_kex"')),
        says: /the database does not take backup.json of the backup: it is damaged/,
      },
      {
        name: 'a list of content that was changed',
        change: (bytes) => changedIn(bytes, 'objects/1', (text) => text.replace('"size":', '"sixe":')),
        says: /objects\/1 of the backup is not what it was/,
        only: 'without content',
      },
      {
        name: 'content that was changed',
        change(bytes) {
          const changed = Buffer.from(bytes)
          const at = bytes.indexOf(layers[2]?.bytes.subarray(0, 32) ?? '')
          changed[at] = (changed[at] ?? 0) ^ 1
          return changed
        },
        says: /is not what its digest says/,
        only: 'with content',
      },
      {
        name: 'a backup of a later version',
        change: (bytes) =>
          Buffer.from(bytes.toString('latin1').replace(/"migrations": \[\n {2}1,/, '"migrations": [\n 99,'), 'latin1'),
        says: /which this version does not know/,
        code: 11,
      },
      { name: 'what is no backup', change: () => Buffer.from('hello'), says: /no backup|no tar/ },
    ]
    for (const kind of ['with content', 'without content'])
      for (const { name, change, says, code = 2 } of changes.filter(({ only = kind }) => only === kind))
        it(`${name} (${kind}), and leaves the database empty`, async () => {
          const changed = join(work, `${randomBytes(4).toString('hex')}.tar`)
          await writeFile(changed, change(await readFile(files[kind] ?? '')))
          const address = await databases.empty()
          const target = { DATABASE_URL: address, BLOB_STORE: `file:${await mkdtemp(join(work, 'refused-'))}` }
          const ended = await restored(changed, target)
          assert.equal(ended.code, code, ended.out + ended.err)
          assert.match(ended.err, says)
          await requireEmpty(address)
        })

    /** Restores these files from memory, and answers what is said against it. */
    async function refusalOf(address: string, given: AsyncIterable<BackupFile> | Iterable<BackupFile>) {
      const all = (async function* () {
        yield* given
      })()
      let refused: unknown
      await assert.rejects(restoreBackup({ databaseUrl: address, blobs: openMemoryStore() }, all), (error) => {
        refused = error
        return error instanceof RestoreRefused
      })
      await requireEmpty(address)
      return (refused as Error).message
    }

    it('documents of another shape, whichever part of them it is', async () => {
      const address = await databases.empty()
      const all = filesIn(await readFile(files['without content'] ?? ''))
      const head = JSON.parse(all[0]?.content.toString() ?? '')
      const sums = JSON.parse(all.at(-1)?.content.toString() ?? '')
      const withJson = (name: string, value: unknown) =>
        all.map((file) => (file.name === name ? { ...file, content: Buffer.from(JSON.stringify(value) ?? '') } : file))
      const refused = async (name: string, value: unknown, says: RegExp) =>
        assert.match(await refusalOf(address, withJson(name, value)), says, `${name}: ${JSON.stringify(value)}`)
      for (const value of [null, 7, 'text', [], {}, { format: 'another' }])
        await refused('backup.json', value, /^this is no backup of this registry$/)
      for (const formatVersion of [undefined, null, 2, { a: 1 }])
        await refused('backup.json', { ...head, formatVersion }, /^this backup has format /)
      const others: Record<string, unknown[]> = {
        createdAt: [undefined, 7, 'text'],
        schema: [undefined, null, 7, { number: 'one', name: 'one' }],
        migrations: [undefined, null, {}, [], ['1']],
        tables: [undefined, [], [null], [{ name: 'packs' }], [{ name: 'a" b', columns: ['id'] }]],
        sequences: [null, [7], [{ name: 'packs_id_seq', last: 'x' }]],
        blobs: [undefined, 'some', []],
      }
      for (const [field, values] of Object.entries(others))
        for (const value of values)
          await refused('backup.json', { ...head, [field]: value }, new RegExp(`^"${field}" in backup.json`))
      await refused('checksums.json', null, /^checksums.json .* is no object/)
      await refused('checksums.json', { ...sums, files: null }, /^"files" in checksums.json/)
      await refused('checksums.json', { ...sums, damaged: undefined }, /^"damaged" in checksums.json/)
    })

    it('files that end right before the checksums', async () => {
      const all = filesIn(await readFile(files['without content'] ?? ''))
      assert.equal(all.at(-1)?.name, 'checksums.json')
      assert.match(await refusalOf(await databases.empty(), all.slice(0, -1)), /ends before its checksums/)
      const upToTable = all.slice(
        0,
        all.findIndex(({ name }) => name.startsWith('objects/')),
      )
      assert.match(await refusalOf(await databases.empty(), upToTable), /ends before its checksums/)
    })

    it('rows that the database refuses while others are still to come', async () => {
      const address = await databases.empty()
      const sql = connect(address, { max: 1 })
      const whole = await readFile(files['without content'] ?? '')
      const all = filesIn(changedIn(whole, 'tables/blobs/1', (text) => text.replace(/\t\d/, '\tx')))
      const pieces = async function* () {
        for (const file of all) {
          if (file.name !== 'tables/blobs/1') yield file
          else
            for (const line of file.content.toString('latin1').split(/(?<=\n)/)) {
              yield { ...file, content: Buffer.from(line, 'latin1') }
              await waitFor('the database to refuse it', async () => {
                const [row] = await sql<{ count: number }[]>`
                  select count(*) from pg_stat_activity
                  where datname = current_database() and state = 'idle in transaction (aborted)'`
                return row?.count
              })
            }
        }
      }
      const refused = await refusalOf(address, pieces())
      assert.match(refused, /does not take tables\/blobs of the backup: it is damaged\. /)
      await sql.end()
    })

    it('to write over a file', async () => {
      const ended = await packs(['backup', '-o', files['with content'] ?? ''], here())
      assert.equal(ended.code, 1)
      assert.match(ended.err, /is there already/)
    })

    it('what is no file, no registry, or in no folder', async () => {
      const dataDir = join(work, 'never-made')
      const folder = await packs(['restore', work], { DATA_DIR: dataDir })
      assert.deepEqual(
        [folder.code, folder.err],
        [1, `error: ${work} is no file; name the file that "packs backup" wrote\n`],
      )
      await assert.rejects(stat(dataDir), 'a database was made for it')
      const nothing = await packs(['backup', '-o', join(work, 'nothing.tar')], { DATA_DIR: dataDir })
      assert.deepEqual([nothing.code, /^error: there is no registry in /.test(nothing.err)], [1, true], nothing.err)
      await assert.rejects(stat(dataDir), 'a database was made for it')
      const missing = await packs(['backup', '-o', join(work, 'none', 'b.tar')], here())
      assert.deepEqual([missing.code, missing.err], [1, `error: ${join(work, 'none')} does not exist\n`])
    })

    it('a store with content', async () => {
      const target = { DATABASE_URL: await databases.empty(), BLOB_STORE: registry.deps.config.blobStore }
      const ended = await restored(files['with content'] ?? '', target)
      assert.equal(ended.code, 11)
      assert.match(ended.err, /is not empty/)
    })
  })
})
