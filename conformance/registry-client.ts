import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import http, { type IncomingHttpHeaders, type OutgoingHttpHeaders } from 'node:http'

export type Answer = { status: number; headers: IncomingHttpHeaders; body: Buffer }
export type Descriptor = { mediaType: string; digest: string; size: number }
export type Manifest = { config: Descriptor; layers: Descriptor[] }

export const imageManifest = 'application/vnd.oci.image.manifest.v1+json'
const octets = 'application/octet-stream'

export function sha256(bytes: Buffer | string): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`
}

type Request = { headers?: OutgoingHttpHeaders; body?: Buffer | string; follow?: boolean }

/**
 * Sends one request on a connection of its own and reads the whole answer. An answer counts also when the server gave
 * it before it had read all of the body. A GET follows a redirect unless told not to.
 */
export async function call(
  method: string,
  url: string,
  { headers = {}, body, follow = true }: Request = {},
): Promise<Answer> {
  const length = body === undefined ? {} : { 'content-length': Buffer.byteLength(body) }
  const answer = await new Promise<Answer>((resolve, reject) => {
    const request = http.request(url, { method, agent: false, headers: { ...length, ...headers } }, (response) => {
      const pieces: Buffer[] = []
      response.on('data', (piece: Buffer) => pieces.push(piece))
      response.on('error', reject)
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(pieces) }),
      )
    })
    request.on('error', reject)
    request.end(body)
  })
  const next = answer.headers.location
  if (method !== 'GET' || !follow || next === undefined || ![302, 303, 307, 308].includes(answer.status)) return answer
  return call(method, new URL(next, url).href)
}

/** Sends the beginning of a request, then drops the connection once the server has taken nearly all of it. */
export async function sendAndDrop(
  method: string,
  url: string,
  sent: Buffer,
  headers: OutgoingHttpHeaders,
): Promise<void> {
  const request = http.request(url, { method, agent: false, headers: { 'content-type': octets, ...headers } })
  const ended = new Promise((resolve) => request.on('close', resolve).on('error', resolve))
  await new Promise((resolve) => request.write(sent, resolve))
  request.destroy()
  await ended
}

/** Begins to read an answer, then drops the connection after its first bytes. */
export async function readAndDrop(url: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const request = http.get(url, { agent: false }, (response) => {
      response.on('error', () => {})
      response.on('close', resolve)
      response.once('data', () => response.destroy())
    })
    request.on('error', reject)
  })
}

function expectStatus(answer: Answer, status: number, what: string): Answer {
  assert.equal(answer.status, status, `${what}: ${answer.status} ${answer.body.subarray(0, 500)}`)
  return answer
}

/** The ways a client may send a blob: one PUT after the POST, everything in the POST, or PATCHes and an empty PUT. */
export type UploadForm = 'put' | 'post' | 'patch' | 'chunks'

/** A small client that believes nothing: every digest is computed from the bytes that came. */
export function registryClient(base: string) {
  const v2 = `${base}/v2`

  async function startUpload(name: string): Promise<string> {
    const answer = expectStatus(await call('POST', `${v2}/${name}/blobs/uploads/`), 202, 'POST upload')
    return new URL(answer.headers.location ?? '', base).href
  }

  async function patch(location: string, bytes: Buffer, offset?: number): Promise<string> {
    const range = offset === undefined ? {} : { 'content-range': `${offset}-${offset + bytes.length - 1}` }
    const answer = await call('PATCH', location, { headers: { 'content-type': octets, ...range }, body: bytes })
    expectStatus(answer, 202, 'PATCH upload')
    return new URL(answer.headers.location ?? '', base).href
  }

  async function finish(location: string, digest: string, bytes?: Buffer): Promise<void> {
    const answer = await call('PUT', withQuery(location, { digest }), {
      headers: { 'content-type': octets },
      body: bytes ?? Buffer.alloc(0),
    })
    expectStatus(answer, 201, 'PUT upload')
  }

  async function pushBlob(name: string, bytes: Buffer, form: UploadForm = 'put'): Promise<string> {
    const digest = sha256(bytes)
    if (form === 'post') {
      const answer = await call('POST', withQuery(`${v2}/${name}/blobs/uploads/`, { digest }), {
        headers: { 'content-type': octets },
        body: bytes,
      })
      expectStatus(answer, 201, 'POST blob')
      return digest
    }
    let location = await startUpload(name)
    if (form === 'put') {
      await finish(location, digest, bytes)
      return digest
    }
    const step = form === 'patch' ? bytes.length : Math.ceil(bytes.length / 3)
    for (let at = 0; at < bytes.length; at += step) {
      location = await patch(location, bytes.subarray(at, at + step), form === 'chunks' ? at : undefined)
    }
    await finish(location, digest)
    return digest
  }

  async function putManifest(
    name: string,
    reference: string,
    bytes: Buffer,
    mediaType = imageManifest,
  ): Promise<string> {
    const answer = await call('PUT', `${v2}/${name}/manifests/${reference}`, {
      headers: { 'content-type': mediaType },
      body: bytes,
    })
    expectStatus(answer, 201, `PUT manifest ${name}:${reference}`)
    return sha256(bytes)
  }

  /** How far a session has come: the offset of the next byte. */
  async function uploadOffset(location: string): Promise<number> {
    const answer = expectStatus(await call('GET', location), 204, 'GET upload')
    const [, last] = /^0-(\d+)$/.exec(answer.headers.range ?? '') ?? assert.fail(`Range: ${answer.headers.range}`)
    return last === '0' ? 0 : Number(last) + 1
  }

  /** Reads a blob whole and checks that it is what its digest says. */
  async function verifyBlob(name: string, digest: string): Promise<Buffer> {
    const answer = expectStatus(await call('GET', `${v2}/${name}/blobs/${digest}`), 200, `GET ${name}@${digest}`)
    assert.equal(sha256(answer.body), digest)
    return answer.body
  }

  /** Reads a manifest and every blob it names, and checks them all. Gives the manifest's digest. */
  async function verifyManifest(name: string, reference: string): Promise<string> {
    const answer = await call('GET', `${v2}/${name}/manifests/${reference}`, { headers: { accept: imageManifest } })
    expectStatus(answer, 200, `GET ${name}:${reference}`)
    const digest = sha256(answer.body)
    assert.equal(answer.headers['docker-content-digest'], digest)
    if (reference.startsWith('sha256:')) assert.equal(digest, reference)
    const { config, layers } = JSON.parse(answer.body.toString()) as Manifest
    for (const descriptor of [config, ...layers]) {
      const bytes = await verifyBlob(name, descriptor.digest)
      assert.equal(bytes.length, descriptor.size)
    }
    return digest
  }

  async function names(path: string, field: 'tags' | 'repositories'): Promise<string[]> {
    const answer = await call('GET', `${v2}/${path}`)
    return answer.status === 404 ? [] : JSON.parse(expectStatus(answer, 200, path).body.toString())[field]
  }

  return {
    ...{ startUpload, patch, finish, uploadOffset, pushBlob, putManifest, verifyBlob, verifyManifest },
    status: async (method: string, path: string) => (await call(method, `${v2}/${path}`)).status,
    tags: (name: string) => names(`${name}/tags/list`, 'tags'),
    repositories: () => names('_catalog', 'repositories'),
  }
}

export type RegistryClient = ReturnType<typeof registryClient>

/** A manifest over a config and layers, as bytes. */
export function manifestOf(config: Buffer, layers: readonly Buffer[]): Buffer {
  const descriptor = (bytes: Buffer, mediaType: string): Descriptor => ({
    mediaType,
    digest: sha256(bytes),
    size: bytes.length,
  })
  return Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: imageManifest,
      artifactType: 'application/vnd.example.artifact',
      config: descriptor(config, 'application/vnd.example.config.v1+json'),
      layers: layers.map((bytes) => descriptor(bytes, 'application/vnd.example.layer.v1')),
    }),
  )
}

/** Pushes an artifact of random bytes under a tag; gives its digest once the registry has acknowledged all of it. */
export async function pushArtifact(
  client: RegistryClient,
  name: string,
  tag: string,
  { sizes = [16 * 1024], form = 'put' as UploadForm } = {},
): Promise<string> {
  const config = Buffer.from(JSON.stringify({ tag, salt: randomBytes(8).toString('hex') }))
  const layers = sizes.map((size) => randomBytes(size))
  for (const bytes of [config, ...layers]) await client.pushBlob(name, bytes, form)
  return client.putManifest(name, tag, manifestOf(config, layers))
}

/** An upload's location with more in its query; a location may bring a query of its own. */
export function withQuery(location: string, query: Record<string, string>): string {
  const url = new URL(location)
  for (const [key, value] of Object.entries(query)) url.searchParams.set(key, value)
  return url.href
}
