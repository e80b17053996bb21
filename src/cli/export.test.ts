import assert from 'node:assert/strict'
import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, beforeEach, describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'
import { openLog } from '../log.ts'
import { createKey } from '../registry/keys.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { startRegistry, type TestRegistry } from '../testing/registry.ts'
import { waitFor } from '../testing/wait.ts'

// The command as a process, against a real registry; with a proxy in between for lines that break.

const main = fileURLToPath(new URL('../main.ts', import.meta.url))
const root = mkdtempSync(join(tmpdir(), 'packs-export-'))
let databases: TestDatabases
let registry: TestRegistry
let folder: string

before(async () => {
  databases = await startDatabases()
  registry = await startRegistry(await databases.fresh(), {}, openLog('error'))
  await publish({ packId: 'base' }, 'the content of base')
  await publish({ packId: 'net', version: '2.0.0', dependencies: ['base@^1'] }, randomBytes(6_000_000))
  await createKey(registry.deps, 'release')
})
after(async () => {
  await registry?.stop()
  await databases?.stop()
  rmSync(root, { recursive: true, force: true })
})
beforeEach(() => {
  folder = mkdtempSync(join(root, 'work-'))
})

async function publish(document: object, content: string | Uint8Array<ArrayBuffer>): Promise<void> {
  const form = new FormData()
  const whole = { type: 'policy', version: '1.0.0', ...document }
  form.append('manifest', new Blob([JSON.stringify(whole)]), 'pack.json')
  form.append('content', new Blob([content]), 'content.tgz')
  const answer = await fetch(`${registry.url}/packs`, { method: 'POST', body: form })
  assert.equal(answer.status, 201, await answer.text())
}

const command = (args: string[]) => ['--import', import.meta.resolve('tsx'), main, ...args]
const environment = (url: string) => ({ PATH: process.env.PATH, HOME: folder, PACKS_REGISTRY: url })

function packs(args: string[], url = registry.url): Promise<{ code: number; out: string; said: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, command(args), { cwd: folder, env: environment(url) }, (error, out, said) =>
      resolve({ code: error ? Number(error.code) : 0, out, said }),
    )
  })
}

const sha256 = (name: string) =>
  createHash('sha256')
    .update(readFileSync(join(folder, name)))
    .digest('hex')
const partial = () => readdirSync(folder).filter((name) => name.endsWith('.partial'))

type Proxy = { url: string; ranges: string[]; stop(): Promise<void> }

/** Passes everything on; of a bundle's bytes, at most `most` an answer, and then the line breaks or stays silent. */
async function startProxy(most: number, { silent = false } = {}): Promise<Proxy> {
  const ranges: string[] = []
  const server = http.createServer((asked, answer) => {
    const { method, url, headers } = asked
    const passed = http.request(registry.url + url, { method, headers }, (given) => {
      answer.writeHead(given.statusCode ?? 0, given.headers)
      if (method !== 'GET' || !url?.startsWith('/bundles/')) return given.pipe(answer)
      ranges.push(headers.range ?? '')
      let left = most
      given.on('data', (piece: Buffer) => {
        if (left > 0) answer.write(piece.subarray(0, left))
        left -= piece.length
        if (left <= 0 && !silent) answer.destroy()
      })
      return given.on('error', () => undefined)
    })
    answer.on('close', () => passed.destroy())
    passed.on('error', () => answer.destroy())
    asked.pipe(passed)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    ranges,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

describe('packs export', () => {
  it('writes a file that is verified, and says its sha256', async () => {
    const { code, out, said } = await packs(['export', 'net@^2', '-o', 'packs.tar'])
    assert.equal(code, 0, said)
    assert.equal(out, `${sha256('packs.tar')}  packs.tar\n`)
    assert.match(said, /2 versions, 6\.0 MB, verified, signed by one key/)
    assert.deepEqual(partial(), [])
    const names = execFileSync('tar', ['tf', 'packs.tar'], { cwd: folder, encoding: 'utf8' }).split('\n')
    assert.deepEqual(names.slice(0, 3), ['oci-layout', 'index.json', 'bundle.dsse.json'])
    await packs(['keys', 'export', 'release', '-o', 'release.pem'])
    const verified = await packs(['bundle', 'verify', 'packs.tar', '--key', 'release.pem'])
    assert.equal(verified.code, 0, verified.said)
  })

  it('answers in JSON', async () => {
    const { out } = await packs(['export', '--all', '-o', 'site.tar', '--json'])
    const { file, sha256: hex, size, packs: count, signedBy } = JSON.parse(out)
    assert.deepEqual([file, hex, size], ['site.tar', sha256('site.tar'), statSync(join(folder, 'site.tar')).size])
    assert.deepEqual([count, signedBy.length], [2, 1])
  })

  it('plans, and writes nothing', async () => {
    const { code, out } = await packs(['export', 'net', '--plan'])
    assert.equal(code, 0)
    assert.match(out, /base +1\.0\.0 +policy.*net +2\.0\.0/s)
    assert.match(out, /sha256 +[0-9a-f]{64}/)
    assert.deepEqual(readdirSync(folder), [])
    const { file } = JSON.parse((await packs(['export', 'net', '--plan', '--json'])).out)
    await packs(['export', 'net', '-o', 'packs.tar'])
    assert.deepEqual([file.sha256, file.size], [sha256('packs.tar'), statSync(join(folder, 'packs.tar')).size])
  })

  it('takes what a lock has', async () => {
    await packs(['resolve', 'base', '-o', 'packs.lock.json'])
    const { out } = await packs(['export', '--lock', 'packs.lock.json', '-o', 'packs.tar', '--json'])
    assert.equal(JSON.parse(out).packs, 1)
  })

  it('leaves out what the receiver has, by its inventory or by the last file', async () => {
    const written = await packs(['inventory', '-o', 'inventory.json'])
    assert.match(written.out, /inventory\.json lists 4 blobs of 2 versions, signed/)
    await packs(['export', 'net', '-o', 'january.tar'])
    writeFileSync(join(folder, 'january.json'), (await packs(['bundle', 'inventory', 'january.tar', '--json'])).out)
    for (const since of ['inventory.json', 'january.json']) {
      const { code, out, said } = await packs(['export', 'net', '-o', 'february.tar', '--since', since])
      assert.equal(code, 0, out + said)
      assert.match(said, /4 blobs left out/)
      assert.ok(statSync(join(folder, 'february.tar')).size < 20_000)
      assert.match((await packs(['bundle', 'inspect', 'february.tar'])).out, /incremental bundle/)
    }
    const none = await packs(['export', 'net', '-o', 'packs.tar', '--since', 'january.tar'])
    assert.equal(none.code, 11)
    assert.match(none.said, /january\.tar is not JSON/)
  })

  it('writes volumes that join to the file, with their checksums', async () => {
    const { code, out, said } = await packs(['export', 'net', '-o', 'packs.tar', '--split', '2MiB'])
    assert.equal(code, 0, said)
    const volumes = ['packs.tar.001', 'packs.tar.002', 'packs.tar.003']
    assert.deepEqual(readdirSync(folder).sort(), [...volumes, 'packs.tar.sha256sums'])
    assert.match(out, /cat packs\.tar\.\[0-9\]\[0-9\]\[0-9\] > packs\.tar/)
    execFileSync('bash', ['-c', 'cat packs.tar.[0-9][0-9][0-9] > packs.tar'], { cwd: folder })
    const checked = execFileSync('bash', ['-c', 'sha256sum --check packs.tar.sha256sums'], {
      cwd: folder,
      encoding: 'utf8',
    })
    assert.equal(checked.match(/: OK/g)?.length, 4)
    assert.equal((await packs(['bundle', 'verify', 'packs.tar', '--policy', 'never'])).code, 0)
    const fewer = await packs(['export', 'net', '-o', 'packs.tar', '--split', '4MiB'])
    assert.equal(fewer.code, 1)
    assert.match(fewer.said, /packs\.tar\.003 is there, of an export with more volumes/)
  })

  for (const split of [[], ['--split', '1MiB']])
    it(`goes on where it was killed${split.length > 0 ? ', in the middle of volumes' : ''}`, async () => {
      const proxy = await startProxy(2_500_000, { silent: true })
      try {
        const args = ['export', 'net', '-o', 'packs.tar', ...split]
        const child: ChildProcess = spawn(process.execPath, command(args), {
          cwd: folder,
          env: environment(proxy.url),
          stdio: 'ignore',
        })
        const received = () => partial().reduce((sum, name) => sum + statSync(join(folder, name)).size, 0)
        await waitFor('2,000,000 bytes to be received', () => received() >= 2_000_000)
        const ended = new Promise((resolve) => child.once('exit', resolve))
        child.kill('SIGKILL')
        await ended
        const begun = received()
        assert.ok(!existsSync(join(folder, 'packs.tar')))
        const second = await startProxy(Number.POSITIVE_INFINITY)
        try {
          const { code, said } = await packs(args, second.url)
          assert.equal(code, 0, said)
          assert.deepEqual(second.ranges, [`bytes=${begun}-`])
        } finally {
          await second.stop()
        }
        if (split.length > 0) execFileSync('bash', ['-c', 'cat packs.tar.[0-9][0-9][0-9] > packs.tar'], { cwd: folder })
        await packs(['export', 'net', '-o', 'again.tar'])
        assert.equal(sha256('packs.tar'), sha256('again.tar'))
        assert.deepEqual(partial(), [])
      } finally {
        await proxy.stop()
      }
    })

  it('goes on by itself where the line breaks', async () => {
    const proxy = await startProxy(1_500_000)
    try {
      const { code, said } = await packs(['export', 'net', '-o', 'packs.tar'], proxy.url)
      assert.equal(code, 0, said)
      assert.ok(proxy.ranges.length > 3)
      assert.equal((await packs(['bundle', 'verify', 'packs.tar', '--policy', 'never'])).code, 0)
    } finally {
      await proxy.stop()
    }
  })

  it('begins anew where what an earlier try left is damaged', async () => {
    const { file } = JSON.parse((await packs(['export', 'net', '--plan', '--json'])).out)
    const name = `packs.tar.${file.id.slice(0, 16)}.partial`
    writeFileSync(join(folder, name), randomBytes(100_000))
    writeFileSync(join(folder, 'packs.tar.0123456789abcdef.partial'), 'of another file')
    const { code, out, said } = await packs(['export', 'net', '-o', 'packs.tar'])
    assert.equal(code, 0, said)
    assert.equal(out.split(' ')[0], file.sha256)
    // More than there ought to be is cut off.
    writeFileSync(join(folder, name), readFileSync(join(folder, 'packs.tar')))
    truncateSync(join(folder, name), file.size + 5000)
    assert.equal((await packs(['export', 'net', '-o', 'packs.tar'])).out, out)
    assert.deepEqual(readdirSync(folder), ['packs.tar'])
  })

  const refused: [name: string, args: string[], code: number, words: RegExp][] = [
    ['nothing', ['-o', 'a.tar'], 1, /name the packs to export/],
    ['no file', ['net'], 1, /name the file to write/],
    ['everything and something', ['net', '--all', '-o', 'a.tar'], 1, /without names/],
    ['everything for a runner', ['--all', '--runner', '1.0.0', '-o', 'a.tar'], 1, /resolves nothing/],
    ['a size that is none', ['net', '-o', 'a.tar', '--split', 'many'], 1, /is not a size/],
    ['too many volumes', ['net', '-o', 'a.tar', '--split', '4KiB'], 1, /volumes; make them larger/],
    ['packs that are not there', ['nobody', 'nothing', '-o', 'a.tar'], 1, /no packs nobody, nothing/],
    ['all problems at once', ['nobody', 'net@^9', '-o', 'a.tar'], 1, /2 things are wrong:\n- .*nobody\n- .*net/],
    ['what cannot be', ['net@^9', '-o', 'a.tar'], 11, /net/],
    ['a folder that is not there', ['net', '-o', 'nowhere/a.tar'], 1, /nowhere does not exist/],
  ]
  for (const [name, args, code, words] of refused)
    it(`refuses ${name}`, async () => {
      const answer = await packs(['export', ...args])
      assert.match(answer.said, words)
      assert.equal(answer.code, code)
      assert.deepEqual(readdirSync(folder), [])
    })
})
