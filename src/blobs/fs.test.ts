import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import fs from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough, Readable } from 'node:stream'
import { test } from 'node:test'
import { digestOf } from '../oci/digest.ts'
import { waitFor } from '../testing/wait.ts'
import { Directories } from './directories.ts'
import { openFolderStore } from './fs.ts'
import { blobKey, chunkKey } from './keys.ts'
import { NotDeleted } from './store.ts'
import { testBlobStore } from './suite.ts'

const temporaryFolder = () => fs.mkdtempSync(join(tmpdir(), 'blobs-'))
const someKey = () => blobKey(digestOf(randomBytes(8)))

/** Every file below the folder and, where the system tells, every descriptor this process still has open on it. */
function traces(folder: string): string[] {
  const all = fs.readdirSync(folder, { recursive: true, withFileTypes: true })
  const files = all.filter((entry) => entry.isFile()).map(({ name }) => name)
  if (!fs.existsSync('/proc/self/fd')) return files
  const targets = fs.readdirSync('/proc/self/fd').map((fd) => {
    try {
      return fs.readlinkSync(`/proc/self/fd/${fd}`)
    } catch {
      return ''
    }
  })
  return [...files, ...targets.filter((path) => path.startsWith(folder)).map((path) => `open: ${path}`)]
}

testBlobStore('folder', async () => {
  const folder = temporaryFolder()
  return {
    store: await openFolderStore(folder),
    again: () => openFolderStore(folder),
    traces: async () => traces(folder),
    remove: () => fs.promises.rm(folder, { recursive: true }),
  }
})

test('folder: is made when it is missing, with those above it', async (t) => {
  const top = temporaryFolder()
  t.after(() => fs.rmSync(top, { recursive: true }))
  const store = await openFolderStore(join(top, 'a/b/c'))
  await store.put(someKey(), Buffer.from('x'))
  await store.close()
})

test('folder: says which folder cannot be used, why, and what to do', async (t) => {
  const top = temporaryFolder()
  t.after(() => fs.rmSync(top, { recursive: true }))
  fs.writeFileSync(join(top, 'file'), '')
  const folder = join(top, 'file/blobs')
  await assert.rejects(openFolderStore(folder), (error: Error) => {
    assert.ok(error.message.includes(folder), error.message)
    assert.match(error.message, /a part of the path is a file \(ENOTDIR\).*BLOB_STORE=file:/)
    return true
  })
})

test('folder: the last chunk takes the folder of its upload along', async (t) => {
  const folder = temporaryFolder()
  t.after(() => fs.rmSync(folder, { recursive: true }))
  const store = await openFolderStore(folder)
  const chunks = [chunkKey('u'), chunkKey('u')]
  for (const key of chunks) await store.put(key, Buffer.from('x'))
  assert.ok(fs.existsSync(join(folder, 'uploads/u')))
  await store.delete(chunks)
  assert.deepEqual(fs.readdirSync(join(folder, 'uploads')), [])
})

test('folder: temp files that nobody has touched for long are unfinished, and no others', async (t) => {
  const folder = temporaryFolder()
  t.after(() => fs.rmSync(folder, { recursive: true }))
  const writing = await openFolderStore(folder)
  const source = new PassThrough()
  const key = someKey()
  const putting = writing.putStream(key, source, {})
  source.write(randomBytes(3 * 1024 * 1024))
  const old = join(folder, 'tmp', 'crashed')
  fs.writeFileSync(old, 'x')
  const yesterday = Date.now() / 1000 - 25 * 3600
  fs.utimesSync(old, yesterday, yesterday)
  const found = []
  for await (const unfinished of writing.unfinished(new Date(Date.now() - 24 * 3600 * 1000))) found.push(unfinished)
  assert.deepEqual(
    found.map(({ kind, name, size }) => ({ kind, name, size })),
    [{ kind: 'file', name: old, size: 1 }],
  )
  for (const { remove } of [...found, ...found]) await remove()
  assert.ok(!fs.existsSync(old))
  source.end()
  assert.equal(await putting, 3 * 1024 * 1024)
})

test('folder: small and large objects are deleted together', async (t) => {
  const folder = temporaryFolder()
  t.after(() => fs.rmSync(folder, { recursive: true }))
  const store = await openFolderStore(folder)
  const keys = Array.from({ length: 100 }, someKey)
  for (const [at, key] of keys.entries()) {
    await store.put(key, Buffer.from('x'))
    if (at % 10 === 0) fs.truncateSync(store.filePath(key), 20 * 1024 * 1024)
  }
  const [kept = someKey()] = keys.splice(50, 1)
  await store.delete(keys)
  assert.deepEqual(traces(folder), [kept.split('/').at(-1)])
  await store.close()
})

test('folder: an object that cannot be deleted keeps no other', async (t) => {
  const folder = temporaryFolder()
  t.after(() => fs.rmSync(folder, { recursive: true }))
  const store = await openFolderStore(folder)
  const keys = Array.from({ length: 20 }, someKey)
  for (const key of keys) await store.put(key, Buffer.from('x'))
  const [stuck = someKey()] = keys
  fs.rmSync(store.filePath(stuck))
  fs.mkdirSync(store.filePath(stuck))
  await assert.rejects(store.delete(keys), (error: Error) => {
    assert.ok(error.cause instanceof NotDeleted)
    assert.deepEqual([...error.cause.reasons.keys()], [stuck])
    return true
  })
  for (const key of keys.slice(1)) assert.equal(await store.size(key), undefined)
})

test('folder: gone from under a running process is UNAVAILABLE, and is not made again', async () => {
  const folder = temporaryFolder()
  const store = await openFolderStore(folder)
  fs.rmSync(folder, { recursive: true })
  const refused = { key: 'UNAVAILABLE' }
  await assert.rejects(store.put(someKey(), Buffer.from('x')), refused)
  await assert.rejects(store.putStream(someKey(), Readable.from([randomBytes(3_000_000)]), {}), refused)
  await assert.rejects(store.ping(), refused)
  await assert.rejects(store.delete([someKey()]), refused)
  assert.ok(!fs.existsSync(folder))
})

test('folder: killed in the middle of a body leaves nothing that can be read', async (t) => {
  const folder = temporaryFolder()
  t.after(() => fs.rmSync(folder, { recursive: true }))
  const program = `
    import { PassThrough } from 'node:stream'
    import { openFolderStore } from '${new URL('./fs.ts', import.meta.url)}'
    const store = await openFolderStore(${JSON.stringify(folder)})
    const source = new PassThrough()
    void store.putStream('blobs/sha256/ab/abc', source, {})
    setInterval(() => source.write(Buffer.alloc(1 << 20)), 1)`
  const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', program], { stdio: 'inherit' })
  const temporary = join(folder, 'tmp')
  const size = () =>
    fs.existsSync(temporary) ? fs.readdirSync(temporary).map((name) => fs.statSync(join(temporary, name)).size) : []
  const isWriting = () => size().some((bytes) => bytes > 0)
  await waitFor('the body to be written', () => child.exitCode !== null || isWriting(), { everyMs: 10 })
  assert.equal(child.exitCode, null, 'the writer ended by itself')
  child.kill('SIGKILL')
  await once(child, 'exit')
  const store = await openFolderStore(folder)
  for await (const { key } of store.list('')) assert.fail(`${key} is visible`)
  await store.close()
})

const noMount = (() => {
  if (process.getuid?.() !== 0) return 'needs root, to mount a small file system'
  const folder = temporaryFolder()
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', folder], { stdio: 'ignore' })
    execFileSync('umount', [folder])
    return undefined
  } catch {
    return 'this machine lets nobody mount a file system'
  } finally {
    fs.rmdirSync(folder)
  }
})()

test('folder: a full disk is UNAVAILABLE, and works again when there is room', {
  skip: noMount ?? false,
}, async (t) => {
  const folder = temporaryFolder()
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', folder])
  t.after(() => {
    execFileSync('umount', [folder])
    fs.rmdirSync(folder)
  })
  const store = await openFolderStore(folder)
  const full = (error: Error & { key?: string; cause?: { code?: string } }) => {
    assert.equal(error.key, 'UNAVAILABLE')
    assert.equal(error.cause?.code, 'ENOSPC')
    return true
  }
  const body = () => Readable.from(Array.from({ length: 96 }, () => randomBytes(64 * 1024)))
  await assert.rejects(store.putStream(someKey(), body(), {}), full)
  assert.deepEqual(traces(folder), [])
  const filler = someKey()
  await store.put(filler, randomBytes(3_900_000))
  await assert.rejects(store.put(someKey(), randomBytes(2_000_000)), full)
  const small = async () => {
    for (;;) await store.put(someKey(), randomBytes(50_000))
  }
  await assert.rejects(small(), full)
  await store.delete([filler])
  await store.put(someKey(), randomBytes(50_000))
  assert.deepEqual(fs.readdirSync(join(folder, 'tmp')), [])
})

test('folder: a sync serves only who came before it started', async (t) => {
  const folder = temporaryFolder()
  t.after(() => fs.rmSync(folder, { recursive: true }))
  const directories = new Directories(folder)
  const [running, next, same] = [directories.sync(folder), directories.sync(folder), directories.sync(folder)]
  assert.notEqual(running, next)
  assert.equal(next, same)
  const order: string[] = []
  await Promise.all([running.then(() => order.push('running')), next.then(() => order.push('next'))])
  assert.deepEqual(order, ['running', 'next'])
})
