import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { publish } from '../testing/packs.ts'
import { startRegistry, type TestRegistry } from '../testing/registry.ts'
import { waitFor } from '../testing/wait.ts'
import { startWorker } from '../worker/worker.ts'

// Bundles that are made, and published, while nobody waits: the commands as processes, against real registries.

const main = fileURLToPath(new URL('../main.ts', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'packs-exports-'))
let databases: TestDatabases
let [home, away] = [undefined, undefined] as unknown as [TestRegistry, TestRegistry]
const workers: ReturnType<typeof startWorker>[] = []
before(async () => {
  databases = await startDatabases()
  home = await startRegistry(await databases.fresh())
  away = await startRegistry(await databases.fresh())
  for (const packId of ['alpha', 'beta']) await publish(home, { packId }, randomBytes(2_000_000))
})
after(async () => {
  for (const worker of workers) await worker.stop()
  await Promise.all([home?.stop(), away?.stop()])
  await databases?.stop()
  rmSync(folder, { recursive: true, force: true })
})

type Ended = { code: number; out: string; said: string }
function packs(args: string[], { url } = home): Promise<Ended> {
  const command = ['--import', import.meta.resolve('tsx'), main, ...args]
  const env = { PATH: process.env.PATH, HOME: folder, PACKS_REGISTRY: url }
  return new Promise((resolve) => {
    execFile(process.execPath, command, { cwd: folder, env }, (error, out, said) =>
      resolve({ code: error ? Number(error.code) : 0, out, said }),
    )
  })
}
async function well(args: string[], at = home): Promise<string> {
  const { code, out, said } = await packs(args, at)
  assert.equal(code, 0, said)
  return out.trim()
}

it('an export is made in the background, downloaded, and imported in the background', async () => {
  const id = await well(['export', '--all', '--async'])
  assert.match(id, /^[0-9a-f]{64}$/)
  assert.match(await well(['exports', 'list']), new RegExp(`${id.slice(0, 12)} +waiting`))
  // It waits for a worker, and the download for it.
  const downloading = packs(['exports', 'download', id.slice(0, 12), '-o', 'all.tar', '--json'])
  workers.push(startWorker(home.deps, { pollMs: 50 }))
  const { code, out, said } = await downloading
  assert.equal(code, 0, said)
  const shown = JSON.parse(await well(['exports', 'show', id, '--json'])) as {
    export: { state: string; sha256: string }
  }
  assert.deepEqual([shown.export.state, shown.export.sha256], ['ready', JSON.parse(out).sha256])
  await well(['export', '--all', '-o', 'direct.tar'])
  assert.ok(readFileSync(join(folder, 'all.tar')).equals(readFileSync(join(folder, 'direct.tar'))))

  const imported = await well(['import', 'all.tar', '--async'], away)
  assert.match(await well(['imports', 'show', imported], away), /publishing/)
  assert.match(await well(['imports', 'list', '--state', 'publishing'], away), new RegExp(imported))
  workers.push(startWorker(away.deps, { pollMs: 50 }))
  await waitFor('the import to be published', async () => {
    return /published/.test(await well(['imports', 'show', imported], away))
  })
  assert.match(await well(['imports', 'show', imported], away), /2 of 2 versions are new/)
  assert.match(await well(['info', 'alpha'], away), /1\.0\.0/)

  assert.match(await well(['exports', 'remove', id.slice(0, 8)]), new RegExp(`removed ${id}`))
  const gone = await packs(['exports', 'download', id, '-o', 'gone.tar', '--json'])
  assert.deepEqual([gone.code, JSON.parse(gone.out).error.code], [1, 'EXPORT_UNKNOWN'])
})

it('says what is wrong with a command line, and what cannot be imported', async () => {
  for (const args of [
    ['export', '--all', '--async', '-o', 'x.tar'],
    ['import', 'direct.tar', '--async', '--dry-run'],
    ['exports', 'download', 'abc'],
  ])
    assert.equal((await packs(args)).code, 1, args.join(' '))
  writeFileSync(join(folder, 'none.tar'), 'nothing')
  const refused = await packs(['import', 'none.tar', '--async', '--json'], away)
  assert.deepEqual([refused.code, JSON.parse(refused.out).error.code], [11, 'BUNDLE_INVALID'])
  assert.match(await well(['imports', 'list', '--state', 'failed'], away), /BUNDLE_INVALID/)
})
