import type { IncomingMessage } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { askFor, notOurs, objectIn } from './answers.ts'
import { ask, type Connection, jsonBody, send, unreachable } from './connection.ts'
import { PacksError, unlessCancelled } from './failure.ts'
import type { Lock } from './lock.ts'
import type { PackType } from './pack.ts'
import { Passing, persist } from './retry.ts'

/** What is to go into a bundle file: roots with all they need, or all there is. */
export type BundleRequest = {
  /** Packs with ranges: `{ packId, version }`, or `net-rules@^1.2.0`. */
  roots?: readonly ({ packId: string; version: string } | string)[]
  /** Every version of every pack; instead of roots, and without runner, channel and lock. */
  all?: true
  runner?: string
  channel?: string
  lock?: Lock
  /** Signatures, SBOMs and whatever else hangs on a pack: taken along unless false. */
  referrers?: boolean
  /** Channels that point at what goes in: taken along unless false. */
  channels?: boolean
  /** What the receiver's registry answers as its inventory: blobs that it lists are left out. */
  inventory?: unknown
}

export type BundleProblem = { code: string; detail: string; about?: Record<string, unknown> }

/** A bundle as it would be now. Sizes in bytes; those of packs are of their content. */
export type BundlePlan = {
  /** Everything that keeps it from being made; then there is no `file`. */
  problems: BundleProblem[]
  packs: { packId: string; version: string; type: PackType; size: number; manifestDigest: string }[]
  channels: { packId: string; channel: string; manifestDigest: string }[]
  referrers: { digest: string; size: number; mediaType: string; artifactType?: string; subject: string }[]
  /** What the receiver has, and is not in it. */
  leftOut: { blobs: number; bytes: number }
  inventory?: { digest: string; signature: 'trusted' | 'unknown' | 'none' }
  /** Key ids. */
  signedBy: string[]
  file: PlannedBundle | undefined
}

/** A file that can be fetched until `expiresAt`. `blobs`, `bytes`: files under blobs/ in it, and the sum of their sizes. */
export type PlannedBundle = {
  id: string
  /** The digest of index.json in it. */
  index: string
  size: number
  blobs: number
  bytes: number
  /** Of the whole file, where it is small enough for the registry to know it. */
  sha256?: string
  expiresAt: string
}

type Cancellable = { signal?: AbortSignal | undefined }

/** Bundle files that leave a registry. */
export type Bundles = {
  /** What would go into a bundle. The file that it names can be fetched as it is, whatever is published since. */
  plan(request: BundleRequest, options?: Cancellable): Promise<BundlePlan>
  /**
   * The bytes of a planned file from byte `from` on, as they come; a connection that breaks off is taken up again. They
   * are not verified here: the file carries the digests of all that is in it. Throws BUNDLE_GONE, BUNDLE_UNKNOWN, and
   * SIZE_MISMATCH before a byte that is beyond the size is given.
   */
  read(
    file: Pick<PlannedBundle, 'id' | 'size'>,
    options?: Cancellable & { from?: number },
  ): AsyncGenerator<Buffer, void, undefined>
  /** What the registry holds, for others to leave it out of what they send: a JSON document, signed where it has a key. */
  inventory(options?: Cancellable): Promise<Uint8Array>
}

export function bundlesOf(connection: Connection): Bundles {
  return {
    async plan(request, { signal } = {}) {
      const call = { method: 'POST' as const, path: '/bundles/plan', body: jsonBody(request), signal }
      const { id, index, size, blobs, bytes, sha256, expiresAt, ...plan } = await askFor<
        Omit<BundlePlan, 'file'> & Partial<PlannedBundle>
      >(connection, 'problems', call)
      const file = { id, index, size, blobs, bytes, expiresAt, ...(sha256 === undefined ? {} : { sha256 }) }
      return { ...plan, file: id === undefined ? undefined : (file as PlannedBundle) }
    },
    read: ({ id, size }, options = {}) => readFile(connection, { path: `/bundles/${id}`, etag: id, size }, options),
    async inventory({ signal } = {}) {
      const call = { path: '/inventory', signal }
      const { bytes } = await ask(connection, call)
      if (typeof objectIn(bytes)?.payload !== 'string') throw notOurs(connection, call)
      return bytes
    },
  }
}

/** A try that brought so much does not count as a failed one, in bytes. */
const gain = 1024 * 1024

/** The bytes of a file that never changes from byte `from` on; a connection that breaks off is taken up again. */
export async function* readFile(
  connection: Connection,
  { path, etag, size }: { path: string; etag: string; size: number },
  { from = 0, signal }: Cancellable & { from?: number },
): AsyncGenerator<Buffer, void, undefined> {
  let failed = 0
  for (let at = from; at < size; ) {
    const began = at
    const headers = { range: `bytes=${at}-`, 'if-range': `"${etag}"` }
    const answer = await persist(connection, signal, () => send(connection, { path, headers, signal, anywhere: true }))
    try {
      requirePart(answer, at, size)
      for await (const piece of answer as AsyncIterable<Buffer>) {
        if (at + piece.length > size)
          throw new PacksError('SIZE_MISMATCH', `the bundle has ${size} bytes, but more arrived`)
        at += piece.length
        yield piece
      }
      if (at === began)
        throw new Passing(new PacksError('UNREACHABLE', `${connection.base} sends nothing of the bundle`))
    } catch (error) {
      const failure = unreachable(new URL(connection.base), error)
      unlessCancelled(signal)
      if (!(failure instanceof Passing)) throw failure
      failed = at - began >= gain ? 1 : failed + 1
      if (failed >= connection.attempts) throw failure.failure
      const pauseMs = connection.baseDelayMs * 2 ** (failed - 1)
      await sleep(pauseMs, undefined, signal ? { signal } : {}).catch(() => unlessCancelled(signal))
    } finally {
      answer.destroy()
    }
  }
}

/** Refuses an answer that is not exactly the rest of the file, before a byte of it is read. */
function requirePart({ statusCode, headers }: IncomingMessage, first: number, size: number): void {
  const [, from, total] = /^bytes (\d+)-\d+\/(\d+)$/.exec(headers['content-range'] ?? '') ?? []
  if (statusCode === 206 && Number(from) === first && Number(total) === size) return
  throw new PacksError('ANSWER_INVALID', 'the answer is not the rest of the bundle that was asked for; plan it again')
}
