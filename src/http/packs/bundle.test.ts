import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { openLog } from '../../log.ts'
import { type Digest, digestOf } from '../../oci/digest.ts'
import { startDatabases, type TestDatabases } from '../../testing/database.ts'
import { publish } from '../../testing/packs.ts'
import { indexType, startRegistry, type TestRegistry } from '../../testing/registry.ts'
import { noS3, startS3 } from '../../testing/s3.ts'
import { waitFor } from '../../testing/wait.ts'

// A bundle without content: published by its dependencies, pulled as an index, downloaded as one file.

type Json = Record<string, unknown>
type Index = { manifests: { digest: Digest; size: number; annotations: Record<string, string> }[] }

let databases: TestDatabases
let here: TestRegistry
let there: TestRegistry

before(async () => {
  databases = await startDatabases()
  const url = await databases.fresh()
  here = await startRegistry(url, {}, openLog('error'))
  // Another process over the same facts.
  there = await startRegistry(url, { BLOB_STORE: here.deps.config.blobStore })
})
after(async () => {
  await there?.stop()
  await here?.stop()
  await databases?.stop()
})

async function post(
  document: Json,
  content?: string | Uint8Array<ArrayBuffer>,
  { query = '', to = here } = {},
): Promise<[number, Json]> {
  const type = content === undefined ? 'bundle' : 'policy'
  const { status, body } = await publish(to, { type, ...document }, content ?? null, query)
  return [status, body]
}

async function published(...[document, content, options]: Parameters<typeof post>): Promise<Json> {
  const [status, answer] = await post(document, content, options)
  assert.equal(status, 201, JSON.stringify(answer))
  return answer
}

async function indexOf(packId: string, reference = '1.0.0', at = here): Promise<Index> {
  const answer = await at.call('GET', `/v2/packs/${packId}/manifests/${reference}`)
  assert.equal(answer.status, 200)
  assert.equal(answer.headers.get('content-type'), indexType)
  return (await answer.json()) as Index
}

const names = ({ manifests }: Index) =>
  manifests.map(
    ({ annotations: a }) => `${a['org.opencontainers.image.title']} ${a['org.opencontainers.image.version']}`,
  )

async function download(path: string, headers: Record<string, string> = {}, at = here): Promise<[Response, Buffer]> {
  const answer = await at.call('GET', path, { headers })
  return [answer, Buffer.from(await answer.arrayBuffer())]
}

/** Unpacks a tar with the system's own, and checks every blob against its name. */
function unpack(tar: Buffer): { entries: string[]; index: Index; blobs: string[] } {
  const folder = mkdtempSync(join(tmpdir(), 'packs-bundle-'))
  try {
    writeFileSync(join(folder, 'bundle.tar'), tar)
    const entries = execFileSync('tar', ['tf', 'bundle.tar'], { cwd: folder, encoding: 'utf8' }).trim().split('\n')
    execFileSync('tar', ['xf', 'bundle.tar'], { cwd: folder })
    const index = JSON.parse(readFileSync(join(folder, 'index.json'), 'utf8')) as Index
    const blobs = readdirSync(join(folder, 'blobs/sha256')).map((hex) => {
      assert.equal(digestOf(readFileSync(join(folder, 'blobs/sha256', hex))), `sha256:${hex}`)
      return `sha256:${hex}`
    })
    return { entries, index, blobs }
  } finally {
    rmSync(folder, { recursive: true })
  }
}

describe('publishing a bundle without content', () => {
  before(async () => {
    await published({ packId: 'base' }, 'base 1.0.0')
    await published({ packId: 'base', version: '1.1.0' }, 'base 1.1.0')
    await published({ packId: 'net', version: '2.0.0', dependencies: ['base@^1'] }, 'net 2.0.0')
  })

  it('lists the closure in an index, mounted where it is', async () => {
    const answer = await published({ packId: 'all', dependencies: ['net@^2'], created: '2026-01-31T12:00:00Z' })
    assert.equal(answer.digest, answer.manifestDigest)
    const index = await indexOf('all')
    assert.deepEqual(names(index), ['base 1.1.0', 'net 2.0.0'])
    for (const { digest, size } of index.manifests) {
      const [, bytes] = await download(`/v2/packs/all/manifests/${digest}`)
      assert.deepEqual([digestOf(bytes), bytes.length], [digest, size])
      const { config, layers } = JSON.parse(bytes.toString()) as Record<string, { digest: string }[]>
      for (const blob of [config, layers?.[0]].flat())
        assert.equal((await here.call('GET', `/v2/packs/all/blobs/${blob?.digest}`)).status, 200)
    }
    const [pack] = [(await (await here.call('GET', '/packs/all')).json()) as { pack: Json }].map((a) => a.pack)
    assert.deepEqual([pack?.type, pack?.digest, pack?.mediaType], ['bundle', answer.digest, indexType])
  })

  it('again: nothing to do; what resolves otherwise, or says otherwise, is refused', async () => {
    const document = { packId: 'again', dependencies: ['base@>=1'] }
    const first = await published(document)
    const [status, second] = await post(document)
    assert.deepEqual([status, second], [200, first])
    const [other, problem] = await post({ ...document, description: 'changed' })
    assert.equal(other, 409)
    assert.match(String(problem.detail), /with another document/)
    await published({ packId: 'base', version: '1.2.0' }, 'base 1.2.0')
    const [later, differs] = await post(document)
    assert.equal(later, 409)
    assert.match(String(differs.detail), /resolve to something else by now: base 1\.2\.0 instead of 1\.1\.0/)
    assert.equal(differs.type, 'urn:packs-registry:VERSION_EXISTS')
    assert.equal((await here.call('DELETE', '/packs/again/1.0.0')).status, 200)
    assert.equal((await post(document))[1].type, 'urn:packs-registry:VERSION_SPENT')
  })

  it('is what was declared, or refused', async () => {
    const document = { packId: 'declared', dependencies: ['net@2'], created: '2026-01-31T12:00:00Z' }
    const [status, problem] = await post({ ...document, digest: `sha256:${'0'.repeat(64)}` })
    assert.equal(status, 400)
    assert.match(String(problem.detail), /but is sha256:/)
    const { digest } = await published(document)
    await here.call('DELETE', '/packs/declared/1.0.0')
    const next = { ...document, packId: 'declared-too' }
    assert.notEqual((await published(next)).digest, digest)
  })

  const refused: { name: string; document: Json; status: number; says: RegExp }[] = [
    { name: 'one that depends on nothing', document: {}, status: 422, says: /has none: name them/ },
    { name: 'a policy', document: { type: 'policy' }, status: 400, says: /the part "content" is missing/ },
    { name: 'an unknown dependency', document: { dependencies: ['nobody@^1'] }, status: 422, says: /no such pack/ },
    { name: 'a range nothing fits', document: { dependencies: ['base@^9'] }, status: 422, says: /satisfies \^9/ },
  ]
  for (const { name, document, status, says } of refused)
    it(`refuses ${name}, and stores nothing`, async () => {
      const [actual, problem] = await post({ packId: 'refused', ...document })
      assert.equal(actual, status, JSON.stringify(problem))
      assert.match(String(problem.detail), says)
      assert.equal((await here.call('GET', '/packs/refused')).status, 404)
    })

  it('tries out: what it would be made of, or everything against it', async () => {
    const query = '?dryRun=true'
    const [, fine] = await post({ packId: 'tried', dependencies: ['net@^2'] }, undefined, { query })
    assert.equal(fine.valid, true, JSON.stringify(fine))
    assert.deepEqual(
      (fine.members as Json[]).map((member) => member.packId),
      ['base', 'net'],
    )
    assert.equal((await here.call('GET', '/packs/tried')).status, 404)
    assert.equal((await here.call('GET', '/v2/packs/tried/tags/list')).status, 404)
    const [status, bad] = await post({ packId: 'tried', dependencies: ['net@^2', 'base@^9'] }, undefined, { query })
    assert.deepEqual([status, bad.valid, (bad.violations as Json[]).length], [200, false, 1])
    await published({ packId: 'old-base', dependencies: ['base@1.0.0'] }, 'x')
    const conflict = { packId: 'tried', dependencies: ['net@^2', 'old-base@1', 'base@1.1.0'] }
    const [, contrary] = await post(conflict, undefined, { query })
    assert.equal(contrary.valid, false)
    assert.match(JSON.stringify(contrary.violations), /base/)
    assert.equal((await post(conflict))[0], 409)
    const [, empty] = await post({ packId: 'tried' }, undefined, { query })
    assert.equal(empty.valid, false)
  })

  it('takes what is optional where it fits to the rest as it is', async () => {
    await published({ packId: 'o-low', dependencies: ['base@<1.1.0'] }, 'o-low')
    await published({ packId: 'o-fits' }, 'o-fits')
    const optional = (packId: string, version: string) => ({ packId, version, optional: true })
    await published({
      packId: 'o-all',
      dependencies: [
        { packId: 'base', version: '^1.1.0' },
        optional('o-fits', '^1'),
        optional('o-low', '^1'),
        optional('o-fits-not', '*'),
      ],
    })
    const index = await indexOf('o-all')
    assert.deepEqual(
      index.manifests.map(({ annotations }) => annotations['org.opencontainers.image.title']),
      ['base', 'o-fits'],
    )
    // What something else brings along has to fit all the same.
    const [status, problem] = await post({
      packId: 'o-none',
      dependencies: [{ packId: 'o-low', version: '^1' }, optional('base', '^1.1.0')],
    })
    assert.deepEqual([status, problem.type], [409, 'urn:packs-registry:UNRESOLVABLE'])
  })

  it('takes members that run where the bundle says it runs', async () => {
    const metadata = (minRunnerVersion: string) => ({ metadata: { minRunnerVersion } })
    await published({ packId: 'r-member', ...metadata('1.5.0') }, 'for 1.5')
    await published({ packId: 'r-member', version: '1.1.0', ...metadata('1.6.0') }, 'for 1.6')
    await published({ packId: 'r-all', dependencies: ['r-member@^1'], ...metadata('1.5.0') })
    assert.deepEqual(names(await indexOf('r-all')), ['r-member 1.0.0'])
  })

  it('leaves a bundle with content an ordinary pack', async () => {
    await published({ packId: 'plain', type: 'bundle', dependencies: ['net@^2'] }, 'its own content')
    const [answer, bytes] = await download('/packs/plain/1.0.0')
    assert.equal(bytes.toString(), 'its own content')
    assert.ok(answer.headers.get('repr-digest'))
    const [status, problem] = await post({ packId: 'plain', dependencies: ['net@^2'] })
    assert.equal(status, 409)
    assert.match(String(problem.detail), /with content of its own/)
  })

  it('happens once, whoever publishes it and wherever', async () => {
    const document = { packId: 'raced', dependencies: ['net@^2'], created: '2026-01-31T12:00:00Z' }
    const answers = await Promise.all(
      Array.from({ length: 12 }, (_, i) => post(document, undefined, { to: i % 2 ? here : there })),
    )
    assert.deepEqual(answers.map(([status]) => status).sort(), [...Array(11).fill(200), 201])
    assert.equal(new Set(answers.map(([, answer]) => answer.digest)).size, 1)
  })

  it('meets the deletion of a member before or after, never half way', async () => {
    for (let round = 0; round < 8; round++) {
      await published({ packId: `short-${round}` }, `short ${round}`)
      const [[status], deletion] = await Promise.all([
        post({ packId: `meets-${round}`, dependencies: [`short-${round}@^1`] }),
        there.call('DELETE', `/packs/short-${round}/1.0.0`),
      ])
      assert.deepEqual(status === 201 ? deletion.status : status, status === 201 ? 409 : 422)
    }
  })
})

describe('the file of a bundle', () => {
  const large = randomBytes(3 * 1024 * 1024)
  before(async () => {
    await published({ packId: 'f-small' }, 'small content')
    await published({ packId: 'f-large', version: '1.0.0+build', dependencies: ['f-small@^1'] }, large)
    await published({ packId: 'f-inner', dependencies: ['f-small@^1'] })
    await published({ packId: 'f-all', dependencies: ['f-large@^1', 'f-inner@^1'] })
  })

  it('is an OCI layout of the whole closure, nested bundles too', async () => {
    const [answer, tar] = await download('/packs/f-all/1.0.0')
    assert.equal(answer.status, 200)
    const { entries, index, blobs } = unpack(tar)
    assert.deepEqual(entries.slice(0, 2), ['oci-layout', 'index.json'])
    assert.deepEqual(entries.slice(2), entries.slice(2).sort())
    assert.deepEqual(
      index.manifests.map(({ annotations }) => annotations['org.opencontainers.image.ref.name']),
      ['f-all--1.0.0', 'f-inner--1.0.0', 'f-large--1.0.0_build', 'f-small--1.0.0'],
    )
    // Two packs of three blobs and manifests each, and two indexes.
    assert.equal(blobs.length, 3 + 3 + 2)
    assert.equal(answer.headers.get('content-type'), 'application/x-tar')
    assert.equal(answer.headers.get('content-disposition'), 'attachment; filename="f-all-1.0.0.tar"')
    assert.equal(answer.headers.get('repr-digest'), null)
  })

  it('is the same every time, by any process, under a name that is known before', async () => {
    const [first, tar] = await download('/packs/f-all/1.0.0')
    const [, again] = await download('/packs/f-all/%5E1', {}, there)
    assert.ok(tar.equals(again))
    const etag = first.headers.get('etag') ?? ''
    const head = await here.call('HEAD', '/packs/f-all/latest')
    assert.deepEqual(
      [head.status, head.headers.get('content-length'), head.headers.get('etag')],
      [200, String(tar.length), etag],
    )
    const [unchanged, nothing] = await download('/packs/f-all/1.0.0', { 'if-none-match': etag })
    assert.deepEqual([unchanged.status, nothing.length], [304, 0])
  })

  it('is resumed anywhere', async () => {
    const [whole, tar] = await download('/packs/f-all/1.0.0')
    const etag = whole.headers.get('etag') ?? ''
    const cuts = [
      0,
      1,
      511,
      512,
      513,
      2000,
      5000,
      ...Array.from({ length: 12 }, () => Math.floor(Math.random() * tar.length)),
    ]
    cuts.sort((a, b) => a - b)
    const parts: Buffer[] = []
    for (const [i, first] of cuts.entries()) {
      const last = (cuts[i + 1] ?? tar.length) - 1
      if (last < first) continue
      const [answer, part] = await download('/packs/f-all/1.0.0', { range: `bytes=${first}-${last}`, 'if-range': etag })
      assert.deepEqual(
        [answer.status, answer.headers.get('content-range'), part.length],
        [206, `bytes ${first}-${last}/${tar.length}`, last - first + 1],
      )
      parts.push(part)
    }
    assert.ok(Buffer.concat(parts).equals(tar))
    const [changed, all] = await download('/packs/f-all/1.0.0', { range: 'bytes=5-9', 'if-range': '"another"' })
    assert.deepEqual([changed.status, all.length], [200, tar.length])
    const [beyond] = await download('/packs/f-all/1.0.0', { range: `bytes=${tar.length}-` })
    assert.deepEqual([beyond.status, beyond.headers.get('content-range')], [416, `bytes */${tar.length}`])
  })

  it('comes from S3 as from a folder', async (t) => {
    const s3 = await startS3()
    if (!s3) return t.skip(noS3)
    // The S3 client takes its credentials from the environment, as in production.
    process.env.AWS_ACCESS_KEY_ID = s3.accessKey
    process.env.AWS_SECRET_ACCESS_KEY = s3.secretKey
    const store = `s3://${s3.bucket}/bundles?endpoint=${s3.endpoint}&region=us-east-1&pathStyle=true`
    const remote = await startRegistry(await databases.fresh(), { BLOB_STORE: store })
    try {
      const created = '2026-01-31T12:00:00Z'
      for (const to of [here, remote]) {
        await published({ packId: 's-large', created }, large, { to })
        await published({ packId: 's-all', dependencies: ['s-large@^1'], created }, undefined, { to })
      }
      const [, folder] = await download('/packs/s-all/1.0.0')
      const [, bucket] = await download('/packs/s-all/1.0.0', {}, remote)
      assert.ok(folder.equals(bucket))
      const [, part] = await download('/packs/s-all/1.0.0', { range: 'bytes=100000-2000000' }, remote)
      assert.ok(folder.subarray(100_000, 2_000_001).equals(part))
    } finally {
      await remote.stop()
      await s3.stop()
    }
  })

  it('leaves nothing open when a client goes', async () => {
    const open = () =>
      readdirSync('/proc/self/fd').filter((fd) => {
        try {
          return readlinkSync(`/proc/self/fd/${fd}`).includes('/blobs/')
        } catch {
          return false
        }
      }).length
    for (let i = 0; i < 10; i++)
      await new Promise<void>((resolve, reject) => {
        const request = http.get(`${here.url}/packs/f-all/1.0.0`, { agent: false }, (response) => {
          response.on('error', () => undefined).on('close', resolve)
          response.once('data', () => response.destroy())
        })
        request.on('error', reject)
      })
    await waitFor('the files to be closed', () => open() === 0)
    // Others may be at work for a moment: what is written behind the answers.
    await waitFor('the connections to be given back', () => here.deps.db.use.active === 0)
  })

  it('stays when a member is deleted at home', async () => {
    await published({ packId: 'gone' }, 'soon gone')
    await published({ packId: 'keeps', dependencies: ['gone@^1'] })
    const [, tar] = await download('/packs/keeps/1.0.0')
    assert.equal((await here.call('DELETE', '/packs/gone/1.0.0')).status, 409)
    assert.equal((await here.call('DELETE', '/packs/gone/1.0.0?force=true')).status, 200)
    const [answer, still] = await download('/packs/keeps/1.0.0')
    assert.equal(answer.status, 200)
    assert.ok(still.equals(tar))
  })
})

describe('deleting a bundle', () => {
  it('takes what only it listed, nested bundles too', async () => {
    await published({ packId: 'd-one' }, 'one')
    await published({ packId: 'd-two' }, 'two')
    await published({ packId: 'd-inner', dependencies: ['d-two@^1'] })
    await published({ packId: 'd-all', dependencies: ['d-one@^1'] })
    await published({ packId: 'd-all', version: '2.0.0', dependencies: ['d-one@^1', 'd-inner@^1'] })
    const held = async () =>
      (
        await here.deps.db.sql`
        select m.digest from manifests m join repositories r on r.id = m.repository_id where r.name = 'packs/d-all'`
      ).length
    assert.equal(await held(), 2 + 3)
    const one = (await indexOf('d-all')).manifests[0]?.digest
    assert.equal((await here.call('DELETE', '/packs/d-all/2.0.0')).status, 200)
    assert.equal(await held(), 2)
    assert.equal((await here.call('GET', `/v2/packs/d-all/manifests/${one}`)).status, 200)
    assert.equal(unpack((await download('/packs/d-all/1.0.0'))[1]).blobs.length, 4)
    assert.equal((await here.call('DELETE', `/v2/packs/d-all/manifests/1.0.0`)).status, 202)
    assert.equal(await held(), 0)
    assert.equal((await download('/packs/d-one/1.0.0'))[1].toString(), 'one')
    const unheld = await here.deps.db.sql`
      select l.digest from repository_blobs l join repositories r on r.id = l.repository_id
      where r.name = 'packs/d-all' and l.review_at is null`
    assert.equal(unheld.length, 0, 'the collector looks at what the members held')
  })
})

describe('a bundle pushed by any client', () => {
  const artifactType = 'application/vnd.stellaops.pack.bundle.v1'
  const push = async (packId: string, tag: string, manifest: Json) => {
    const body = JSON.stringify({ schemaVersion: 2, mediaType: indexType, artifactType, manifests: [], ...manifest })
    const headers = { 'content-type': indexType }
    const answer = await here.call('PUT', `/v2/packs/${packId}/manifests/${tag}`, { body, headers })
    return [answer.status, await answer.text()] as const
  }

  it('is described by its annotations, and may be sparse; its file says what is missing', async () => {
    const { manifestDigest } = await published({ packId: 'p-member' }, 'member')
    const { manifests } = await (async () => {
      await published({ packId: 'p-made', dependencies: ['p-member@^1'] })
      return indexOf('p-made')
    })()
    const annotations = {
      'org.opencontainers.image.title': 'Pushed',
      'vnd.stellaops.pack.dependencies': 'p-member@^1',
    }
    assert.deepEqual((await push('p-sparse', '1.0.0', { manifests, annotations }))[0], 201)
    const { pack } = (await (await here.call('GET', '/packs/p-sparse')).json()) as { pack: Json }
    assert.deepEqual([pack.name, pack.dependencies], ['Pushed', [{ packId: 'p-member', version: '^1' }]])
    for (const method of ['GET', 'HEAD']) {
      const answer = await here.call(method, '/packs/p-sparse/1.0.0')
      assert.equal(answer.status, 409)
      if (method === 'GET')
        assert.match(await answer.text(), new RegExp(`lists ${manifestDigest}, which packs/p-sparse`))
    }
    // What another bundle's own dependencies bring along is there.
    await published({ packId: 'p-mended', dependencies: ['p-sparse@^1'] })
    assert.equal(unpack((await download('/packs/p-mended/1.0.0'))[1]).blobs.length, 3 + 2)
    assert.equal((await push('p-other', '1.0.0', { manifests }))[0], 201)
    const [status, problem] = await post({ packId: 'p-around', dependencies: ['p-other@^1'] })
    assert.deepEqual([status, problem.type], [409, 'urn:packs-registry:BUNDLE_INCOMPLETE'])
    assert.equal((await here.call('GET', '/packs/p-around')).status, 404)
  })

  it('keeps its document in an annotation, which must fit tag and repository', async () => {
    const document = { packId: 'p-document', version: '1.0.0', type: 'bundle', name: 'Documented' }
    const annotations = (over: Json) => ({ 'vnd.stellaops.pack.config': JSON.stringify({ ...document, ...over }) })
    const refused: [Json, RegExp][] = [
      [{ annotations: annotations({ version: '1.0.1' }) }, /say version 1\.0\.1, but the tag says 1\.0\.0/],
      [{ annotations: annotations({ packId: 'other' }) }, /say packId other/],
      [{ annotations: annotations({ type: 'policy' }) }, /say type policy/],
      [{ annotations: { 'vnd.stellaops.pack.config': '{' } }, /is not JSON/],
      [{ artifactType: 'application/vnd.stellaops.pack.policy.v1' }, /only a bundle may be an index/],
      [{ artifactType: 'a/b' }, /artifactType must be/],
    ]
    for (const [over, says] of refused) {
      const [status, text] = await push('p-document', '1.0.0', over)
      assert.equal(status, 400, text)
      assert.match(text, says)
    }
    assert.equal((await push('p-document', '1.0.0', { annotations: annotations({}) }))[0], 201)
    const [answer, tar] = await download('/packs/p-document/1.0.0')
    assert.equal(answer.status, 200)
    assert.equal(unpack(tar).blobs.length, 1)
  })

  it('is the same file under another name only with another ETag', async () => {
    const annotations = { 'org.opencontainers.image.title': 'Twice' }
    assert.equal((await push('p-twice', '1.0.0', { annotations }))[0], 201)
    assert.equal((await push('p-twice', '1.1.0', { annotations }))[0], 201)
    const [[one], [two]] = [await download('/packs/p-twice/1.0.0'), await download('/packs/p-twice/1.1.0')]
    assert.notEqual(one.headers.get('etag'), two.headers.get('etag'))
  })

  it('is read as an index, also where a blob of its very bytes was pushed', async () => {
    await published({ packId: 'p-blob', dependencies: ['p-member@^1'] })
    const [, bytes] = await download('/v2/packs/p-blob/manifests/1.0.0')
    await here.pushBlob('packs/p-blob', bytes)
    assert.equal(unpack((await download('/packs/p-blob/1.0.0'))[1]).blobs.length, 4)
  })
})

it('bundles hundreds of packs in a handful of statements', async () => {
  const many = 300
  for (let i = 0; i < many; i += 20)
    await Promise.all(Array.from({ length: 20 }, (_, j) => published({ packId: `many-${i + j}` }, `content ${i + j}`)))
  const dependencies = Array.from({ length: many }, (_, i) => `many-${i}@^1`)
  await here.deps.relay.settle()
  await here.deps.together.audit.settle()
  await waitFor('what the publishes leave behind to be done', () => here.deps.db.use.active === 0)
  let statements = 0
  const { onAnswer } = here.deps.db
  here.deps.db.onAnswer = (seconds) => {
    statements++
    onAnswer(seconds)
  }
  await published({ packId: 'many', dependencies })
  assert.ok(statements <= 6, `${statements}: one transaction, its line in the audit, and what tells of it`)
  const [, tar] = await download('/packs/many/1.0.0')
  here.deps.db.onAnswer = onAnswer
  assert.ok(statements <= 14, `${statements}`)
  assert.equal(unpack(tar).blobs.length, 3 * many + 1)
})
