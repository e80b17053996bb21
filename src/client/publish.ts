import { createHash, randomBytes } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { basename } from 'node:path'
import { ask, type Body, type Connection } from './connection.ts'
import { PacksError, unlessCancelled } from './failure.ts'
import type { PackType } from './pack.ts'

/** What is to be published. */
export type Submission = {
  /** `pack.json`, as an author writes it. The registry checks it whole and says everything that is wrong at once. */
  document: { packId: string; version: string; type: PackType } & Record<string, unknown>
  /** A file, or bytes. None: a bundle that is the closure of its dependencies. */
  content?: { path: string } | { bytes: Uint8Array }
  /** Of the content; `application/vnd.stellaops.pack.content.v1.tar+gzip` unless given. */
  mediaType?: string
  /** The file name under which others save the content; else that of `path`, else `<packId>-<version>.tgz`. */
  title?: string
  /** RFC 3339. The same input with the same `created` gives the same manifest digest everywhere. */
  created?: string
  /** Publishes although a dependency is not there yet: for importers, who may come out of order. */
  allowMissing?: boolean
  /** Says what would become of it, and stores nothing. */
  dryRun?: boolean
}

/** `isNew` is false where the very same had been published before. */
export type Published = {
  packId: string
  version: string
  digest: string
  manifestDigest: string
  isNew: boolean
}

/** What a publish would have come to. `path`: where in the document, such as `dependencies.0.version`. */
export type DryRun = {
  valid: boolean
  violations: { path: string; message: string }[]
  packId?: string
  version?: string
  tag?: string
  digest?: string
}

/** Of the content, in bytes. An upload that has to be begun again begins again at 0. */
export type UploadProgress = { sentBytes: number; totalBytes: number }

type PublishOptions = {
  onProgress?: ((progress: UploadProgress) => void) | undefined
  signal?: AbortSignal | undefined
}

/** The content, hashed. `open` gives its bytes from the start. */
type Content = { size: number; digest: string; open(): AsyncIterable<Uint8Array> | Iterable<Uint8Array> }

/**
 * Publishes, as multipart/form-data of a length known ahead: memory does not depend on the content's size. The file is
 * hashed before, and the registry compares. The same again is no error, so a lost connection is tried again.
 */
export async function publish(
  connection: Connection,
  submission: Submission,
  { onProgress, signal }: PublishOptions,
): Promise<Published | DryRun> {
  const { document, allowMissing, dryRun, content } = submission
  const hashed = content && (await hash(content, signal))
  const body = formOf(submission, hashed, onProgress)
  const query = new URLSearchParams({
    ...(allowMissing ? { allowMissing: 'true' } : {}),
    ...(dryRun ? { dryRun: 'true' } : {}),
  })
  const path = query.size > 0 ? `/packs?${query}` : '/packs'
  const { status, bytes } = await ask(connection, { method: 'POST', path, body, signal })
  const answer = answerIn(bytes)
  if (dryRun && answer && 'violations' in answer) return answer as DryRun
  if (!dryRun && answer && 'manifestDigest' in answer)
    return { ...(answer as Omit<Published, 'isNew'>), isNew: status === 201 }
  throw new PacksError(
    'ANSWER_INVALID',
    `${connection.base} does not say what became of ${document.packId}; is the url that of a packs registry?`,
  )
}

function answerIn(bytes: Buffer): object | undefined {
  try {
    return Object(JSON.parse(bytes.toString()))
  } catch {
    return undefined
  }
}

async function hash(content: NonNullable<Submission['content']>, signal: AbortSignal | undefined): Promise<Content> {
  const sum = createHash('sha256')
  if ('bytes' in content) {
    const { bytes } = content
    return { size: bytes.length, digest: `sha256:${sum.update(bytes).digest('hex')}`, open: () => [bytes] }
  }
  const { path } = content
  const found = await stat(path).catch((cause) => {
    throw new PacksError('REQUEST_INVALID', `the content ${path} cannot be read: ${cause.message}`, { cause })
  })
  if (!found.isFile()) throw new PacksError('REQUEST_INVALID', `the content ${path} is not a file; pack it first`)
  for await (const piece of createReadStream(path, { highWaterMark: pieceBytes })) {
    unlessCancelled(signal)
    sum.update(piece as Buffer)
  }
  return { size: found.size, digest: `sha256:${sum.digest('hex')}`, open: () => readFile(path, found.size) }
}

const pieceBytes = 256 * 1024

/** Throws CONTENT_CHANGED where the file has not the size it had: the length is announced already. */
async function* readFile(path: string, size: number): AsyncGenerator<Uint8Array> {
  let read = 0
  for await (const piece of createReadStream(path, { highWaterMark: pieceBytes })) {
    read += (piece as Buffer).length
    if (read > size) break
    yield piece as Buffer
  }
  if (read !== size)
    throw new PacksError('CONTENT_CHANGED', `${path} changed while it was being published; publish it again`)
}

/** Source: RFC 7578. */
function formOf(
  { document, content, mediaType, title, created }: Submission,
  hashed: Content | undefined,
  onProgress: PublishOptions['onProgress'],
): Body {
  const { digest: _digest, size: _size, ...written } = document
  const manifest = {
    ...written,
    ...(hashed ? { digest: hashed.digest, size: hashed.size } : {}),
    ...(created === undefined ? {} : { created }),
  }
  const boundary = `packs-${randomBytes(16).toString('hex')}`
  const part = (name: string, fileName: string, type: string) =>
    `--${boundary}\r\ncontent-disposition: form-data; name="${name}"; filename="${quoted(fileName)}"\r\ncontent-type: ${type}\r\n\r\n`
  const { packId, version } = document
  const own = content && 'path' in content ? basename(content.path) : `${packId}-${version}.tgz`
  const head = Buffer.from(
    `${part('manifest', 'pack.json', 'application/json')}${JSON.stringify(manifest)}\r\n` +
      (hashed ? part('content', title ?? own, plain(mediaType ?? 'application/octet-stream')) : ''),
  )
  const tail = Buffer.from(`${hashed ? '\r\n' : ''}--${boundary}--\r\n`)
  return {
    type: `multipart/form-data; boundary=${boundary}`,
    length: head.length + (hashed?.size ?? 0) + tail.length,
    async *open() {
      yield head
      if (hashed) yield* counted(hashed, onProgress)
      yield tail
    },
  }
}

async function* counted({ size, open }: Content, onProgress: PublishOptions['onProgress']) {
  let sentBytes = 0
  onProgress?.({ sentBytes, totalBytes: size })
  for await (const piece of open()) {
    yield piece
    sentBytes += piece.length
    onProgress?.({ sentBytes, totalBytes: size })
  }
}

/** A file name in quotes, as browsers write it. Source: WHATWG HTML, "multipart/form-data encoding algorithm". */
function quoted(fileName: string): string {
  return fileName.replace(/[\r\n"]/g, (c) => encodeURIComponent(c))
}

/** Throws REQUEST_INVALID where it would end the line it stands on. */
function plain(mediaType: string): string {
  if (/^[\x20-\x7e]+$/.test(mediaType)) return mediaType
  throw new PacksError('REQUEST_INVALID', `${JSON.stringify(mediaType)} is not a media type`)
}
