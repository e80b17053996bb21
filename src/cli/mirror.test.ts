import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { startRegistry, type TestRegistry } from '../testing/registry.ts'
import { type RunningWorker, startWorker } from '../worker/worker.ts'

// The command as a process, between two real registries that share nothing.

const main = fileURLToPath(new URL('../main.ts', import.meta.url))
const home = mkdtempSync(join(tmpdir(), 'packs-mirror-'))
let databases: TestDatabases
let here: TestRegistry
let there: TestRegistry
let worker: RunningWorker | undefined
before(async () => {
  databases = await startDatabases()
  here = await startRegistry(await databases.fresh())
  there = await startRegistry(await databases.fresh())
})
after(async () => {
  await worker?.stop({ graceMs: 0 })
  await here?.stop()
  await there?.stop()
  await databases?.stop()
  rmSync(home, { recursive: true, force: true })
})

type Ended = { code: number | null; stdout: string; stderr: string }

/** `said`: told of what it has written to stderr so far. */
function packs(args: string[], { input = '', said }: { input?: string; said?: (text: string) => void } = {}) {
  return new Promise<Ended>((resolve) => {
    const env = { PATH: process.env.PATH, HOME: home, PACKS_REGISTRY: here.url }
    const child = spawn(process.execPath, ['--import', import.meta.resolve('tsx'), main, 'mirror', ...args], { env })
    let [stdout, stderr] = ['', '']
    child.stdout.on('data', (piece) => {
      stdout += piece
    })
    child.stderr.on('data', (piece) => {
      stderr += piece
      said?.(stderr)
    })
    child.on('close', (code) => resolve({ code, stdout, stderr }))
    child.stdin.end(input)
  })
}

async function publish(to: TestRegistry, version: string, content: string): Promise<void> {
  const form = new FormData()
  form.append('manifest', new Blob([JSON.stringify({ packId: 'app', version, type: 'policy' })]), 'pack.json')
  form.append('content', new Blob([content]), 'content.tgz')
  const answer = await fetch(`${to.url}/packs`, { method: 'POST', body: form })
  assert.equal(answer.status, 201, await answer.text())
}

it('sets up a mirror, runs it, and says how both sides compare', async () => {
  await publish(here, '1.0.0', 'one')
  const login = ['--username', 'u', '--password-stdin']
  const added = await packs(['add', 'site-b', '--to', there.url, '--allow-private', '--pack', 'a*', ...login], {
    input: 'hidden-word\n',
  })
  assert.equal(added.code, 0, added.stderr)
  assert.match(added.stdout, /packs mirror run site-b --wait/)
  const listed = await packs(['list'])
  assert.match(listed.stdout, /site-b +push +http:\S+\/packs +- +a\*/)
  const shown = await packs(['status', 'site-b', '--json'])
  assert.doesNotMatch(shown.stdout, /hidden-word/)
  assert.equal(JSON.parse(shown.stdout).mirror.credentials, true)

  const run = await packs(['run', 'site-b', '--wait'], {
    said(text) {
      if (/no worker has taken it yet/.test(text)) worker ??= startWorker(here.deps, { pollMs: 50 })
    },
  })
  assert.equal(run.code, 0, run.stderr)
  assert.match(run.stderr, /"packs worker" runs one/)
  assert.match(run.stdout, /same +2\n[\s\S]*both sides are the same/)
  assert.equal((await there.call('GET', '/packs/app/1.0.0')).status, 200)
  assert.match((await packs(['status', 'site-b'])).stdout, /completed.*both sides are the same/)
})

it('ends with 1 where the sides differ, and tells what does', async () => {
  await publish(here, '2.0.0', 'ours')
  await publish(there, '2.0.0', 'theirs')
  const dry = await packs(['run', 'site-b', '--wait', '--dry-run'])
  assert.deepEqual([dry.code, /this is what a run would see to/.test(dry.stdout)], [0, true], dry.stderr)
  const run = await packs(['run', 'site-b', '--wait'])
  assert.equal(run.code, 1)
  assert.match(run.stdout, /app +version +2\.0\.0 +different/)
  assert.match(run.stderr, /the sides are not the same/)
  const parity = await packs(['parity', 'site-b', '--json'])
  assert.equal(JSON.parse(parity.stdout).parity.counts.different, 1)
})

it('says what is wrong with the words of a command, and forgets a mirror', async () => {
  for (const args of [
    ['add', 'x'],
    ['add', 'x', '--to', 'http://a', '--from', 'http://b'],
  ]) {
    const ended = await packs(args)
    assert.deepEqual([ended.code, /either --to or --from/.test(ended.stderr)], [1, true], ended.stderr)
  }
  assert.match((await packs(['run', 'nowhere'])).stderr, /no mirror "nowhere"/)
  assert.match((await packs(['remove', 'site-b'])).stdout, /removed site-b/)
  assert.match((await packs(['list'])).stderr, /there is no mirror/)
})
