import { hashObject } from '../blobs/hash.ts'
import { blobKey, generationsOf, type ObjectKey, parseKey, quarantineKey } from '../blobs/keys.ts'
import { ask } from '../db/client.ts'
import { correctSize, markVerified, repoint } from '../db/damage.ts'
import { queueDeletions } from '../db/deletions.ts'
import { type Noted, nameObject, resolveFinding } from '../db/findings.ts'
import { Failure } from '../errors.ts'
import { algorithmOf } from '../oci/digest.ts'
import type { Damage } from './damage.ts'
import type { Pass } from './scrub.ts'

/**
 * Sets right what is wrong with a blob, where the store itself has what it takes; false where only a new push can. See the
 * protocol in scrub.ts. Wrong bytes are kept aside, whatever becomes of the rest.
 */
export async function repairBlob(pass: Pass, noted: Noted, damage: Damage): Promise<boolean> {
  if (damage.kind === 'wrong-size') return resize(pass, noted, damage)
  if (damage.kind === 'odd-key') return copyFrom(pass, noted, damage, damage.key, 'copied to a proper key')
  const isThere = damage.kind !== 'object-missing'
  const isAside = noted.isQuarantined || (isThere && (await quarantine(pass, noted, damage)))
  for (const source of await otherGenerations(pass, damage))
    if (await copyFrom(pass, noted, damage, source, `re-linked from ${source}`)) return true
  // The row points at nothing from here on; it is damaged, so nobody reads it.
  if (isAside && isThere) await pass.deps.blobs.delete([damage.key])
  return false
}

async function resize({ deps }: Pass, { id }: Noted, damage: Damage): Promise<boolean> {
  const actual = Number.parseInt(damage.actual ?? '', 10)
  return ask(deps.db, (sql) =>
    sql.begin(async (tx) => {
      if (!(await correctSize(tx, { ...damage, size: actual }))) return false
      await markVerified(tx, [damage])
      await resolveFinding(tx, id, `size corrected to ${actual}`)
      return true
    }),
  )
}

/** Copies the wrong bytes to where they are never served; false where they are gone, or the store cannot even copy them. */
async function quarantine({ deps }: Pass, { id }: Noted, { digest, key }: Damage): Promise<boolean> {
  const aside = quarantineKey(digest)
  await ask(deps.db, (sql) => nameObject(sql, id, 'quarantine_key', aside))
  try {
    if (await deps.blobs.link(key, aside)) return true
  } catch (error) {
    deps.log.warn({ error, key }, 'wrong bytes could not be put into quarantine')
  }
  await ask(deps.db, (sql) => nameObject(sql, id, 'quarantine_key', null))
  return false
}

/** Other objects of the same content, the newest first: orphans, or what waits to be deleted. */
async function otherGenerations({ deps }: Pass, { digest, key }: Damage): Promise<ObjectKey[]> {
  const found: { key: ObjectKey; modifiedAt: Date }[] = []
  for await (const object of deps.blobs.list(generationsOf(digest)))
    if (object.key !== key && parseKey(object.key)?.kind === 'blob') found.push(object)
  return found.sort((a, b) => b.modifiedAt.getTime() - a.modifiedAt.getTime()).map((object) => object.key)
}

/** Points the blob at a copy of an object, if that one hashes right. The copy is its own: what it is of may be deleted. */
async function copyFrom(
  { deps, pace }: Pass,
  { id }: Noted,
  { digest, key }: Damage,
  source: ObjectKey,
  how: string,
): Promise<boolean> {
  const copy = blobKey(digest)
  await ask(deps.db, (sql) => nameObject(sql, id, 'copy_key', copy))
  const size = await copyObject(deps, { source, copy, digest, pace })
  if (size === undefined) return false
  const done = await ask(deps.db, (sql) =>
    sql.begin(async (tx) => {
      if (!(await repoint(tx, { digest, from: key, to: copy, size }))) return false
      await resolveFinding(tx, id, how)
      return true
    }),
  )
  // Somebody has pushed it in the meantime, or it was collected.
  if (!done) await ask(deps.db, (sql) => queueDeletions(sql, [copy]))
  return done
}

/** Answers the size of the copy; undefined where the source is not right, or has just been deleted. */
async function copyObject(
  deps: Pass['deps'],
  { source, copy, digest, pace }: { source: ObjectKey; copy: ObjectKey; digest: Damage['digest']; pace: Pass['pace'] },
): Promise<number | undefined> {
  try {
    const read = await hashObject(deps.blobs, source, algorithmOf(digest), pace)
    if (read?.digest !== digest) return undefined
    return (await deps.blobs.link(source, copy)) ? read.size : undefined
  } catch (error) {
    if (error instanceof Failure) await deps.blobs.ping()
    deps.log.warn({ error, source }, 'an object could not be used for a repair')
    return undefined
  }
}
