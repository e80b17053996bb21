// Real clients, end to end, against a folder and against S3 with redirects and two processes.
import assert from 'node:assert/strict'
import { execFile, execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { promisify } from 'node:util'
import { blobsOf, createLayout, tarOf } from './image.ts'
import { registryClient, sha256 } from './registry-client.ts'
import { startObjectStore } from './s3.ts'
import { type Server, startServer, temporaryFolder } from './server.ts'

const execute = promisify(execFile)
const script = join(import.meta.dirname, '..', 'scripts', 'services', 'clients.sh')
const newerClients = execFileSync('bash', [script], { encoding: 'utf8' }).trim()

const dockerManifest = 'application/vnd.docker.distribution.manifest.v2+json'
const dockerList = 'application/vnd.docker.distribution.manifest.list.v2+json'

/** Runs a client in its own folder, which is its home too, and gives what it printed. */
function toolsIn(folder: string) {
  return async (program: string, ...args: string[]): Promise<string> => {
    const env = {
      PATH: `${newerClients}:${process.env.PATH}`,
      HOME: folder,
      TMPDIR: folder,
      COSIGN_PASSWORD: 'a password',
    }
    try {
      const { stdout } = await execute(program, args, { cwd: folder, env, maxBuffer: 1 << 26, timeout: 180_000 })
      return stdout.trim()
    } catch (error) {
      const { stdout, stderr } = error as { stdout: string; stderr: string }
      throw new Error(`${program} ${args.join(' ')}\n${stdout}\n${stderr}`, { cause: error })
    }
  }
}

const shapes = [
  { title: 'folder, one process', store: 'file', env: {} },
  { title: 'S3 with redirects, two processes', store: 's3', env: { BLOB_REDIRECT: 'true', PROCESSES: '2' } },
]

for (const { title, store, env } of shapes) {
  describe(`real clients: ${title}`, () => {
    let s3: Awaited<ReturnType<typeof startObjectStore>> | undefined
    let server: Server
    let host: string
    let work: string
    let run: ReturnType<typeof toolsIn>
    const json = async (...args: [string, ...string[]]) => JSON.parse(await run(...args))
    const read = (path: string) => readFileSync(join(work, path))
    const write = (path: string, bytes: Buffer | string) => writeFileSync(join(work, path), bytes)

    before(async () => {
      work = temporaryFolder()
      run = toolsIn(work)
      if (store === 's3') s3 = await startObjectStore()
      server = await startServer({ env: { ...env, ...s3?.env('clients') } })
      host = server.host
    })
    after(async () => {
      try {
        await server?.stop()
      } finally {
        await s3?.stop()
        rmSync(work, { recursive: true, force: true })
      }
    })

    describe('oras', () => {
      const plain = '--plain-http'
      const http = ['--from-plain-http', '--to-plain-http']

      async function pushPack(reference: string): Promise<string> {
        write('notes.txt', 'first line\n')
        write('data.bin', randomBytes(300_000))
        const files = ['notes.txt:text/plain', 'data.bin']
        const type = 'application/vnd.example.pack.v1'
        const pushed = await json(
          'oras',
          'push',
          plain,
          '--artifact-type',
          type,
          '--format',
          'json',
          reference,
          ...files,
        )
        assert.equal(pushed.artifactType, type)
        return pushed.digest
      }

      async function attachTo(reference: string): Promise<string> {
        write('sbom.json', JSON.stringify({ of: reference }))
        const flags = [
          plain,
          '--artifact-type',
          'application/vnd.example.sbom',
          '--distribution-spec',
          'v1.1-referrers-api',
        ]
        return (await json('oras', 'attach', ...flags, '--format', 'json', reference, 'sbom.json')).digest
      }

      async function referrersOf(reference: string): Promise<string[]> {
        const found = await json('oras', 'discover', plain, '--format', 'json', reference)
        return found.referrers.map((referrer: { digest: string }) => referrer.digest)
      }

      it('push, resolve, pull', async () => {
        const digest = await pushPack(`${host}/oras/pack:1.0`)
        assert.equal(await run('oras', 'resolve', plain, `${host}/oras/pack:1.0`), digest)
        await run('oras', 'pull', plain, '-o', 'pulled', `${host}/oras/pack@${digest}`)
        for (const file of ['notes.txt', 'data.bin']) assert.deepEqual(read(`pulled/${file}`), read(file))
      })

      it('attach and discover by the referrers API, filtered by type too', async () => {
        const subject = `${host}/oras/subject:1.0`
        const digest = await pushPack(subject)
        const [first, second] = [await attachTo(subject), await attachTo(`${host}/oras/subject@${digest}`)]
        assert.deepEqual((await referrersOf(subject)).sort(), [first, second].sort())
        const other = await json(
          'oras',
          'discover',
          plain,
          '--format',
          'json',
          '--artifact-type',
          'application/x',
          subject,
        )
        assert.deepEqual(other.referrers, [])
        assert.deepEqual(await registryClient(server.url).tags('oras/subject'), ['1.0'], 'no fallback tags')
      })

      it('attach without being told of the referrers API writes no fallback tag', async () => {
        const subject = `${host}/oras/plain-attach:1.0`
        await pushPack(subject)
        await run('oras', 'attach', plain, '--artifact-type', 'application/vnd.example.sbom', subject, 'sbom.json')
        assert.deepEqual(await registryClient(server.url).tags('oras/plain-attach'), ['1.0'])
      })

      it('cp -r takes referrers along, across repositories and into an OCI layout', async () => {
        const digest = await pushPack(`${host}/oras/from:1.0`)
        const referrer = await attachTo(`${host}/oras/from:1.0`)
        await run('oras', 'cp', '-r', ...http, `${host}/oras/from:1.0`, `${host}/oras/to:copied`)
        assert.equal(await run('oras', 'resolve', plain, `${host}/oras/to:copied`), digest)
        assert.deepEqual(await referrersOf(`${host}/oras/to:copied`), [referrer])
        await run(
          'oras',
          'cp',
          '-r',
          '--from-plain-http',
          '--to-oci-layout',
          `${host}/oras/from:1.0`,
          'copied-layout:1.0',
        )
        assert.ok(blobsOf(join(work, 'copied-layout')).includes(referrer))
      })

      it('backup and restore', async () => {
        const digest = await pushPack(`${host}/oras/precious:1.0`)
        const referrer = await attachTo(`${host}/oras/precious:1.0`)
        await run('oras', 'backup', plain, '--include-referrers', '-o', 'backup.tar', `${host}/oras/precious:1.0`)
        await run('oras', 'restore', plain, '--input', 'backup.tar', `${host}/oras/restored:1.0`)
        assert.equal(await run('oras', 'resolve', plain, `${host}/oras/restored:1.0`), digest)
        assert.deepEqual(await referrersOf(`${host}/oras/restored:1.0`), [referrer])
        await run('oras', 'pull', plain, '-o', 'restored', `${host}/oras/restored:1.0`)
        assert.deepEqual(read('restored/data.bin'), read('data.bin'))
      })

      it('tag, repo tags, repo ls', async () => {
        const digest = await pushPack(`${host}/oras/tagged:1.0`)
        await run('oras', 'tag', plain, `${host}/oras/tagged:1.0`, '1', 'latest')
        assert.equal(await run('oras', 'repo', 'tags', plain, `${host}/oras/tagged`), '1\n1.0\nlatest')
        assert.equal(await run('oras', 'resolve', plain, `${host}/oras/tagged:latest`), digest)
        assert.ok((await run('oras', 'repo', 'ls', plain, host)).split('\n').includes('oras/tagged'))
        assert.ok((await run('oras', 'repo', 'ls', plain, `${host}/oras`)).split('\n').includes('tagged'))
      })

      it('blob push, fetch, delete', async () => {
        write('blob.bin', randomBytes(70_000))
        const reference = `${host}/oras/blobs@${sha256(read('blob.bin'))}`
        await run('oras', 'blob', 'push', plain, reference, 'blob.bin')
        await run('oras', 'blob', 'fetch', plain, '-o', 'fetched.bin', reference)
        assert.deepEqual(read('fetched.bin'), read('blob.bin'))
        assert.equal((await json('oras', 'blob', 'fetch', plain, '--descriptor', reference)).size, 70_000)
        await run('oras', 'blob', 'delete', plain, '--force', reference)
        await assert.rejects(run('oras', 'blob', 'fetch', plain, '--descriptor', reference), /not found/)
      })

      it('manifest fetch, push, delete', async () => {
        const digest = await pushPack(`${host}/oras/manifests:1.0`)
        await run('oras', 'manifest', 'fetch', plain, '-o', 'manifest.json', `${host}/oras/manifests:1.0`)
        assert.equal(sha256(read('manifest.json')), digest)
        await run('oras', 'manifest', 'push', plain, `${host}/oras/manifests:again`, 'manifest.json')
        assert.equal(await run('oras', 'resolve', plain, `${host}/oras/manifests:again`), digest)
        await run('oras', 'manifest', 'delete', plain, '--force', `${host}/oras/manifests@${digest}`)
        await assert.rejects(run('oras', 'resolve', plain, `${host}/oras/manifests:1.0`), /not found/)
        assert.deepEqual(await registryClient(server.url).tags('oras/manifests'), [])
      })
    })

    describe('skopeo', () => {
      const from = '--src-tls-verify=false'
      const to = '--dest-tls-verify=false'
      const digestOf = (reference: string) =>
        run('skopeo', 'inspect', '--tls-verify=false', '--format', '{{.Digest}}', `docker://${host}/${reference}`)
      const rawOf = (reference: string) =>
        json('skopeo', 'inspect', '--tls-verify=false', '--raw', `docker://${host}/${reference}`)

      /** A layout named `name` with one image and one index of two, as tags `image` and `index`. */
      function layout(name: string) {
        const made = createLayout(join(work, name))
        const [amd64, arm64] = [
          made.addImage({ 'bin/app': `${name} x` }),
          made.addImage({ 'bin/app': `${name} a` }, 'arm64'),
        ]
        const index = made.addIndex([amd64, arm64])
        made.tag(amd64, 'image')
        made.tag(index, 'index')
        return { amd64, arm64, index }
      }

      it('copy of an image to the registry, to another repository, and back', async () => {
        const { amd64 } = layout('single')
        await run('skopeo', 'copy', to, 'oci:single:image', `docker://${host}/skopeo/single:1`)
        assert.equal(await digestOf('skopeo/single:1'), amd64.digest)
        await run('skopeo', 'copy', from, to, `docker://${host}/skopeo/single:1`, `docker://${host}/skopeo/single-2:1`)
        await run('skopeo', 'copy', from, `docker://${host}/skopeo/single-2:1`, 'oci:single-back:image')
        const { config, layers } = await rawOf('skopeo/single-2:1')
        assert.deepEqual(blobsOf(join(work, 'single-back')), [amd64.digest, config.digest, layers[0].digest].sort())
      })

      it('copy --all of an index keeps every digest', async () => {
        const { index, amd64, arm64 } = layout('multi')
        await run(
          'skopeo',
          'copy',
          '--all',
          '--preserve-digests',
          to,
          'oci:multi:index',
          `docker://${host}/skopeo/multi:1`,
        )
        const [first, second] = [`docker://${host}/skopeo/multi:1`, `docker://${host}/skopeo/multi-copy:1`]
        await run('skopeo', 'copy', '--all', '--preserve-digests', from, to, first, second)
        const listed = (await rawOf('skopeo/multi-copy:1')).manifests.map((member: { digest: string }) => member.digest)
        assert.deepEqual(listed, [amd64.digest, arm64.digest])
        await run('skopeo', 'copy', '--all', '--preserve-digests', from, second, 'oci:multi-back:index')
        assert.deepEqual(blobsOf(join(work, 'multi-back')), blobsOf(join(work, 'multi')))
        assert.ok(blobsOf(join(work, 'multi-back')).includes(index.digest))
      })

      it('docker-archive and dir', async () => {
        layout('formats')
        await run('skopeo', 'copy', to, 'oci:formats:image', `docker://${host}/skopeo/formats:1`)
        const reference = `docker://${host}/skopeo/formats:1`
        const layersOf = async (source: string, ...flags: string[]) =>
          (await json('skopeo', 'inspect', '--config', ...flags, source)).rootfs.diff_ids
        const layers = await layersOf(reference, '--tls-verify=false')

        await run('skopeo', 'copy', from, reference, 'docker-archive:image.tar:example.com/image:1')
        await run('skopeo', 'copy', to, 'docker-archive:image.tar', `docker://${host}/skopeo/from-archive:1`)
        assert.deepEqual(await layersOf(`docker://${host}/skopeo/from-archive:1`, '--tls-verify=false'), layers)
        assert.equal((await rawOf('skopeo/from-archive:1')).mediaType, dockerManifest)

        await run('skopeo', 'copy', from, reference, 'dir:image-dir')
        assert.equal(sha256(read('image-dir/manifest.json')), await digestOf('skopeo/formats:1'))
        await run('skopeo', 'copy', to, 'dir:image-dir', `docker://${host}/skopeo/from-dir:1`)
        assert.equal(await digestOf('skopeo/from-dir:1'), await digestOf('skopeo/formats:1'))
      })

      it('Docker schema 2 manifests and lists, copied on by skopeo and crane', async () => {
        layout('docker')
        const list = `${host}/skopeo/docker-list`
        await run('skopeo', 'copy', '--format', 'v2s2', to, 'oci:docker:image', `docker://${host}/skopeo/docker:1`)
        await run('skopeo', 'copy', '--all', '--format', 'v2s2', to, 'oci:docker:index', `docker://${list}:1`)
        assert.equal((await rawOf('skopeo/docker:1')).mediaType, dockerManifest)
        assert.equal((await rawOf('skopeo/docker-list:1')).mediaType, dockerList)
        await run('skopeo', 'copy', from, to, `docker://${host}/skopeo/docker:1`, `docker://${host}/skopeo/docker-2:1`)
        await run('skopeo', 'copy', '--all', from, to, `docker://${list}:1`, `docker://${list}-2:1`)
        await run('crane', 'copy', '--insecure', `${list}:1`, `${list}-3:1`)
        assert.equal(await digestOf('skopeo/docker-2:1'), await digestOf('skopeo/docker:1'))
        const digest = await run('crane', 'digest', '--insecure', `${list}:1`)
        for (const copy of ['2', '3']) {
          assert.equal(await run('crane', 'digest', '--insecure', `${list}-${copy}:1`), digest)
          await run('crane', 'validate', '--insecure', '--remote', `${list}-${copy}:1`)
        }
      })

      it('sync to a folder and back', async () => {
        const { amd64 } = layout('sync')
        for (const tag of ['1', '2'])
          await run('skopeo', 'copy', to, 'oci:sync:image', `docker://${host}/skopeo/sync:${tag}`)
        await run('skopeo', 'sync', '--src', 'docker', '--dest', 'dir', from, `${host}/skopeo/sync`, 'synced')
        assert.deepEqual(readdirSync(join(work, 'synced')).sort(), ['sync:1', 'sync:2'])
        await run('skopeo', 'sync', '--src', 'dir', '--dest', 'docker', to, 'synced', `${host}/skopeo/mirror`)
        assert.equal(await digestOf('skopeo/mirror/sync:2'), amd64.digest)
        await run(
          'skopeo',
          'sync',
          '--src',
          'docker',
          '--dest',
          'docker',
          from,
          to,
          `${host}/skopeo/sync`,
          `${host}/mirror-2`,
        )
        assert.equal(await digestOf('mirror-2/sync:1'), amd64.digest)
      })

      it('list-tags, inspect and delete', async () => {
        const { amd64 } = layout('deleted')
        for (const tag of ['b', 'a'])
          await run('skopeo', 'copy', to, 'oci:deleted:image', `docker://${host}/skopeo/del:${tag}`)
        const tags = async () =>
          (await json('skopeo', 'list-tags', '--tls-verify=false', `docker://${host}/skopeo/del`)).Tags
        assert.deepEqual(await tags(), ['a', 'b'])
        const inspected = await json('skopeo', 'inspect', '--tls-verify=false', `docker://${host}/skopeo/del:a`)
        assert.equal(inspected.Digest, amd64.digest)
        assert.equal(inspected.Labels.made, 'for a test')
        await run('skopeo', 'delete', '--tls-verify=false', `docker://${host}/skopeo/del:a`) // deletes by digest
        assert.deepEqual(await registryClient(server.url).tags('skopeo/del'), [])
      })
    })

    describe('buildah and podman', () => {
      const content = `built ${randomBytes(8).toString('hex')}\n`
      const storage = (name: string) => [
        `--root=${work}/${name}`,
        `--runroot=${work}/${name}-run`,
        '--storage-driver=vfs',
      ]

      it('an image built from scratch: push and pull', async () => {
        write('hello.txt', content)
        const buildah = (...args: string[]) => run('buildah', ...storage('buildah'), ...args)
        const container = await buildah('from', 'scratch')
        await buildah('copy', container, 'hello.txt', '/hello.txt')
        await buildah('config', '--label', 'made=by buildah', container)
        await buildah('commit', container, 'built')
        const reference = `${host}/buildah/built:1`
        await buildah('push', '--tls-verify=false', '--digestfile', 'digest', 'built', `docker://${reference}`)
        assert.equal(await run('crane', 'digest', '--insecure', reference), read('digest').toString())
        await buildah('rm', container)
        await buildah('rmi', 'built')

        await buildah('pull', '--tls-verify=false', `docker://${reference}`)
        const again = await buildah('from', '--pull-never', reference)
        assert.equal(readFileSync(join(await buildah('mount', again), 'hello.txt'), 'utf8'), content)
        await buildah('umount', again)
        await buildah('rm', again)
      })

      it('podman pulls it and pushes it on', async () => {
        const podman = (...args: string[]) => run('podman', ...storage('podman'), '--log-level=error', ...args)
        const [built, pushed] = [`${host}/buildah/built:1`, `${host}/podman/pushed:1`]
        await podman('pull', '--tls-verify=false', built)
        assert.equal(await podman('image', 'inspect', built, '--format', '{{.Digest}}'), read('digest').toString())
        await podman('tag', built, pushed)
        await podman('push', '--tls-verify=false', '--digestfile', 'podman-digest', pushed)
        assert.equal(await run('crane', 'digest', '--insecure', pushed), read('podman-digest').toString())
        await podman('rmi', '--all', '--force')
        await podman('pull', '--tls-verify=false', pushed)
        assert.equal(readFileSync(join(await podman('image', 'mount', pushed), 'hello.txt'), 'utf8'), content)
        await podman('image', 'unmount', '--all')
      })
    })

    describe('crane', () => {
      const crane = (...args: string[]) => run('crane', '--insecure', ...args)

      async function append(reference: string): Promise<string> {
        mkdirSync(join(work, 'layer'), { recursive: true })
        write('layer.tar', tarOf(join(work, 'layer'), { 'etc/config': reference, 'big.bin': 'x'.repeat(2_000_000) }))
        await crane('append', '-f', 'layer.tar', '-t', reference)
        return crane('digest', reference)
      }

      it('append, validate, digest, ls, catalog', async () => {
        const digest = await append(`${host}/crane/image:1`)
        await crane('validate', '--remote', `${host}/crane/image:1`)
        await crane('tag', `${host}/crane/image@${digest}`, 'latest')
        assert.equal(await crane('ls', `${host}/crane/image`), '1\nlatest')
        assert.ok((await crane('catalog', host)).split('\n').includes('crane/image'))
      })

      it('pull and push as tarball and as OCI layout', async () => {
        const digest = await append(`${host}/crane/formats:1`)
        const manifest = await crane('manifest', `${host}/crane/formats:1`)
        await crane('pull', `${host}/crane/formats:1`, 'crane.tar')
        await crane('push', 'crane.tar', `${host}/crane/from-tar:1`)
        await crane('validate', '--remote', `${host}/crane/from-tar:1`)
        assert.equal(
          JSON.parse(await crane('manifest', `${host}/crane/from-tar:1`)).config.digest,
          JSON.parse(manifest).config.digest,
        )

        await crane('pull', '--format', 'oci', `${host}/crane/formats:1`, 'crane-layout')
        assert.ok(blobsOf(join(work, 'crane-layout')).includes(digest))
        await crane('push', 'crane-layout', `${host}/crane/from-layout:1`)
        assert.equal(await crane('digest', `${host}/crane/from-layout:1`), digest)
      })

      it('copy, also into a repository that has the layers, and an index', async () => {
        const digest = await append(`${host}/crane/source:1`)
        for (const target of ['crane/copied:1', 'crane/copied:2']) {
          await crane('copy', `${host}/crane/source:1`, `${host}/${target}`)
          assert.equal(await crane('digest', `${host}/${target}`), digest)
        }
        await crane('index', 'append', '-m', `${host}/crane/source:1`, '-t', `${host}/crane/index:1`)
        await crane('copy', `${host}/crane/index:1`, `${host}/crane/index-copy:1`)
        await crane('validate', '--remote', `${host}/crane/index-copy:1`)
        assert.equal(
          await crane('digest', `${host}/crane/index-copy:1`),
          await crane('digest', `${host}/crane/index:1`),
        )
      })

      it('delete by tag and by digest', async () => {
        const digest = await append(`${host}/crane/gone:1`)
        await crane('tag', `${host}/crane/gone:1`, '2')
        await crane('delete', `${host}/crane/gone:1`)
        assert.equal(await crane('ls', `${host}/crane/gone`), '2')
        await crane('delete', `${host}/crane/gone@${digest}`)
        await assert.rejects(crane('manifest', `${host}/crane/gone:2`), /MANIFEST_UNKNOWN/)
        assert.equal(await crane('ls', `${host}/crane/gone`), '')
      })
    })

    describe('cosign, with a key and no transparency log', () => {
      // Two flags are hidden since 3.0 and still work: --tlog-upload, and --new-bundle-format (false: signatures as tags).
      const sign = [
        '--key',
        'cosign.key',
        '--allow-http-registry',
        '--use-signing-config=false',
        '--tlog-upload=false',
        '-y',
      ]
      const verify = ['--key', 'cosign.pub', '--allow-http-registry', '--insecure-ignore-tlog']

      before(() => run('cosign', 'generate-key-pair'))

      async function image(name: string): Promise<{ reference: string; digest: string }> {
        mkdirSync(join(work, name), { recursive: true })
        write('signed.tar', tarOf(join(work, name), { 'etc/name': `${name} ${randomBytes(8).toString('hex')}` }))
        await run('crane', '--insecure', 'append', '-f', 'signed.tar', '-t', `${host}/cosign/${name}:1`)
        const digest = await run('crane', '--insecure', 'digest', `${host}/cosign/${name}:1`)
        return { reference: `${host}/cosign/${name}@${digest}`, digest }
      }

      async function verifiedDigests(reference: string, ...flags: string[]): Promise<string[]> {
        const claims = await json('cosign', 'verify', ...verify, ...flags, reference)
        return claims.map(
          (claim: { critical: { image: Record<string, string> } }) => claim.critical.image['docker-manifest-digest'],
        )
      }

      it('by referrers: signs, verifies, leaves no tag', async () => {
        const { reference, digest } = await image('by-referrers')
        await run('cosign', 'sign', ...sign, '--new-bundle-format=true', reference)
        assert.deepEqual(await verifiedDigests(reference), [digest])
        assert.deepEqual(await registryClient(server.url).tags('cosign/by-referrers'), ['1'])
        const found = await json('oras', 'discover', '--plain-http', '--format', 'json', reference)
        assert.deepEqual(
          found.referrers.map((referrer: { artifactType: string }) => referrer.artifactType),
          ['application/vnd.dev.sigstore.bundle.v0.3+json'],
        )
      })

      it('by tags: signs and verifies', async () => {
        const { reference, digest } = await image('by-tags')
        await run('cosign', 'sign', ...sign, '--new-bundle-format=false', reference)
        assert.deepEqual(await verifiedDigests(reference, '--new-bundle-format=false'), [digest])
        const tags = await registryClient(server.url).tags('cosign/by-tags')
        assert.deepEqual(tags, ['1', `${digest.replace(':', '-')}.sig`])
      })

      it('an image that nobody signed, or another key, does not verify', async () => {
        const { reference } = await image('unsigned')
        await assert.rejects(run('cosign', 'verify', ...verify, reference), /no signatures found/)
        await run('cosign', 'sign', ...sign, '--new-bundle-format=true', reference)
        await run('cosign', 'generate-key-pair', '--output-key-prefix', 'other')
        const other = verify.map((flag) => (flag === 'cosign.pub' ? 'other.pub' : flag))
        await assert.rejects(run('cosign', 'verify', ...other, reference), /invalid signature|failed to verify/)
      })

      it('a signed image copied with its signature verifies at its new place', async () => {
        const { reference, digest } = await image('moved')
        await run('cosign', 'sign', ...sign, '--new-bundle-format=true', reference)
        await run('oras', 'cp', '-r', '--from-plain-http', '--to-plain-http', reference, `${host}/cosign/moved-on:1`)
        assert.deepEqual(await verifiedDigests(`${host}/cosign/moved-on:1`), [digest])
      })
    })
  })
}
