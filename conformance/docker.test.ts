// Docker's engine, and the containerd below it, against a registry that lets nobody in without a login. The engine runs in a
// folder of its own, without networks, and starts no container. It unpacks layers in a mount namespace: where this user may
// not make one, as in most containers, this is skipped by name.
import assert from 'node:assert/strict'
import { type ChildProcess, execFile, execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import bcrypt from 'bcryptjs'
import { isAlive } from '../scripts/services/processes.ts'
import { type Authority, startAuthority } from '../src/testing/authority.ts'
import { waitFor } from '../src/testing/wait.ts'
import { type Server, startServer, temporaryFolder } from './server.ts'

const clients = execFileSync('bash', [join(import.meta.dirname, '..', 'scripts', 'services', 'clients.sh')], {
  encoding: 'utf8',
}).trim()
const programs = join(clients, 'docker-engine')

const policy = {
  rules: [
    { repositories: ['**'], actions: ['pull', 'push', 'delete'], admin: true, claims: { sub: 'admin' } },
    { repositories: ['team/**'], actions: ['pull', 'push'], claims: { sub: ['alice', 'service'] } },
  ],
}

const mayMount = spawnSync('unshare', ['--mount', 'true']).status === 0
const skip = mayMount ? false : "docker's engine cannot run: this user may not mount"

let work: string
let engine: ChildProcess
/** The process that the engine has started. */
let containerd = 0
let server: Server
let authority: Authority
let byAuthority: Server
let host: string

/** Runs docker's client, or containerd's, at this engine. `stdin`: given to it. Rejects where it ends with another code than 0. */
function run(program: 'docker' | 'ctr', args: readonly string[], stdin = ''): Promise<string> {
  const env = {
    PATH: `${programs}:${process.env.PATH}`,
    HOME: work,
    DOCKER_HOST: `unix://${join(work, 'docker.sock')}`,
    CONTAINERD_ADDRESS: join(work, 'exec', 'containerd', 'containerd.sock'),
  }
  return new Promise((resolve, reject) => {
    const child = execFile(join(programs, program), args, { cwd: work, env, timeout: 120_000 }, (error, out, err) =>
      error ? reject(new Error(`${program} ${args.join(' ')}\n${out}\n${err}`)) : resolve(out.trim()),
    )
    child.stdin?.end(stdin)
  })
}

const docker = (...args: string[]) => run('docker', args)

function startEngine(): ChildProcess {
  const log = openSync(join(work, 'engine.log'), 'w')
  const args = [
    ...['--data-root', join(work, 'images'), '--exec-root', join(work, 'exec'), '--pidfile', join(work, 'docker.pid')],
    ...['--host', `unix://${join(work, 'docker.sock')}`, '--storage-driver', 'vfs'],
    ...['--bridge', 'none', '--iptables=false', '--ip6tables=false'],
  ]
  const env = { ...process.env, PATH: `${programs}:${process.env.PATH}` }
  return spawn(join(programs, 'dockerd'), args, { stdio: ['ignore', log, log], env })
}

before(async () => {
  if (!mayMount) return
  work = temporaryFolder()
  engine = startEngine()
  const users = ['admin', 'alice'].map((name) => `${name}:${bcrypt.hashSync(name, 4)}`)
  writeFileSync(join(work, 'users'), users.join('\n'))
  writeFileSync(join(work, 'policy.json'), JSON.stringify(policy))
  const policyFile = { POLICY_FILE: join(work, 'policy.json') }
  server = await startServer({
    env: { AUTH: 'htpasswd', HTPASSWD_FILE: join(work, 'users'), ...policyFile, PROCESSES: '2' },
  })
  host = server.host
  authority = await startAuthority()
  byAuthority = await startServer({
    env: {
      AUTH: 'oidc',
      AUTHORITY_ISSUER: authority.issuer,
      AUTHORITY_AUDIENCE: authority.audience,
      ...policyFile,
    },
  })
  const ready = waitFor('the engine to answer', () =>
    docker('version').then(
      () => true,
      () => false,
    ),
  )
  await Promise.race([
    ready,
    once(engine, 'exit').then(() => {
      throw new Error(`the engine ended: ${readFileSync(join(work, 'engine.log'), 'utf8')}`)
    }),
  ])
  containerd = Number(readFileSync(join(work, 'exec', 'containerd', 'containerd.pid'), 'utf8'))
})
after(async () => {
  await server?.stop()
  await byAuthority?.stop()
  await authority?.stop()
  if (engine && engine.exitCode === null) {
    engine.kill('SIGTERM')
    await once(engine, 'exit')
  }
  if (containerd) await waitFor('containerd to end', () => !isAlive(containerd))
  if (work) rmSync(work, { recursive: true, force: true, maxRetries: 5 })
})

/** An image in the engine with one file and these labels, under this name; answers its id. */
async function image(name: string, label: string): Promise<string> {
  const folder = join(work, label)
  mkdirSync(folder)
  // Larger than what travels in one piece, and not to be compressed away.
  writeFileSync(join(folder, 'content'), Buffer.from(Array.from({ length: 300_000 }, (_, n) => (n * n * 31) >> 3)))
  writeFileSync(join(folder, 'label'), label)
  execFileSync('tar', ['-C', folder, '-cf', join(work, `${label}.tar`), '.'])
  return docker('import', '--change', `LABEL is=${label}`, join(work, `${label}.tar`), name)
}

const idOf = (name: string) => docker('image', 'inspect', '--format', '{{.Id}}', name)
const digestIn = (text: string) => /digest: (sha256:[0-9a-f]{64})/.exec(text)?.[1] ?? assert.fail(text)
const refused = /unauthorized|authentication required|denied|no basic auth/i

const logins = [
  { who: 'a user', name: 'user', user: 'alice', password: async () => 'alice', at: () => host },
  { who: 'an API token', name: 'token', user: 'ci', password: apiToken, at: () => host },
  {
    who: 'an access token of the Authority',
    name: 'authority',
    user: 'anything',
    password: async () => authority.token('packs.write'),
    at: () => byAuthority.host,
  },
]

async function apiToken(): Promise<string> {
  const answer = await fetch(`${server.url}/tokens`, {
    method: 'POST',
    headers: { authorization: `Basic ${Buffer.from('admin:admin').toString('base64')}` },
    body: JSON.stringify({ name: 'ci', pull: ['team/**'], push: ['team/**'] }),
  })
  return ((await answer.json()) as { token: string }).token
}

for (const { who, name, user, password, at } of logins)
  describe(`docker, logged in as ${who}`, { skip }, () => {
    it('pushes and pulls by tag and by digest, and is refused before and after', async () => {
      const reference = `${at()}/team/docker-${name}:1`
      const id = await image(reference, name)
      await assert.rejects(docker('push', reference), refused)
      const login = ['login', '-u', user, '--password-stdin', at()]
      await assert.rejects(run('docker', login, 'not the password'), refused)
      assert.match(await run('docker', login, await password()), /Login Succeeded/)

      const digest = digestIn(await docker('push', reference))
      // A second time there is nothing to send; in another repository the layer is mounted.
      assert.equal(digestIn(await docker('push', reference)), digest)
      const elsewhere = `${at()}/team/elsewhere-${name}:1`
      await docker('tag', reference, elsewhere)
      assert.match(await docker('push', elsewhere), new RegExp(`Mounted from team/docker-${name}`))

      await docker('rmi', '--force', id)
      await docker('pull', reference)
      assert.equal(await idOf(reference), id)
      await docker('rmi', '--force', id)
      const pinned = `${reference.replace(/:1$/, '')}@${digest}`
      await docker('pull', pinned)
      assert.equal(await idOf(pinned), id)

      await docker('tag', id, `${at()}/other/a:1`)
      await assert.rejects(docker('push', `${at()}/other/a:1`), refused)
      await docker('logout', at())
      await assert.rejects(docker('pull', reference), refused)
    })
  })

describe('containerd', { skip }, () => {
  it('pulls what docker has pushed, and pushes it on', async () => {
    const reference = `${host}/team/containerd:1`
    await image(reference, 'containerd')
    await run('docker', ['login', '-u', 'alice', '--password-stdin', host], 'alice')
    const digest = digestIn(await docker('push', reference))
    await docker('logout', host)
    const plain = ['--plain-http', '--user', 'alice:alice']
    await assert.rejects(run('ctr', ['images', 'pull', '--plain-http', reference]), refused)
    await run('ctr', ['images', 'pull', ...plain, '--snapshotter', 'native', reference])
    const onward = `${host}/team/onward:1`
    await run('ctr', ['images', 'push', ...plain, onward, reference])
    const authorization = `Basic ${Buffer.from('alice:alice').toString('base64')}`
    const head = await fetch(`${server.url}/v2/team/onward/manifests/1`, {
      method: 'HEAD',
      headers: { authorization, accept: 'application/vnd.docker.distribution.manifest.v2+json' },
    })
    assert.equal(head.headers.get('docker-content-digest'), digest)
  })
})
