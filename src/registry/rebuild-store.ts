import { hashObject } from '../blobs/hash.ts'
import { contentFolders, type ObjectKey, parseKey } from '../blobs/keys.ts'
import { ask } from '../db/client.ts'
import { enterFound, type FoundBlob, healFound, holdDeletions, knownBlobs, linkFound } from '../db/rebuild-store.ts'
import { namedObjects } from '../db/scrub.ts'
import type { Deps } from '../deps.ts'
import { algorithmOf, type Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'

// When the database is lost, or restored from a backup that is older than the store: the rows of blobs follow from the
// objects alone, whose keys say their digests. What cannot come back from the store is what the database alone knows:
// repositories, manifests, tags, packs, tokens. So content is held, and in no repository, unless it is linked into one:
// from there clients mount it, or read it by its digest. Who pushes it again sends the bytes, which are hashed and not
// stored once more. It stays for `keepSeconds`, far longer than the grace, and is then collected where nobody refers to it.
//
// Beside a running server: while a row is made nobody queues an object for deletion, and what is queued afterwards is
// looked for among the rows before. What is still there then, and is not queued, was not taken away between the listing
// and the row. A push that commits it in the same moment finds our row, which names its own object; one that is refused
// leaves us the object.

export type StoreRebuild = {
  /** Objects under blobs/ that no row names. */
  objects: number
  bytes: number
  /** Rows that were made, and damaged ones that were given an object. */
  added: number
  healed: number
  /** Objects whose bytes are not what their key says, and keys that are none of ours. */
  wrong: ObjectKey[]
}

export type StoreRebuildOptions = {
  /** Take the digest of an object from its key, and read nothing. A scrub then finds what is wrong. */
  trust: boolean
  keepSeconds: number
  link?: RepositoryName | undefined
  signal?: AbortSignal | undefined
  onProgress?: ((soFar: StoreRebuild) => void) | undefined
}

const batchBlobs = 500
/** Rows of one transaction: nobody's deletions wait longer than it takes to ask for so many objects at once. */
const enteredAtOnce = 100

/** Makes the rows of blobs from the objects. Of several objects of one content the newest that is right wins. */
export async function rebuildFromStore(deps: Deps, options: StoreRebuildOptions): Promise<StoreRebuild> {
  const { signal, onProgress } = options
  const done: StoreRebuild = { objects: 0, bytes: 0, added: 0, healed: 0, wrong: [] }
  for (const folder of contentFolders()) {
    const contents = [...(await unnamedIn(deps, folder, done))]
    for (let at = 0; at < contents.length; at += enteredAtOnce) {
      signal?.throwIfAborted()
      await enter(deps, contents.slice(at, at + enteredAtOnce), options, done)
      onProgress?.(done)
    }
  }
  return done
}

type Listed = { key: ObjectKey; size: number; modifiedAt: Date }

/** The objects of a folder that no row names, by their content: some ten thousand in a store of ten million. */
async function unnamedIn(deps: Deps, folder: string, done: StoreRebuild): Promise<Map<Digest, Listed[]>> {
  const found = new Map<Digest, Listed[]>()
  let batch: (Listed & { digest: Digest })[] = []
  const flush = async () => {
    const keys = batch.map(({ key }) => key)
    const named = keys.length === 0 ? new Set() : await ask(deps.db, (sql) => namedObjects(sql, keys, []))
    for (const object of batch.filter(({ key }) => !named.has(key)))
      found.set(object.digest, [...(found.get(object.digest) ?? []), object])
    batch = []
  }
  for await (const object of deps.blobs.list(folder)) {
    const parsed = parseKey(object.key)
    if (parsed?.kind !== 'blob') {
      done.wrong.push(object.key)
      continue
    }
    batch.push({ ...object, digest: parsed.digest })
    if (batch.length >= batchBlobs) await flush()
  }
  await flush()
  return found
}

async function enter(
  deps: Deps,
  contents: readonly (readonly [Digest, Listed[]])[],
  { trust, keepSeconds, link }: StoreRebuildOptions,
  done: StoreRebuild,
): Promise<void> {
  const known = await ask(deps.db, (sql) =>
    knownBlobs(
      sql,
      contents.map(([digest]) => digest),
    ),
  )
  const [fresh, healing]: [FoundBlob[], FoundBlob[]] = [[], []]
  for (const [digest, objects] of contents) {
    done.objects += objects.length
    const row = known.get(digest)
    // What has a right object needs no other one.
    if (row && !row.damaged) continue
    const blob = await newestRight(deps, digest, objects, trust, done)
    if (blob) (row ? healing : fresh).push(blob)
  }
  if (fresh.length + healing.length === 0) return
  const found = { keepSeconds, verified: !trust }
  await ask(deps.db, (sql) =>
    sql.begin(async (tx) => {
      await holdDeletions(tx)
      const there = await stillThere(deps, fresh)
      done.added += await enterFound(tx, there, found)
      done.healed += await healFound(tx, await stillThere(deps, healing), found)
      const digests = there.map(({ digest }) => digest)
      if (link) await linkFound(tx, link, digests, keepSeconds)
    }),
  )
}

async function stillThere(deps: Deps, blobs: readonly FoundBlob[]): Promise<FoundBlob[]> {
  const sizes = await Promise.all(blobs.map(({ key }) => deps.blobs.size(key)))
  return blobs.filter((_, i) => sizes[i] !== undefined)
}

async function newestRight(
  deps: Deps,
  digest: Digest,
  objects: readonly Listed[],
  trust: boolean,
  done: StoreRebuild,
): Promise<FoundBlob | undefined> {
  const newestFirst = objects.toSorted((a, b) => b.modifiedAt.getTime() - a.modifiedAt.getTime())
  for (const { key, size } of newestFirst) {
    const read = trust ? { digest, size } : await hashObject(deps.blobs, key, algorithmOf(digest), () => undefined)
    if (read) done.bytes += read.size
    if (read?.digest === digest) return { digest, size: read.size, key }
    if (read) done.wrong.push(key)
  }
  return undefined
}
