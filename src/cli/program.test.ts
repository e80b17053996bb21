import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdir, mkdtemp, open, readdir, readFile, rm, stat, symlink, utimes, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { startRegistry, type TestRegistry } from '../testing/registry.ts'

// The real command, as its users start it, against a real registry.

const launcher = fileURLToPath(new URL('../packs.mjs', import.meta.url))

let databases: TestDatabases
let registry: TestRegistry
let work: string

before(async () => {
  databases = await startDatabases()
  registry = await startRegistry(await databases.fresh())
  work = await mkdtemp(join(tmpdir(), 'packs-cli-'))
  await mkdir(join(work, 'tmp'))
})
after(async () => {
  await registry?.stop()
  await databases?.stop()
  await rm(work, { recursive: true, force: true })
})

type Ended = { code: number | null; out: string; err: string }

function start(args: string[], env: Record<string, string> = {}): { child: ChildProcess; ended: Promise<Ended> } {
  const child = spawn(process.execPath, [launcher, ...args], {
    cwd: work,
    env: { PATH: process.env.PATH, HOME: work, TMPDIR: join(work, 'tmp'), PACKS_REGISTRY: registry.url, ...env },
  })
  let out = ''
  let err = ''
  child.stdout.setEncoding('utf8').on('data', (text) => {
    out += text
  })
  child.stderr.setEncoding('utf8').on('data', (text) => {
    err += text
  })
  const ended = new Promise<Ended>((resolve) => {
    child.once('close', (code) => resolve({ code, out, err }))
  })
  return { child, ended }
}

async function packs(args: string[], { env = {}, input = '' } = {}): Promise<Ended> {
  const { child, ended } = start(args, env)
  child.stdin?.end(input)
  return ended
}

type Json = Record<string, unknown>

/** Runs with --json, expects this exit code, and answers the one document on stdout. */
async function json(args: string[], { code = 0, env = {}, input = '' } = {}): Promise<Json> {
  const ended = await packs([...args, '--json'], { env, input })
  assert.equal(ended.code, code, `packs ${args.join(' ')}: ${ended.out}${ended.err}`)
  return JSON.parse(ended.out)
}

/** A folder with these files. */
async function folderOf(name: string, files: Record<string, string>): Promise<string> {
  const folder = join(work, name)
  for (const [path, text] of Object.entries(files)) {
    await mkdir(join(folder, path, '..'), { recursive: true })
    await writeFile(join(folder, path), text)
  }
  return folder
}

function packJson(packId: string, over: Json = {}): string {
  return JSON.stringify({ packId, version: '1.0.0', type: 'policy', ...over })
}

async function publish(packId: string, over: Json = {}, files: Record<string, string> = {}): Promise<Json> {
  const name = `published/${packId}-${over.version ?? '1.0.0'}`
  const folder = await folderOf(name, { 'pack.json': packJson(packId, over), ...files })
  return json(['publish', folder])
}

/** What lies in the folder for temporary files by the command's hand. */
const temporary = async () => (await readdir(join(work, 'tmp'))).filter((name) => name.startsWith('packs-'))

describe('a pack from its beginning to its end', () => {
  it('is published to the end where nobody reads what is said on the way', async () => {
    const folder = await folderOf('unheard', { 'pack.json': packJson('unheard'), 'rules.rego': 'package rules' })
    const { child, ended } = start(['publish', folder])
    child.stderr?.destroy()
    const { code, out } = await ended
    assert.match(out, /^published unheard 1\.0\.0 at /)
    assert.equal(code, 0)
    assert.deepEqual(await temporary(), [])
  })

  for (const type of ['policy', 'analyzer', 'task'])
    it(`begins, checks and publishes a pack of type ${type}`, async () => {
      const begun = await json(['init', `start-${type}`, '--type', type, '--id', `start.${type}`])
      assert.ok((begun.files as string[]).includes('pack.json'))
      const valid = await json(['validate', `start-${type}`])
      assert.equal((valid.document as Json).type, type)
      const dry = await json(['publish', `start-${type}`, '--dry-run'])
      assert.equal(dry.valid, true)
      const published = await json(['publish', `start-${type}`])
      assert.deepEqual([published.isNew, published.digest], [true, dry.digest])
      const again = await json(['publish', `start-${type}`])
      assert.deepEqual([again.isNew, again.manifestDigest], [false, published.manifestDigest])
      const { pack } = await json(['info', `start.${type}`])
      assert.equal((pack as Json).digest, published.digest)
      assert.equal((await packs(['init', `start-${type}`, '--type', type])).code, 1)
    })

  it('publishes a bundle without content as the index of what it needs', async () => {
    await json(['init', 'start-bundle', '--type', 'bundle', '--id', 'start.bundle'])
    assert.deepEqual((await json(['validate', 'start-bundle'])).files, ['pack.json'])
    const dependencies = ['start.policy@^0.1.0', 'start.task@^0.1.0']
    await writeFile(join(work, 'start-bundle/pack.json'), packJson('start.bundle', { type: 'bundle', dependencies }))
    const published = await json(['publish', 'start-bundle'])
    assert.equal(published.isNew, true)
    assert.equal((await json(['publish', 'start-bundle'])).isNew, false)
    const { pack } = await json(['info', 'start.bundle'])
    assert.equal((pack as Json).mediaType, 'application/vnd.oci.image.index.v1+json')
    const { packs: pulled } = await json(['pull', 'start.bundle', '--into', 'bundle-pulled'])
    assert.deepEqual(
      (pulled as Json[]).map(({ packId }) => packId),
      ['start.bundle', 'start.policy', 'start.task'],
    )
  })

  it('resolves to a lock, and pulls what the lock has, byte for byte', async () => {
    await publish('base', { metadata: { minRunnerVersion: '1.0.0' } }, { 'rules.rego': 'package base\n' })
    await publish('base', { version: '1.1.0', metadata: { minRunnerVersion: '2.0.0' } })
    await publish('net', { dependencies: ['base@^1.0.0'] })
    await publish('all', { dependencies: ['net@1', 'base@1', { packId: 'nobody', version: '*', optional: true }] })
    const resolved = await json(['resolve', 'all', '--runner', '1.5.0', '-o', 'all.lock.json'])
    assert.deepEqual(resolved.packs, [
      { packId: 'all', version: '1.0.0' },
      { packId: 'base', version: '1.0.0' },
      { packId: 'net', version: '1.0.0' },
    ])
    const shown = await packs(['resolve', 'all@^1.0.0', '--runner', '1.5.0', '--lock', 'all.lock.json'])
    assert.equal(JSON.parse(shown.out).packs.length, 3)
    const first = await json(['pull', 'all', '--runner', '1.5.0', '--into', 'one', '--lock-out', 'one.lock.json'])
    assert.equal(
      await readFile(join(work, 'one.lock.json'), 'utf8'),
      await readFile(join(work, 'all.lock.json'), 'utf8'),
    )
    // Elsewhere, and later: what is newest by then does not matter.
    await publish('net', { version: '1.2.0', dependencies: ['base@^1.0.0'] })
    const env = { PACKS_CACHE: join(work, 'other-cache') }
    const second = await json(['pull', '--frozen', 'one.lock.json', '--into', 'two'], { env })
    const digests = ({ packs }: Json) => (packs as Json[]).map(({ packId, digest }) => [packId, digest])
    assert.deepEqual(digests(second), digests(first))
    for (const { file } of second.packs as { file: string }[])
      assert.deepEqual(await readFile(file), await readFile(file.replace(`${work}/two/`, `${work}/one/`)))
    const { packs: named } = await json(['pull', 'all', '--no-deps', '--into', 'three'])
    assert.equal((named as Json[]).length, 1)
  })

  it('says who needs whom, and why', async () => {
    assert.deepEqual(await json(['deps', 'all', '--runner', '1.5.0']), {
      packId: 'all',
      version: '1.0.0',
      dependencies: [
        { packId: 'base', range: '1', version: '1.0.0', dependencies: [] },
        {
          packId: 'net',
          range: '1',
          version: '1.2.0',
          dependencies: [{ packId: 'base', range: '^1.0.0', version: '1.0.0', dependencies: [] }],
        },
        { packId: 'nobody', range: '*', optional: true },
      ],
    })
    assert.equal(
      (await packs(['deps', 'all'])).out,
      'all 1.0.0\n├── base 1.1.0 (1)\n├── net 1.2.0 (1)\n│   └── base 1.1.0 (^1.0.0)\n└── nobody left out (*, optional)\n',
    )
    const { dependents } = await json(['dependents', 'base@1.0.0'])
    assert.deepEqual((dependents as Json[]).map(({ packId, version }) => `${packId} ${version}`).sort(), [
      'all 1.0.0',
      'net 1.0.0',
      'net 1.2.0',
    ])
    const { chains } = await json(['why', 'base', 'all', 'net'])
    assert.deepEqual(
      (chains as Json[][]).map((chain) => chain.map(({ packId, range }) => `${packId} ${range}`)),
      [
        ['all *', 'base 1'],
        ['net *', 'base ^1.0.0'],
        ['all *', 'net 1', 'base ^1.0.0'],
      ],
    )
    assert.match((await packs(['why', 'start.task', 'net'])).out, /does not get in/)
  })

  it('lists versions, and finds packs', async () => {
    const { versions } = await json(['versions', 'base'])
    assert.deepEqual(
      (versions as Json[]).map(({ version }) => version),
      ['1.1.0', '1.0.0'],
    )
    const table = (await packs(['versions', 'base'])).out.split('\n')
    assert.match(table[0] ?? '', /^VERSION +STATE +CHANNELS +RUNNER +SIZE +PUBLISHED +DIGEST$/)
    assert.match(table[1] ?? '', /^1\.1\.0 +active +latest +>=2\.0\.0 /)
    const { packs: found } = await json(['search', 'start', '--type', 'task'])
    assert.deepEqual(
      (found as Json[]).map(({ packId }) => packId),
      ['start.task'],
    )
    const limited = await json(['search', '--limit', '2', '--sort', 'id'])
    assert.deepEqual([(limited.packs as Json[]).length, limited.more], [2, true])
  })

  it('shows what changed between two versions, down to the files', async () => {
    await publish('changed', { description: 'one' }, { 'a.txt': 'a', 'b.txt': 'b', 'c.txt': 'c' })
    await publish(
      'changed',
      { version: '1.1.0', dependencies: ['base@1'] },
      { 'a.txt': 'a', 'b.txt': 'bb', 'd.txt': 'd' },
    )
    const { document, dependencies, content, files } = await json(['diff', 'changed', '1.0.0', 'latest'])
    assert.deepEqual(document, [{ name: 'description', from: 'one' }])
    assert.deepEqual(dependencies, [{ name: 'base', to: '1' }])
    assert.deepEqual(
      (content as Json[]).map(({ name }) => name),
      ['digest', 'size'],
    )
    assert.deepEqual(
      (files as Json[]).map(({ name, from, to }) => [name, from !== undefined, to !== undefined]),
      [
        ['b.txt', true, true],
        ['c.txt', true, false],
        ['d.txt', false, true],
        ['pack.json', true, true],
      ],
    )
    assert.match((await packs(['diff', 'changed', '1.0.0', '1.1.0'])).out, /\nfiles\n {2}~ {2}b\.txt +1 B → 2 B\n/)
    assert.match((await packs(['diff', 'changed', '1.0.0', '1.0.0'])).out, /no difference/)
  })

  it('moves channels forward, and back only when told', async () => {
    assert.equal((await json(['channel', 'set', 'base', 'stable', '1.0.0'])).version, '1.0.0')
    assert.equal((await json(['channel', 'set', 'base', 'stable', '1.1.0'])).from, '1.0.0')
    const refused = await json(['channel', 'set', 'base', 'stable', '1.0.0'], { code: 8 })
    assert.equal((refused.error as Json).code, 'CHANNEL_BACKWARDS')
    await json(['channel', 'set', 'base', 'stable', '1.0.0', '--allow-older'], { code: 1 })
    await json(['channel', 'set', 'base', 'stable', '1.0.0', '--allow-older', '--reason', '1.1.0 is slow'])
    assert.equal(((await json(['info', 'base@stable'])).pack as Json).version, '1.0.0')
    const { packs: pulled } = await json(['pull', 'base@stable', '--into', 'by-channel'])
    assert.equal((pulled as Json[])[0]?.version, '1.0.0')
  })

  it('deprecates, yanks, takes it back, and deletes', async () => {
    const state = async (args: string[]) => ((await json(args)).pack as Json).state
    const deprecate = ['deprecate', 'base@1.1.0', '--message', 'slow', '--replaced-by', 'net']
    assert.equal(await state(deprecate), 'deprecated')
    assert.match(
      (await packs(['pull', 'base@1.1.0', '--into', 'old'])).err,
      /base 1\.1\.0 is deprecated: slow\. Use net/,
    )
    assert.equal(await state(['yank', 'base@1.1.0']), 'yanked')
    assert.match((await packs(['deps', 'all'])).out, /base 1\.0\.0/)
    assert.equal(await state(['unyank', 'base@1.1.0']), 'active')
    const refused = await json(['delete', 'net@1.0.0'], { code: 11 })
    assert.equal((refused.error as Json).code, 'DEPENDENTS_EXIST')
    assert.equal((await json(['delete', 'net@1.0.0', '--force'])).deleted, true)
    assert.equal((await json(['delete', 'net@1.0.0'])).deleted, false)
  })
})

describe('packing a folder', () => {
  const files = {
    'pack.json': packJson('packed'),
    'b/ä.txt': 'umlaut',
    'b/z': 'z',
    B: 'upper',
    'a.txt': 'a'.repeat(200_000),
    [`long/${'n'.repeat(120)}.txt`]: 'long',
  }
  const digestOf = async (folder: string) => (await json(['publish', folder, '--dry-run'])).digest

  it('makes the same bytes of the same files, whenever and in whatever order they were made', async () => {
    const one = await folderOf('packed-one', files)
    const two = await folderOf('packed-two', Object.fromEntries(Object.entries(files).reverse()))
    await utimes(join(two, 'a.txt'), 1, 1)
    await mkdir(join(two, 'empty'))
    await mkdir(join(two, '.git'))
    await writeFile(join(two, '.git/HEAD'), 'ref')
    assert.equal(await digestOf(one), await digestOf(two))
    // What makes it: this compressor. Its output is part of what is promised.
    await writeFile(join(two, 'a.txt'), 'other')
    assert.notEqual(await digestOf(one), await digestOf(two))
  })

  it('leaves out what .packignore names, but never the document', async () => {
    const folder = await folderOf('ignoring', {
      'pack.json': packJson('ignoring'),
      '.packignore': '*.log\n/tests/\n!keep.log\npack.json\n',
      'a.log': '',
      'keep.log': '',
      'tests/t.txt': '',
      'in/tests/t.txt': '',
      'in/x.LOG': '',
    })
    assert.deepEqual((await json(['validate', folder])).files, ['in/tests/t.txt', 'in/x.LOG', 'keep.log', 'pack.json'])
  })

  it('refuses what is no plain file, in words, all at once', async () => {
    const folder = await folderOf('linked', { 'pack.json': packJson('linked') })
    await symlink('/etc/passwd', join(folder, 'outside'))
    await symlink('pack.json', join(folder, 'inside'))
    const { error } = await json(['publish', folder], { code: 11 })
    assert.match(String((error as Json).message), /inside is a symbolic link\n {2}outside is a symbolic link/)
  })

  it('publishes a file as it is', async () => {
    const folder = await folderOf('as-it-is', { 'doc.json': packJson('as-it-is'), 'data.bin': 'any bytes' })
    const type = ['--media-type', 'text/plain']
    const { size } = await json(['publish', join(folder, 'data.bin'), '--file', join(folder, 'doc.json'), ...type])
    assert.equal(size, 9)
    const pulled = await json(['pull', 'as-it-is', '--no-deps', '--into', 'as-it-was'])
    assert.equal(await readFile((pulled.packs as { file: string }[])[0]?.file ?? '', 'utf8'), 'any bytes')
  })

  it('gives the same manifest for the same time', async () => {
    const folder = await folderOf('timed', { 'pack.json': packJson('timed') })
    const { manifestDigest } = await json(['publish', folder, '--created', '2026-01-31T12:00:00Z'])
    const manifest = await registry.call('GET', `/v2/packs/timed/manifests/${manifestDigest}`)
    assert.match(await manifest.text(), /"org.opencontainers.image.created":"2026-01-31T12:00:00Z"/)
  })
})

describe('exit codes, and errors that say what to do', () => {
  before(async () => {
    await folderOf('invalid', { 'pack.json': '{"packId":"Not Valid","version":"1","type":"other"}' })
    await folderOf('broken', { 'pack.json': '{' })
    await folderOf('needy', { 'pack.json': packJson('needy', { dependencies: ['no-such-pack@^9'] }) })
    await folderOf('once', { 'pack.json': packJson('once'), a: 'a' })
    await json(['publish', 'once'])
    await writeFile(join(work, 'once/a'), 'other')
    await folderOf('other', { 'no.lock.json': '{"lockVersion":1}' })
  })

  const cases: { name: string; args: string[]; code: number; error: string; message: RegExp }[] = [
    { name: 'no such command', args: ['nothing'], code: 1, error: 'USAGE', message: /unknown command/ },
    { name: 'an argument missing', args: ['info'], code: 1, error: 'USAGE', message: /missing required argument/ },
    {
      name: 'a choice that is none',
      args: ['init', '--type', 'x'],
      code: 1,
      error: 'USAGE',
      message: /Allowed choices/,
    },
    { name: 'no document', args: ['validate', 'tmp'], code: 1, error: 'FILE_MISSING', message: /packs init/ },
    { name: 'no folder', args: ['validate', 'nowhere'], code: 1, error: 'ENOENT', message: /nowhere does not exist/ },
    { name: 'no such pack', args: ['info', 'no-such'], code: 1, error: 'PACK_UNKNOWN', message: /no-such/ },
    {
      name: 'no registry',
      args: ['info', 'x', '--registry', 'http://127.0.0.1:1'],
      code: 1,
      error: 'UNREACHABLE',
      message: /packs serve/,
    },
    {
      name: 'a bad address',
      args: ['info', 'x', '--registry', 'ftp://x'],
      code: 1,
      error: 'URL_INVALID',
      message: /ftp/,
    },
    {
      name: 'an inexact version',
      args: ['yank', 'once@^1'],
      code: 1,
      error: 'REFERENCE_INVALID',
      message: /packs versions once/,
    },
    {
      name: 'a document with faults',
      args: ['validate', 'invalid'],
      code: 11,
      error: 'PACK_INVALID',
      message: /packId.*\n.*version.*\n.*type/,
    },
    {
      name: 'a document that is no JSON',
      args: ['validate', 'broken'],
      code: 11,
      error: 'PACK_INVALID',
      message: /not JSON/,
    },
    {
      name: 'a dependency missing',
      args: ['publish', 'needy'],
      code: 11,
      error: 'DEPENDENCY_INVALID',
      message: /no-such-pack/,
    },
    {
      name: 'the same, tried out',
      args: ['publish', 'needy', '--dry-run'],
      code: 11,
      error: 'PACK_INVALID',
      message: /no-such-pack/,
    },
    { name: 'a version again', args: ['publish', 'once'], code: 11, error: 'VERSION_EXISTS', message: /higher/ },
    { name: 'nothing that satisfies', args: ['pull', 'once@^7'], code: 11, error: 'UNRESOLVABLE', message: /once/ },
    {
      name: 'a lock that is none',
      args: ['pull', '--frozen', 'other/no.lock.json'],
      code: 11,
      error: 'LOCK_INVALID',
      message: /no.lock.json/,
    },
    { name: 'pull of nothing', args: ['pull'], code: 1, error: 'USAGE', message: /--frozen/ },
  ]
  for (const { name, args, code, error, message } of cases)
    it(name, async () => {
      const told = (await json(args, { code })).error as Json
      assert.equal(told.code, error)
      assert.match(String(told.message), message)
      const plain = await packs(args)
      assert.equal(plain.code, code)
      assert.match(plain.err, message)
      assert.equal(plain.out, '')
    })

  it('the page of a proxy in place of an answer', async () => {
    const proxy = createServer((_, response) => response.end('<html>log in</html>'))
    await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve))
    try {
      const env = { PACKS_REGISTRY: `http://127.0.0.1:${(proxy.address() as AddressInfo).port}` }
      for (const args of [['inventory'], ['resolve', 'once@^1'], ['pull', 'once@^1']]) {
        const { code, out, err } = await packs(args, { env })
        assert.deepEqual([code, out], [1, ''], err)
        assert.match(err, /does not answer as a packs registry does/)
      }
    } finally {
      proxy.close()
    }
  })

  it('says once that it waits, and how long, where it was told to come later', async () => {
    let asked = 0
    const busy = await listening(
      createServer((_, answer) => {
        asked++
        answer.writeHead(asked % 2 ? 429 : 404, asked % 2 ? { 'retry-after': '2' } : {}).end()
      }),
    )
    const env = { PACKS_REGISTRY: addressOf(busy) }
    const { err } = await packs(['info', 'once'], { env })
    assert.equal(err.match(/trying again in 2 s\n/g)?.length, 1, err)
    for (const flag of ['--quiet', '--json'])
      assert.doesNotMatch((await packs(['info', 'once', flag], { env })).err, /trying again/)
    busy.close()
  })

  it('says which file is a folder, or no UTF-8', async () => {
    for (const args of [
      ['pull', '--frozen', '.'],
      ['export', '--all', '-o', 'all.tar', '--since', '.'],
      ['keys', 'trust', 'other', '.'],
      ['policy', 'check', '.'],
    ]) {
      const { code, err } = await packs(args)
      assert.deepEqual([code, err], [1, 'error: . is a folder; a file is needed\n'], args.join(' '))
    }
    await mkdir(join(work, 'latin'))
    const text = '{"packId":"latin","version":"1.0.0","type":"policy","description":"caf\u00e9"}'
    await writeFile(join(work, 'latin', 'pack.json'), Buffer.from(text, 'latin1'))
    const { code, err } = await packs(['publish', 'latin'])
    assert.equal(code, 11)
    assert.match(err, /latin\/pack\.json is not JSON: it is not UTF-8/)
  })

  it('a runner that is too old', async () => {
    await publish('modern', { metadata: { minRunnerVersion: '3.0.0' } })
    const { error } = await json(['info', 'modern', '--runner', '1.0.0'], { code: 11 })
    assert.equal((error as Json).code, 'RUNNER_TOO_OLD')
  })

  it('content that is not what the lock says', async () => {
    await publish('tampered', {}, { a: 'a' })
    const lock = JSON.parse((await packs(['resolve', 'tampered'])).out)
    const blob = await registry.call('GET', `/v2/packs/tampered/blobs/${lock.packs[0].digest}`)
    const bytes = Buffer.from(await blob.arrayBuffer())
    bytes[20] = (bytes[20] ?? 0) ^ 1
    const liar = await listening(createServer((_, answer) => answer.end(bytes)))
    await writeFile(join(work, 'tampered.lock.json'), JSON.stringify(lock))
    const args = ['pull', '--frozen', 'tampered.lock.json', '--into', 'tampered', '--registry', addressOf(liar)]
    const { error } = await json(args, { code: 2, env: { PACKS_CACHE: join(work, 'empty-cache') } })
    assert.equal((error as Json).code, 'DIGEST_MISMATCH')
    liar.close()
  })

  it('says nothing but the result when it is to be quiet, and nothing in colour off a terminal', async () => {
    const { out, err } = await packs(['pull', 'once', '--quiet', '--into', 'quiet'])
    assert.equal(err, '')
    assert.equal(out, 'once 1.0.0 quiet/once/once-1.0.0.tgz\n')
    const noisy = await packs(['pull', 'once', '--into', 'noisy'])
    assert.match(
      noisy.err,
      /^pulling once 1\.0\.0 \(.*\)\npulled once 1\.0\.0 \(.*\)\n1 pack, .* verified, in noisy\n$/,
    )
    assert.ok(!(noisy.err + noisy.out).includes('\u001b'))
  })
})

describe('Ctrl-C', () => {
  it('stops a publish: exit code 130, and nothing is left behind', async () => {
    const { server, asked } = await silent()
    await folderOf('cancelled', { 'pack.json': packJson('cancelled'), a: 'a' })
    const { child, ended } = start(['publish', 'cancelled', '--registry', addressOf(server), '--json'])
    await Promise.race([asked, ended])
    assert.equal((await temporary()).length, 1)
    child.kill('SIGINT')
    const { code, out } = await ended
    assert.deepEqual([code, JSON.parse(out)], [130, { error: { code: 'CANCELLED', message: 'cancelled' } }])
    assert.deepEqual(await temporary(), [])
    stop(server)
  })

  it('stops a pull', async () => {
    await publish('slow', {}, { a: 'a' })
    await packs(['resolve', 'slow', '-o', 'slow.lock.json'])
    const { server, asked } = await silent()
    const env = { PACKS_CACHE: join(work, 'slow-cache'), PACKS_REGISTRY: addressOf(server) }
    const { child, ended } = start(['pull', '--frozen', 'slow.lock.json', '--into', 'slow'], env)
    await Promise.race([asked, ended])
    child.kill('SIGINT')
    const { code, err } = await ended
    assert.equal(code, 130)
    assert.match(err, /cancelled\n$/)
    assert.deepEqual(await temporary(), [])
    stop(server)
  })
})

describe('logins', () => {
  const file = () => join(work, '.config/packs/auth.json')
  const input = 'secret\n'

  it('keeps a login that the registry takes, for its owner only', async () => {
    const plain = { PACKS_REGISTRY: '' }
    const { username } = await json(['login', registry.url, '--username', 'ann', '--password-stdin'], { input })
    assert.equal(username, 'ann')
    assert.equal((await stat(file())).mode & 0o777, 0o600)
    const { host } = new URL(registry.url)
    assert.deepEqual(JSON.parse(await readFile(file(), 'utf8')), {
      auths: { [host]: { auth: Buffer.from('ann:secret').toString('base64') } },
      currentRegistry: registry.url,
    })
    // From now on this registry is the one that is meant.
    await json(['info', 'once'], { env: plain })
    await json(['login', '--token-stdin'], { input: 'a.b.c\n', env: plain })
    assert.deepEqual(JSON.parse(await readFile(file(), 'utf8')).auths, { [host]: { registrytoken: 'a.b.c' } })
    assert.equal((await json(['logout'], { env: plain })).forgotten, true)
    assert.deepEqual(JSON.parse(await readFile(file(), 'utf8')), { auths: {} })
    assert.equal((await json(['logout'])).forgotten, false)
  })

  it('sends it, and keeps none that is refused', async () => {
    const seen: unknown[] = []
    const server = await listening(
      createServer((request, answer) => {
        seen.push(request.headers.authorization)
        answer.writeHead(401).end()
      }),
    )
    const args = ['login', addressOf(server), '--username', 'ann', '--password-stdin']
    const { error } = await json(args, { input, code: 1 })
    assert.equal((error as Json).code, 'UNAUTHORIZED')
    assert.deepEqual(seen, [`Basic ${Buffer.from('ann:secret').toString('base64')}`])
    assert.deepEqual(JSON.parse(await readFile(file(), 'utf8')), { auths: {} })
    stop(server)
  })

  it('does not ask where nobody can answer', async () => {
    assert.match((await packs(['login', registry.url])).err, /--password-stdin/)
  })
})

describe('the command', () => {
  it('runs from any folder, whatever lies in it, and says its version', async () => {
    await folderOf('strange', { 'tsconfig.json': 'not even JSON', 'package.json': '{"type":"commonjs"}' })
    const child = spawn(process.execPath, [launcher, '--version'], { cwd: join(work, 'strange') })
    const code = await new Promise((resolve) => child.once('close', resolve))
    assert.equal(code, 0)
  })

  it('has an example in the help of every command', async () => {
    const { out } = await packs(['--help'])
    const names = [...out.matchAll(/^ {2}([a-z]+) /gm)].map((match) => match[1] ?? '')
    assert.ok(names.length >= 20, out)
    const helps = await Promise.all(
      names.map((name) => packs([...(name === 'channel' ? ['channel', 'set'] : [name]), '--help'])),
    )
    for (const help of helps) assert.match(help.out, /\nExample:\n {2}.*packs /)
  })

  it('says that the result could not be written', async (t) => {
    const full = await open('/dev/full', 'w').catch(() => undefined)
    if (!full) return t.skip('this system has no /dev/full')
    const child = spawn(process.execPath, [launcher, '--help'], { stdio: ['ignore', full.fd, 'pipe'] })
    let said = ''
    child.stderr?.on('data', (text) => {
      said += text
    })
    const code = await new Promise((resolve) => child.once('close', resolve))
    await full.close()
    assert.deepEqual([code, /^error: the result cannot be written: ENOSPC/.test(said)], [1, true], said)
  })

  it('stops quietly when nobody reads on', async () => {
    const { child, ended } = start(['serve', '--help'])
    child.stdout?.destroy()
    assert.equal((await ended).err, '')
  })
})

/** A server that takes requests and never answers. */
async function silent(): Promise<{ server: Server; asked: Promise<void> }> {
  let tell: () => void = () => undefined
  const asked = new Promise<void>((resolve) => {
    tell = resolve
  })
  return { server: await listening(createServer(() => tell())), asked }
}

function listening(server: Server): Promise<Server> {
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(server)))
}

function addressOf(server: Server): string {
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

function stop(server: Server): void {
  server.close()
  server.closeAllConnections()
}
