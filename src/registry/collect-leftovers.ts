import type { ObjectKey } from '../blobs/keys.ts'
import { ask } from '../db/client.ts'
import { queueDeletions } from '../db/deletions.ts'
import { stagedChunks } from '../db/uploads.ts'
import type { Deps } from '../deps.ts'
import { discard } from './deletions.ts'

// What crashes leave in the store, and no row tells of: temp files, multipart uploads that nobody will complete, staged
// chunks whose process died between the object and the row. Only age tells these from work under way, so it is far above
// what a request can last. Content (blobs/) without a row is another matter: scrub holds store and database against each
// other.

/** How long it must not have been touched, in seconds. An upload session lives half as long without a chunk. */
const leftoverSeconds = 48 * 60 * 60

/** Something in the store that is of no use. `name`: where, for a person. */
export type Leftover = {
  kind: 'staged object' | 'multipart upload' | 'file'
  name: string
  size: number | undefined
  since: Date
  remove(): Promise<void>
}

/** Everything that has been left, as the store lists it. */
export async function* findLeftovers(deps: Deps, { ageSeconds = leftoverSeconds } = {}): AsyncGenerator<Leftover> {
  const before = new Date(Date.now() - ageSeconds * 1000)
  yield* deps.blobs.unfinished(before)
  yield* stagedWithoutRow(deps, before)
}

type Staged = { key: ObjectKey; size: number; modifiedAt: Date }

/** As many as are held against the database at once. */
const mostAtOnce = 1000

async function* stagedWithoutRow(deps: Deps, before: Date): AsyncGenerator<Leftover> {
  let old: Staged[] = []
  for await (const object of deps.blobs.list('uploads/')) {
    if (object.modifiedAt >= before) continue
    old.push(object)
    if (old.length < mostAtOnce) continue
    yield* unnamed(deps, old)
    old = []
  }
  yield* unnamed(deps, old)
}

const sessionId = /^uploads\/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\//

/** Those that no session names. An object is named within a moment of its birth, or never. */
async function* unnamed(deps: Deps, objects: readonly Staged[]): AsyncGenerator<Leftover> {
  const ids = objects.flatMap(({ key }) => sessionId.exec(key)?.[1] ?? [])
  const named = ids.length === 0 ? new Set() : await ask(deps.db, (sql) => stagedChunks(sql, [...new Set(ids)]))
  for (const { key, size, modifiedAt: since } of objects) {
    if (named.has(key)) continue
    const remove = async () => {
      await ask(deps.db, (sql) => queueDeletions(sql, [key]))
      await discard(deps, [key])
    }
    yield { kind: 'staged object', name: key, size, since, remove }
  }
}

/** What a sweep removed. */
export type Swept = { files: number; multipartUploads: number; stagedObjects: number }

/** Removes everything that has been left. */
export async function sweepLeftovers(
  deps: Deps,
  { signal, ageSeconds = leftoverSeconds }: { signal?: AbortSignal | undefined; ageSeconds?: number } = {},
): Promise<Swept> {
  const swept = { files: 0, multipartUploads: 0, stagedObjects: 0 }
  for await (const { kind, remove } of findLeftovers(deps, { ageSeconds })) {
    signal?.throwIfAborted()
    await remove()
    if (kind === 'file') swept.files++
    else if (kind === 'multipart upload') swept.multipartUploads++
    else swept.stagedObjects++
  }
  return swept
}
