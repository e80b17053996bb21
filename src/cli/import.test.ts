import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, before, beforeEach, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { type ImportSource, openClient } from '../client/client.ts'
import { openLog } from '../log.ts'
import { sampleBundle } from '../testing/bundle.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { startRegistry, type TestRegistry } from '../testing/registry.ts'

// The command as a process, against a real registry; with a proxy in between for a line that breaks.

const main = fileURLToPath(new URL('../main.ts', import.meta.url))
const root = mkdtempSync(join(tmpdir(), 'packs-import-'))
let databases: TestDatabases
let registry: TestRegistry
let folder: string

before(async () => {
  databases = await startDatabases()
})
after(async () => {
  await databases?.stop()
  rmSync(root, { recursive: true, force: true })
})
beforeEach(() => {
  folder = mkdtempSync(join(root, 'work-'))
})

type Ended = { code: number; stdout: string; stderr: string }

function packs(args: string[], { url = registry.url, input }: { url?: string; input?: Buffer } = {}): Promise<Ended> {
  return new Promise((resolve) => {
    const env = { PATH: process.env.PATH, HOME: folder, PACKS_REGISTRY: url }
    const command = ['--import', import.meta.resolve('tsx'), main, ...args]
    const child = execFile(process.execPath, command, { env, cwd: folder }, (error, stdout, stderr) =>
      resolve({ code: error ? Number(error.code) : 0, stdout, stderr }),
    )
    child.stdin?.end(input)
  })
}

async function withRegistry(test: () => Promise<void>): Promise<void> {
  registry = await startRegistry(await databases.fresh(), {}, openLog('error'))
  try {
    await test()
  } finally {
    await registry.stop()
  }
}

const write = (name: string, bytes: Buffer | string) => {
  mkdirSync(dirname(join(folder, name)), { recursive: true })
  writeFileSync(join(folder, name), bytes)
}
const sha256 = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex')
const sample = sampleBundle()
const net = (version: string, content: string) =>
  sampleBundle({ packs: [{ packId: 'net', version, content }], channels: [{ packId: 'net', channel: 'stable' }] }).bytes

function volumes(bytes: Buffer): void {
  const parts = [0, 1, 2].map((i) => bytes.subarray(i * 8_000, i === 2 ? undefined : (i + 1) * 8_000))
  for (const [i, part] of parts.entries()) write(`packs.tar.00${i + 1}`, part)
  const lines = parts.map((part, i) => `${sha256(part)}  packs.tar.00${i + 1}`)
  write('packs.tar.sha256sums', `${[...lines, `${sha256(bytes)}  packs.tar`].join('\n')}\n`)
}

/** 6 MB. */
function large(): Buffer {
  const packs = Array.from({ length: 60 }, (_, i) => ({
    ...{ packId: `pack-${i}`, version: '1.0.0' },
    content: Buffer.alloc(100_000, `content ${i} `),
  }))
  return sampleBundle({ packs, channels: [], referrer: false }).bytes
}

/** A bundle in memory, in pieces as a file has them. */
const sourceOf = (bytes: Buffer): ImportSource => ({
  size: bytes.length,
  async *open(from) {
    for (let at = from; at < bytes.length; at += 256 * 1024) yield bytes.subarray(at, at + 256 * 1024)
  },
})

describe('packs import', () => {
  it('imports a file, and says what became of it', () =>
    withRegistry(async () => {
      write('packs.tar', sample.bytes)
      const tried = await packs(['import', 'packs.tar', '--dry-run'])
      assert.match(tried.stdout, /would be imported .*2 of 2 versions are new/)
      const first = await packs(['import', 'packs.tar'])
      assert.equal(first.code, 0, first.stderr)
      assert.match(first.stdout, /^imported at http:.*2 of 2 versions are new/)
      assert.match(first.stdout, /alpha +stable +1\.0\.0 +new/)
      const second = await packs(['import', 'packs.tar'])
      assert.match(second.stdout, /nothing to do/)
      const json = await packs(['import', 'packs.tar', '--json'])
      assert.equal(JSON.parse(json.stdout).changed, false)
    }))

  const ways: { name: string; path: string; prepare: () => Buffer | undefined }[] = [
    { name: 'the first of its volumes', path: 'packs.tar.001', prepare: () => void volumes(sample.bytes) },
    { name: 'the name that its volumes have together', path: 'packs.tar', prepare: () => void volumes(sample.bytes) },
    {
      name: 'a folder',
      path: 'layout',
      prepare: () => {
        for (const { name, bytes = Buffer.alloc(0) } of sample.entries) write(`layout/${name}`, bytes)
        write('layout/notes.txt', 'not a part of it')
        return undefined
      },
    },
    { name: 'standard input', path: '-', prepare: () => sample.bytes },
  ]
  for (const { name, path, prepare } of ways)
    it(`takes ${name}`, () =>
      withRegistry(async () => {
        const input = prepare()
        const { code, stderr } = await packs(['import', path, '--quiet'], input ? { input } : {})
        assert.equal(code, 0, stderr)
        assert.equal(await (await registry.call('GET', '/packs/alpha/stable')).text(), 'the content of alpha')
      }))

  const refusals: { name: string; code: number; says: RegExp; prepare: () => Promise<unknown>; args?: string[] }[] = [
    {
      name: 'a volume that is damaged',
      ...{ code: 2, says: /packs\.tar\.002 is damaged/ },
      prepare: async () => {
        volumes(sample.bytes)
        write('packs.tar.002', Buffer.alloc(8_000))
      },
    },
    {
      name: 'a volume that is missing',
      ...{ code: 2, says: /packs\.tar\.003 is missing/ },
      prepare: async () => {
        volumes(sample.bytes)
        rmSync(join(folder, 'packs.tar.003'))
      },
    },
    {
      name: 'a volume of another bundle behind its own',
      ...{ code: 2, says: /packs\.tar\.004 is none of the volumes/ },
      prepare: async () => {
        volumes(sample.bytes)
        write('packs.tar.004', Buffer.alloc(8_000))
      },
    },
    {
      name: 'volumes with a list that lists nothing',
      ...{ code: 2, says: /packs\.tar\.001 is none of the volumes/ },
      prepare: async () => {
        volumes(sample.bytes)
        write('packs.tar.sha256sums', '<html>not found</html>')
      },
    },
    {
      name: 'content that is damaged',
      ...{ code: 2, says: /changed or damaged/ },
      prepare: async () => {
        const at = sample.bytes.indexOf('the content of beta')
        write(
          'packs.tar',
          Buffer.concat([sample.bytes.subarray(0, at), Buffer.from('T'), sample.bytes.subarray(at + 1)]),
        )
      },
    },
    {
      name: 'a bundle without the signature that is needed',
      ...{ code: 5, says: /not signed/ },
      prepare: async () => {
        await packs(['keys', 'create', 'ours'])
        write('packs.tar', sample.bytes)
      },
    },
    {
      name: 'an older bundle',
      ...{ code: 8, says: /an older version/ },
      prepare: async () => {
        await registry.call('POST', '/bundles/import', { body: net('2.0.0', 'two') })
        write('packs.tar', net('1.0.0', 'one'))
      },
    },
    {
      name: 'a version with other content',
      ...{ code: 11, says: /Versions never change/ },
      prepare: async () => {
        await registry.call('POST', '/bundles/import', { body: net('1.0.0', 'one') })
        write('packs.tar', net('1.0.0', 'another'))
      },
    },
    { name: 'force without a reason', code: 1, says: /needs a --reason/, prepare: async () => {}, args: ['--force'] },
    { name: 'a file that is not there', code: 1, says: /does not exist/, prepare: async () => {} },
  ]
  for (const { name, code, says, prepare, args = [] } of refusals)
    it(`refuses ${name}`, () =>
      withRegistry(async () => {
        await prepare()
        const ended = await packs(['import', 'packs.tar', ...args])
        assert.match(ended.stderr, says)
        assert.equal(ended.code, code, ended.stderr)
      }))

  it('lets channels go back where that is meant', () =>
    withRegistry(async () => {
      await registry.call('POST', '/bundles/import', { body: net('2.0.0', 'two') })
      write('packs.tar', net('1.0.0', 'one'))
      const ended = await packs(['import', 'packs.tar', '--force', '--reason', '2.0.0 is broken'])
      assert.match(ended.stdout, /channels went back: 2\.0\.0 is broken/)
      assert.match(ended.stdout, /was 2\.0\.0/)
    }))

  it('goes on by itself where the line breaks', () =>
    withRegistry(async () => {
      const bytes = large()
      write('packs.tar', bytes)
      const line = await breakingLine(registry.url, { after: 3_000_000 })
      try {
        const { code, stderr } = await packs(['import', 'packs.tar'], { url: line.url })
        assert.equal(code, 0, stderr)
        assert.ok(line.sent.length >= 2, String(line.sent))
        assert.ok(
          line.sent.slice(1).every((length) => length < bytes.length),
          String(line.sent),
        )
        assert.equal((await registry.call('GET', '/packs/pack-59/1.0.0')).status, 200)
      } finally {
        line.stop()
      }
    }))

  it('outlasts a registry that is away for a while, once it has some of it', () =>
    withRegistry(async () => {
      const line = await breakingLine(registry.url, { after: 3_000_000, awayMs: 1_500 })
      try {
        const client = openClient({ url: line.url, attempts: 2, baseDelayMs: 20 })
        const report = await client.imports.run(sourceOf(large()))
        assert.equal(report.changed, true)
        assert.ok((line.sent.at(-1) ?? 0) < large().length, String(line.sent))
      } finally {
        line.stop()
      }
    }))

  it('takes up what a run before has left, and begins anew where that is over', () =>
    withRegistry(async () => {
      const bytes = large()
      const line = await breakingLine(registry.url, { after: Number.POSITIVE_INFINITY })
      try {
        const client = openClient({ url: line.url })
        const abort = new AbortController()
        const onProgress = ({ sentBytes }: { sentBytes: number }) => sentBytes >= 4_000_000 && abort.abort()
        const cut = client.imports.run(sourceOf(bytes), { onProgress, signal: abort.signal })
        await assert.rejects(cut, { code: 'CANCELLED' })
        assert.equal((await client.imports.run(sourceOf(bytes))).changed, true)
        assert.equal((await client.imports.run(sourceOf(bytes))).changed, false)
        const [first = 0, second = 0, third = 0] = line.sent
        assert.deepEqual([first, third, line.sent.length], [bytes.length, bytes.length, 3])
        assert.ok(second < first, String(line.sent))
      } finally {
        line.stop()
      }
    }))

  it('is two imports where two run at the same moment, and both end well', () =>
    withRegistry(async () => {
      const client = openClient({ url: registry.url })
      const both = await Promise.all([client.imports.run(sourceOf(large())), client.imports.run(sourceOf(large()))])
      assert.ok(both.some(({ changed }) => changed))
      assert.equal((await registry.call('GET', '/packs/pack-59/1.0.0')).status, 200)
    }))
})

/**
 * A proxy that breaks the first connection on which so many bytes of a body have come, and takes none for a while then.
 * `sent`: lengths announced.
 */
async function breakingLine(target: string, { after, awayMs = 0 }: { after: number; awayMs?: number }) {
  const sent: number[] = []
  let isBroken = false
  let backAt = 0
  const server = http.createServer((incoming, outgoing) => {
    if (performance.now() < backAt) return incoming.destroy()
    const to = http.request(new URL(incoming.url ?? '', target), {
      method: incoming.method,
      headers: incoming.headers,
      agent: false,
    })
    to.on('error', () => outgoing.destroy())
    to.on('response', (answer) => {
      outgoing.writeHead(answer.statusCode ?? 502, answer.headers)
      answer.pipe(outgoing)
    })
    if (incoming.method === 'POST') sent.push(Number(incoming.headers['content-length']))
    let passed = 0
    incoming.on('data', (piece: Buffer) => {
      passed += piece.length
      if (isBroken || passed < after) return
      isBroken = true
      backAt = performance.now() + awayMs
      to.destroy()
      incoming.destroy()
    })
    incoming.on('close', () => incoming.complete || to.destroy())
    incoming.pipe(to)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const stop = () => {
    server.close()
    server.closeAllConnections()
  }
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, sent, stop }
}
