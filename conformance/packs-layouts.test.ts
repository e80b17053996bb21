// Layouts that other tools make are read as they are, whatever their order, headers and compression; and other tools
// read ours.
import assert from 'node:assert/strict'
import { execFile, execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { promisify } from 'node:util'
import { survey } from '../src/bundles/survey.ts'
import { verify } from '../src/bundles/verify.ts'
import { parseDigest } from '../src/oci/digest.ts'
import { sampleBundle } from '../src/testing/bundle.ts'
import { createLayout } from './image.ts'
import { type Server, startServer, temporaryFolder } from './server.ts'

const script = join(import.meta.dirname, '..', 'scripts', 'services', 'clients.sh')
const newerClients = execFileSync('bash', [script], { encoding: 'utf8' }).trim()
const work = temporaryFolder()
let server: Server
let host: string

/** Runs a client in the work folder, which is its home too, and gives what it printed. */
async function run(program: string, ...args: string[]): Promise<string> {
  const env = { PATH: `${newerClients}:${process.env.PATH}`, HOME: work, TMPDIR: work }
  const { stdout } = await promisify(execFile)(program, args, { cwd: work, env, maxBuffer: 1 << 26, timeout: 180_000 })
  return stdout.trim()
}

const digestAt = (reference: string) => run('oras', 'resolve', '--plain-http', `${host}/${reference}`)
const write = (name: string, bytes: Buffer | string) => writeFileSync(join(work, name), bytes)

/** Reads a layout whole, and answers every digest in it. */
async function digestsIn(name: string): Promise<string[]> {
  const found = await survey(join(work, name))
  const { unnamed, signature } = verify(found, { keys: [], policy: undefined, now: new Date() })
  assert.deepEqual(unnamed, [])
  assert.equal(signature.kind, 'missing')
  assert.equal(found.contents.isBundle, false)
  return [...found.blobs.keys()]
}

before(async () => {
  server = await startServer()
  host = server.host
  write('sbom.json', '{"bomFormat":"CycloneDX"}')
  const type = ['--artifact-type', 'application/vnd.stellaops.pack.policy.v1']
  const versions = ['1.0.0', '1.1.0']
  for (const version of versions) {
    write('one.bin', randomBytes(300_000))
    await run('oras', 'push', '--plain-http', ...type, `${host}/packs/net:${version}`, 'one.bin')
  }
  const sbom = ['--artifact-type', 'application/vnd.cyclonedx+json']
  await run('oras', 'attach', '--plain-http', ...sbom, `${host}/packs/net:1.0.0`, 'sbom.json')
  const layout = createLayout(join(work, 'made'))
  const images = ['amd64', 'arm64'].map((architecture) => layout.addImage({ 'a.txt': architecture }, architecture))
  layout.tag(layout.addIndex(images), 'multi')
  layout.tag(images[0]!, 'single')
  for (const tag of ['multi', 'single'])
    await run(
      'skopeo',
      'copy',
      '--all',
      '--dest-tls-verify=false',
      `oci:made:${tag}`,
      `docker://${host}/images/app:${tag}`,
    )
})
after(async () => {
  try {
    await server?.stop()
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
})

describe('layouts of', () => {
  it('oras backup: a tag, all tags, with referrers; as a folder and as an archive', async () => {
    const both = [await digestAt('packs/net:1.0.0'), await digestAt('packs/net:1.1.0')]
    for (const out of ['backup', 'backup.tar']) {
      await run('oras', 'backup', '--plain-http', '--include-referrers', '--output', out, `${host}/packs/net`)
      const digests = await digestsIn(out)
      for (const digest of both) assert.ok(digests.includes(digest), out)
      const [referrer] = JSON.parse(
        await run('oras', 'discover', '--plain-http', '--format', 'json', `${host}/packs/net:1.0.0`),
      ).referrers
      assert.ok(digests.includes(referrer.digest), 'the referrer is in it')
    }
    await run('oras', 'backup', '--plain-http', '--output', 'one.tar', `${host}/packs/net:1.1.0`)
    assert.ok((await digestsIn('one.tar')).includes(both[1]!))
  })
  it('oras cp', async () => {
    await run('oras', 'cp', '-r', '--from-plain-http', '--to-oci-layout', `${host}/packs/net:1.0.0`, 'copied:1.0.0')
    assert.ok((await digestsIn('copied')).includes(await digestAt('packs/net:1.0.0')))
  })
  it('skopeo copy: one image, and all of an index', async () => {
    for (const [tag, flags] of [
      ['single', []],
      ['multi', ['--all']],
    ] as const)
      for (const out of [`oci-archive:${tag}.tar:${tag}`, `oci:${tag}-folder:${tag}`]) {
        await run('skopeo', 'copy', ...flags, '--src-tls-verify=false', `docker://${host}/images/app:${tag}`, out)
        const name = out.split(':')[1] ?? ''
        assert.ok((await digestsIn(name)).includes(await digestAt(`images/app:${tag}`)), out)
      }
  })
  it('crane pull, as a folder, packed by tar in every way', async () => {
    await run('crane', 'pull', '--insecure', '--format=oci', `${host}/images/app:multi`, 'crane')
    const digest = await digestAt('images/app:multi')
    assert.ok((await digestsIn('crane')).includes(digest))
    const ways = {
      'dot.tar': ['-cf', 'dot.tar', '-C', 'crane', '.'],
      'pax.tar': ['--format=posix', '-cf', 'pax.tar', '-C', 'crane', '.'],
      'gnu.tar.gz': ['--format=gnu', '-czf', 'gnu.tar.gz', '-C', 'crane', 'blobs', 'oci-layout', 'index.json'],
      'late.tar.zst': ['--zstd', '-cf', 'late.tar.zst', '-C', 'crane', 'oci-layout', 'blobs', 'index.json'],
    }
    for (const [name, args] of Object.entries(ways)) {
      await run('tar', ...args)
      assert.ok((await digestsIn(name)).includes(digest), name)
    }
  })
  it('skopeo for docker are none, and the message says so', async () => {
    await run(
      'skopeo',
      'copy',
      '--src-tls-verify=false',
      `docker://${host}/images/app:single`,
      'docker-archive:docker.tar:app:single',
    )
    await assert.rejects(survey(join(work, 'docker.tar')), (error: { key?: string; detail?: string }) => {
      assert.equal(error.key, 'BUNDLE_INVALID')
      assert.match(String(error.detail), /link|index\.json/)
      return true
    })
  })
})

describe('a bundle file', () => {
  it('is a layout to oras and skopeo', async () => {
    const { bytes, digests } = sampleBundle()
    write('bundle.tar', bytes)
    assert.equal(await run('oras', 'resolve', '--oci-layout', 'bundle.tar:alpha--1.0.0'), digests.alpha)
    assert.equal(await run('oras', 'resolve', '--oci-layout', 'bundle.tar:alpha--stable'), digests.alpha)
    await run(
      'oras',
      'cp',
      '--from-oci-layout',
      '--to-plain-http',
      'bundle.tar:beta--2.1.0_build.7',
      `${host}/copies/beta:1`,
    )
    assert.equal(await digestAt('copies/beta:1'), digests.beta)
    await run(
      'skopeo',
      'copy',
      '--dest-tls-verify=false',
      'oci-archive:bundle.tar:alpha--1.0.0',
      `docker://${host}/copies/alpha:1`,
    )
    assert.ok(parseDigest(await digestAt('copies/alpha:1')))
    const lock = JSON.parse(await run('oras', 'manifest', 'fetch', '--oci-layout', 'bundle.tar:lock'))
    assert.equal(lock.layers[0].digest, digests.lock)
    assert.deepEqual(readFileSync(join(work, 'bundle.tar')), bytes, 'nothing was written into it')
  })
})
