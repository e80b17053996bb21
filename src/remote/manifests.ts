import type { IncomingMessage } from 'node:http'
import { Failure } from '../errors.ts'
import { algorithmOf, type Digest, digestOf, parseDigest } from '../oci/digest.ts'
import { maxManifestBytes } from '../oci/manifest.ts'
import { mediaTypes } from '../oci/media-types.ts'
import type { RepositoryName } from '../oci/name.ts'
import { ask, askWhole, unexpected } from './ask.ts'
import { discard } from './exchange.ts'
import type { Remote } from './remote.ts'

/** A manifest of a remote's. `digest` is that of the bytes, whatever the remote says. */
export type RemoteManifest = { digest: Digest; mediaType: string; bytes: Buffer }

type Cancellable = { signal?: AbortSignal | undefined }

const accept = [
  ...[mediaTypes.manifest, mediaTypes.index, mediaTypes.dockerManifest, mediaTypes.dockerManifestList, '*/*'],
].join(', ')

export function pullScope(name: RepositoryName): string {
  return `repository:${name}:pull`
}

export function pushScope(name: RepositoryName): string {
  return `repository:${name}:pull,push`
}

/** Undefined where there is none. Throws REMOTE_INVALID where the bytes are not what was asked for. */
export async function getManifest(
  remote: Remote,
  name: RepositoryName,
  reference: string,
  { signal }: Cancellable = {},
): Promise<RemoteManifest | undefined> {
  const call = { method: 'GET' as const, at: `/v2/${name}/manifests/${reference}`, headers: { accept }, signal }
  const answer = await askWhole(remote, { ...call, scopes: [pullScope(name)] }, maxManifestBytes)
  if (!answer) return undefined
  const { bytes, message, url } = answer
  const claimed = message.headers['docker-content-digest']
  // What the remote says only picks the algorithm, and is held against the bytes (CVE-2026-85747).
  const wanted = parseDigest(reference) ?? parseDigest(typeof claimed === 'string' ? claimed : '')
  const digest = digestOf(bytes, wanted ? algorithmOf(wanted) : 'sha256')
  if (wanted && wanted !== digest)
    throw new Failure('REMOTE_INVALID', {
      detail: `${url.host} answers ${name}:${reference} as ${wanted}, but with bytes whose digest is ${digest}`,
    })
  const mediaType = message.headers['content-type']?.split(';')[0]?.trim() ?? ''
  return { digest, mediaType, bytes }
}

/**
 * What the remote says a reference names, without its bytes; undefined where it has none, or does not say. Good for
 * finding out that nothing is new, and for nothing that is to be believed.
 */
export async function claimedDigest(
  remote: Remote,
  name: RepositoryName,
  reference: string,
  { signal }: Cancellable = {},
): Promise<Digest | undefined> {
  const answer = await head(remote, name, reference, signal)
  const claimed = answer?.headers['docker-content-digest']
  return typeof claimed === 'string' ? parseDigest(claimed) : undefined
}

/** Whether the remote says that it has this manifest. */
export async function hasManifest(
  remote: Remote,
  name: RepositoryName,
  digest: Digest,
  { signal }: Cancellable = {},
): Promise<boolean> {
  return (await head(remote, name, digest, signal)) !== undefined
}

async function head(
  remote: Remote,
  name: RepositoryName,
  reference: string,
  signal: AbortSignal | undefined,
): Promise<IncomingMessage | undefined> {
  const call = { method: 'HEAD' as const, at: `/v2/${name}/manifests/${reference}`, headers: { accept }, signal }
  const answer = await ask(remote, { ...call, scopes: [pullScope(name)] })
  discard(answer.message)
  if (answer.status === 200) return answer.message
  if (answer.status === 404) return undefined
  throw await unexpected(remote, answer)
}

/**
 * Stores a manifest under a tag or its digest. `subjectTaken`: the remote lists it among the referrers of its subject
 * by itself. Throws REMOTE_REFUSED with what the remote says.
 */
export async function putManifest(
  remote: Remote,
  name: RepositoryName,
  reference: string,
  { mediaType, bytes }: { mediaType: string; bytes: Buffer },
  { signal }: Cancellable = {},
): Promise<{ subjectTaken: boolean }> {
  const answer = await ask(remote, {
    method: 'PUT',
    at: `/v2/${name}/manifests/${reference}`,
    headers: { 'content-type': mediaType },
    body: { length: bytes.length, open: () => [bytes] },
    scopes: [pushScope(name)],
    signal,
  })
  if (answer.status !== 201 && answer.status !== 200 && answer.status !== 202) throw await unexpected(remote, answer)
  discard(answer.message)
  return { subjectTaken: answer.message.headers['oci-subject'] !== undefined }
}
