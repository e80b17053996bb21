import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { signers } from '../registry/keys.ts'
import { sampleBundle } from '../testing/bundle.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { startRegistry, type TestRegistry } from '../testing/registry.ts'

const launcher = fileURLToPath(new URL('../packs.mjs', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'packs-keys-'))
let databases: TestDatabases
let here: TestRegistry
let there: TestRegistry

before(async () => {
  databases = await startDatabases()
  here = await startRegistry(await databases.fresh())
  there = await startRegistry(await databases.fresh())
})
after(async () => {
  await there?.stop()
  await here?.stop()
  await databases?.stop()
  rmSync(folder, { recursive: true, force: true })
})

/** Runs a command at a site; answers its exit code and what it said. */
function packs(site: TestRegistry, ...args: string[]): Promise<[code: number, said: string]> {
  const env = { PATH: process.env.PATH, HOME: folder, PACKS_REGISTRY: site.url }
  return new Promise((resolve) => {
    execFile(process.execPath, [launcher, ...args], { cwd: folder, env }, (error, out, said) =>
      resolve([error ? Number(error.code) : 0, out + said]),
    )
  })
}

async function keysOf(site: TestRegistry): Promise<Record<string, string>> {
  const [, said] = await packs(site, 'keys', 'list', '--json')
  const { keys } = JSON.parse(said) as { keys: { keyid: string; state: string }[] }
  return Object.fromEntries(keys.map(({ keyid, state }) => [keyid, state]))
}

describe('packs keys', () => {
  it('makes a key at one site, and trusts it at another', async () => {
    assert.match((await packs(here, 'keys', 'list'))[1], /no keys; make one/)
    const [code, said] = await packs(here, 'keys', 'create', 'release', '--comment', 'for the field')
    assert.equal(code, 0, said)
    assert.deepEqual(await packs(here, 'keys', 'create', 'release'), [
      11,
      'error: release is the name of a key in use; take another name, or rotate that key\n',
    ])
    assert.equal((await packs(here, 'keys', 'export', 'release', '-o', 'release.pem'))[0], 0)
    assert.equal((await packs(here, 'keys', 'export', 'release'))[1], readFileSync(join(folder, 'release.pem'), 'utf8'))

    const keys = await signers(here.deps)
    writeFileSync(join(folder, 'bundle.tar'), sampleBundle({ keys }).bytes)
    assert.deepEqual((await packs(here, 'bundle', 'verify', 'bundle.tar', '--key', 'release.pem'))[0], 0)

    assert.equal((await packs(there, 'keys', 'trust', 'headquarters', 'release.pem'))[0], 0)
    assert.deepEqual(await keysOf(there), { [String(keys[0]?.keyid)]: 'verifying' })
    assert.deepEqual((await packs(there, 'keys', 'trust', 'headquarters', 'bundle.tar'))[0], 11)
    assert.deepEqual((await packs(there, 'keys', 'trust', 'headquarters', 'nothing.pem'))[0], 1)
  })

  it('rotates and distrusts', async () => {
    const [old] = Object.keys(await keysOf(here))
    const [code, said] = await packs(here, 'keys', 'rotate', 'release')
    assert.equal(code, 0, said)
    assert.match(said, /Other sites have to trust the new key/)
    const states = await keysOf(here)
    assert.equal(states[String(old)], 'verifying')
    assert.deepEqual(Object.values(states).sort(), ['signing', 'verifying'])
    assert.equal((await packs(here, 'keys', 'distrust', String(old)))[0], 0)
    assert.equal((await keysOf(here))[String(old)], 'distrusted')
    const [unknown, words] = await packs(here, 'keys', 'distrust', 'nobody')
    assert.equal(unknown, 1)
    assert.match(words, /there is no key "nobody"/)
  })

  it('says that a key which is trusted again was distrusted', async () => {
    const day = () => new Date().toISOString().slice(0, 10)
    const before = day()
    assert.equal((await packs(there, 'keys', 'distrust', 'headquarters'))[0], 0)
    // It may have become midnight meanwhile.
    const today = `(?:${before}|${day()})`
    const [code, said] = await packs(there, 'keys', 'trust', 'again', 'release.pem')
    assert.equal(code, 0, said)
    assert.match(said, new RegExp(`warning: this key was distrusted here on ${today}, as headquarters`))
  })
})
