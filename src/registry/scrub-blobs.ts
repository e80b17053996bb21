import { hashObject } from '../blobs/hash.ts'
import { type ObjectKey, parseKey } from '../blobs/keys.ts'
import { ask } from '../db/client.ts'
import { markVerified } from '../db/damage.ts'
import { resolveVerified } from '../db/findings.ts'
import { type BlobRow, blobsAfter } from '../db/scrub.ts'
import { Failure } from '../errors.ts'
import { algorithmOf, type Digest } from '../oci/digest.ts'
import { type Damage, report, reportDamage } from './damage.ts'
import type { Pass } from './scrub.ts'
import { repairBlob } from './scrub-repair.ts'

const pageRows = { full: 500, quick: 2000 }
/** A page that is hashed ends here at the latest: that much is done again after a crash. */
const pageBytes = 256 * 1024 * 1024
/** Hashing is this thread's work; the others read. A look at an object is only a wait. */
const atOnce = { full: 4, quick: 16 }

/** Looks at every blob, by its digest, from where the pass stands. */
export async function checkBlobs(pass: Pass): Promise<void> {
  const { deps, run, mode } = pass
  for (;;) {
    const rows = await ask(deps.db, (sql) => blobsAfter(sql, run.position, pageRows[mode]))
    const page = mode === 'full' ? cutAt(rows, pageBytes) : rows
    const last = page.at(-1)
    if (!last) return
    const judged = await inParallel(page, atOnce[mode], (blob) => judge(pass, blob))
    await settle(
      pass,
      judged.flatMap((verdict) => (verdict.is === 'verified' ? [verdict.blob] : [])),
    )
    for (const verdict of judged) if (verdict.is === 'wrong') await handle(pass, verdict.damage)
    run.position = last.digest
    run.blobs += page.length
    await pass.save()
  }
}

/** The first rows, up to so many bytes, and at least one. */
function cutAt(rows: readonly BlobRow[], bytes: number): BlobRow[] {
  let sum = 0
  return rows.filter(({ size }, i) => {
    sum += size
    return i === 0 || sum <= bytes
  })
}

type Verdict = { is: 'there' } | { is: 'verified'; blob: BlobRow } | { is: 'wrong'; damage: Damage }

async function judge(pass: Pass, blob: BlobRow): Promise<Verdict> {
  const { digest, size, key } = blob
  const wrong = (kind: Damage['kind'], expected: string, actual: string): Verdict => ({
    is: 'wrong',
    damage: { kind, digest, key, size, expected, actual },
  })
  if (pass.mode === 'quick' && !blob.damaged) {
    const there = await pass.deps.blobs.size(key)
    if (there === size && isProper(blob)) return { is: 'there' }
  }
  const read = await readObject(pass, key, digest)
  if (read === undefined) return wrong('object-missing', `${size} bytes`, 'no object')
  if (read instanceof Error) return wrong('unreadable', digest, inWords(read))
  if (read.digest !== digest)
    return wrong('wrong-bytes', `${digest}, ${size} bytes`, `${read.digest}, ${read.size} bytes`)
  if (read.size !== size) return wrong('wrong-size', `${size} bytes`, `${read.size} bytes`)
  if (!isProper(blob)) return wrong('odd-key', 'a key of its digest', key)
  return { is: 'verified', blob }
}

function isProper({ key, digest }: BlobRow): boolean {
  const parsed = parseKey(key)
  return parsed?.kind === 'blob' && parsed.digest === digest
}

/** What is read of an object; an Error where it alone cannot be read, while the store as a whole answers. */
async function readObject(
  { deps, run, pace, signal }: Pass,
  key: ObjectKey,
  digest: Digest,
): Promise<{ digest: Digest; size: number } | Error | undefined> {
  const counted = (bytes: number) => {
    run.bytes += bytes
    deps.metrics.scrubbedBytes.inc(bytes)
    return pace(bytes)
  }
  for (let tries = 1; ; tries++) {
    try {
      const read = await hashObject(deps.blobs, key, algorithmOf(digest), counted)
      deps.metrics.scrubbedObjects.inc()
      return read
    } catch (error) {
      signal.throwIfAborted()
      if (!(error instanceof Failure) || error.key !== 'UNAVAILABLE') throw error
      await deps.blobs.ping()
      if (tries > 1) return error
    }
  }
}

function inWords({ cause, message }: Error): string {
  return cause instanceof Error ? cause.message : message
}

/** What was hashed and is right. */
async function settle({ deps }: Pass, right: readonly BlobRow[]): Promise<void> {
  if (right.length === 0) return
  await ask(deps.db, (sql) => markVerified(sql, right))
  const damaged = right.filter((blob) => blob.damaged).map(({ digest }) => digest)
  if (damaged.length > 0) await ask(deps.db, (sql) => resolveVerified(sql, damaged))
}

async function handle(pass: Pass, damage: Damage): Promise<void> {
  const { deps, run } = pass
  // Content at an odd key can be served all the same.
  const noted =
    damage.kind === 'odd-key'
      ? await ask(deps.db, (sql) => sql.begin((tx) => report(deps, tx, damage)))
      : await reportDamage(deps, damage)
  if (!noted) return
  run.found++
  if (pass.repair && (await repairBlob(pass, noted, damage))) run.repaired++
}

/** The results of a task for each item, some at a time, in their order. The first error ends it. */
async function inParallel<T, R>(items: readonly T[], workers: number, task: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = new Array(items.length)
  const rest = items.entries()
  const work = async () => {
    // They share one iterator: each item goes to whoever is free.
    for (const [i, item] of rest) results[i] = await task(item)
  }
  await Promise.all(Array.from({ length: Math.min(workers, items.length) }, work))
  return results
}
