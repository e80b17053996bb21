import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, it } from 'node:test'
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
})
