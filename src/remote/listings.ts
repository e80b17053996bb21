import { Failure } from '../errors.ts'
import { type Descriptor, isObject, parseDescriptor } from '../oci/descriptor.ts'
import type { Digest } from '../oci/digest.ts'
import { maxManifestBytes } from '../oci/manifest.ts'
import { parseName, type RepositoryName } from '../oci/name.ts'
import { parseTag, type Tag } from '../oci/reference.ts'
import { askWhole } from './ask.ts'
import { getManifest, pullScope } from './manifests.ts'
import type { Remote } from './remote.ts'

type Cancellable = { signal?: AbortSignal | undefined }

/** More pages than any listing has; a remote must not keep us busy for good. */
const mostPages = 10_000
const pageBytes = 16 * 1024 * 1024
/** All pages of a listing together: it is kept in memory. Some million tags, or 100,000 referrers. */
const listingBytes = 64 * 1024 * 1024

/** All tags of a repository, as the remote orders them; undefined where it has no such repository. */
export async function listTags(
  remote: Remote,
  name: RepositoryName,
  { signal }: Cancellable = {},
): Promise<Tag[] | undefined> {
  const tags = new Set<Tag>()
  let known = false
  for await (const page of pages(remote, `/v2/${name}/tags/list?n=1000`, [pullScope(name)], signal)) {
    known = true
    for (const text of textsIn(page.tags)) {
      const tag = parseTag(text)
      if (tag) tags.add(tag)
    }
  }
  return known ? [...tags] : undefined
}

/** Every repository that the remote tells us of. Throws REMOTE_REFUSED where it has no catalog. */
export async function listRepositories(remote: Remote, { signal }: Cancellable = {}): Promise<RepositoryName[]> {
  const names = new Set<RepositoryName>()
  let known = false
  for await (const page of pages(remote, '/v2/_catalog?n=1000', ['registry:catalog:*'], signal)) {
    known = true
    for (const text of textsIn(page.repositories)) {
      const name = parseName(text)
      if (name) names.add(name)
    }
  }
  if (known) return [...names]
  throw new Failure('REMOTE_REFUSED', {
    detail: `${remote.url.host} does not list its repositories; name the packs instead of using patterns`,
  })
}

/** What refers to a manifest: by the API, or where the remote lacks it, by the fallback tag. Source: distribution-spec. */
export async function listReferrers(
  remote: Remote,
  name: RepositoryName,
  subject: Digest,
  { signal }: Cancellable = {},
): Promise<{ referrers: Descriptor[]; api: boolean }> {
  const referrers: Descriptor[] = []
  let api = false
  for await (const page of pages(remote, `/v2/${name}/referrers/${subject}`, [pullScope(name)], signal)) {
    api = true
    referrers.push(...descriptorsIn(page))
  }
  if (api) return { referrers, api }
  const index = await getManifest(remote, name, fallbackTag(subject), { signal })
  return { referrers: index ? descriptorsIn(parsed(index.bytes) ?? {}) : [], api }
}

/** The tag under which registries without the referrers API keep the list. Source: distribution-spec. */
export function fallbackTag(subject: Digest): Tag {
  return subject.replace(':', '-') as string as Tag
}

/**
 * Throws REMOTE_INVALID where a listing does not end: it comes back to a page, or grows beyond what any has. And where the
 * rest of it cannot be had, for a part would look like all there is.
 */
async function* pages(
  remote: Remote,
  first: string,
  scopes: readonly string[],
  signal: AbortSignal | undefined,
): AsyncGenerator<Record<string, unknown>, void, undefined> {
  const seen = new Set<string>()
  let left = listingBytes
  for (let at: URL | undefined = new URL(first, remote.url); at; ) {
    const { pathname } = at
    const bad = (problem: string) =>
      new Failure('REMOTE_INVALID', { detail: `${remote.url.host} answers ${pathname} with ${problem}` })
    if (seen.has(at.href)) throw bad('a next page that was read before')
    if (seen.size >= mostPages) throw bad(`more than ${mostPages} pages`)
    seen.add(at.href)
    const answer = await askWhole(remote, { method: 'GET', at, scopes, signal }, pageBytes)
    // A repository without anything; or the call is not there.
    if (!answer && seen.size === 1) return
    if (!answer) throw bad('a next page that is not there')
    left -= answer.bytes.length
    if (left < 0) throw bad(`pages of more than ${listingBytes} bytes together`)
    const document = parsed(answer.bytes)
    if (!document) throw bad('no list')
    yield document
    at = nextOf(answer.message.headers.link, answer.url)
    if (at && at.origin !== remote.url.origin) throw bad(`a next page at ${at.origin}`)
  }
}

/** The next page by a Link header. Source: RFC 8288. */
function nextOf(header: string | string[] | undefined, url: URL): URL | undefined {
  const text = [header].flat().join(', ')
  const target = /<([^<>]*)>\s*;[^<]*\brel="?next\b/.exec(text)?.[1]
  return target !== undefined && URL.canParse(target, url.href) ? new URL(target, url) : undefined
}

function parsed(bytes: Buffer): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(bytes.toString())
    return isObject(value) ? value : undefined
  } catch {
    return undefined
  }
}

function textsIn(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((entry) => typeof entry === 'string') : []
}

/** What is no descriptor is left out: it may be news of a time to come. */
function descriptorsIn({ manifests }: Record<string, unknown>): Descriptor[] {
  if (!Array.isArray(manifests)) return []
  return manifests.slice(0, maxManifestBytes / 100).flatMap((entry, i) => {
    try {
      return [parseDescriptor(entry, `manifests[${i}]`)]
    } catch {
      return []
    }
  })
}
