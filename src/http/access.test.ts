import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import bcrypt from 'bcryptjs'
import { addRoutes } from '../app.ts'
import type { Deps } from '../deps.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { startRegistry, type TestRegistry } from '../testing/registry.ts'
import type { ServerState } from './ops.ts'
import { methods, type Routes } from './routes.ts'

// Every route that there is, and who is let in where. A route without a row fails, and so does a row without a route.

/**
 * What a route takes. `nothing`: anybody is let in. `login`: any credential, a token of /token for nobody too. `list`: a
 * list is filtered, or made of what may be read; who may read nothing gets an empty one. `quiet`: what may not be read is an empty list.
 * `registry`: to read everything. `pusher`: to push something, whatever it is. Else a right on the repository that is asked for, or to be an administrator.
 */
type Need =
  | 'nothing'
  | 'login'
  | 'list'
  | 'quiet'
  | 'pull'
  | 'push'
  | 'overwrite'
  | 'delete'
  | 'registry'
  | 'pusher'
  | 'admin'

const rows: Record<string, Need> = {
  'get /v2/': 'login',
  'get /v2': 'login',
  'get /v2/_catalog': 'list',
  'get /v2/:name{.+}/tags/list': 'pull',
  'get /v2/:name{.+}/referrers/:digest': 'quiet',
  'get /v2/:name{.+}/manifests/:reference': 'pull',
  'put /v2/:name{.+}/manifests/:reference': 'push',
  'delete /v2/:name{.+}/manifests/:reference': 'delete',
  'get /v2/:name{.+}/blobs/:digest': 'pull',
  'delete /v2/:name{.+}/blobs/:digest': 'delete',
  'post /v2/:name{.+}/blobs/uploads/': 'push',
  'get /v2/:name{.+}/blobs/uploads/:session': 'push',
  'patch /v2/:name{.+}/blobs/uploads/:session': 'push',
  'put /v2/:name{.+}/blobs/uploads/:session': 'push',
  'delete /v2/:name{.+}/blobs/uploads/:session': 'push',
  'get /packs': 'list',
  'post /packs': 'push',
  'get /packs/:id': 'pull',
  'get /packs/:id/versions': 'pull',
  'get /packs/:id/:version': 'pull',
  'get /packs/:id/:version/manifest': 'pull',
  'get /packs/:id/:version/dependents': 'pull',
  'get /packs/:id/:version/dependencies': 'pull',
  'get /packs/:id/:version/referrers': 'pull',
  'delete /packs/:id/:version': 'delete',
  'patch /packs/:id/:version': 'delete',
  'put /packs/:id/channels/:channel': 'overwrite',
  'post /resolve': 'pull',
  'post /bundles': 'list',
  'post /bundles/plan': 'list',
  'get /bundles/:id{[0-9a-f]{64}}': 'list',
  'post /bundles/exports': 'admin',
  'get /bundles/exports': 'registry',
  'get /bundles/exports/:id': 'registry',
  'get /bundles/exports/:id/file': 'registry',
  'delete /bundles/exports/:id': 'admin',
  'get /inventory': 'registry',
  'post /bundles/import': 'pusher',
  'get /bundles/imports': 'registry',
  'get /bundles/imports/:id': 'registry',
  'get /mirrors': 'registry',
  'post /mirrors': 'admin',
  'get /mirrors/:name': 'registry',
  'patch /mirrors/:name': 'admin',
  'delete /mirrors/:name': 'admin',
  'post /mirrors/:name/run': 'admin',
  'get /mirrors/:name/runs': 'registry',
  'get /mirrors/:name/parity': 'registry',
  'get /upstreams': 'registry',
  'get /upstreams/:prefix{.+}': 'registry',
  'put /upstreams/:prefix{.+}': 'admin',
  'delete /upstreams/:prefix{.+}': 'admin',
  'get /events': 'list',
  'get /webhooks': 'admin',
  'post /webhooks': 'admin',
  'get /webhooks/:name': 'admin',
  'patch /webhooks/:name': 'admin',
  'delete /webhooks/:name': 'admin',
  'post /webhooks/:name/test': 'admin',
  'get /webhooks/:name/deliveries': 'admin',
  'post /webhooks/:name/deliveries/redeliver': 'admin',
  'get /webhooks/:name/deliveries/:id': 'admin',
  'post /webhooks/:name/deliveries/:id/redeliver': 'admin',
  'get /keys': 'registry',
  'get /keys/:id': 'registry',
  'post /keys': 'admin',
  'post /keys/trusted': 'admin',
  'post /keys/:id/rotate': 'admin',
  'delete /keys/:id': 'admin',
  'get /retention/policies': 'admin',
  'get /retention/policies/:name': 'admin',
  'put /retention/policies/:name': 'admin',
  'delete /retention/policies/:name': 'admin',
  'get /retention/holds': 'admin',
  'put /retention/holds/:id/:version': 'admin',
  'delete /retention/holds/:id/:version': 'admin',
  'post /retention/plan': 'admin',
  'post /retention/run': 'admin',
  'get /retention/runs': 'admin',
  'get /retention/runs/:id': 'admin',
  'get /jobs': 'registry',
  'post /jobs': 'admin',
  'get /jobs/kinds': 'registry',
  'get /jobs/:id': 'registry',
  'post /jobs/retry': 'admin',
  'post /jobs/:id/retry': 'admin',
  'post /jobs/:id/cancel': 'admin',
  'post /jobs/:id/discard': 'admin',
  'get /token': 'nothing',
  'post /token': 'nothing',
  'get /tokens': 'admin',
  'post /tokens': 'admin',
  'post /tokens/rotate-key': 'admin',
  'delete /tokens/:id': 'admin',
  'get /quotas': 'registry',
  'get /quotas/:repositories{.+}': 'registry',
  'put /quotas/:repositories{.+}': 'admin',
  'delete /quotas/:repositories{.+}': 'admin',
  'get /audit': 'admin',
  'get /audit/verify': 'admin',
  'get /scrub': 'admin',
  'get /healthz': 'nothing',
  'get /readyz': 'nothing',
  'get /metrics': 'registry',
  'get /openapi.json': 'nothing',
}

const users = {
  stranger: { actions: [], admin: false },
  reader: { actions: ['pull'], admin: false },
  writer: { actions: ['pull', 'push'], admin: false },
  approver: { actions: ['pull', 'delete'], admin: false },
  admin: { actions: ['pull', 'push', 'delete'], admin: true },
}
type User = keyof typeof users
/** `nobody`: shows nothing. `token`: one of /token for nothing. `forged`: a credential that does not hold. */
type Kind = User | 'nobody' | 'token' | 'forged'
type Outcome = 'in' | '401' | '403' | 'unknown'

function expected(need: Need, kind: Kind, method: string, path: string): Outcome {
  if (need === 'nothing')
    return path === '/token' && (kind === 'forged' || (kind === 'token' && method === 'get')) ? '401' : 'in'
  if (kind === 'forged') return '401'
  if (need === 'login') return kind === 'nobody' ? '401' : 'in'
  if (kind === 'nobody') return '401'
  const isPack = path.startsWith('/packs') && path !== '/packs'
  if (kind === 'token') {
    if (path === '/resolve') return '401'
    return need === 'registry' || need === 'admin' ? '403' : '401'
  }
  const { actions, admin }: { actions: readonly string[]; admin: boolean } = users[kind]
  if (need === 'list' || need === 'quiet') return 'in'
  if (need === 'admin') return admin ? 'in' : '403'
  if (need === 'registry') return actions.length > 0 ? 'in' : '403'
  if (need === 'pusher') return actions.includes('push') ? 'in' : '403'
  if (actions.includes(need === 'overwrite' ? 'delete' : need)) return 'in'
  if (method === 'get' && need === 'pull') return 'unknown'
  if (path === '/resolve') return 'unknown'
  return actions.length === 0 && isPack ? 'unknown' : '403'
}

const basic = (name: string) => `Basic ${Buffer.from(`${name}:${name}`).toString('base64')}`
const digest = 'sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a'

/** The path of a route with what is there in the places of its parameters; for deletions, what is not. */
function pathOf(method: string, route: string): string {
  const there = method === 'get'
  return route
    .replace(':id{[0-9a-f]{64}}', '0'.repeat(64))
    .replace(':name{.+}', 'packs/demo')
    .replace(':name', 'none')
    .replace(':prefix{.+}', 'none')
    .replace(':repositories{.+}', 'none/*')
    .replace(':reference', there ? '1.0.0' : '9.9.9')
    .replace(':digest', there ? digest : `sha256:${'0'.repeat(64)}`)
    .replace(':session', '00000000-0000-4000-8000-000000000000')
    .replace(':version', there ? '1.0.0' : '9.9.9')
    .replace(':channel', 'stable')
    .replace(':id', route.startsWith('/packs') ? 'demo' : 'none')
}

const document = { packId: 'demo', version: '1.0.0', type: 'policy' }
const bodies: Record<string, object> = {
  'post /packs': { manifest: { ...document, version: '1.1.0' } },
  'post /resolve': { roots: ['demo@1'] },
}

const hidden = new Set(['PACK_UNKNOWN', 'NAME_UNKNOWN', 'MANIFEST_UNKNOWN', 'BLOB_UNKNOWN'])

async function outcomeOf(method: string, answer: Response): Promise<Outcome> {
  const text = await answer.text()
  if (answer.status === 401) {
    assert.match(answer.headers.get('www-authenticate') ?? '', /^Bearer realm="http:/)
    return '401'
  }
  if (answer.status === 403) return '403'
  if (answer.status !== 404) {
    assert.ok(answer.status < 500, text)
    return 'in'
  }
  const [, code = ''] = /"code":"(\w+)"/.exec(text) ?? /urn:packs-registry:(\w+)/.exec(text) ?? []
  return code === 'PACK_UNKNOWN' || (method === 'get' && hidden.has(code)) ? 'unknown' : 'in'
}

let databases: TestDatabases
let registry: TestRegistry
let folder: string
const credentials = new Map<Kind, string>()

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'packs-access-'))
  const names = Object.keys(users) as User[]
  await writeFile(join(folder, 'users'), names.map((name) => `${name}:${bcrypt.hashSync(name, 4)}`).join('\n'))
  const rules = names.map((sub) => ({ repositories: ['**'], ...users[sub], claims: { sub } }))
  await writeFile(join(folder, 'policy.json'), JSON.stringify({ rules }))
  databases = await startDatabases()
  registry = await startRegistry(await databases.fresh(), {
    AUTH: 'htpasswd',
    HTPASSWD_FILE: join(folder, 'users'),
    POLICY_FILE: join(folder, 'policy.json'),
  })
  for (const name of names) credentials.set(name, basic(name))
  const answer = await registry.call('GET', '/token', { headers: { authorization: basic('admin') } })
  credentials.set('token', `Bearer ${((await answer.json()) as { token: string }).token}`)
  const published = await registry.call('POST', '/packs', {
    headers: { authorization: basic('admin'), 'content-type': 'application/json' },
    body: JSON.stringify({ manifest: document, content: Buffer.from('{}').toString('base64') }),
  })
  assert.equal(published.status, 201)
})
after(async () => {
  await registry?.stop()
  await databases?.stop()
  await rm(folder, { recursive: true, force: true })
})

const found: string[] = []
const note = (method: string) => (path: string) => void found.push(`${method} ${path}`)
addRoutes(
  Object.fromEntries(methods.map((name) => [name, note(name)])) as unknown as Routes,
  {} as Deps,
  {} as ServerState,
)

it('every route says who is let in', () => {
  assert.deepEqual(Object.keys(rows).sort(), found.sort())
})

describe('who is let in', () => {
  for (const kind of [...(Object.keys(users) as User[]), 'nobody', 'token', 'forged'] as Kind[])
    it(kind, async () => {
      const told: Record<string, Outcome> = {}
      const wanted: Record<string, Outcome> = {}
      for (const [row, need] of Object.entries(rows)) {
        const [method = '', route = ''] = row.split(' ')
        const authorization = kind === 'forged' ? 'Bearer eyJhbGciOiJub25lIn0.e30.' : credentials.get(kind)
        const body = method === 'get' || method === 'delete' ? undefined : JSON.stringify(bodies[row] ?? {})
        const answer = await registry.call(method.toUpperCase(), pathOf(method, route), {
          headers: { 'content-type': 'application/json', ...(authorization ? { authorization } : {}) },
          ...(body === undefined ? {} : { body }),
        })
        told[row] = await outcomeOf(method, answer)
        wanted[row] = expected(need, kind, method, route)
        registry.deps.auth.verified.clear()
      }
      assert.deepEqual(told, wanted)
    })

  it('a HEAD is let in where a GET is', async () => {
    const head = async (name: string) =>
      (await registry.call('HEAD', '/v2/packs/demo/manifests/1.0.0', { headers: { authorization: basic(name) } }))
        .status
    assert.equal(await head('reader'), 200)
    assert.equal(await head('stranger'), 404)
  })
})
