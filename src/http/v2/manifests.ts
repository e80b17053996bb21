import type { Context } from 'hono'
import { mayAccess } from '../../auth/access.ts'
import type { StoredManifest } from '../../db/manifests.ts'
import type { Deps } from '../../deps.ts'
import { Failure } from '../../errors.ts'
import { type Digest, parseDigest } from '../../oci/digest.ts'
import { maxManifestBytes } from '../../oci/manifest.ts'
import type { RepositoryName } from '../../oci/name.ts'
import { parseReference, parseTag, type Reference, type Tag } from '../../oci/reference.ts'
import { readWhole } from '../../registry/body.ts'
import { putManifest, removeManifest } from '../../registry/manifests.ts'
import { fetchManifest, requireNoUpstream } from '../../registry/upstreams.ts'
import { mayPullFor, principalOf, requireAccess, requireStill } from '../access.ts'
import type { Env, Routes } from '../routes.ts'
import { patiently } from './patience.ts'
import { fieldsOf, type Head, inert, reply, unchanged } from './reply.ts'
import { bodyOf, nameOf } from './request.ts'

/** The specification asks for at least ten. */
const maxTags = 100

export function addManifestRoutes(routes: Routes, deps: Deps): void {
  // end-3: HEAD arrives here too
  routes.get('/v2/:name{.+}/manifests/:reference', async (c) => {
    const name = nameOf(c)
    requireAccess(c, name, 'pull')
    const reference = referenceToRead(c.req.param('reference'))
    const isHead = c.req.method === 'HEAD'
    const found =
      (await readManifest(deps, name, reference, isHead)) ?? (await readThrough(c, deps, name, reference, isHead))
    if (!found) throw new Failure('MANIFEST_UNKNOWN', { detail: { name, reference: c.req.param('reference') } })
    const fields = fieldsOf(manifestHead(found))
    if (unchanged(c.req.header('if-none-match'), found.digest)) return reply(304, fields)
    return reply(200, { ...fields, 'content-length': found.size }, isHead ? null : (found.payload ?? null))
  })

  // end-7a, end-7b
  routes.put('/v2/:name{.+}/manifests/:reference', async (c) => {
    const name = nameOf(c)
    requireAccess(c, name, 'push')
    await requireNoUpstream(deps, name)
    const reference = referenceToWrite(c.req.param('reference') ?? '')
    const extraTags = tagQueries(c.req.queries('tag') ?? [])
    const ifMatch = digestOfEtag(c.req.header('if-match'))
    const bytes = await readWhole(bodyOf(c), maxManifestBytes)
    if (!bytes) throw new Failure('MANIFEST_TOO_LARGE', { detail: { maxBytes: maxManifestBytes } })
    await requireStill(c, deps)
    const contentType = c.req.header('content-type')
    const mayOverwrite = mayAccess(principalOf(c), name, 'overwrite')
    const push = {
      repository: name,
      reference,
      contentType,
      bytes,
      extraTags,
      ifMatch,
      mayOverwrite,
      mayPull: mayPullFor(c),
    }
    const { digest, manifest } = await putManifest(deps, push)
    c.env.digest = digest
    c.env.tags = extraTags
    return reply(201, {
      location: `/v2/${name}/manifests/${digest}`,
      'docker-content-digest': digest,
      ...(manifest.subject ? { 'oci-subject': manifest.subject } : {}),
      ...(extraTags.length > 0 ? { 'oci-tag': extraTags.join(', ') } : {}),
    })
  })

  // end-9
  routes.delete('/v2/:name{.+}/manifests/:reference', async (c) => {
    const name = nameOf(c)
    requireAccess(c, name, 'delete')
    await removeManifest(deps, name, referenceToRead(c.req.param('reference')), mayPullFor(c))
    return reply(202, {})
  })
}

/**
 * The manifest and its bytes in one question: the bytes come along unless they are at hand. Whether it is there, and
 * what the tag points at, is the database's answer every time.
 */
export function askManifest(
  deps: Deps,
  repository: RepositoryName,
  { digest, tag }: Reference,
  withoutBytes: boolean,
  done: (found: StoredManifest | undefined, error?: unknown) => void,
): void {
  const place = `${repository}:${tag}`
  const guess = digest ?? deps.guesses.get(place)
  const atHand = guess && deps.bytes.get(guess)
  const known = withoutBytes ? 'all' : atHand ? guess : undefined
  deps.together.manifest.ask({ repository, digest, tag, known }, (error, found) => {
    if (found?.payload) {
      deps.bytes.set(found.digest, found.payload)
      if (tag !== undefined) deps.guesses.set(place, found.digest)
    } else if (found && !withoutBytes) found.payload = atHand
    done(found, error)
  })
}

function readManifest(
  deps: Deps,
  repository: RepositoryName,
  reference: Reference,
  withoutBytes: boolean,
): Promise<StoredManifest | undefined> {
  return new Promise((resolve, reject) => {
    askManifest(deps, repository, reference, withoutBytes, (found, error) =>
      error === undefined ? resolve(found) : reject(error),
    )
  })
}

/** What was missed, by way of the repository's upstream where it has one. */
async function readThrough(
  c: Context<Env>,
  deps: Deps,
  name: RepositoryName,
  reference: Reference,
  withoutBytes: boolean,
): Promise<StoredManifest | undefined> {
  const digest = await patiently(c, () => fetchManifest(deps, name, reference))
  return digest && readManifest(deps, name, { digest }, withoutBytes)
}

/** What is said of a manifest beside its bytes, whole or not. */
export function manifestHead({ digest, mediaType }: StoredManifest): Head {
  return [
    ...['content-type', mediaType, 'docker-content-digest', digest, 'etag', `"${digest}"`],
    ...['cache-control', 'private, no-cache', ...inert],
  ]
}

/** A tag that cannot be one names nothing: 404, as for any that is not there. */
function referenceToRead(text: string | undefined): Reference {
  const reference = parseReference(text ?? '')
  if (reference) return reference
  if (text?.includes(':')) throw new Failure('DIGEST_INVALID', { detail: `${JSON.stringify(text)} is not a digest` })
  throw new Failure('MANIFEST_UNKNOWN', { detail: `${JSON.stringify(text)} is not a tag` })
}

function referenceToWrite(text: string): Reference {
  const reference = parseReference(text)
  if (reference) return reference
  if (text.includes(':')) throw new Failure('DIGEST_INVALID', { detail: `${JSON.stringify(text)} is not a digest` })
  throw badTag(text)
}

function tagQueries(texts: string[]): Tag[] {
  if (texts.length > maxTags) throw new Failure('TOO_MANY_TAGS', { detail: { most: maxTags } })
  return texts.map((text) => parseTag(text) ?? raise(badTag(text)))
}

function badTag(text: string): Failure {
  return new Failure('TAG_INVALID', {
    detail: `${JSON.stringify(text.slice(0, 200))} is not a tag: up to 128 letters, digits, ".", "_" and "-", not starting with "." or "-"`,
  })
}

function raise(failure: Failure): never {
  throw failure
}

/** The digest in an If-Match header. One that is no digest matches nothing. */
export function digestOfEtag(header: string | undefined): Digest | undefined {
  if (header === undefined) return undefined
  const digest = parseDigest(header.trim().replace(/^"|"$/g, ''))
  if (!digest) throw new Failure('PRECONDITION_FAILED', { detail: 'If-Match is not the ETag of a manifest' })
  return digest
}
