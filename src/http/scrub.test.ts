import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { after, before, it } from 'node:test'
import { promisify } from 'node:util'
import { storedKey } from '../blobs/keys.ts'
import { openClient, type ScrubState } from '../client/client.ts'
import { scrub } from '../registry/scrub.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { sampleManifest, startRegistry, type TestRegistry } from '../testing/registry.ts'

const run = promisify(execFile)
const main = new URL('../main.ts', import.meta.url).pathname

let databases: TestDatabases
let registry: TestRegistry
const lost: string[] = []
before(async () => {
  databases = await startDatabases()
  registry = await startRegistry(await databases.fresh())
  const layers = [1, 2, 3].map(() => registry.pushBlob('lib/app', randomBytes(100)))
  await registry.pushManifest('lib/app', 'v1', sampleManifest({ layers: await Promise.all(layers) }))
  for (const { digest } of await Promise.all(layers)) {
    const [row] = await registry.deps.db.sql<{ key: string }[]>`
      select storage_key as key from blobs where digest = ${digest}`
    await registry.deps.blobs.delete([storedKey(row?.key ?? '')])
    lost.push(digest)
  }
})
after(async () => {
  await registry?.stop()
  await databases?.stop()
})

async function state(query = ''): Promise<ScrubState> {
  const answer = await registry.call('GET', `/scrub${query}`)
  assert.equal(answer.status, 200)
  return (await answer.json()) as ScrubState
}

it('tells nothing before the first pass, then passes and findings, page by page', async () => {
  assert.deepEqual(await state(), { passes: [], open: {}, findings: [] })
  await scrub(registry.deps, { mode: 'quick', rate: 0 })
  const first = await state('?limit=2')
  const second = await state(`?limit=2&after=${first.next}`)
  const [pass] = first.passes
  assert.deepEqual([pass?.mode, pass?.running, pass?.blobs, pass?.found], ['quick', false, 4, 3])
  assert.deepEqual(first.open, { 'object-missing': 3 })
  assert.deepEqual([...first.findings, ...second.findings].map(({ digest }) => digest).sort(), lost.toSorted())
  assert.equal(second.next, undefined)
  assert.equal(first.findings[0]?.repositories[0]?.name, 'lib/app')
  assert.deepEqual((await state('?kind=wrong-bytes')).findings, [])
})

it('tells what came right when it is asked for all', async () => {
  const { sql } = registry.deps.db
  await sql`update scrub_findings set resolved_at = now(), repaired = 'by hand' where digest = ${lost[0] ?? ''}`
  assert.equal((await state()).findings.length, 2)
  const all = await state('?all=true')
  assert.equal(all.findings.find(({ digest }) => digest === lost[0])?.repaired, 'by hand')
  const client = openClient({ url: registry.url })
  assert.equal((await client.scrubs.show({ all: true, limit: 3 })).findings.length, 3)
})

it('is told by packs scrub findings', async () => {
  const args = ['--import', 'tsx', main, 'scrub', 'findings', '--registry', registry.url]
  const { stdout } = await run(process.execPath, args)
  assert.match(stdout, /quick scrub finished .*: 4 blobs, 0 B hashed, 3 wrong/)
  assert.match(stdout, /object-missing +sha256:[0-9a-f]{64} +100 bytes +no object +lib\/app@sha256:/)
  const json = await run(process.execPath, [...args, '--json', '--kind', 'odd-key'])
  assert.deepEqual(JSON.parse(json.stdout).findings, [])
})

it('is in the metrics', async () => {
  const text = await (await registry.call('GET', '/metrics')).text()
  assert.match(text, /packs_scrub_findings_open\{kind="object-missing"\} 2/)
  assert.match(text, /packs_scrub_findings_open\{kind="orphan-object"\} 0/)
  assert.match(text, /packs_scrub_last_finished_timestamp_seconds\{mode="quick"\} \d{10}/)
})

for (const { query, detail } of [
  { query: '?kind=lost', detail: /must be one of object-missing/ },
  { query: '?all=perhaps', detail: /true or false/ },
  { query: '?after=abc.def', detail: /cursor/ },
])
  it(`refuses ${query}`, async () => {
    const answer = await registry.call('GET', `/scrub${query}`)
    assert.equal(answer.status, 400)
    assert.match(((await answer.json()) as { detail: string }).detail, detail)
  })
