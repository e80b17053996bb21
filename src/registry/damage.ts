import type { ObjectKey } from '../blobs/keys.ts'
import { ask, type Transaction } from '../db/client.ts'
import { markDamaged } from '../db/damage.ts'
import { recordEvents } from '../db/events.ts'
import { type NewFinding, type Noted, noteFinding, placesOf } from '../db/findings.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import type { Digest } from '../oci/digest.ts'

/** Writes down what is wrong, and tells of it the first time: in the log, and to whoever listens to events. */
export async function report(deps: Deps, tx: Transaction, finding: NewFinding): Promise<Noted> {
  const noted = await noteFinding(tx, finding)
  if (noted.isNew) {
    const { kind, digest, key, repository, size, expected, actual } = finding
    const isContent = digest !== undefined && repository === undefined && !kind.startsWith('orphan')
    const repositories = repository ? [repository] : isContent ? await placesOf(tx, digest) : []
    const facts = { kind, digest, key, size, expected, actual, repositories }
    await recordEvents(tx, [{ type: 'scrub.finding', subject: digest ?? key ?? kind, data: facts }])
    deps.log.error(facts, 'the store and the database do not agree: see "packs scrub findings"')
  }
  return noted
}

/** What is wrong with the object of a blob. */
export type Damage = NewFinding & { digest: Digest; key: ObjectKey }

/** Writes damage down, unless the blob has gone or points at another object by now; undefined then. */
export function reportDamage(deps: Deps, damage: Damage): Promise<Noted | undefined> {
  return ask(deps.db, (sql) =>
    sql.begin(async (tx) => ((await markDamaged(tx, damage)) ? await report(deps, tx, damage) : undefined)),
  )
}

/**
 * What to answer where a linked blob could not be read. Either the collector was faster than this request; or the store
 * has lost the object, or a part of it: then that is written down, once, and from then on the content counts as not
 * there, so that whoever has it can push it again.
 * Throws UNAVAILABLE where the store as a whole does not answer: a folder that is not mounted has lost nothing.
 */
export async function gone(
  deps: Deps,
  digest: Digest,
  { key, size }: { key?: ObjectKey | undefined; size?: number | undefined } = {},
): Promise<Failure> {
  if (key !== undefined) {
    await deps.blobs.ping()
    const actual = await deps.blobs.size(key)
    const about = { digest, key, size, expected: size === undefined ? undefined : `${size} bytes` }
    if (actual === undefined) await reportDamage(deps, { ...about, kind: 'object-missing', actual: 'no object' })
    else if (size !== undefined && actual !== size)
      await reportDamage(deps, { ...about, kind: 'wrong-bytes', actual: `${actual} bytes` })
  }
  return new Failure('BLOB_UNKNOWN', {
    detail: { digest, advice: 'the registry does not have these bytes any more; push the content again' },
  })
}
