import { ask, askRead, type Database, violated } from '../db/client.ts'
import { findManifests, insertManifest, missingBlobs } from '../db/manifests.ts'
import { deleteTag, freshTag, tagTarget } from '../db/tags.ts'
import {
  awaitBlobs,
  awaitingManifest,
  deleteUpstream,
  findUpstream,
  listUpstreams,
  postponeRecheck,
  putUpstream,
  setFetchedTag,
  settleBlob,
  type UpstreamRow,
} from '../db/upstreams.ts'
import type { Deps } from '../deps.ts'
import { Failure, unavailable } from '../errors.ts'
import type { Digest } from '../oci/digest.ts'
import { blobSizes, type Manifest, parseManifest } from '../oci/manifest.ts'
import { parseName, type RepositoryName } from '../oci/name.ts'
import type { Reference, Tag } from '../oci/reference.ts'
import { claimedDigest, getManifest, type RemoteManifest } from '../remote/manifests.ts'
import { type Credentials, openRemote, originOf, type Remote } from '../remote/remote.ts'
import { fetchBlob } from './fetch-blob.ts'
import { once } from './fetch-once.ts'
import { seal, unseal } from './sealed.ts'

// Pull-through. What is missed in a repository below an upstream's prefix is asked of the upstream once, however many ask
// for it here at that moment (see fetch-once.ts), and stored; then it is read like anything else. Should two processes fetch
// the same at once, both store the same bytes under the same digest, and of two answers about a tag the later question wins.
// A manifest is hashed before it is stored, a blob while it is, and is visible when it is whole and right.

/** `hosts`: further hosts that belong to the upstream, such as its token service. */
export type UpstreamOptions = { allowPrivate?: boolean | undefined; hosts?: readonly string[] | undefined }

export type Upstream = UpstreamRow<UpstreamOptions>

export type UpstreamInput = {
  url: string
  remotePrefix: string
  credentials?: Credentials | undefined
  tagTtlSeconds: number
  options: UpstreamOptions
}

const purpose = 'upstream credentials'

/** Throws REQUEST_INVALID where the prefix or the URL cannot be one. */
export async function setUpstream(deps: Deps, prefix: RepositoryName, input: UpstreamInput): Promise<void> {
  if (prefix === 'packs' || prefix.startsWith('packs/'))
    throw new Failure('REQUEST_INVALID', { detail: 'packs are published or mirrored; use a pull mirror for them' })
  const { credentials, ...rest } = input
  const sealed = credentials ? seal(deps.uploadSecret, purpose, JSON.stringify(credentials)) : null
  const url = originOf(input.url).origin
  await ask(deps.db, (sql) => putUpstream(sql, { prefix, ...rest, url, credentials: sealed }))
  stateOf(deps).prefixes = undefined
}

/** What has been fetched stays, and is ours from then on. False where there was none. */
export async function removeUpstream(deps: Deps, prefix: RepositoryName): Promise<boolean> {
  const deleted = await ask(deps.db, (sql) => deleteUpstream(sql, prefix))
  stateOf(deps).prefixes = undefined
  return deleted
}

type State = {
  /** By prefix; another one when the upstream is changed. */
  remotes: Map<string, { version: string; remote: Remote }>
  prefixes: { until: number; list: Promise<readonly string[]> } | undefined
}

const states = new WeakMap<Database, State>()

function stateOf({ db }: Deps): State {
  const state = states.get(db) ?? { remotes: new Map(), prefixes: undefined }
  states.set(db, state)
  return state
}

/** How long another process may not know that there is a new upstream. */
const prefixesMs = 2000

/** The prefix of an upstream that a repository is below: a guess that costs a statement now and then. */
async function prefixOf(deps: Deps, repository: RepositoryName): Promise<string | undefined> {
  const state = stateOf(deps)
  if (!state.prefixes || performance.now() > state.prefixes.until) {
    const list = askRead(deps.db, listUpstreams).then((rows) => rows.map(({ prefix }) => prefix))
    state.prefixes = { until: performance.now() + prefixesMs, list }
    list.catch(() => {
      state.prefixes = undefined
    })
  }
  return (await state.prefixes.list).find((prefix) => repository.startsWith(`${prefix}/`))
}

/** Throws UPSTREAM_READ_ONLY where the repository is filled from an upstream. */
export async function requireNoUpstream(deps: Deps, repository: RepositoryName): Promise<void> {
  const prefix = await prefixOf(deps, repository)
  if (prefix === undefined) return
  throw new Failure('UPSTREAM_READ_ONLY', {
    detail: `${repository} is filled from the upstream of ${prefix}: push there, or into a repository outside of ${prefix}`,
  })
}

/**
 * Fetches a manifest that was missed. Answers the digest under which it can be read now; undefined where the repository
 * has no upstream, or that has no such manifest. A tag that was known is answered as it was where the upstream fails.
 */
export async function fetchManifest(
  deps: Deps,
  repository: RepositoryName,
  { tag, digest }: Reference,
): Promise<Digest | undefined> {
  const upstream = await upstreamOf(deps, repository)
  if (!upstream) return undefined
  if (tag !== undefined)
    return once(deps, `${repository}:${tag}`, {
      here: () => askRead(deps.db, (sql) => freshTag(sql, repository, tag)),
      fetch: () => fetchTag(deps, upstream, repository, tag),
    })
  return once(deps, `${repository}@${digest}`, {
    async here() {
      const question = { repository, digest, tag: undefined, known: 'all' as const }
      const [found] = await askRead(deps.db, (sql) => findManifests(sql, [question]))
      return found && digest
    },
    fetch: () => fetchByDigest(deps, upstream, repository, digest),
  })
}

/** Fetches a blob that was missed. False where there is no upstream, or it has no such blob. */
export async function fetchMissedBlob(deps: Deps, repository: RepositoryName, digest: Digest): Promise<boolean> {
  const upstream = await upstreamOf(deps, repository)
  if (!upstream) return false
  return once(deps, `${repository} blob ${digest}`, {
    async here() {
      return (await deps.together.linkedBlob.load({ repository, digest })) ? true : undefined
    },
    async fetch() {
      const { remote, place } = wayTo(deps, upstream, repository)
      const manifest = await askRead(deps.db, (sql) => awaitingManifest(sql, { repository, digest }))
      const size = manifest && blobSizes(manifest).get(digest)
      if ((await fetchBlob(deps, remote, { repository, place, digest, size })) === undefined) return false
      await ask(deps.db, (sql) => settleBlob(sql, { repository, digest }))
      deps.log.info({ repository, digest, upstream: upstream.prefix }, 'blob fetched from its upstream')
      return true
    },
  })
}

async function upstreamOf(deps: Deps, repository: RepositoryName): Promise<Upstream | undefined> {
  if ((await prefixOf(deps, repository)) === undefined) return undefined
  return (await askRead(deps.db, (sql) => findUpstream(sql, repository))) as Upstream | undefined
}

/** The registry to ask, and what the repository is called there. */
function wayTo(deps: Deps, upstream: Upstream, repository: RepositoryName): { remote: Remote; place: RepositoryName } {
  const rest = repository.slice(upstream.prefix.length + 1)
  const place = parseName(upstream.remotePrefix === '' ? rest : `${upstream.remotePrefix}/${rest}`)
  if (!place) throw new Failure('NAME_INVALID', { detail: `${repository} has too long a name at its upstream` })
  const { remotes } = stateOf(deps)
  const known = remotes.get(upstream.prefix)
  if (known?.version === upstream.version) return { remote: known.remote, place }
  const { url, options, credentials } = upstream
  const text = credentials ? unseal(deps.uploadSecret, purpose, credentials) : undefined
  const remote = openRemote({
    url,
    ...options,
    credentials: text === undefined ? undefined : (JSON.parse(text) as Credentials),
    // Somebody waits for it: better to say soon that it cannot be had.
    ...{ concurrency: 16, attempts: 2, baseDelayMs: 200, idleTimeoutMs: 20_000 },
  })
  remotes.set(upstream.prefix, { version: upstream.version, remote })
  return { remote, place }
}

async function fetchByDigest(
  deps: Deps,
  upstream: Upstream,
  repository: RepositoryName,
  digest: Digest,
): Promise<Digest | undefined> {
  const { remote, place } = wayTo(deps, upstream, repository)
  const manifest = await getManifest(remote, place, digest)
  if (!manifest) return undefined
  await store(deps, repository, manifest)
  return digest
}

/** After a failure of its upstream, a tag that is known is not asked for again for so long. */
const mercySeconds = 30

async function fetchTag(
  deps: Deps,
  upstream: Upstream,
  repository: RepositoryName,
  tag: Tag,
): Promise<Digest | undefined> {
  const known = await askRead(deps.db, (sql) => tagTarget(sql, repository, tag))
  try {
    return await refreshTag(deps, upstream, { repository, tag, known })
  } catch (error) {
    if (known === undefined || !(error instanceof Failure)) throw error
    deps.log.warn({ error, repository, tag, upstream: upstream.prefix }, 'upstream fails; what is known is served')
    const seconds = Math.min(mercySeconds, upstream.tagTtlSeconds)
    await ask(deps.db, (sql) => postponeRecheck(sql, repository, tag, seconds))
    return known
  }
}

type Question = { repository: RepositoryName; tag: Tag; known: Digest | undefined }

async function refreshTag(
  deps: Deps,
  upstream: Upstream,
  { repository, tag, known }: Question,
): Promise<Digest | undefined> {
  const { remote, place } = wayTo(deps, upstream, repository)
  const { prefix, tagTtlSeconds: seconds } = upstream
  const askedAt = performance.now()
  const keep = (digest: Digest) =>
    ask(deps.db, (sql) => {
      const ageSeconds = (performance.now() - askedAt) / 1000
      return setFetchedTag(sql, { repository, tag, digest }, { prefix, seconds, ageSeconds })
    })
  // Many registries count what is fetched, and not what is only asked for.
  if (known !== undefined && (await claimedDigest(remote, place, tag)) === known) {
    await keep(known)
    return known
  }
  const manifest = await getManifest(remote, place, tag)
  if (!manifest) {
    // It is gone there, so it is gone here.
    if (known !== undefined) await ask(deps.db, (sql) => deleteTag(sql, repository, tag))
    return undefined
  }
  await store(deps, repository, manifest)
  await keep(manifest.digest)
  return manifest.digest
}

/** Throws REMOTE_INVALID where it is none: that is no fault of whoever asked for it. */
function manifestOf(repository: RepositoryName, mediaType: string, bytes: Buffer): Manifest {
  try {
    return parseManifest(bytes, mediaType || undefined)
  } catch (error) {
    if (!(error instanceof Failure) || error.key !== 'MANIFEST_INVALID') throw error
    throw new Failure('REMOTE_INVALID', {
      detail: `the upstream of ${repository} answers with something that is no manifest: ${error.detail}`,
      cause: error,
    })
  }
}

/** Stores a manifest before its blobs are here: those are fetched when they are asked for, and held by it then. */
async function store(
  deps: Deps,
  repository: RepositoryName,
  { digest, mediaType, bytes }: RemoteManifest,
): Promise<void> {
  const manifest = manifestOf(repository, mediaType, bytes)
  // A link may be collected, and the repository come into being, in the same moment: at the next try it is seen.
  for (let tries = 0; tries < 5; tries++) {
    try {
      const stored = await ask(deps.db, (sql) =>
        sql.begin(async (tx) => {
          const missing = new Set(await missingBlobs(tx, repository, manifest.blobs))
          const blobs = manifest.blobs.filter((blob) => !missing.has(blob))
          const outcome = await insertManifest(tx, repository, digest, { ...manifest, blobs }, bytes, [])
          if (outcome === 'stored') await awaitBlobs(tx, { repository, digest }, [...missing])
          return outcome
        }),
      )
      if (stored === 'stored') return
    } catch (error) {
      if (violated(error) === undefined) throw error
    }
  }
  throw unavailable('database', new Error(`manifest ${digest} kept meeting other writers`))
}
