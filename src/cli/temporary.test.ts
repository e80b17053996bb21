import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, it } from 'node:test'
import { claimOutput } from './one-writer.ts'
import { replaceFile } from './temporary.ts'

describe('a file that is replaced', () => {
  let folder: string
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'packs-replace-'))
  })
  afterEach(() => rmSync(folder, { recursive: true, force: true }))

  it('is not written through a link that somebody put in its way', async () => {
    const [path, victim] = [join(folder, 'packs.lock.json'), join(folder, 'victim')]
    writeFileSync(victim, 'untouched')
    symlinkSync(victim, `${path}.${process.pid}.tmp`)
    await replaceFile(path, Buffer.from('{}'))
    assert.equal(readFileSync(victim, 'utf8'), 'untouched')
    assert.equal(readFileSync(path, 'utf8'), '{}')
  })

  it('is one of them, whole, where two are written at a time', async () => {
    const path = join(folder, 'packs.lock.json')
    const [one, other] = [Buffer.alloc(2_000_000, 'a'), Buffer.alloc(1_000_000, 'b')]
    await Promise.all([replaceFile(path, one), replaceFile(path, other)])
    const written = readFileSync(path)
    assert.ok(written.equals(one) || written.equals(other))
    assert.deepEqual(readdirSync(folder), ['packs.lock.json'])
  })
  it('takes it as it is where it is a pipe or a device, such as /dev/stdout, and stays that', async () => {
    const path = join(folder, 'pipe')
    execFileSync('mkfifo', [path])
    const [read] = await Promise.all([readFile(path, 'utf8'), replaceFile(path, 'text')])
    assert.equal(read, 'text')
    await assert.rejects(claimOutput(path), { code: 'USAGE', message: /pipe is no file, or a link/ })
    assert.ok(lstatSync(path).isFIFO())
    // As /dev/stdout is, where stdout is a file.
    const [link, file] = [join(folder, 'stdout'), join(folder, 'file')]
    writeFileSync(file, '')
    symlinkSync(file, link)
    await replaceFile(link, 'text')
    assert.equal(readFileSync(file, 'utf8'), 'text')
    await assert.rejects(claimOutput(link), { code: 'USAGE' })
    assert.ok(lstatSync(link).isSymbolicLink())
    assert.deepEqual(readdirSync(folder), ['file', 'pipe', 'stdout'])
  })

  it('is told by the name that was given, where it cannot be written', async () => {
    const inFile = join(folder, 'file', 'lock')
    writeFileSync(join(folder, 'file'), '')
    mkdirSync(join(folder, 'folder'))
    for (const write of [(path: string) => replaceFile(path, ''), claimOutput]) {
      await assert.rejects(write(join(folder, 'folder')), { code: 'FILE_FAILED', message: /folder is a folder; name/ })
      await assert.rejects(write(join(folder, 'none', 'lock')), { code: 'ENOENT', path: join(folder, 'none') })
      await assert.rejects(write(inFile), { code: 'ENOTDIR', path: inFile })
    }
  })
})
