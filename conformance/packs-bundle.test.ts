// A bundle through real clients: one reference, or one file, carries the whole closure to another place.
import assert from 'node:assert/strict'
import { execFile, execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { promisify } from 'node:util'
import { blobsOf } from './image.ts'
import { call, sha256 } from './registry-client.ts'
import { type Server, startServer, temporaryFolder } from './server.ts'

const execute = promisify(execFile)
const script = join(import.meta.dirname, '..', 'scripts', 'services', 'clients.sh')
const newerClients = execFileSync('bash', [script], { encoding: 'utf8' }).trim()

type Index = { manifests: { digest: string; mediaType: string; annotations?: Record<string, string> }[] }

describe('a bundle through real clients', () => {
  let home: Server
  let away: Server
  let work: string
  let digest: string
  /** Digests of everything in the closure, in order. */
  let closure: string[]

  async function run(program: string, ...args: string[]): Promise<string> {
    const env = { PATH: `${newerClients}:${process.env.PATH}`, HOME: work, TMPDIR: work }
    try {
      const { stdout } = await execute(program, args, { cwd: work, env, maxBuffer: 1 << 26, timeout: 180_000 })
      return stdout.trim()
    } catch (error) {
      const { stdout, stderr } = error as { stdout: string; stderr: string }
      throw new Error(`${program} ${args.join(' ')}\n${stdout}\n${stderr}`, { cause: error })
    }
  }
  const plain = ['--from-plain-http', '--to-plain-http']

  async function publish(document: object, content?: Buffer): Promise<string> {
    const form = new FormData()
    form.append('manifest', new Blob([JSON.stringify({ version: '1.0.0', ...document })]), 'pack.json')
    if (content) form.append('content', new Blob([new Uint8Array(content)]), 'content.tgz')
    const answer = await fetch(`${home.url}/packs`, { method: 'POST', body: form })
    const text = await answer.text()
    assert.equal(answer.status, 201, text)
    return (JSON.parse(text) as { manifestDigest: string }).manifestDigest
  }

  /** Everything that hangs on a manifest at a server, fetched by digest from one repository, and checked. */
  async function fetchClosure(server: Server, repository: string, root: string): Promise<string[]> {
    const found = new Set<string>()
    const visit = async (manifest: string) => {
      found.add(manifest)
      const answer = await call('GET', `${server.url}/v2/${repository}/manifests/${manifest}`)
      assert.deepEqual([answer.status, sha256(answer.body)], [200, manifest])
      const { manifests = [], config, layers = [] } = JSON.parse(answer.body.toString())
      for (const child of manifests) await visit(child.digest)
      for (const blob of [config, ...layers].filter(Boolean)) {
        found.add(blob.digest)
        const bytes = await call('GET', `${server.url}/v2/${repository}/blobs/${blob.digest}`)
        assert.equal(sha256(bytes.body), blob.digest)
      }
    }
    await visit(root)
    return [...found].sort()
  }

  before(async () => {
    work = temporaryFolder()
    ;[home, away] = await Promise.all([startServer(), startServer()])
    await publish({ packId: 'base', type: 'policy' }, Buffer.from('base'))
    await publish({ packId: 'net', type: 'analyzer', dependencies: ['base@^1'] }, randomBytes(2_000_000))
    await publish({ packId: 'inner', type: 'bundle', dependencies: ['base@^1'] })
    const dependencies = ['net@^1', 'inner@^1']
    digest = await publish({ packId: 'whole', version: '1.0.0+site.1', type: 'bundle', dependencies })
    closure = await fetchClosure(home, 'packs/whole', digest)
    // Two packs of a manifest, a config and content each; two indexes.
    assert.equal(closure.length, 8)
    const tar = await call('GET', `${home.url}/packs/whole/1.0.0+site.1`)
    writeFileSync(join(work, 'whole.tar'), tar.body)
    mkdirSync(join(work, 'layout'))
    await run('tar', '-xf', 'whole.tar', '-C', 'layout')
  })
  after(async () => {
    await home?.stop()
    await away?.stop()
    rmSync(work, { recursive: true, force: true })
  })

  it('oras cp -r, to another repository and to another registry', async () => {
    const from = `${home.host}/packs/whole:1.0.0_site.1`
    await run('oras', 'cp', '-r', ...plain, from, `${home.host}/mirror/whole:1`)
    assert.deepEqual(await fetchClosure(home, 'mirror/whole', digest), closure)
    await run('oras', 'cp', '-r', ...plain, from, `${away.host}/packs/whole:1.0.0_site.1`)
    assert.deepEqual(await fetchClosure(away, 'packs/whole', digest), closure)
    // There it is the same pack, and gives the same file.
    const pack = JSON.parse((await call('GET', `${away.url}/packs/whole`)).body.toString()).pack
    assert.deepEqual([pack.version, pack.digest, pack.dependencies.length], ['1.0.0+site.1', digest, 2])
    const tar = await call('GET', `${away.url}/packs/whole/latest`)
    assert.equal(sha256(tar.body), sha256(readFileSync(join(work, 'whole.tar'))))
  })

  it('skopeo copy --all, into a layout and from the file', async () => {
    // Skopeo copies no index within an index: a bundle of bundles is for the others.
    const flat = await publish({ packId: 'flat', type: 'bundle', dependencies: ['net@^1'] })
    const expected = await fetchClosure(home, 'packs/flat', flat)
    const copy = ['copy', '--all', '--src-tls-verify=false', '--dest-tls-verify=false']
    await run('skopeo', ...copy, `docker://${home.host}/packs/flat:1.0.0`, 'oci:skopeo-layout:flat')
    assert.deepEqual(blobsOf(join(work, 'skopeo-layout')), expected)
    writeFileSync(join(work, 'flat.tar'), (await call('GET', `${home.url}/packs/flat/^1`)).body)
    await run('skopeo', ...copy, 'oci-archive:flat.tar:flat--1.0.0', `docker://${away.host}/packs/flat:1.0.0`)
    assert.deepEqual(await fetchClosure(away, 'packs/flat', flat), expected)
  })

  it('oras cp --from-oci-layout, from the file as it is: all of it, or one member', async () => {
    const options = ['--from-oci-layout', '--to-plain-http']
    await run('oras', 'cp', ...options, 'whole.tar:whole--1.0.0_site.1', `${away.host}/by-oras/whole:1`)
    assert.deepEqual(await fetchClosure(away, 'by-oras/whole', digest), closure)
    // A pack by itself comes after what it depends on.
    for (const pack of ['base', 'net'])
      await run('oras', 'cp', ...options, `whole.tar:${pack}--1.0.0`, `${away.host}/packs/${pack}:1.0.0`)
    const [there, here] = [await call('GET', `${away.url}/packs/net/^1`), await call('GET', `${home.url}/packs/net/^1`)]
    assert.equal(sha256(there.body), sha256(here.body))
    assert.equal(
      await run('oras', 'repo', 'tags', '--oci-layout', 'layout'),
      ['base--1.0.0', 'inner--1.0.0', 'net--1.0.0', 'whole--1.0.0_site.1'].join('\n'),
    )
  })

  it('crane reads the index, validates its members, and copies it', async () => {
    const reference = `${home.host}/packs/whole:1.0.0_site.1`
    assert.equal(await run('crane', 'digest', '--insecure', reference), digest)
    const index = JSON.parse(await run('crane', 'manifest', '--insecure', reference)) as Index
    assert.deepEqual(
      index.manifests.map(({ annotations }) => annotations?.['org.opencontainers.image.title']),
      ['base', 'inner', 'net'],
    )
    await run('crane', 'copy', '--insecure', reference, `${away.host}/by-crane/whole:1`)
    assert.deepEqual(await fetchClosure(away, 'by-crane/whole', digest), closure)
  })

  it('the unpacked file is a layout of nothing but the closure', () => {
    assert.deepEqual(blobsOf(join(work, 'layout')), closure)
    const listed = execFileSync('tar', ['tf', join(work, 'whole.tar')], { encoding: 'utf8' })
      .trim()
      .split('\n')
    assert.deepEqual(listed, ['oci-layout', 'index.json', ...closure.map((blob) => `blobs/${blob.replace(':', '/')}`)])
  })

  it('curl resumes a download that broke off', async () => {
    const url = `${home.url}/packs/whole/1.0.0+site.1`
    const whole = readFileSync(join(work, 'whole.tar'))
    writeFileSync(join(work, 'part.tar'), whole.subarray(0, 700_001))
    await run('curl', '--fail', '--silent', '--show-error', '-C', '-', '-o', 'part.tar', url)
    assert.equal(sha256(readFileSync(join(work, 'part.tar'))), sha256(whole))
  })
})
