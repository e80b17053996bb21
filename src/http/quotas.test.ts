import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { connect as connectTo } from 'node:net'
import { after, before, describe, it } from 'node:test'
import { connect } from '../db/client.ts'
import { publishMs } from '../db/import-publish.ts'
import { digestOf } from '../oci/digest.ts'
import { listQuotas, tendQuotas } from '../registry/quotas.ts'
import { sampleBundle } from '../testing/bundle.ts'
import { untilBlocked } from '../testing/collect.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { ask, codeIn, publish } from '../testing/packs.ts'
import { imageType, sampleManifest, startRegistry, type TestRegistry } from '../testing/registry.ts'
import { waitFor } from '../testing/wait.ts'

let databases: TestDatabases
let registry: TestRegistry
let url: string
before(async () => {
  databases = await startDatabases()
  url = await databases.fresh()
  registry = await startRegistry(url)
})
after(async () => {
  await registry?.stop()
  await databases?.stop()
})

type Limits = { bytes?: number; versions?: number }
type Told = { maxBytes?: number; maxVersions?: number; bytes: number; versions: number }

const set = (glob: string, limits: Limits) => ask(registry, 'PUT', `/quotas/${glob}`, limits)
async function used(glob: string): Promise<Told> {
  return (await ask(registry, 'GET', `/quotas/${glob}`)).body.quota as Told
}
/** A blob pushed in one request: status and what was answered. */
async function push(repository: string, bytes: Buffer, at = registry) {
  const answer = await at.call('POST', `/v2/${repository}/blobs/uploads/?digest=${digestOf(bytes)}`, { body: bytes })
  return { status: answer.status, text: await answer.text() }
}
async function putManifest(repository: string, reference: string, manifest: object) {
  const init = { body: JSON.stringify(manifest), headers: { 'content-type': imageType } }
  const answer = await registry.call('PUT', `/v2/${repository}/manifests/${reference}`, init)
  return { status: answer.status, text: await answer.text() }
}
const sizeOf = (manifest: object) => Buffer.byteLength(JSON.stringify(manifest))

describe('a quota', () => {
  it('is set, shown, changed and removed', async () => {
    assert.equal((await set('a/*', { bytes: 1000, versions: 5 })).status, 201)
    const before = Date.now()
    const { status, body } = await set('a/*', { bytes: 2000 })
    assert.equal(status, 200)
    const { setAt, ...quota } = body.quota as { setAt: string }
    assert.ok(Date.parse(setAt) >= before && Date.parse(setAt) <= Date.now(), setAt)
    assert.deepEqual(quota, { repositories: 'a/*', maxBytes: 2000, bytes: 0, versions: 0, setBy: 'anonymous' })
    const listed = (await ask(registry, 'GET', '/quotas')).body.quotas as { repositories: string }[]
    assert.deepEqual(
      listed.map(({ repositories }) => repositories),
      ['a/*'],
    )
    assert.deepEqual((await ask(registry, 'DELETE', '/quotas/a/*')).body, { deleted: true })
    assert.deepEqual((await ask(registry, 'DELETE', '/quotas/a/*')).body, { deleted: false })
    assert.equal(codeIn((await ask(registry, 'GET', '/quotas/a/*')).body), 'QUOTA_UNKNOWN')
  })

  const wrong: { name: string; glob: string; body: object }[] = [
    { name: 'limits nothing', glob: 'a/*', body: {} },
    { name: 'is negative', glob: 'a/*', body: { bytes: -1 } },
    { name: 'is no whole number', glob: 'a/*', body: { versions: 1.5 } },
    { name: 'is larger than any number', glob: 'a/*', body: { bytes: 1e300 } },
    { name: 'has another field', glob: 'a/*', body: { bytes: 1, count: 1 } },
    { name: 'is for no glob', glob: 'A/*', body: { bytes: 1 } },
  ]
  for (const { name, glob, body } of wrong)
    it(`is refused where it ${name}`, async () => {
      assert.equal(codeIn((await ask(registry, 'PUT', `/quotas/${glob}`, body)).body), 'REQUEST_INVALID')
    })

  it('of bytes ends what is pushed where it is spent, and says by how much and what to do', async () => {
    await set('bytes/*', { bytes: 1000 })
    assert.equal((await push('bytes/a', randomBytes(600))).status, 201)
    const { status, text } = await push('bytes/b', randomBytes(500))
    assert.equal(status, 403)
    const [error] = (JSON.parse(text) as { errors: { code: string; message: string }[] }).errors
    assert.equal(error?.code, 'DENIED')
    assert.match(error?.message ?? '', /bytes\/\* may hold 1 KB, and would come to 1.1 KB.*packs quota set/)
    assert.equal((await push('bytes/b', randomBytes(400))).status, 201)
    assert.equal((await push('other/b', randomBytes(500))).status, 201)
    assert.deepEqual((await used('bytes/*')).bytes, 1000)
  })

  it('counts a blob once in each repository, and again pushed not again', async () => {
    await set('twice/*', { bytes: 1000 })
    const blob = randomBytes(500)
    assert.equal((await push('twice/a', blob)).status, 201)
    assert.equal((await push('twice/a', blob)).status, 201)
    assert.equal((await used('twice/*')).bytes, 500)
    const mount = `/v2/twice/b/blobs/uploads/?mount=${digestOf(blob)}&from=twice/a`
    assert.equal((await registry.call('POST', mount)).status, 201)
    assert.equal((await used('twice/*')).bytes, 1000)
    const denied = await registry.call('POST', mount.replace('/b/', '/c/'))
    assert.equal(denied.status, 403)
    assert.equal((await push('twice/a', blob)).status, 201)
  })

  it('of versions counts manifests, but not those that are attached to one', async () => {
    await set('versions/*', { versions: 2 })
    const { digest } = await registry.pushManifest('versions/a', '1')
    await registry.pushManifest('versions/b', '1')
    const third = sampleManifest({ annotations: { n: '3' } })
    const refused = await putManifest('versions/b', '2', third)
    assert.equal(refused.status, 403)
    assert.match(refused.text, /may hold 2 versions, and would come to 3/)
    const subject = { mediaType: imageType, digest, size: sizeOf(sampleManifest()) }
    const signature = sampleManifest({ subject, artifactType: 'application/x-signature' })
    assert.equal(
      (await putManifest('versions/a', digestOf(Buffer.from(JSON.stringify(signature))), signature)).status,
      201,
    )
    assert.equal((await registry.call('DELETE', `/v2/versions/a/manifests/${digest}`)).status, 202)
    assert.equal((await putManifest('versions/b', '2', third)).status, 201)
    assert.equal((await used('versions/*')).versions, 2)
  })

  it('holds for packs by the facade too, and nothing of what is refused stays', async () => {
    await set('packs/team-*', { versions: 1 })
    assert.equal((await publish(registry, { packId: 'team-a' })).status, 201)
    const refused = await publish(registry, { packId: 'team-a', version: '1.1.0' })
    assert.deepEqual([refused.status, codeIn(refused.body)], [403, 'QUOTA_EXCEEDED'])
    assert.match(String(refused.body.detail), /packs\/team-\* may hold 1 versions, and would come to 2/)
    const { versions } = (await ask(registry, 'GET', '/packs/team-a/versions')).body as { versions: unknown[] }
    assert.equal(versions.length, 1)
    assert.equal((await publish(registry, { packId: 'other', version: '1.1.0' })).status, 201)
  })

  it('holds for imports: all of a bundle or nothing', async () => {
    await set('packs/*', { versions: 3 })
    const { bytes } = sampleBundle()
    const init = { body: bytes, headers: { 'content-type': 'application/x-tar' } }
    const refused = await registry.call('POST', '/bundles/import', init)
    assert.equal(refused.status, 403)
    assert.equal(codeIn((await refused.json()) as Record<string, unknown>), 'QUOTA_EXCEEDED')
    await ask(registry, 'DELETE', '/quotas/packs/*')
    assert.equal((await registry.call('POST', '/bundles/import', init)).status, 201)
  })

  it('is each of those that match', async () => {
    await set('nested/**', { bytes: 1000 })
    await set('nested/a/*', { bytes: 300 })
    assert.match((await push('nested/a/x', randomBytes(400))).text, /nested\/a\/\* may hold/)
    assert.equal((await push('nested/b/x', randomBytes(800))).status, 201)
    assert.match((await push('nested/a/x', randomBytes(250))).text, /nested\/\*\* may hold/)
  })

  it('keeps what is there already, and is what was there when it was set', async () => {
    await push('before/a', randomBytes(700))
    const { size } = await registry.pushManifest('before/a', '1')
    const { body } = await set('before/*', { bytes: 100 })
    assert.deepEqual((body.quota as Told).bytes, 700 + 2 + size)
    assert.equal((await push('before/a', randomBytes(1))).status, 403)
    assert.equal((await registry.call('GET', '/v2/before/a/manifests/1')).status, 200)
  })
})

describe('what is over a quota', () => {
  it('is refused before its body is read', async () => {
    await set('early/*', { bytes: 1_000_000 })
    registry.deps.quotas.at = 0
    for (const [method, path] of [
      ['POST', `/v2/early/a/blobs/uploads/?digest=sha256:${'a'.repeat(64)}`],
      ['PATCH', await sessionIn('early/a')],
      ['PUT', `${await sessionIn('early/a')}?digest=sha256:${'a'.repeat(64)}`],
    ] as const) {
      // The body never comes: an answer that waited for it would not either.
      const answer = await announced(method, path, 2_000_000)
      assert.match(answer, /^HTTP\/1.1 403 /, `${method}: ${answer}`)
      assert.match(answer, /"code":"DENIED".*early\/\* may hold 1 MB, and would come to 2 MB/s)
    }
  })

  it('is refused by the facade before its content is read', async () => {
    await set('packs/early-*', { bytes: 1_000_000 })
    registry.deps.quotas.at = 0
    const manifest = JSON.stringify({ packId: 'early-a', version: '1.0.0', type: 'policy' })
    const start = ['--b', 'Content-Disposition: form-data; name="manifest"', '', manifest, '--b']
    const part = 'Content-Disposition: form-data; name="content"; filename="a.tgz"'
    const body = [...start, part, '', 'only the beginning'].join('\r\n')
    const type = 'Content-Type: multipart/form-data; boundary=b\r\n'
    const answer = await announced('POST', '/packs', 9_000_000, { type, body })
    assert.match(answer, /^HTTP\/1.1 403 .*QUOTA_EXCEEDED.*packs\/early-\* may hold 1 MB/s)
  })

  it('is refused when it has no length beforehand, leaves no object, and can be sent again when there is room', async () => {
    await set('late/*', { bytes: 1000 })
    const path = await sessionIn('late/a')
    const bytes = randomBytes(200_000)
    const stream = new Blob([new Uint8Array(bytes)]).stream()
    const chunk = await registry.call('PATCH', path, { body: stream })
    assert.equal(chunk.status, 202)
    const close = `${chunk.headers.get('location')}?digest=${digestOf(bytes)}`
    assert.equal((await registry.call('PUT', close)).status, 403)
    const [row] = await registry.deps.db.sql`select from blobs where digest = ${digestOf(bytes)}`
    assert.equal(row, undefined)
    await set('late/*', { bytes: 1_000_000 })
    assert.equal((await registry.call('PUT', close)).status, 201)
    assert.equal((await used('late/*')).bytes, 200_000)
  })

  it('does not take others along that commit with it', async () => {
    await set('many/full', { bytes: 100 })
    const blobs = Array.from({ length: 40 }, (_, i) => ({
      name: i % 2 ? 'many/full' : 'many/free',
      bytes: randomBytes(90),
    }))
    const answers = await Promise.all(blobs.map(({ name, bytes }) => push(name, bytes)))
    assert.ok(blobs.every(({ name }, i) => name === 'many/full' || answers[i]?.status === 201))
    const taken = blobs.filter(({ name }, i) => name === 'many/full' && answers[i]?.status === 201).length
    assert.ok(taken >= 1)
    assert.equal((await used('many/full')).bytes, 90 * taken)
    // Over by what committed in the same moment: two statements a process, which are one by one where one is refused.
    assert.ok(taken <= 1 + registry.deps.config.databasePool, String(taken))
    assert.equal((await push('many/full', randomBytes(90))).status, 403)
  })
})

describe('usage', () => {
  it('stays exact while it is folded, measured and written at once', async () => {
    await set('exact/*', { bytes: 10_000_000 })
    const other = await startRegistry(url)
    try {
      const tending = (async () => {
        for (let i = 0; i < 20; i++) {
          await registry.deps.db.sql`update quotas set measured_at = null where ${i} % 4 = 0`
          await tendQuotas(registry.deps)
        }
      })()
      const pushes = Array.from({ length: 200 }, (_, i) =>
        push(`exact/${i % 7}`, randomBytes(1 + (i % 50)), i % 2 ? registry : other),
      )
      const answers = await Promise.all(pushes)
      await tending
      assert.ok(answers.every(({ status }) => status === 201))
      assert.deepEqual((await used('exact/*')).bytes, await linkedBytes('exact/'))
      await registry.deps.db.sql`select fold_quota(id) from quotas`
      assert.deepEqual((await used('exact/*')).bytes, await linkedBytes('exact/'))
      const [left] = await registry.deps.db.sql`select count(*)::int as count from quota_changes`
      assert.equal(left?.count, 0)
    } finally {
      await other.stop()
    }
  })

  it('goes down with what is deleted, and is set right where something was missed', async () => {
    await set('down/*', { bytes: 10_000 })
    const blob = randomBytes(500)
    await push('down/a', blob)
    assert.equal((await registry.call('DELETE', `/v2/down/a/blobs/${digestOf(blob)}`)).status, 202)
    assert.equal((await used('down/*')).bytes, 0)
    await push('down/a', blob)
    await registry.deps.db.sql`update quotas set bytes = 77, measured_at = null where glob = 'down/*'`
    assert.deepEqual(await tendQuotas(registry.deps), { measured: 1 })
    assert.equal((await used('down/*')).bytes, 500)
    assert.deepEqual(await tendQuotas(registry.deps), { measured: 0 })
  })

  it('is measured once more when no import can be under way that did not see the quota', async () => {
    await set('settled/*', { bytes: 10_000 })
    await push('settled/a', randomBytes(500))
    // As if an import had gone on since before: what it brought was not counted.
    const missed = (seconds: number) => registry.deps.db.sql`
      update quotas set bytes = 0, set_at = now() - make_interval(secs => ${seconds}),
        measured_at = now() - make_interval(secs => ${seconds - 1}) where glob = 'settled/*'`
    await registry.deps.db.sql`select fold_quota(id) from quotas`
    await missed(publishMs / 1000)
    assert.deepEqual(await tendQuotas(registry.deps), { measured: 0 })
    await missed(2 * (publishMs / 1000))
    assert.deepEqual(await tendQuotas(registry.deps), { measured: 1 })
    assert.equal((await used('settled/*')).bytes, 500)
  })

  it('is among the metrics', async () => {
    await set('shown/*', { bytes: 10_000, versions: 7 })
    await push('shown/a', randomBytes(123))
    const text = await (await registry.call('GET', '/metrics')).text()
    assert.match(text, /^packs_quota\{repositories="shown\/\*",unit="bytes",figure="used"\} 123$/m)
    assert.match(text, /^packs_quota\{repositories="shown\/\*",unit="versions",figure="limit"\} 7$/m)
  })
})

it('a quota can be set while an import is published that counts against it', async () => {
  const address = await databases.fresh()
  const other = connect(address, { max: 1 })
  // Every statement that could fold draws the lot to do so.
  await other`create function public.random() returns float8 language sql as 'select 0::float8'`
  await other.unsafe(`alter database ${new URL(address).pathname.slice(1)} set search_path = public, pg_catalog`)
  const own = await startRegistry(address)
  try {
    assert.equal((await ask(own, 'PUT', '/quotas/packs/*', { bytes: 1_000_000 })).status, 201)
    assert.equal((await publish(own, { packId: 'before' })).status, 201)
    const [folded] = await other<{ bytes: number }[]>`select bytes from quotas`
    assert.ok(folded?.bytes, 'others fold')
    let sent: Promise<Response> | undefined
    await other.begin(async (tx) => {
      // The import has written its links and manifests when it waits for this.
      await tx`lock table tags in share mode`
      sent = own.call('POST', '/bundles/import', { body: sampleBundle().bytes })
      await untilBlocked(own)
      const { status, body } = await ask(own, 'PUT', '/quotas/packs/*', { bytes: 2_000_000 })
      assert.equal(status, 200, JSON.stringify(body))
    })
    assert.equal((await sent)?.status, 201)
    const { quota } = (await ask(own, 'GET', '/quotas/packs/*')).body as { quota: Told }
    assert.equal(quota.maxBytes, 2_000_000)
    assert.equal(quota.versions, 3)
    assert.ok(quota.bytes > folded.bytes)
  } finally {
    await own.stop()
    await other.end()
  }
})

it('a registry without quotas asks the database nothing more', async () => {
  const none = await startRegistry(await databases.fresh())
  try {
    assert.deepEqual(await listQuotas(none.deps), [])
    none.deps.quotas.at = Date.now() + 60_000
    let statements = 0
    none.deps.db.onAnswer = () => void statements++
    const answer = await push('plain/a', randomBytes(100), none)
    assert.equal(answer.status, 201)
    // Of each push, a row in the audit is one statement, which nobody who pushes waits for.
    const written = async (events: number) => {
      const count = () => none.deps.db.sql<{ count: number }[]>`select count(*)::int as count from audit_events`
      const isWritten = async () => (await count())[0]?.count === events && none.deps.db.use.active === 0
      await waitFor(`${events} events in the audit`, isWritten, { everyMs: 10 })
    }
    await written(1)
    statements = 0
    await push('plain/a', randomBytes(100), none)
    await written(2)
    assert.equal(statements, 1 + 1)
    statements = 0
    await push('plain/a', randomBytes(200_000), none)
    await written(3)
    assert.equal(statements, 2 + 1)
  } finally {
    await none.stop()
  }
})

async function sessionIn(repository: string): Promise<string> {
  const answer = await registry.call('POST', `/v2/${repository}/blobs/uploads/`)
  return answer.headers.get('location') ?? ''
}

/** The answer to a request whose body is announced, and never sent to its end. */
function announced(
  method: string,
  path: string,
  length: number | string,
  { type = '', body = '' } = {},
): Promise<string> {
  const { hostname, port } = new URL(registry.url)
  return new Promise((resolve, reject) => {
    let text = ''
    const socket = connectTo(Number(port), hostname, () => {
      socket.write(`${method} ${path} HTTP/1.1\r\nHost: ${hostname}\r\nContent-Length: ${length}\r\n${type}\r\n${body}`)
    })
    socket.on('error', reject)
    socket.on('close', () => resolve(text))
    socket.on('data', (piece) => {
      text += piece
      if (/\r\n\r\n.*\}/s.test(text)) socket.destroy()
    })
  })
}

describe('a length that nothing can have', () => {
  for (const method of ['POST', 'PATCH', 'PUT'])
    it(`is a bad request to ${method}, under a quota too`, async () => {
      assert.ok((await set('**', { bytes: 1e12 })).status < 300)
      const digest = digestOf(Buffer.from('x'))
      const path =
        method === 'POST' ? '/v2/long/blobs/uploads/' : new URL(await sessionIn('long'), registry.url).pathname
      const asked = method === 'PATCH' ? path : `${path}?digest=${digest}`
      const answer = await announced(method, asked, '10000000000000000000')
      assert.match(answer, /^HTTP\/1.1 400 .*SIZE_INVALID/s)
      await ask(registry, 'DELETE', '/quotas/**')
    })
})

async function linkedBytes(prefix: string): Promise<number> {
  const [row] = await registry.deps.db.sql<{ bytes: number }[]>`
    select sum(b.size)::bigint as bytes from repositories r join repository_blobs l on l.repository_id = r.id
    join blobs b on b.digest = l.digest where starts_with(r.name, ${prefix})`
  return row?.bytes ?? 0
}
