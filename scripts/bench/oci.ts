import { createHash } from 'node:crypto'
import { type Body, expectStatus, header, type Wire } from './wire.ts'

export const manifestType = 'application/vnd.oci.image.manifest.v1+json'
const configType = 'application/vnd.packs.bench.config.v1+json'
const layerType = 'application/octet-stream'

/** distribution answers 404 for an OCI manifest that the client did not say it accepts. */
export function acceptFor(path: string): string {
  return path.includes('/manifests/') ? manifestType : '*/*'
}

export type Content = { readonly bytes: Buffer; readonly digest: string }

export function content(bytes: Buffer): Content {
  return { bytes, digest: `sha256:${createHash('sha256').update(bytes).digest('hex')}` }
}

export function manifestOf(config: Content, layers: readonly Content[]): Content {
  const descriptor = (mediaType: string, { bytes, digest }: Content) => ({ mediaType, digest, size: bytes.length })
  const manifest = {
    schemaVersion: 2,
    mediaType: manifestType,
    config: descriptor(configType, config),
    layers: layers.map((layer) => descriptor(layerType, layer)),
  }
  return content(Buffer.from(JSON.stringify(manifest)))
}

/** Where the upload goes on: the answer's Location as a path, with its query. */
async function startUpload(wire: Wire, repository: string): Promise<string> {
  const answer = expectStatus(await wire.request('POST', `/v2/${repository}/blobs/uploads/`), 202, 'POST upload')
  return locationOf(answer.head)
}

function locationOf(head: string): string {
  const location = header(head, 'location')
  if (location === undefined) throw new Error('an upload without Location')
  return location.replace(/^https?:\/\/[^/]+/, '')
}

function withDigest(location: string, digest: string): string {
  return `${location}${location.includes('?') ? '&' : '?'}digest=${encodeURIComponent(digest)}`
}

/** As oras and containerd do: POST, then PUT with the whole body. */
export async function putBlob(wire: Wire, repository: string, { bytes, digest }: Content): Promise<void> {
  const location = await startUpload(wire, repository)
  const type = ['content-type: application/octet-stream']
  expectStatus(await wire.request('PUT', withDigest(location, digest), type, bytes), 201, 'PUT blob')
}

/** As docker and podman do: POST, one PATCH of unknown length, then an empty PUT. */
export async function patchBlob(wire: Wire, repository: string, blob: Content): Promise<void> {
  await streamBlob(wire, repository, slicesOf(blob.bytes), () => blob.digest)
}

/** The same of bytes that nobody has all at once; the digest is asked for behind the last of them. */
export async function streamBlob(
  wire: Wire,
  repository: string,
  slices: Iterable<Buffer>,
  digest: () => string,
): Promise<void> {
  const location = await patchUpload(wire, repository, { slices })
  expectStatus(await wire.request('PUT', withDigest(location, digest())), 201, 'closing PUT')
}

/** The first two steps of `patchBlob`: the bytes are there, the session is still open. Gives where it goes on. */
export async function patchUpload(wire: Wire, repository: string, body: Body): Promise<string> {
  const location = await startUpload(wire, repository)
  const type = ['content-type: application/octet-stream']
  const answer = expectStatus(await wire.request('PATCH', location, type, body), 202, 'PATCH blob')
  return locationOf(answer.head)
}

export async function putManifest(wire: Wire, repository: string, reference: string, manifest: Content): Promise<void> {
  const path = `/v2/${repository}/manifests/${reference}`
  const type = [`content-type: ${manifestType}`]
  expectStatus(await wire.request('PUT', path, type, manifest.bytes), 201, 'PUT manifest')
}

function* slicesOf(bytes: Buffer, size = 1 << 20): Generator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}
