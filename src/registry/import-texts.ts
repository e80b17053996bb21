import type { ObjectKey } from '../blobs/keys.ts'
import { askRead } from '../db/client.ts'
import { heldKeys } from '../db/held.ts'
import type { Deps } from '../deps.ts'
import { algorithmOf, type Digest, digestOf } from '../oci/digest.ts'
import { maxConfigBytes } from '../packs/artifact.ts'

/**
 * Reads configs: most are at hand from the moment they came by, others are read from where they went, or from what the
 * registry holds. `sizes`: of everything that the importer has a right to by the file; nothing else is read, however well
 * the registry knows it. Undefined where there is none, or it is no config by its size.
 */
export function openTexts(
  deps: Deps,
  atHand: ReadonlyMap<Digest, Buffer>,
  sizes: ReadonlyMap<Digest, number>,
  keys: ReadonlyMap<Digest, ObjectKey>,
): (digest: Digest) => Promise<Buffer | undefined> {
  return async (digest) => {
    const size = sizes.get(digest)
    if (size === undefined || size > maxConfigBytes) return undefined
    return atHand.get(digest) ?? deps.bytes.get(digest) ?? (await contentOf(deps, digest, keys))
  }
}

/**
 * Content of a file, from where it went, or else from what the registry holds. The caller knows that it is in the file, and
 * its size. Undefined where it is gone.
 */
export async function contentOf(
  deps: Deps,
  digest: Digest,
  keys: ReadonlyMap<Digest, ObjectKey>,
): Promise<Buffer | undefined> {
  const key = keys.get(digest) ?? (await askRead(deps.db, (sql) => heldKeys(sql, [digest]))).get(digest)
  const bytes = key && (await deps.blobs.read(key))
  return bytes && digestOf(bytes, algorithmOf(digest)) === digest ? bytes : undefined
}
