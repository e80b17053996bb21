// Real clients against a registry that lets nobody in without a login: users of an htpasswd file, API tokens, and access
// tokens of a real OpenID provider as passwords. Each logs in, pushes, pulls, is refused where it has no right, and logs out.
import assert from 'node:assert/strict'
import { execFile, execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { type AddressInfo, connect } from 'node:net'
import { join } from 'node:path'
import { pipeline } from 'node:stream'
import { after, before, describe, it } from 'node:test'
import { createServer as createTlsServer, type Server as TlsServer } from 'node:tls'
import bcrypt from 'bcryptjs'
import { type Authority, startAuthority } from '../src/testing/authority.ts'
import { createLayout } from './image.ts'
import { type Server, startServer, temporaryFolder } from './server.ts'

const script = join(import.meta.dirname, '..', 'scripts', 'services', 'clients.sh')
const newerClients = execFileSync('bash', [script], { encoding: 'utf8' }).trim()

const policy = {
  rules: [
    { repositories: ['**'], actions: ['pull', 'push', 'delete'], admin: true, claims: { sub: ['admin', 'service'] } },
    { repositories: ['team/**'], actions: ['pull', 'push'], claims: { sub: 'alice' } },
  ],
}

/** Runs a client in a home of its own. `stdin`: given to it. Rejects where it ends with another code than 0. */
function clientIn(folder: string) {
  return (program: string, args: string[], stdin = ''): Promise<string> => {
    const env = {
      PATH: `${newerClients}:${process.env.PATH}`,
      HOME: folder,
      TMPDIR: folder,
      XDG_RUNTIME_DIR: folder,
      DOCKER_CONFIG: join(folder, 'docker'),
      // No engine is meant to be there: what the client can do by itself is what is tried.
      DOCKER_HOST: `unix://${join(folder, 'no-engine.sock')}`,
      COSIGN_PASSWORD: '',
      // Whom Go programs believe.
      SSL_CERT_FILE: join(work, 'tls.crt'),
      REGISTRY_AUTH_FILE: join(folder, 'auth.json'),
    }
    return new Promise((resolve, reject) => {
      const child = execFile(program, args, { cwd: folder, env, timeout: 120_000 }, (error, stdout, stderr) =>
        error ? reject(new Error(`${program} ${args[0]}\n${stdout}\n${stderr}`)) : resolve(stdout.trim()),
      )
      child.stdin?.end(stdin)
    })
  }
}

let server: Server
let authority: Authority
let byAuthority: Server
let work: string
let host: string
let token: string

before(async () => {
  work = temporaryFolder()
  const users = ['admin', 'alice'].map((name) => `${name}:${bcrypt.hashSync(name, 4)}`)
  writeFileSync(join(work, 'users'), users.join('\n'))
  writeFileSync(join(work, 'policy.json'), JSON.stringify(policy))
  server = await startServer({
    env: {
      AUTH: 'htpasswd',
      HTPASSWD_FILE: join(work, 'users'),
      POLICY_FILE: join(work, 'policy.json'),
      ANONYMOUS_PULL: 'public/**',
      PROCESSES: '2',
    },
  })
  host = server.host
  authority = await startAuthority()
  byAuthority = await startServer({
    env: {
      AUTH: 'oidc',
      AUTHORITY_ISSUER: authority.issuer,
      AUTHORITY_AUDIENCE: authority.audience,
      POLICY_FILE: join(work, 'policy.json'),
    },
  })
  const answer = await fetch(`${server.url}/tokens`, {
    method: 'POST',
    headers: { authorization: `Basic ${Buffer.from('admin:admin').toString('base64')}` },
    body: JSON.stringify({ name: 'ci', pull: ['team/**'], push: ['team/**'] }),
  })
  token = ((await answer.json()) as { token: string }).token
})
after(async () => {
  await server?.stop()
  await byAuthority?.stop()
  await authority?.stop()
  rmSync(work, { recursive: true, force: true })
})

/** A fresh home with a file to push and an image in it. */
function home(name: string) {
  const folder = join(work, name)
  mkdirSync(folder)
  writeFileSync(join(folder, 'notes.txt'), `${name}\n`)
  // buildah and podman want it to be there.
  writeFileSync(join(folder, 'auth.json'), '{}')
  const layout = createLayout(join(folder, 'layout'))
  layout.tag(layout.addImage({ 'hello.txt': name }), 'one')
  return { folder, run: clientIn(folder) }
}

const logins = [
  { who: 'a user', user: 'alice', password: () => 'alice', at: () => host },
  { who: 'an API token', user: 'ci', password: () => token, at: () => host },
  {
    who: 'an access token of the Authority',
    user: 'anything',
    password: () => authority.token('packs.write'),
    at: () => byAuthority.host,
  },
]

for (const [index, { who, user, password, at }] of logins.entries())
  describe(`logged in as ${who}`, () => {
    it('oras', async () => {
      const { folder, run } = home(`oras-${index}`)
      const reference = `${at()}/team/oras-${index}:1`
      await assert.rejects(
        run('oras', ['push', '--plain-http', reference, 'notes.txt']),
        /401|unauthorized|basic credential/i,
      )
      await run('oras', ['login', '--plain-http', '-u', user, '--password-stdin', at()], await password())
      await run('oras', ['push', '--plain-http', reference, 'notes.txt'])
      await run('oras', ['pull', '--plain-http', '-o', 'pulled', reference])
      assert.equal(readFileSync(join(folder, 'pulled/notes.txt'), 'utf8'), `oras-${index}\n`)
      await run('oras', ['logout', at()])
      await assert.rejects(run('oras', ['pull', '--plain-http', reference]), /401|unauthorized|basic credential/i)
    })

    it('skopeo and podman', async () => {
      const { run } = home(`skopeo-${index}`)
      await run('skopeo', ['login', '--tls-verify=false', '-u', user, '--password-stdin', at()], await password())
      await run('skopeo', [
        'copy',
        '--dest-tls-verify=false',
        'oci:layout:one',
        `docker://${at()}/team/skopeo-${index}:1`,
      ])
      await run('skopeo', ['inspect', '--tls-verify=false', '--raw', `docker://${at()}/team/skopeo-${index}:1`])
      await run('skopeo', ['logout', at()])
      await assert.rejects(
        run('skopeo', ['inspect', '--tls-verify=false', `docker://${at()}/team/skopeo-${index}:1`]),
        /unauthorized|authentication required|denied/i,
      )
    })

    it('buildah and podman', async () => {
      const { folder, run } = home(`podman-${index}`)
      const storage = (name: string) => [
        ...['--root', join(folder, name), '--runroot', join(folder, `${name}-run`), '--storage-driver', 'vfs'],
      ]
      const buildah = (...args: string[]) => run('buildah', [...storage('buildah'), ...args])
      const podman = (...args: string[]) => run('podman', [...storage('podman'), '--log-level=error', ...args])
      const reference = `${at()}/team/podman-${index}:1`
      const container = await buildah('from', 'scratch')
      await buildah('copy', container, 'notes.txt', '/notes.txt')
      await buildah('commit', container, 'built')
      await assert.rejects(
        buildah('push', '--tls-verify=false', 'built', `docker://${reference}`),
        /unauthorized|authentication required|denied/i,
      )
      await run('buildah', ['login', '--tls-verify=false', '-u', user, '--password-stdin', at()], await password())
      await buildah('push', '--tls-verify=false', 'built', `docker://${reference}`)
      await run('buildah', ['logout', at()])
      await assert.rejects(
        podman('pull', '--tls-verify=false', reference),
        /unauthorized|authentication required|denied/i,
      )
      await run('podman', ['login', '--tls-verify=false', '-u', user, '--password-stdin', at()], await password())
      await podman('pull', '--tls-verify=false', reference)
      await podman('tag', reference, `${reference}-again`)
      await podman('push', '--tls-verify=false', `${reference}-again`)
      assert.equal(await run('podman', ['login', '--get-login', at()]), user)
      await run('podman', ['logout', at()])
      const removed = await podman('rmi', '--all', '--force')
      assert.match(removed, /Deleted|Untagged/)
    })

    it('helm', async () => {
      const { folder, run } = home(`helm-${index}`)
      const charts = `oci://${at()}/team/charts-${index}`
      await run('helm', ['create', 'demo'])
      await run('helm', ['package', 'demo', '--version', '1.2.3+build.4'])
      const chart = 'demo-1.2.3+build.4.tgz'
      mkdirSync(join(folder, 'pulled'))
      await assert.rejects(run('helm', ['push', '--plain-http', chart, charts]), /401|basic credential|unauthorized/i)
      const login = ['registry', 'login', '--plain-http', '-u', user, '--password-stdin', at()]
      await run('helm', login, await password())
      await run('helm', ['push', '--plain-http', chart, charts])
      await run('helm', [...['pull', '--plain-http', `${charts}/demo`, '--version', '1.2.3+build.4', '-d', 'pulled']])
      assert.deepEqual(readFileSync(join(folder, 'pulled', chart)), readFileSync(join(folder, chart)))
      assert.match(await run('helm', ['show', 'chart', '--plain-http', `${charts}/demo`]), /version: 1\.2\.3\+build\.4/)
      await run('helm', ['registry', 'logout', at()])
      await assert.rejects(
        run('helm', ['show', 'chart', '--plain-http', `${charts}/demo`, '--version', '1.2.3+build.4']),
        /401|basic credential|unauthorized/i,
      )
    })

    it('cosign', async () => {
      const { run } = home(`cosign-${index}`)
      const repository = `${at()}/team/cosign-${index}`
      await run('cosign', ['login', at(), '-u', user, '-p', await password()])
      await run('crane', ['push', '--insecure', 'layout', `${repository}:1`])
      const reference = `${repository}@${await run('crane', ['digest', '--insecure', `${repository}:1`])}`
      await run('cosign', ['generate-key-pair'])
      const key = ['--key', 'cosign.key', '--tlog-upload=false', '--use-signing-config=false']
      await run('cosign', ['sign', ...key, '--yes', '--allow-http-registry', '--new-bundle-format=true', reference])
      const verify = ['--key', 'cosign.pub', '--allow-http-registry', '--insecure-ignore-tlog']
      await run('cosign', ['verify', ...verify, '--new-bundle-format=true', reference])
    })

    it('crane', async () => {
      const { run } = home(`crane-${index}`)
      await run('crane', ['auth', 'login', at(), '-u', user, '--password-stdin'], await password())
      await run('crane', ['push', '--insecure', 'layout', `${at()}/team/crane-${index}:1`])
      await run('crane', ['pull', '--insecure', '--format', 'oci', `${at()}/team/crane-${index}:1`, 'pulled'])
      assert.deepEqual((await run('crane', ['ls', '--insecure', `${at()}/team/crane-${index}`])).split('\n'), ['1'])
      await run('crane', ['auth', 'logout', at()])
    })
  })

// A newer client than the engine's own (docker.test.ts), for what it asks by itself. It speaks to nobody but over TLS, so a
// proxy stands before the registry.
describe('docker, without its engine', () => {
  let behind: Server
  let proxy: TlsServer
  let at: string
  before(async () => {
    const [key, cert] = [join(work, 'tls.key'), join(work, 'tls.crt')]
    const request = [
      ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'],
      ...['-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', key, '-out', cert],
    ]
    execFileSync('openssl', request, { stdio: 'ignore' })
    proxy = createTlsServer({ key: readFileSync(key), cert: readFileSync(cert) }, (socket) => {
      const onward = connect(Number(new URL(behind.url).port), '127.0.0.1')
      pipeline(socket, onward, socket, () => onward.destroy())
    })
    proxy.listen(0, '127.0.0.1')
    await once(proxy, 'listening')
    at = `127.0.0.1:${(proxy.address() as AddressInfo).port}`
    behind = await startServer({
      env: {
        ...{ AUTH: 'htpasswd', HTPASSWD_FILE: join(work, 'users'), POLICY_FILE: join(work, 'policy.json') },
        PUBLIC_URL: `https://${at}`,
      },
    })
  })
  after(async () => {
    proxy?.close()
    await behind?.stop()
  })

  it('logs in, is refused with another password, reads with its login, and logs out', async () => {
    const { run } = home('docker')
    const reference = `${at}/team/docker:1`
    const dest = ['--dest-tls-verify=false', '--dest-creds=alice:alice']
    await run('skopeo', ['copy', ...dest, 'oci:layout:one', `docker://${reference}`])
    const refused = /unauthorized|authentication required|no basic auth|no such manifest/i
    await assert.rejects(run('docker', ['manifest', 'inspect', reference]), refused)
    const login = ['login', '-u', 'alice', '--password-stdin', at]
    await assert.rejects(run('docker', login, 'not the password'), refused)
    assert.match(await run('docker', login, 'alice'), /Login Succeeded/)
    const manifest = await run('docker', ['manifest', 'inspect', reference])
    assert.match(manifest, /"mediaType": "application\/vnd\.oci\.image\.manifest\.v1\+json"/)
    await run('docker', ['logout', at])
    await assert.rejects(run('docker', ['manifest', 'inspect', reference]), refused)
  })
})

describe('rights', () => {
  it('of a client end where they end: another repository, and a tag that is there', async () => {
    const { folder, run } = home('rights')
    await run('oras', ['login', '--plain-http', '-u', 'alice', '--password-stdin', host], 'alice')
    await assert.rejects(
      run('oras', ['push', '--plain-http', `${host}/other/a:1`, 'notes.txt']),
      /40[13]|denied|unauthorized/i,
    )
    await run('oras', ['push', '--plain-http', `${host}/team/rights:1`, 'notes.txt'])
    writeFileSync(join(folder, 'notes.txt'), 'changed\n')
    await assert.rejects(run('oras', ['push', '--plain-http', `${host}/team/rights:1`, 'notes.txt']), /403|denied/i)
  })

  it('are not needed to pull what is open to everybody', async () => {
    const { run } = home('open')
    await run('oras', ['login', '--plain-http', '-u', 'admin', '--password-stdin', host], 'admin')
    await run('oras', ['push', '--plain-http', `${host}/public/a:1`, 'notes.txt'])
    await run('oras', ['logout', host])
    await run('oras', ['pull', '--plain-http', '-o', 'pulled', `${host}/public/a:1`])
    await run('crane', ['manifest', '--insecure', `${host}/public/a:1`])
    await run('skopeo', ['inspect', '--raw', '--tls-verify=false', `docker://${host}/public/a:1`])
    await assert.rejects(run('crane', ['manifest', '--insecure', `${host}/team/rights:1`]), /UNAUTHORIZED|401/)
  })

  it('to list: a catalog of what may be read', async () => {
    const { run } = home('lists')
    await run('crane', ['auth', 'login', host, '-u', 'alice', '--password-stdin'], 'alice')
    const listed = (await run('crane', ['catalog', '--insecure', host])).split('\n')
    assert.ok(listed.includes('team/rights') && listed.includes('public/a'), listed.join(' '))
    // What everybody may read, whoever logs in may read too; of what others have, nothing.
    assert.ok(
      listed.every((name) => /^(?:team|public)\//.test(name)),
      listed.join(' '),
    )
  })
})
