import type { IncomingMessage } from 'node:http'
import type { Readable } from 'node:stream'
import busboy from 'busboy'
import { Failure } from '../../errors.ts'

/** The content part of a publish, as it streams in. `mediaType`, `title`: what the client says of it, if it does. */
export type ContentPart = { stream: Readable; mediaType: string | undefined; title: string | undefined }

/**
 * A publish as multipart/form-data (RFC 7578), read as it comes: first the part `manifest`, JSON of at most 1 MiB, then
 * at most one part `content`, of any size. Each promise rejects with REQUEST_INVALID where the form is not like that,
 * or ends before it is whole.
 */
export type Form = {
  manifest: Promise<Buffer>
  /** Undefined where the form has no content. To be read to its end before `ended` is waited for. */
  content: Promise<ContentPart | undefined>
  /** The form was well-formed to its last byte. */
  ended: Promise<void>
  /** What is wrong with the form, as soon as that is known: it comes before its parts fail. */
  failure(): Failure | undefined
  /** Lets the rest of the body go by unread. */
  drop(): void
}

const maxManifestBytes = 1024 * 1024

function invalid(detail: string, cause?: unknown): Failure {
  return new Failure('REQUEST_INVALID', { detail, cause })
}

/** Throws REQUEST_INVALID where the Content-Type has no boundary. */
export function readForm(incoming: IncomingMessage): Form {
  const form = open(incoming)
  const manifest = deferred<Buffer>()
  const content = deferred<ContentPart | undefined>()
  const ended = deferred<void>()
  let failure: Failure | undefined
  const fail = (error: Failure) => {
    failure ??= error
    for (const part of [manifest, content, ended]) part.reject(error)
    incoming.unpipe(form)
    incoming.resume()
  }
  let hasManifest = false
  let hasContent = false

  form.on('field', (name, value, { valueTruncated }) => {
    if (name !== 'manifest')
      return fail(invalid(`there is no part ${JSON.stringify(name)} in a publish: it has "manifest", then "content"`))
    if (hasManifest || hasContent) return fail(invalid('the part "manifest" comes once, and first'))
    if (valueTruncated) return fail(tooLarge())
    // What the parser puts where bytes were no UTF-8: the document would be published with it.
    if (value.includes('\ufffd'))
      return fail(invalid('the part "manifest" is not JSON in UTF-8; if U+FFFD itself is meant, write it as \\ufffd'))
    hasManifest = true
    manifest.resolve(Buffer.from(value))
  })
  form.on('file', (name, stream, { filename, mimeType }) => {
    // What goes wrong with it is told by the form; without a listener it would end the process.
    stream.on('error', () => undefined)
    const refuse = (detail: string) => {
      stream.resume()
      fail(invalid(detail))
    }
    if (name === 'manifest') {
      if (hasManifest || hasContent) return refuse('the part "manifest" comes once, and first')
      hasManifest = true
      whole(stream).then(manifest.resolve, fail)
    } else if (name !== 'content')
      refuse(`there is no part ${JSON.stringify(name)} in a publish: it has "manifest", then "content"`)
    else if (!hasManifest) refuse('the part "content" comes after the part "manifest"')
    else if (hasContent) refuse('there are two parts "content"; a pack has one')
    else {
      hasContent = true
      content.resolve({ stream, mediaType: mimeType, title: filename })
    }
  })
  form.on('partsLimit', () => fail(invalid('a publish has two parts, "manifest" and "content"')))
  form.on('error', (cause) => fail(invalid(`the form is malformed: ${(cause as Error).message}`, cause)))
  form.on('close', () => {
    if (!hasManifest) return fail(invalid('the part "manifest" is missing'))
    content.resolve(undefined)
    ended.resolve()
  })
  incoming.once('close', () => {
    if (incoming.complete) return
    const cause = new Error('the connection ended before the form did')
    form.destroy(cause)
    fail(invalid(cause.message, cause))
  })
  incoming.pipe(form)
  return {
    manifest: manifest.promise,
    content: content.promise,
    ended: ended.promise,
    failure: () => failure,
    drop() {
      incoming.unpipe(form)
      incoming.resume()
    },
  }
}

function open(incoming: IncomingMessage): busboy.Busboy {
  try {
    return busboy({
      headers: incoming.headers,
      defParamCharset: 'utf8',
      fileHwm: 256 * 1024,
      limits: { fieldSize: maxManifestBytes, parts: 3, headerPairs: 50 },
    })
  } catch (cause) {
    throw invalid(`the body is not multipart/form-data: ${(cause as Error).message}`, cause)
  }
}

function tooLarge(): Failure {
  return new Failure('CONTENT_TOO_LARGE', { detail: `the part "manifest" may have at most ${maxManifestBytes} bytes` })
}

async function whole(stream: Readable): Promise<Buffer> {
  const pieces: Buffer[] = []
  let size = 0
  for await (const piece of stream as AsyncIterable<Buffer>) {
    size += piece.length
    if (size > maxManifestBytes) {
      stream.resume()
      throw tooLarge()
    }
    pieces.push(piece)
  }
  return Buffer.concat(pieces)
}

function deferred<T>() {
  let resolve: (value: T) => void = () => undefined
  let reject: (error: unknown) => void = () => undefined
  const promise = new Promise<T>((yes, no) => {
    resolve = yes
    reject = no
  })
  // Whoever waits for it learns of a failure; one that nobody waits for any more has been told elsewhere.
  promise.catch(() => undefined)
  return { promise, resolve, reject }
}
