import { type KeyKind, type ObjectKey, parseKey } from '../blobs/keys.ts'
import { ask } from '../db/client.ts'
import { type NewFinding, orphansOf, resolveFinding } from '../db/findings.ts'
import { namedObjects, queueOrphan } from '../db/scrub.ts'
import { report } from './damage.ts'
import type { Pass } from './scrub.ts'

type Listed = { key: ObjectKey; size: number; modifiedAt: Date }

const batchObjects = 1000
/** More orphans than this, and than a tenth of all objects: this may not be the database of this store at all. */
const fewOrphans = 100

/**
 * Looks at every object of the store. The list has no order to go on in, so a pass that was left begins it again: that
 * reads no bytes.
 */
export async function reconcileObjects(pass: Pass): Promise<void> {
  const { deps, run } = pass
  run.objects = 0
  let orphans = 0
  let batch: Listed[] = []
  const flush = async () => {
    orphans += await findOrphans(pass, batch)
    run.objects += batch.length
    batch = []
    await pass.save()
  }
  for await (const object of deps.blobs.list('')) {
    batch.push(object)
    if (batch.length >= batchObjects) await flush()
  }
  await flush()
  if (!pass.repair || orphans === 0) return
  if (orphans > fewOrphans && orphans > run.objects / 10 && !pass.dropMany) {
    pass.spared = orphans
    deps.log.error(
      { orphans, objects: run.objects },
      'so many objects are unknown to this database that it may not be the one of this store: none of them was dropped',
    )
    return
  }
  await dropOrphans(pass)
}

/** Writes down those of these objects that no row names; answers how many are orphans. See the protocol in scrub.ts. */
async function findOrphans(pass: Pass, batch: readonly Listed[]): Promise<number> {
  const { deps, run } = pass
  if (batch.length === 0) return 0
  const named = await namesOf(pass, batch)
  const oldest = Date.now() - pass.orphanAgeSeconds * 1000
  let orphans = 0
  for (const { key, size, modifiedAt } of batch) {
    if (named.has(key) || modifiedAt.getTime() > oldest) continue
    if ((await deps.blobs.size(key)) === undefined) continue
    const finding = findingOf(key, size, modifiedAt)
    await ask(deps.db, (sql) => sql.begin((tx) => report(deps, tx, finding)))
    run.found++
    if (finding.kind !== 'odd-object') orphans++
  }
  return orphans
}

function namesOf({ deps }: Pass, batch: readonly Listed[]): Promise<Set<string>> {
  const uploads = new Set(
    batch.flatMap(({ key }) => {
      const { uploadId } = partsOf(key)
      return uploadId === undefined ? [] : [uploadId]
    }),
  )
  const keys = batch.map(({ key }) => key)
  return ask(deps.db, (sql) => namedObjects(sql, keys, [...uploads]))
}

function findingOf(key: ObjectKey, size: number, modifiedAt: Date): NewFinding {
  const parsed = parseKey(key)
  const kinds: Record<KeyKind['kind'], NewFinding['kind']> = {
    blob: 'orphan-object',
    chunk: 'orphan-chunk',
    export: 'orphan-object',
    quarantine: 'orphan-object',
    probe: 'orphan-object',
  }
  return {
    kind: parsed ? kinds[parsed.kind] : 'odd-object',
    digest: partsOf(key).digest,
    ...{ key, size, expected: 'a row that names it', actual: `none; it is of ${modifiedAt.toISOString()}` },
  }
}

/** The content, or the upload session, that a key belongs to. */
function partsOf(key: ObjectKey) {
  const parsed = parseKey(key)
  return {
    digest: parsed?.kind === 'blob' ? parsed.digest : undefined,
    uploadId: parsed?.kind === 'chunk' ? parsed.uploadId : undefined,
  }
}

/** Queues the orphans of this pass for deletion; what is none of ours stays. */
async function dropOrphans(pass: Pass): Promise<void> {
  const { deps, run } = pass
  for (let after = 0; ; ) {
    const from = after
    const page = await ask(deps.db, (sql) => orphansOf(sql, { runId: run.id, after: from, limit: batchObjects }))
    for (const { id, key } of page) {
      const dropped = await ask(deps.db, (sql) =>
        sql.begin(async (tx) => {
          if (!(await queueOrphan(tx, { key, ...partsOf(key) }))) return false
          await resolveFinding(tx, id, 'queued for deletion')
          return true
        }),
      )
      if (dropped) run.repaired++
      after = id
    }
    await pass.save()
    if (page.length < batchObjects) return
  }
}
