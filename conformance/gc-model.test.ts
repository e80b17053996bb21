// The protocol of pushing and collecting, as a model (gc/collect.pml), run through in every order by spin. Then the same
// with one mistake built in, which spin has to find: a model that cannot fail would show nothing.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { promisify } from 'node:util'

const run = promisify(execFile)
const model = readFileSync(join(import.meta.dirname, 'gc', 'collect.pml'), 'utf8')
/** Bounds of the search. Where one is met the search says so, and the test fails. */
const depth = 100_000
const memoryMiB = 1500

let folder: string
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'packs-registry-model-'))
})
after(() => rmSync(folder, { recursive: true, force: true }))

/** `collectors`: beside the one that is always there. */
type Cast = { clients: readonly string[]; collectors?: number; crashes?: number; mistake?: string }

/** What spin says of the model with these clients, and for a person how it came to a mistake. */
async function search(cast: Cast): Promise<{ said: string; way: () => Promise<string> }> {
  const { clients, collectors = 0, crashes = 0, mistake } = cast
  const cwd = mkdtempSync(join(folder, 'cast-'))
  const runs = [...clients, ...Array<string>(collectors).fill('Collector()')].map((who) => `run ${who}`)
  const defines = [
    `#define CLIENTS clients = ${clients.length}; ${runs.join('; ')}`,
    `#define CRASHES ${crashes}`,
    ...(mistake ? [`#define ${mistake}`] : []),
  ]
  writeFileSync(join(cwd, 'model.pml'), `${defines.join('\n')}\n${model}`)
  const options = { cwd, maxBuffer: 64 * 1024 * 1024 }
  await run('spin', ['-a', 'model.pml'], options)
  // What is to be found is found at once: there to compile is most of the work.
  const flags = [mistake ? '-O0' : '-O1', '-w', '-DSAFETY', '-DCOLLAPSE', `-DMEMLIM=${memoryMiB}`, '-DVECTORSZ=2048']
  await run('gcc', [...flags, '-o', 'pan', 'pan.c'], options)
  const { stdout } = await run('./pan', [`-m${depth}`], options)
  return { said: stdout, way: async () => (await run('spin', ['-t', '-p', 'model.pml'], options)).stdout.slice(-8000) }
}

describe('pushing and collecting, in every order', { concurrency: 2 }, () => {
  const casts: Cast[] = [
    { clients: ['Pusher(A)', 'Deleter(A, 0)'], collectors: 1, crashes: 1 },
    { clients: ['Pusher(A)', 'Unlinker(A)', 'Deleter(A, 0)'], crashes: 1 },
    { clients: ['Pusher(A)', 'Pusher(B)'] },
    { clients: ['Pusher(B)', 'Importer(A)'] },
    { clients: ['Importer(A)', 'Deleter(A, 1)', 'Unlinker(A)'], crashes: 1 },
    { clients: ['Importer(B)', 'Deleter(A, 0)', 'Header(A)'], crashes: 1 },
    { clients: ['Mounter(A, B)', 'Mounter(B, A)', 'Unlinker(A)'], crashes: 1 },
    { clients: ['Mounter(A, B)', 'Deleter(A, 0)', 'Header(A)'], crashes: 1 },
    { clients: ['Header(A)', 'Deleter(A, 0)', 'Pusher(A)'] },
  ]
  for (const cast of casts) {
    const { clients, collectors = 0, crashes = 0 } = cast
    const title = `${clients.join(', ')}; ${1 + collectors} collectors, ${crashes} crashes`
    it(`${title}: nothing is lost, nobody waits for ever, nothing is left`, async () => {
      const { said, way } = await search(cast)
      assert.match(said, /Full statespace search for:/)
      assert.match(said, /invalid end states\s+\+/)
      assert.doesNotMatch(said, /Search not completed|max search depth too small|MEMLIM/)
      assert.match(said, /errors: 0\b/, said + (await way().catch(() => '')))
    })
  }
})

describe('a mistake in the protocol is found', { concurrency: 2 }, () => {
  const loss = /assertion violated .*object\[key\]/
  const violation = /assertion violated/
  const mistakes: (Cast & { mistake: string; what: string; found: RegExp })[] = [
    {
      mistake: 'NO_GENERATION',
      what: 'a key of content that does not change from one push to the next',
      clients: ['Pusher(A)', 'Deleter(A, 0)'],
      found: loss,
    },
    {
      mistake: 'DO_NOTHING',
      what: '"on conflict do nothing" where content is there already',
      clients: ['Pusher(A)'],
      crashes: 1,
      found: violation,
    },
    {
      mistake: 'HELD_BY_A_LOOK',
      what: 'to look whether content is held, and not lock it',
      clients: ['Pusher(A)', 'Deleter(A, 0)'],
      found: violation,
    },
    {
      mistake: 'EDGE_WITHOUT_LOCK',
      what: 'edges without their foreign key',
      clients: ['Pusher(A)'],
      found: violation,
    },
    {
      mistake: 'LOOK_BEFORE_LOCK',
      what: 'a collector that judges by the snapshot it locks with',
      clients: ['Pusher(A)'],
      found: violation,
    },
    {
      mistake: 'REVIEW_NOT_SET',
      what: 'a deletion that has nothing reviewed',
      clients: ['Deleter(A, 0)'],
      found: violation,
    },
    {
      mistake: 'FREED_NOT_REVIEWED',
      what: 'a link that goes without a look at its blob',
      clients: ['Importer(A)', 'Deleter(A, 1)'],
      found: violation,
    },
    {
      mistake: 'LINK_BEFORE_BLOB',
      what: 'locks in another order than everybody takes them',
      clients: ['Unlinker(A)', 'Pusher(A)'],
      found: /invalid end state/,
    },
    {
      mistake: 'LINK_WITHOUT_BLOB',
      what: 'a collector that locks links without their blobs',
      clients: ['Pusher(A)', 'Pusher(B)'],
      collectors: 1,
      found: violation,
    },
    {
      mistake: 'HEAD_BY_ITS_FIRST_LOOK',
      what: 'a HEAD that says what it saw before it put the review off',
      clients: ['Header(A)', 'Deleter(A, 0)'],
      found: /assertion violated .*promised/,
    },
    {
      mistake: 'IMPORT_WITHOUT_A_ROW',
      what: 'an import that relies on content and does not say so',
      clients: ['Importer(B)', 'Deleter(A, 0)'],
      found: violation,
    },
    {
      mistake: 'FORGET_BEFORE_DELETE',
      what: 'a deletion that leaves the queue before the store',
      clients: ['Pusher(A)', 'Deleter(A, 0)'],
      crashes: 1,
      found: violation,
    },
  ]
  for (const { what, found, ...cast } of mistakes) {
    it(`${what} (${cast.mistake})`, async () => {
      const { said } = await search(cast)
      assert.match(said, /errors: 1\b/)
      assert.match(said, found)
    })
  }

  it('there is a test for each mistake that can be built in', () => {
    const built = new Set([...model.matchAll(/^#ifn?def ([A-Z_]+)$/gm)].map(([, name]) => name))
    built.delete('CRASHES')
    assert.deepEqual([...built].sort(), mistakes.map(({ mistake }) => mistake).sort())
  })
})
