import assert from 'node:assert/strict'
import { after, before, it } from 'node:test'
import type { Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Tag } from '../oci/reference.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { findLinkedBlobs, mountBlob, postponeReview, unlinkBlob } from './blobs.ts'
import { connect, type Sql, type Transaction } from './client.ts'
import { manifestPayloads } from './closures.ts'
import { deleteManifest, findManifests, missingBlobs } from './manifests.ts'
import { findOverrun } from './quotas.ts'
import { awaitingManifest, settleBlob } from './upstreams.ts'

let databases: TestDatabases
let sql: Sql
before(async () => {
  databases = await startDatabases()
  sql = connect(await databases.fresh(), { max: 1 })
  await fill()
})
after(async () => {
  await sql?.end({ timeout: 5 })
  await databases?.stop()
})

const shared = `sha256:${'5'.repeat(64)}` as Digest
const repository = 'many/777' as RepositoryName

/**
 * One content that 2,000 repositories have, such as an empty config, beside three of each one's own; and one repository
 * with far more than the average, which is all that the planner knows.
 */
async function fill(): Promise<void> {
  await sql`insert into repositories (name) select 'many/' || n from generate_series(1, 2000) n`
  await sql`insert into blobs (digest, size, storage_key) values (${shared}, 2, 'blobs/sha256/55/shared')`
  await sql`
    insert into blobs (digest, size, storage_key)
    select 'sha256:' || encode(sha256((r.id || '/' || n)::bytea), 'hex'), 2, 'blobs/' || r.id || '/' || n
    from repositories r, generate_series(1, 3) n`
  await sql`
    insert into repository_blobs (repository_id, digest, review_at)
    select id, ${shared}, now() + interval '1 day' from repositories
    union all select split_part(storage_key, '/', 2)::bigint, digest, null from blobs where digest <> ${shared}`
  await sql`
    insert into manifests (repository_id, digest, media_type, size, payload)
    select repository_id, digest, 'text/plain', 2, '{}' from repository_blobs`
  await sql`
    insert into tags (repository_id, name, manifest_digest) select id, 'v1', ${shared} from repositories`
  await sql`
    with more as (
      insert into manifests (repository_id, digest, media_type, size, payload)
      select id, 'sha256:' || encode(sha256(('more-' || n)::bytea), 'hex'), 'text/plain', 2, '{}'
      from repositories, generate_series(1, 300) n where name = ${repository}
      returning repository_id, digest
    )
    insert into tags (repository_id, name, manifest_digest)
    select repository_id, 'more-' || row_number() over (), digest from more`
  await sql`
    insert into awaited_blobs (repository_id, manifest_digest, blob_digest) select id, ${shared}, ${shared} from repositories`
  await sql`analyze`
}

const other = 'many/other' as RepositoryName
const asked = { repository, digest: undefined, tag: undefined, known: undefined }
const questions: [what: string, ask: (tx: Sql) => Promise<unknown>][] = [
  ['a manifest by digest', (tx) => findManifests(tx, [{ ...asked, digest: shared }])],
  ['a manifest by tag', (tx) => findManifests(tx, [{ ...asked, tag: 'v1' as Tag }])],
  [
    'manifests together',
    (tx) =>
      findManifests(tx, [
        { ...asked, digest: shared },
        { ...asked, tag: 'v1' as Tag },
        { ...asked, tag: 'more-7' as Tag },
      ]),
  ],
  ['the bytes of manifests', (tx) => manifestPayloads(tx, repository, [shared])],
  ['a blob', (tx) => findLinkedBlobs(tx, [{ repository, digest: shared }])],
  [
    'blobs together',
    (tx) =>
      findLinkedBlobs(
        tx,
        ['many/1', 'many/2'].map((name) => ({ repository: name as RepositoryName, digest: shared })),
      ),
  ],
  ['what a manifest lacks', (tx) => missingBlobs(tx, repository, [shared])],
  ['a mount', (tx) => mountBlob(tx, { from: repository, to: other, digest: shared }, 60)],
  ['a link that is to stay a while', (tx) => postponeReview(tx, { repository, digest: shared }, 60)],
  ['what awaits a blob', (tx) => awaitingManifest(tx, { repository, digest: shared })],
  ['a blob that was awaited', (tx) => settleBlob(tx, { repository, digest: shared })],
  ['room for a blob', (tx) => findOverrun(tx, { repository, bytes: 1, digest: shared })],
  ['the removal of a link', (tx) => unlinkBlob(tx, { repository, digest: shared }, 60)],
  [
    'the deletion of a manifest',
    (tx) => deleteManifest(tx as unknown as Transaction, { repository, digest: shared }, 60),
  ],
]

/** Rows of tables that have been read so far, and not been told to the statistics yet. */
async function rowsRead(tx: Transaction): Promise<number> {
  const [row] = await tx<{ rows: number }[]>`
    select sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::int as rows from pg_stat_xact_user_tables`
  return row?.rows ?? 0
}

for (const [what, question] of questions)
  it(`${what}: content that many repositories have is found in one without a look at others`, async () => {
    class Undone extends Error {}
    const done = sql.begin(async (tx) => {
      // As it is once a statement has been asked a few times.
      await tx`set local plan_cache_mode = force_generic_plan`
      const before = await rowsRead(tx)
      await question(tx as unknown as Sql)
      const rows = (await rowsRead(tx)) - before
      assert.ok(rows > 0 && rows < 100, `${rows} rows read`)
      throw new Undone()
    })
    await assert.rejects(done, (error) => {
      if (!(error instanceof Undone)) throw error
      return true
    })
  })
