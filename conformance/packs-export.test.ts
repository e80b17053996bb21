// A bundle file of this registry through real clients: they read it as it is, and what they carry on is what left.
import assert from 'node:assert/strict'
import { execFile, execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { promisify } from 'node:util'
import { survey } from '../src/bundles/survey.ts'
import { verify } from '../src/bundles/verify.ts'
import { call, sha256 } from './registry-client.ts'
import { type Server, startServer, temporaryFolder } from './server.ts'

const script = join(import.meta.dirname, '..', 'scripts', 'services', 'clients.sh')
const newerClients = execFileSync('bash', [script], { encoding: 'utf8' }).trim()
const work = temporaryFolder()

type Plan = { id: string; size: number; sha256: string; referrers: { digest: string; subject: string }[] }

describe('a bundle file through real clients', () => {
  let home: Server
  let away: Server
  let digest: string
  let plan: Plan

  /** Runs a client in the work folder, which is its home too, and gives what it printed. */
  async function run(program: string, ...args: string[]): Promise<string> {
    const env = { PATH: `${newerClients}:${process.env.PATH}`, HOME: work, TMPDIR: work, COSIGN_PASSWORD: '' }
    try {
      const options = { cwd: work, env, maxBuffer: 1 << 26, timeout: 180_000 }
      const { stdout } = await promisify(execFile)(program, args, options)
      return stdout.trim()
    } catch (error) {
      const { stdout, stderr } = error as { stdout: string; stderr: string }
      throw new Error(`${program} ${args.join(' ')}\n${stdout}\n${stderr}`, { cause: error })
    }
  }

  async function post(path: string, body: object): Promise<Buffer> {
    const answer = await fetch(home.url + path, { method: 'POST', body: JSON.stringify(body) })
    const bytes = Buffer.from(await answer.arrayBuffer())
    assert.ok(answer.ok, bytes.toString())
    return bytes
  }

  async function publish(document: object, content: Buffer): Promise<string> {
    const form = new FormData()
    form.append('manifest', new Blob([JSON.stringify({ version: '1.0.0', ...document })]), 'pack.json')
    form.append('content', new Blob([new Uint8Array(content)]), 'content.tgz')
    const answer = await fetch(`${home.url}/packs`, { method: 'POST', body: form })
    const text = await answer.text()
    assert.equal(answer.status, 201, text)
    return (JSON.parse(text) as { manifestDigest: string }).manifestDigest
  }

  const contentAt = async (server: Server, pack: string) =>
    sha256((await call('GET', `${server.url}/packs/${pack}/latest`)).body)

  before(async () => {
    ;[home, away] = await Promise.all([startServer(), startServer()])
    await publish({ packId: 'base', type: 'policy' }, Buffer.from('base'))
    digest = await publish({ packId: 'net', type: 'analyzer', dependencies: ['base@^1'] }, randomBytes(2_000_000))
    writeFileSync(join(work, 'sbom.json'), '{"bomFormat":"CycloneDX"}')
    const sbom = ['--artifact-type', 'application/vnd.cyclonedx+json']
    await run('oras', 'attach', '--plain-http', ...sbom, `${home.host}/packs/net:1.0.0`, 'sbom.json')
    await run('cosign', 'generate-key-pair')
    const key = [
      '--key',
      'cosign.key',
      '--allow-http-registry',
      '--use-signing-config=false',
      '--tlog-upload=false',
      '-y',
    ]
    for (const form of ['true', 'false'])
      await run('cosign', 'sign', ...key, `--new-bundle-format=${form}`, `${home.host}/packs/net@${digest}`)
    await post('/keys', { name: 'release' })
    await call('PUT', `${home.url}/packs/net/channels/stable`, { body: Buffer.from('{"version":"1.0.0"}') })
    writeFileSync(join(work, 'packs.tar'), await post('/bundles', { roots: ['net@^1'] }))
    plan = JSON.parse((await post('/bundles/plan', { roots: ['net@^1'] })).toString())
    mkdirSync(join(work, 'layout'))
    await run('tar', '-xf', 'packs.tar', '-C', 'layout')
  })
  after(async () => {
    await home?.stop()
    await away?.stop()
    rmSync(work, { recursive: true, force: true })
  })

  it('is complete by our own reader, with what oras attached and cosign signed in both of its ways', async () => {
    const found = await survey(join(work, 'packs.tar'))
    assert.deepEqual(verify(found, { keys: [], policy: 'never', now: new Date() }).unnamed, [])
    assert.deepEqual(
      plan.referrers.map(({ subject }) => subject),
      [digest, digest],
    )
    assert.equal(found.contents.entries.filter(({ kind }) => kind === 'attachment').length, 1)
    assert.equal(`sha256:${plan.sha256}`, sha256(readFileSync(join(work, 'packs.tar'))))
  })

  it('oras cp --from-oci-layout, with all that hangs on it', async () => {
    const options = ['--from-oci-layout', '--to-plain-http']
    await run('oras', 'cp', ...options, 'packs.tar:base--1.0.0', `${away.host}/packs/base:1.0.0`)
    await run('oras', 'cp', '-r', ...options, 'packs.tar:net--1.0.0', `${away.host}/packs/net:1.0.0`)
    for (const pack of ['base', 'net']) assert.equal(await contentAt(away, pack), await contentAt(home, pack))
    assert.equal(await run('oras', 'resolve', '--plain-http', `${away.host}/packs/net:1.0.0`), digest)
    const discovered = await run('oras', 'discover', '--plain-http', '--format', 'json', `${away.host}/packs/net:1.0.0`)
    assert.deepEqual(
      (JSON.parse(discovered).referrers as { digest: string }[]).map((referrer) => referrer.digest).sort(),
      plan.referrers.map((referrer) => referrer.digest).sort(),
    )
    const key = ['--key', 'cosign.pub', '--allow-http-registry', '--insecure-ignore-tlog']
    await run('cosign', 'verify', ...key, `${away.host}/packs/net@${digest}`)
  })

  it('oras lists its names, the lock among them, and pulls a pack from it', async () => {
    const names = (await run('oras', 'repo', 'tags', '--oci-layout', 'layout')).split('\n')
    const signature = `net--${digest.replace(':', '-')}.sig`
    assert.deepEqual(names.sort(), ['base--1.0.0', 'lock', 'net--1.0.0', signature, 'net--stable'].sort())
    await run('oras', 'pull', '--oci-layout', 'packs.tar:net--stable', '-o', 'pulled')
    const lock = JSON.parse(await run('oras', 'manifest', 'fetch', '--oci-layout', 'packs.tar:lock'))
    const [layer] = lock.layers
    const bytes = readFileSync(join(work, 'layout', 'blobs', layer.digest.replace(':', '/')))
    assert.equal(sha256(bytes), sha256(await post('/resolve', { roots: ['net@^1'] })))
  })

  it('skopeo copy oci-archive:, to a registry', async () => {
    await run(
      ...(['skopeo', 'copy', '--dest-tls-verify=false', 'oci-archive:packs.tar:net--1.0.0'] as const),
      `docker://${away.host}/by-skopeo/net:1`,
    )
    const copied = await call('GET', `${away.url}/v2/by-skopeo/net/manifests/1`)
    assert.equal(sha256(copied.body), digest)
  })

  it('crane push, of a layout cut out of it', async () => {
    // Crane pushes the one image of a layout: which of them, oras says.
    await run('oras', 'cp', '--from-oci-layout', '--to-oci-layout', 'packs.tar:net--1.0.0', 'single:1')
    await run('crane', 'push', '--insecure', 'single', `${away.host}/by-crane/net:1`)
    assert.equal(await run('crane', 'digest', '--insecure', `${away.host}/by-crane/net:1`), digest)
  })

  it('curl resumes a download that broke off, also after something else was published', async () => {
    writeFileSync(join(work, 'resumed.tar'), readFileSync(join(work, 'packs.tar')))
    truncateSync(join(work, 'resumed.tar'), 1_000_000)
    await publish({ packId: 'base', version: '1.1.0', type: 'policy' }, Buffer.from('another base'))
    await run('curl', '-sSf', '-C', '-', '-o', 'resumed.tar', `${home.url}/bundles/${plan.id}`)
    assert.equal(statSync(join(work, 'resumed.tar')).size, plan.size)
    assert.equal(sha256(readFileSync(join(work, 'resumed.tar'))), `sha256:${plan.sha256}`)
  })
})
