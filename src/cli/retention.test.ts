import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { publish } from '../testing/packs.ts'
import { startRegistry, type TestRegistry } from '../testing/registry.ts'
import { type RunningWorker, startWorker } from '../worker/worker.ts'

// The commands as processes, against a real registry with a worker.

const main = fileURLToPath(new URL('../main.ts', import.meta.url))
const home = mkdtempSync(join(tmpdir(), 'packs-retention-'))
const file = join(home, 'policy.json')
let databases: TestDatabases
let registry: TestRegistry
let worker: RunningWorker | undefined
before(async () => {
  databases = await startDatabases()
  registry = await startRegistry(await databases.fresh())
  worker = startWorker(registry.deps, { pollMs: 50 })
  for (const version of ['1.0.0', '1.1.0', '1.2.0', '2.0.0'])
    assert.equal((await publish(registry, { packId: 'net', version }, version)).status, 201)
  writeFileSync(file, JSON.stringify({ repositories: ['packs/net'], versions: { keepNewest: 2 } }))
})
after(async () => {
  await worker?.stop({ graceMs: 0 })
  await registry?.stop()
  await databases?.stop()
  rmSync(home, { recursive: true, force: true })
})

type Ended = { code: number | null; stdout: string; stderr: string }

function packs(...args: string[]): Promise<Ended> {
  return new Promise((resolve) => {
    const env = { PATH: process.env.PATH, HOME: home, PACKS_REGISTRY: registry.url }
    const child = spawn(process.execPath, ['--import', import.meta.resolve('tsx'), main, ...args], { env })
    const ended: Ended = { code: null, stdout: '', stderr: '' }
    child.stdout.on('data', (piece) => {
      ended.stdout += piece
    })
    child.stderr.on('data', (piece) => {
      ended.stderr += piece
    })
    child.on('close', (code) => resolve({ ...ended, code }))
  })
}

async function done(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await packs(...args)
  assert.equal(code, 0, stderr)
  return stdout
}

it('tries a policy before it is stored, sets it, and turns it on', async () => {
  assert.match((await packs('retention', 'list')).stderr, /there is no policy/)
  const tried = await packs('retention', 'run', '--dry-run', '--file', file)
  assert.deepEqual(tried.stdout.split('\n'), [
    'keep    packs/net 2.0.0: it is the latest',
    'keep    packs/net 1.2.0: among the newest 2',
    'remove  packs/net 1.1.0: not among the newest 2',
    'remove  packs/net 1.0.0: not among the newest 2',
    '',
  ])
  assert.match(tried.stderr, /2 would be removed and 2 kept; about \d+ B would be freed\. Nothing was done/)
  assert.match(await done('retention', 'set', 'net', file), /net is set, and not enabled/)
  assert.match(await done('retention', 'set', 'net', '--enable'), /every night/)
  // A new document leaves that as it is.
  assert.match(await done('retention', 'set', 'net', file), /every night/)
  assert.match(await done('retention', 'list'), /net +yes +versions +packs\/net/)
  assert.deepEqual(JSON.parse(await done('retention', 'show', 'net')), {
    repositories: ['packs/net'],
    versions: { keepNewest: 2 },
  })
  const removed = await done('retention', 'run', 'net', '--dry-run', '--only-removed', '--json')
  const { decisions, kept } = JSON.parse(removed) as { decisions: object[]; kept: number }
  assert.deepEqual([decisions.length, kept], [2, 2])
})

it('holds a version, tells whoever would delete it, and runs around it', async () => {
  assert.match(await done('hold', 'net@1.0.0', '--reason', 'case 7'), /net 1\.0\.0 is held/)
  const refused = await packs('delete', 'net@1.0.0', '--force')
  assert.equal(refused.code, 11)
  assert.match(refused.stderr, /held by .* case 7/)
  assert.match(await done('retention', 'holds'), /net +1\.0\.0 .* case 7/)
  const ran = await done('retention', 'run', 'net', '--wait')
  assert.match(ran, /removed {2}packs\/net 1\.1\.0: not among the newest 2 \(policy net\)/)
  assert.match(ran, /removed +1 of 1\nkept +.*held 1/)
  const { runs } = JSON.parse(await done('retention', 'runs', '--json')) as { runs: { id: string }[] }
  assert.match(await done('retention', 'report', runs[0]?.id ?? ''), /state +completed/)
  assert.match(await done('retention', 'release', 'net@1.0.0'), /released net 1\.0\.0/)
  assert.match(await done('retention', 'release', 'net@1.0.0'), /was not held/)
  assert.match(await done('retention', 'remove', 'net'), /removed net/)
})

it('says what is wrong', async () => {
  const wrong: [args: string[], code: number, says: RegExp][] = [
    [['set', 'net'], 1, /give the file of the policy, or --enable/],
    [['set', 'net', '--enable'], 1, /no retention policy "net"/],
    [['set', 'net', file, '--enable', '--disable'], 1, /either/],
    [['run', 'nothing'], 1, /no retention policy "nothing"/],
    [['run', '--only-removed'], 1, /--dry-run/],
    [['report', 'nothing'], 1, /no run "nothing"/],
    [['hold', 'net@9.9.9', '--reason', 'x'], 1, /no version 9\.9\.9/],
    [['hold', 'net', '--reason', 'x'], 1, /one exact version/],
  ]
  const bad = join(home, 'bad.json')
  writeFileSync(bad, JSON.stringify({ repositories: ['packs/net'], versions: {} }))
  wrong.push([['set', 'net', bad], 1, /must keep something/])
  const ended = await Promise.all(wrong.map(([args]) => packs('retention', ...args)))
  for (const [i, [args, code, says]] of wrong.entries()) {
    assert.equal(ended[i]?.code, code, args.join(' '))
    assert.match(ended[i]?.stderr ?? '', says)
  }
})
