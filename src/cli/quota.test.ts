import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { startRegistry, type TestRegistry } from '../testing/registry.ts'

const launcher = fileURLToPath(new URL('../packs.mjs', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'packs-quota-'))
let databases: TestDatabases
let registry: TestRegistry

before(async () => {
  databases = await startDatabases()
  registry = await startRegistry(await databases.fresh())
})
after(async () => {
  await registry?.stop()
  await databases?.stop()
  rmSync(folder, { recursive: true, force: true })
})

/** Runs a command; answers its exit code and what it said. */
function packs(...args: string[]): Promise<[code: number, said: string]> {
  const env = { PATH: process.env.PATH, HOME: folder, PACKS_REGISTRY: registry.url }
  return new Promise((resolve) => {
    execFile(process.execPath, [launcher, ...args], { cwd: folder, env }, (error, out, said) =>
      resolve([error ? Number(error.code) : 0, out + said]),
    )
  })
}

it('packs quota sets, lists, shows and removes', async () => {
  assert.deepEqual(await packs('quota', 'list'), [0, 'no quotas\n'])
  const [code, said] = await packs('quota', 'set', 'packs/team-*', '--bytes', '50GB', '--versions', '500')
  assert.equal(code, 0, said)
  assert.match(said, /bytes +0 B of 50\.0 GB\nversions +0 of 500\nused +0 %/)
  await registry.pushManifest('packs/team-a', 'sig', {
    ...{ schemaVersion: 2, mediaType: 'application/vnd.oci.image.manifest.v1+json', layers: [] },
    config: {
      mediaType: 'application/vnd.oci.empty.v1+json',
      digest: `sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a`,
      size: 2,
    },
    subject: { mediaType: 'application/vnd.oci.image.manifest.v1+json', digest: `sha256:${'a'.repeat(64)}`, size: 10 },
  })
  const [, listed] = await packs('quota', 'list')
  assert.match(listed, /^REPOSITORIES +BYTES +OF +VERSIONS +OF +USED\npacks\/team-\* +\d+ B +50\.0 GB +0 +500 +0 %\n$/)
  const [, shown] = await packs('quota', 'show', 'packs/team-*', '--json')
  const { quota } = JSON.parse(shown) as { quota: Record<string, unknown> }
  assert.deepEqual([quota.maxBytes, quota.maxVersions, quota.setBy], [50_000_000_000, 500, 'anonymous'])
  assert.deepEqual(await packs('quota', 'remove', 'packs/team-*'), [0, 'packs/team-* has no quota any more\n'])
  assert.deepEqual(await packs('quota', 'remove', 'packs/team-*'), [0, 'there was no quota for packs/team-*\n'])
})

it('says what is wrong with a limit, and that one is spent', async () => {
  assert.match((await packs('quota', 'set', 'a/*'))[1], /say what to limit: --bytes 50GB/)
  assert.match((await packs('quota', 'set', 'a/*', '--bytes', 'much'))[1], /"much" is not a size, such as 4GiB/)
  assert.match((await packs('quota', 'set', 'A/*', '--versions', '5'))[1], /is not a glob over repository names/)
  assert.match((await packs('quota', 'set', 'a/*', '--versions', '-1'))[1], /It is a whole number/)
  assert.deepEqual((await packs('quota', 'show', 'a/*'))[0], 1)
  await packs('quota', 'set', 'packs/*', '--versions', '0')
  mkdirSync(join(folder, 'full'))
  writeFileSync(join(folder, 'full/rules.txt'), 'content')
  writeFileSync(join(folder, 'full/pack.json'), JSON.stringify({ packId: 'full', version: '1.0.0', type: 'policy' }))
  const [code, said] = await packs('publish', 'full')
  assert.match(said, /packs\/\* may hold 0 versions, and would come to 1\. Delete what is not needed/)
  assert.equal(code, 11)
})
