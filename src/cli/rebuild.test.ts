import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { readConfig } from '../config.ts'
import { openLog } from '../log.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { emptyConfig, imageType, startRegistry, type TestRegistry } from '../testing/registry.ts'
import { rebuild } from './rebuild.ts'

type Json = Record<string, unknown>
type Report = { looked: number; changes: Json[]; leftOut: Json[] }

describe('packs rebuild', () => {
  let databases: TestDatabases
  let url: string
  let registry: TestRegistry
  before(async () => {
    databases = await startDatabases()
    url = await databases.fresh()
    registry = await startRegistry(url, {}, openLog('error'))
    await fill()
  })
  after(async () => {
    await registry?.stop()
    await databases?.stop()
  })

  async function publish(document: Json, content?: string): Promise<void> {
    const form = new FormData()
    form.append('manifest', new Blob([JSON.stringify({ type: 'policy', version: '1.0.0', ...document })]), 'pack.json')
    if (content !== undefined) form.append('content', new Blob([content]), 'content.tgz')
    const answer = await fetch(`${registry.url}/packs`, { method: 'POST', body: form })
    assert.equal(answer.status, 201, await answer.text())
  }

  async function push(repository: string, tag: string, over: Json): Promise<void> {
    await registry.pushBlob(repository, '{}')
    const layers = [await registry.pushBlob(repository, `${repository} ${tag}`)]
    const artifactType = 'application/vnd.stellaops.pack.analyzer.v1'
    const manifest = { schemaVersion: 2, mediaType: imageType, artifactType, config: emptyConfig, layers, ...over }
    await registry.pushManifest(repository, tag, manifest)
  }

  async function fill(): Promise<void> {
    const metadata = {
      minRunnerVersion: '1.5.0',
      maxRunnerVersion: '2.0.0',
      keywords: ['one', 'two'],
      own: { b: 1, a: [] },
    }
    await publish({ packId: 'base', description: 'Grüße <&>', author: 'somebody', metadata }, 'base')
    await publish({ packId: 'base', version: '1.1.0-rc.1' }, 'base rc')
    await publish({ packId: 'base', version: '0.9.0+site.1' }, 'base back-port')
    const optional = { packId: 'nobody', version: '*', optional: true }
    await publish({ packId: 'net', version: '2.0.0', dependencies: ['base@^1', optional] }, 'net')
    await publish({ packId: 'all', type: 'bundle', dependencies: ['net@^2'] })
    await push('packs/pushed', '1.0.0', { annotations: { 'vnd.stellaops.pack.dependencies': 'base@1' } })
    await push('packs/pushed', '1.1.0', {})
    await push('elsewhere/image', '1.0.0', { artifactType: 'a/b' })
    const stable = await registry.call('PUT', '/packs/base/channels/stable', { body: '{"version":"1.0.0"}' })
    assert.equal(stable.status, 200)
  }

  /** Everything that the facade says, as it says it. */
  async function everything(): Promise<Map<string, string>> {
    const paths = ['/packs', '/packs?sort=updated', '/packs?q=base', '/packs?runner=1.6.0', '/packs?type=bundle']
    const { packs } = (await (await registry.call('GET', '/packs')).json()) as { packs: { packId: string }[] }
    for (const { packId } of packs) {
      const path = `/packs/${packId}`
      paths.push(path, `${path}/versions`, `/v2/packs/${packId}/tags/list`, `${path}/*/dependents`)
      const { versions } = (await (await registry.call('GET', `${path}/versions`)).json()) as {
        versions: { version: string }[]
      }
      for (const { version } of versions) paths.push(`${path}/${version}`, `${path}/${version}/manifest`)
    }
    const said = new Map<string, string>()
    for (const path of paths) {
      const answer = await registry.call('GET', path)
      said.set(path, `${answer.status} ${Buffer.from(await answer.arrayBuffer()).toString('base64')}`)
    }
    const { sql } = registry.deps.db
    for (const [table, rows] of [
      ['packs', await sql`select to_jsonb(p) - 'created_at' as row from packs p order by pack_id`],
      ['versions', await sql`select to_jsonb(v) as row from pack_versions v order by repository_id, release`],
      ['dependencies', await sql`select to_jsonb(d) as row from pack_dependencies d order by 1`],
    ] as const)
      said.set(table, JSON.stringify(rows))
    return said
  }

  async function run({ dryRun = false } = {}): Promise<[number, Report]> {
    let said = ''
    const { blobStore } = registry.deps.config
    const config = readConfig({ DATABASE_URL: url, BLOB_STORE: blobStore })
    const code = await rebuild(config, { dryRun, json: true }, (text) => {
      said += text
    })
    return [code, JSON.parse(said) as Report]
  }

  async function wipe(): Promise<void> {
    const { sql } = registry.deps.db
    await sql`delete from pack_dependencies`
    await sql`delete from pack_versions`
    await sql`delete from packs`
  }

  it('finds nothing to do where nothing is wrong, and changes nothing', async () => {
    const said = await everything()
    assert.deepEqual(await run(), [0, { dryRun: false, looked: 4, changes: [], leftOut: [] }])
    assert.deepEqual(await everything(), said)
  })

  it('makes all of it again, byte for byte', async () => {
    const said = await everything()
    await wipe()
    assert.equal((await registry.call('GET', '/packs/base')).status, 404)
    const [code, dry] = await run({ dryRun: true })
    assert.deepEqual([code, dry.changes.length], [0, 4])
    assert.equal((await registry.call('GET', '/packs/base')).status, 404)
    const [, { changes }] = await run()
    assert.deepEqual(changes, dry.changes)
    assert.deepEqual(
      changes.map(({ packId, added }) => [packId, added]),
      [
        ['all', ['1.0.0']],
        ['base', ['1.0.0', '1.1.0-rc.1', '0.9.0+site.1']],
        ['net', ['2.0.0']],
        ['pushed', ['1.0.0', '1.1.0']],
      ],
    )
    assert.deepEqual(await everything(), said)
    assert.deepEqual((await run())[1].changes, [])
    const dependents = await registry.call('DELETE', '/packs/base/1.0.0')
    assert.equal(dependents.status, 409)
  })

  it('sets right what differs, and keeps what a person said and numbers that are spent', async () => {
    await publish({ packId: 'base', version: '1.2.0' }, 'base 1.2.0')
    await registry.call('PATCH', '/packs/base/1.2.0', {
      body: '{"state":"yanked","message":"broken","replacedBy":"net"}',
    })
    assert.equal((await registry.call('DELETE', '/packs/base/0.9.0+site.1')).status, 200)
    const said = await everything()
    const { sql } = registry.deps.db
    await sql`update pack_versions set document = '{}', content_size = 7 where version = '1.2.0'`
    await sql`delete from pack_dependencies where depends_on = 'base'`
    await sql`update packs set summary = '{}', latest = '9.9.9' where pack_id = 'net'`
    await sql`delete from tags where name = 'latest'`
    const [, { changes }] = await run()
    assert.deepEqual(
      changes.map(({ packId, added, changed, removed, shown }) => ({ packId, added, changed, removed, shown })),
      [
        { packId: 'all', added: [], changed: [], removed: [], shown: ['tag latest'] },
        {
          packId: 'base',
          added: [],
          changed: [{ version: '1.2.0', fields: ['document', 'size'] }],
          removed: [],
          shown: ['tag latest'],
        },
        {
          packId: 'net',
          added: [],
          changed: [{ version: '2.0.0', fields: ['dependencies'] }],
          removed: [],
          shown: ['latest', 'list entry', 'tag latest'],
        },
        {
          packId: 'pushed',
          added: [],
          changed: [{ version: '1.0.0', fields: ['dependencies'] }],
          removed: [],
          shown: ['tag latest'],
        },
      ],
    )
    assert.deepEqual(await everything(), said)
    const form = new FormData()
    form.append('manifest', JSON.stringify({ type: 'policy', packId: 'base', version: '0.9.0' }))
    form.append('content', new Blob(['other']), 'content.tgz')
    assert.equal((await fetch(`${registry.url}/packs`, { method: 'POST', body: form })).status, 409)
  })

  it('leaves out, and names, what breaks the rules', async () => {
    const { sql } = registry.deps.db
    const said = await everything()
    // As they come from a time before the rules, or from another program's hand.
    await push('plain/broken', 'any', { artifactType: 'a/b' })
    await push('plain/broken', 'more', {
      config: { ...emptyConfig, mediaType: 'application/vnd.stellaops.pack.config.v1+json' },
    })
    await sql`update repositories set name = 'packs/broken' where name = 'plain/broken'`
    await sql`
      update tags t set name = case t.name when 'any' then '1.0.0' else '1.1.0' end
      from repositories r where r.id = t.repository_id and r.name = 'packs/broken'`
    await push('plain/deep', '1.0.0', {})
    await sql`update repositories set name = 'packs/deep/er' where name = 'plain/deep'`
    await sql`delete from pack_dependencies`
    const [code, { leftOut, changes }] = await run()
    assert.equal(code, 11)
    assert.deepEqual(
      leftOut.map(({ repository, tag }) => [repository, tag]),
      [
        ['packs/broken', '1.0.0'],
        ['packs/broken', '1.1.0'],
        ['packs/deep/er', undefined],
      ],
    )
    assert.match(String(leftOut[0]?.reason), /artifactType must be/)
    assert.match(String(leftOut[1]?.reason), /do not describe a pack/)
    assert.deepEqual(
      changes.map(({ packId }) => packId),
      ['all', 'net', 'pushed'],
    )
    assert.equal((await registry.call('GET', '/packs/broken')).status, 404)
    assert.deepEqual(await everything(), said)
  })

  it('counts a version whose tag is gone as deleted', async () => {
    const { sql } = registry.deps.db
    await sql`delete from tags where name = '1.1.0-rc.1'`
    const [, { changes }] = await run()
    assert.deepEqual(
      changes.map(({ packId, removed }) => [packId, removed]),
      [['base', ['1.1.0-rc.1']]],
    )
    assert.equal((await registry.call('GET', '/packs/base/1.1.0-rc.1')).status, 404)
  })

  it('takes turns with publishers', async () => {
    const publishing = Array.from({ length: 10 }, (_, i) =>
      publish({ packId: 'busy', version: `1.${i}.0` }, `busy ${i}`),
    )
    const rebuilding = [run(), run()]
    await Promise.all([...publishing, ...rebuilding])
    const { versions } = (await (await registry.call('GET', '/packs/busy/versions')).json()) as { versions: Json[] }
    assert.equal(versions.length, 10)
    assert.deepEqual((await run())[1].changes, [])
  })
})
