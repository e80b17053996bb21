import { Failure } from '../errors.ts'
import type { Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import { type Answer, ask, mayPass, pauseAfter, unexpected } from './ask.ts'
import { blobSize } from './blobs.ts'
import { discard } from './exchange.ts'
import { pullScope, pushScope } from './manifests.ts'
import type { Remote } from './remote.ts'

/** Content that is here. `open`: its bytes, both ends included. */
export type Source = {
  digest: Digest
  size: number
  open(range: { first: number; last: number }): AsyncIterable<Uint8Array>
}

export type UploadOptions = {
  /** A repository there that has the blob: it is mounted from it, and no byte is sent. */
  from?: RepositoryName | undefined
  /** Where an earlier upload of this blob was left. */
  session?: string | undefined
  /** Told where the upload can be taken up again; before the first chunk of one that has several. */
  onSession?: ((session: string) => Promise<void>) | undefined
  signal?: AbortSignal | undefined
}

/** Bodies up to this size go in one piece, and larger ones in pieces of it. */
const chunkBytes = 16 * 1024 * 1024

/**
 * Brings a blob into a repository there. One that is cut goes on with the chunk it was at: the remote is asked how far
 * it got. Throws REMOTE_REFUSED, REMOTE_UNREACHABLE and the like.
 */
export async function uploadBlob(
  remote: Remote,
  name: RepositoryName,
  source: Source,
  options: UploadOptions = {},
): Promise<'mounted' | 'sent'> {
  const { from, signal } = options
  if (from !== undefined && (await mount(remote, name, source.digest, from, signal))) return 'mounted'
  let session = options.session && URL.canParse(options.session) ? options.session : undefined
  for (let tries = 1; ; tries++) {
    try {
      await send(remote, name, source, { ...options, session })
      return 'sent'
    } catch (error) {
      if (!mayPass(error) && !(error instanceof Failure && error.key === 'REMOTE_REFUSED')) throw error
      signal?.throwIfAborted()
      // The answer may be what was lost.
      if ((await blobSize(remote, name, source.digest, { signal })) !== undefined) return 'sent'
      if (tries >= 3) throw error
      session = undefined
    }
  }
}

/** False where the remote would have it sent. */
async function mount(
  remote: Remote,
  name: RepositoryName,
  digest: Digest,
  from: RepositoryName,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  const at = `/v2/${name}/blobs/uploads/?mount=${encodeURIComponent(digest)}&from=${encodeURIComponent(from)}`
  const answer = await ask(remote, { method: 'POST', at, scopes: [pushScope(name), pullScope(from)], signal })
  discard(answer.message)
  if (answer.status === 201) return true
  if (answer.status !== 202) return false
  // A session was opened that nobody will use.
  const cancel = { method: 'DELETE' as const, at: locationOf(remote, answer), scopes: [pushScope(name)], signal }
  await ask(remote, cancel).then(({ message }) => discard(message))
  return false
}

async function send(remote: Remote, name: RepositoryName, source: Source, options: UploadOptions): Promise<void> {
  const { session, signal } = options
  const scopes = [pushScope(name)]
  const { digest, size } = source
  const resumed = session === undefined ? undefined : await statusOf(remote, session, scopes, signal)
  const at = resumed?.at ?? (await begin(remote, name, scopes, signal))
  const whole = size <= chunkBytes
  if (!whole && !resumed) await options.onSession?.(at.href)
  const end = whole ? at : await sendChunks(remote, source, { at, offset: resumed?.offset ?? 0 }, scopes, signal)
  end.searchParams.set('digest', digest)
  const body = { length: size, open: () => (size === 0 ? [] : source.open({ first: 0, last: size - 1 })) }
  const answer = await ask(remote, {
    method: 'PUT',
    at: end,
    headers: { 'content-type': 'application/octet-stream' },
    ...(whole ? { body } : {}),
    scopes,
    signal,
  })
  if (answer.status !== 201 && answer.status !== 204) throw await unexpected(remote, answer)
  discard(answer.message)
}

async function begin(
  remote: Remote,
  name: RepositoryName,
  scopes: readonly string[],
  signal: AbortSignal | undefined,
): Promise<URL> {
  const answer = await ask(remote, { method: 'POST', at: `/v2/${name}/blobs/uploads/`, scopes, signal })
  if (answer.status !== 202) throw await unexpected(remote, answer)
  discard(answer.message)
  return locationOf(remote, answer)
}

type Position = { at: URL; offset: number }

/** Sends what is missing, chunk by chunk; answers where the closing request goes. */
async function sendChunks(
  remote: Remote,
  { size, open }: Source,
  start: Position,
  scopes: readonly string[],
  signal: AbortSignal | undefined,
): Promise<URL> {
  let { at, offset } = start
  // Only what gets further than ever is progress: a remote may lose what it took, time after time.
  let furthest = offset
  const arrived = () => {
    if (offset <= furthest) return false
    furthest = offset
    return true
  }
  for (let tries = 0; offset < size; ) {
    const last = Math.min(offset + chunkBytes, size) - 1
    const range = { first: offset, last }
    try {
      const answer = await ask(remote, {
        method: 'PATCH',
        at,
        headers: { 'content-type': 'application/octet-stream', 'content-range': `${offset}-${last}` },
        body: { length: last - offset + 1, open: () => open(range) },
        attempts: 1,
        scopes,
        signal,
      })
      if (answer.status !== 202 && answer.status !== 204) throw await unexpected(remote, answer)
      discard(answer.message)
      at = locationOf(remote, answer)
      offset = last + 1
      if (arrived()) tries = 0
    } catch (error) {
      signal?.throwIfAborted()
      if (++tries >= remote.attempts) throw error
      await pauseAfter(remote, error, tries, signal)
      const status = await statusOf(remote, at.href, scopes, signal)
      if (!status) throw error
      ;({ at, offset } = status)
      if (arrived()) tries = 0
    }
  }
  return at
}

/** How far an upload got; undefined where the remote knows it no more. */
async function statusOf(
  remote: Remote,
  session: string,
  scopes: readonly string[],
  signal: AbortSignal | undefined,
): Promise<Position | undefined> {
  const answer = await ask(remote, { method: 'GET', at: session, scopes, signal })
  discard(answer.message)
  if (answer.status !== 204 && answer.status !== 202 && answer.status !== 200) return undefined
  const last = /^(?:bytes=)?0-(\d{1,16})$/.exec(answer.message.headers.range ?? '')?.[1]
  // `0-0` is said of nothing at all, and no chunk of ours is one byte long.
  const offset = last === undefined || last === '0' ? 0 : Number(last) + 1
  return { at: locationOf(remote, answer, session), offset }
}

function locationOf(remote: Remote, { message, url }: Answer, otherwise = ''): URL {
  const location = message.headers.location ?? otherwise
  if (location && URL.canParse(location, url.href)) return new URL(location, url)
  throw new Failure('REMOTE_INVALID', { detail: `${remote.url.host} opens an upload and does not say where` })
}
