// The registry behind nginx as spec/operations.md has it: large bodies pass, none is collected on the way, and clients are
// sent back to the address that they asked.
import assert from 'node:assert/strict'
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import https from 'node:https'
import { join } from 'node:path'
import { after, before, it } from 'node:test'
import { freePort } from '../scripts/services/processes.ts'
import { waitFor } from '../src/testing/wait.ts'
import { call, sha256 } from './registry-client.ts'
import { type Server, startServer, temporaryFolder } from './server.ts'

const document = readFileSync(join(import.meta.dirname, '..', 'spec', 'operations.md'), 'utf8')
const [, config = ''] = /^```nginx\n(.*?)^```$/ms.exec(document) ?? []
const user = { name: 'alice', password: 'correct horse' }
const authorization = `Basic ${Buffer.from(`${user.name}:${user.password}`).toString('base64')}`

let folder: string
let server: Server
let nginx: ChildProcess
let port: number

before(async () => {
  folder = temporaryFolder()
  mkdirSync(join(folder, 'logs'))
  // bcrypt, cost 5, of the password above
  const hash = execFileSync(process.execPath, [
    '-e',
    `process.stdout.write(require('bcryptjs').hashSync(${JSON.stringify(user.password)}, 5))`,
  ])
  writeFileSync(join(folder, 'users'), `${user.name}:${hash}\n`)
  server = await startServer({
    env: { AUTH: 'htpasswd', HTPASSWD_FILE: join(folder, 'users'), TRUSTED_PROXIES: '127.0.0.1' },
  })
  port = await freePort()
  const [certificate, key] = [join(folder, 'packs.pem'), join(folder, 'packs.key')]
  const options = ['-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '1', '-subj', '/CN=packs.example.org']
  execFileSync('openssl', ['req', ...options, '-keyout', key, '-out', certificate], { stdio: 'ignore' })
  const here = config
    .replace('127.0.0.1:5000', server.host)
    .replace('listen 443 ssl', `listen 127.0.0.1:${port} ssl`)
    .replace('/etc/nginx/packs.pem', certificate)
    .replace('/etc/nginx/packs.key', key)
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map((name) => `${name}_temp_path ${join(folder, name)};`)
    .join(' ')
  const around = `daemon off; pid ${join(folder, 'pid')}; error_log ${join(folder, 'logs', 'error.log')}; events {}`
  writeFileSync(join(folder, 'nginx.conf'), `${around}\nhttp { access_log off; ${temporary}\n${here} }\n`)
  nginx = spawn('nginx', ['-p', folder, '-c', join(folder, 'nginx.conf')], {
    stdio: 'inherit',
    env: { PATH: `${process.env.PATH}:/usr/sbin` },
  })
  await waitFor('nginx to answer', async () => {
    assert.equal(nginx.exitCode, null, 'nginx ended')
    return (await ask('GET', '/healthz')).status === 200
  })
})
after(async () => {
  if (nginx?.exitCode === null) {
    nginx.kill('SIGTERM')
    await once(nginx, 'exit')
  }
  await server?.stop()
  if (folder) rmSync(folder, { recursive: true, force: true })
})

type Answer = { status: number; headers: Record<string, string | string[] | undefined>; body: Buffer }

function request(method: string, path: string, headers: Record<string, string | number>) {
  const options = { host: '127.0.0.1', port, method, path, headers, rejectUnauthorized: false, agent: false } as const
  const made = https.request(options)
  const answer = new Promise<Answer>((resolve, reject) => {
    made.on('error', reject)
    made.on('response', (response) => {
      const pieces: Buffer[] = []
      response.on('data', (piece: Buffer) => pieces.push(piece))
      response.on('error', reject)
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(pieces) }),
      )
    })
  })
  return { made, answer }
}

function ask(method: string, path: string, headers: Record<string, string | number> = {}): Promise<Answer> {
  const { made, answer } = request(method, path, headers)
  made.end()
  return answer
}

it('is what the document has', () => {
  assert.match(config, /proxy_pass http:\/\/packs;/)
})

it('a client that has to log in is sent to the address that it asked, by https', async () => {
  const { status, headers } = await ask('GET', '/v2/', { host: `packs.example.org:${port}` })
  assert.equal(status, 401)
  assert.match(String(headers['www-authenticate']), new RegExp(`realm="https://packs\\.example\\.org:${port}/token"`))
})

it('a large body reaches the registry while it is sent, and comes back whole', async () => {
  const bytes = randomBytes(16 * 1024 * 1024)
  const digest = sha256(bytes)
  const inFlight = async () => {
    const figures = await call('GET', `${server.url}/metrics`, { headers: { authorization } })
    return Number(/^packs_http_requests_in_flight (\d+)$/m.exec(figures.body.toString())?.[1])
  }
  const { made, answer } = request('POST', `/v2/behind/proxy/blobs/uploads/?digest=${digest}`, {
    authorization,
    'content-type': 'application/octet-stream',
    'content-length': bytes.length,
  })
  made.write(bytes.subarray(0, 1024 * 1024))
  // The question itself is one of them.
  await waitFor('the upload to have reached the registry', async () => (await inFlight()) === 2)
  made.end(bytes.subarray(1024 * 1024))
  const pushed = await answer
  assert.equal(pushed.status, 201, pushed.body.toString())
  const pulled = await ask('GET', `/v2/behind/proxy/blobs/${digest}`, { authorization })
  assert.equal(pulled.status, 200)
  assert.ok(pulled.body.equals(bytes))
})

it('the audit has the address of the client, not that of the proxy, and the name of the request', async () => {
  const { status } = await ask('DELETE', '/packs/none/1.0.0', { authorization, 'x-forwarded-for': '192.0.2.7' })
  assert.ok(status < 500)
  const audit = await call('GET', `${server.url}/audit?limit=1`, { headers: { authorization } })
  const { events } = JSON.parse(audit.body.toString()) as { events: { address: string; requestId: string }[] }
  assert.equal(events[0]?.address, '192.0.2.7')
  assert.match(String(events[0]?.requestId), /^[0-9a-f]{32}$/)
})
