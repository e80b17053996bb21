import { join } from 'node:path'
import { connect } from '../../src/db/client.ts'
import { startEmbedded } from '../../src/db/embedded.ts'
import { atEnd, scratchFolder } from './cleanup.ts'
import { startPacks } from './contestants.ts'
import { latencyOf } from './latency.ts'
import type { Options } from './main.ts'
import { content, manifestOf, putBlob, putManifest } from './oci.ts'
import type { Verdict } from './verdicts.ts'
import { expectStatus, Wire } from './wire.ts'

const tagCount = 100_000
const mostMilliseconds = 20
const deletions = 200
const repository = 'bench/cleaning'

/** Deletes tags of a repository that has very many. */
export async function cleanUpTags({ processes, dir }: Options): Promise<Verdict[]> {
  const folder = await scratchFolder(dir)
  const database = await startEmbedded({ dataDir: join(folder, 'database') })
  atEnd(() => database.stop())
  const { origin } = await startPacks({ folder, label: 'delete', processes, env: { DATABASE_URL: database.url } })
  const wire = new Wire(origin)
  const config = content(Buffer.from('{}'))
  await putBlob(wire, repository, config)
  await putManifest(wire, repository, 'first', manifestOf(config, []))
  const sql = connect(database.url, { max: 1 })
  await sql`
    insert into tags (repository_id, name, manifest_digest)
    select m.repository_id, 'v' || lpad(n::text, 6, '0'), m.digest
    from manifests m join repositories r on r.id = m.repository_id, generate_series(1, ${tagCount}::int) n
    where r.name = ${repository}`
  await sql`vacuum analyze`
  await sql.end()
  const milliseconds: number[] = []
  for (let n = 0; n < deletions; n++) {
    const tag = `v${String(1 + n * Math.floor(tagCount / deletions)).padStart(6, '0')}`
    const started = performance.now()
    expectStatus(await wire.request('DELETE', `/v2/${repository}/manifests/${tag}`), 202, `DELETE ${tag}`)
    milliseconds.push(performance.now() - started)
  }
  wire.close()
  const { p50, p99 } = latencyOf(milliseconds)
  return [
    {
      title: `a tag of ${tagCount.toLocaleString('en-US')} deleted, p50 / p99`,
      target: `p99 < ${mostMilliseconds} ms`,
      figure: `${p50.toFixed(2)} / ${p99.toFixed(2)} ms`,
      met: p99 < mostMilliseconds,
    },
  ]
}
