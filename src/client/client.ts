/**
 * The client of a packs registry, for a TaskRunner: `import { openClient } from 'packs-registry/client'`. It needs
 * nothing but Node, and takes nothing on trust: every byte it writes is checked against a digest.
 *
 * Resolve once, where the registry is asked what is newest, and store the lock beside the task:
 * ```ts
 * const client = openClient({
 *   url: 'https://packs.example.org',
 *   credentials: { token },
 *   cacheDir: '/var/cache/task-runner/packs',
 * })
 * const { bytes } = await client.resolve({ roots: ['deploy-checks@^2.1.0'], runner: '1.5.0', channel: 'stable' })
 * await writeFile('packs.lock', bytes)
 * ```
 * Pull as often as needed: a lock names digests, so every run on every machine gets the same bytes, and what the cache
 * has is not asked for. A pull that was interrupted, even by a crash, goes on where it was.
 * ```ts
 * const lock = parseLock(await readFile('packs.lock'))
 * const packs = await client.pull(lock, { into: workDir, signal: AbortSignal.timeout(600_000) })
 * for (const { packId, version, file } of packs) await runner.load(packId, version, file)
 * ```
 * Failures are PacksErrors. What may pass (a lost connection, 408, 429, 5xx) has been tried again by then:
 * ```ts
 * try {
 *   await client.pull(lock, { into: workDir })
 * } catch (error) {
 *   if (!(error instanceof PacksError)) throw error
 *   if (error.code === 'DIGEST_MISMATCH') quarantine(error.message)
 *   else if (error.code === 'UNREACHABLE') retryLater(error.message)
 *   else throw error
 * }
 * ```
 * Certificates of a private authority: start Node with `NODE_EXTRA_CA_CERTS=/path/to/ca.pem`.
 */

import { createHash } from 'node:crypto'
import http from 'node:http'
import https from 'node:https'
import { type Audit, auditOf } from './audit.ts'
import { type Bundles, bundlesOf } from './bundles.ts'
import { ask, askFor, type Connection, jsonBody } from './connection.ts'
import { type Events, eventsOf } from './events.ts'
import { type Exports, exportsOf } from './exports.ts'
import { PacksError } from './failure.ts'
import { type Imports, importsOf } from './imports.ts'
import { type Jobs, jobsOf } from './jobs.ts'
import { type Keys, keysOf } from './keys.ts'
import { type Lock, type LockedPack, parseLock } from './lock.ts'
import { type Mirrors, mirrorsOf } from './mirrors.ts'
import {
  type Dependent,
  type Pack,
  type PackState,
  type PackSummary,
  type PackType,
  type PackVersion,
  packPath,
  type Referrer,
} from './pack.ts'
import { type DryRun, type Published, publish, type Submission, type UploadProgress } from './publish.ts'
import { type PulledPack, type PullOptions, pull, pullOne } from './pull.ts'
import { type Quotas, quotasOf } from './quotas.ts'
import { type Retention, retentionOf } from './retention.ts'
import { type Scrubs, scrubsOf } from './scrub.ts'
import { type Tokens, tokensOf } from './tokens.ts'
import { type Webhooks, webhooksOf } from './webhooks.ts'

export type { Audit, AuditCheck, AuditEvent, AuditQuery } from './audit.ts'
export type { BundlePlan, BundleProblem, BundleRequest, Bundles, PlannedBundle } from './bundles.ts'
export type { Events, EventsQuery, PackEvent } from './events.ts'
export type { Export, Exports } from './exports.ts'
export type { PacksErrorCode } from './failure.ts'
export type { ImportOptions, ImportProblem, ImportReport, ImportSource, ImportStatus, Imports } from './imports.ts'
export type { Job, JobKind, JobState, Jobs, JobsQuery, SentJob } from './jobs.ts'
export type { Key, Keys } from './keys.ts'
export type { Lock, LockedDependency, LockedPack } from './lock.ts'
export type {
  Mirror,
  MirrorEntry,
  MirrorOptions,
  MirrorParity,
  MirrorRun,
  MirrorSelection,
  Mirrors,
  NewMirror,
} from './mirrors.ts'
export type {
  Dependency,
  Dependent,
  Pack,
  PackDocument,
  PackState,
  PackSummary,
  PackType,
  PackVersion,
  Referrer,
} from './pack.ts'
export type { DryRun, Published, Submission, UploadProgress } from './publish.ts'
export type { PulledPack, PullOptions, PullProgress } from './pull.ts'
export type { Quota, Quotas } from './quotas.ts'
export type {
  Hold,
  Keeping,
  Retention,
  RetentionDecision,
  RetentionPolicy,
  RetentionRemoval,
  RetentionRun,
  StoredPolicy,
} from './retention.ts'
export type { ScrubFinding, ScrubPass, ScrubState, Scrubs } from './scrub.ts'
export type { ApiToken, NewApiToken, TokenAction, Tokens } from './tokens.ts'
export type {
  Delivery,
  DeliveryAttempt,
  DeliveryState,
  NewWebhook,
  Webhook,
  WebhookOptions,
  WebhookState,
  Webhooks,
  WebhookTest,
} from './webhooks.ts'
export { PacksError, parseLock }

/** How to reach a registry, and how patiently. */
export type ClientOptions = {
  /** The registry's address, such as `https://packs.example.org`; a path in it is kept. */
  url: string
  /** Sent with every request to this address, and to no other. */
  credentials?: { username: string; password: string } | { token: string }
  /** A folder for verified downloads, which several processes may share. Without it nothing is kept between pulls. */
  cacheDir?: string
  /** How often a request is tried when the network or the server fails: 5. */
  attempts?: number
  /** The first pause between tries in milliseconds, doubled each time: 200. */
  baseDelayMs?: number
  /** How long no byte may move before a connection counts as dead, in milliseconds: 30,000. There is no other time-out. */
  idleTimeoutMs?: number
  /** How many files one pull fetches at a time: 4. */
  concurrency?: number
  userAgent?: string
}

type Cancellable = { signal?: AbortSignal | undefined }
type ForRunner = Cancellable & {
  /** The runner's version: only what it can run. */
  runner?: string | undefined
}

/** Filters of a search; all must hold. */
export type SearchQuery = {
  /** Words or beginnings of words. */
  q?: string
  type?: PackType
  author?: string
  /** The runner's version: only packs that it can run, each shown by the newest such version. */
  runner?: string
  state?: PackState
  /** `relevance` with words, else `id`, unless given. */
  sort?: 'id' | 'updated' | 'relevance'
  /** How many are asked for at a time: 1 to 1,000. */
  pageSize?: number
}

/** What to resolve. */
export type ResolveRequest = {
  /** Packs with ranges: `{ packId, version }`, or `net-rules@^1.2.0`. */
  roots: readonly ({ packId: string; version: string } | string)[]
  runner?: string
  /** For every pack that has this channel, its version is tried first. */
  channel?: string
  /** Its versions are tried first: what need not change does not. */
  lock?: Lock
}

/** What a version needs, all the way down. `resolved`: the version chosen; absent where nothing satisfies the range. */
export type DependencyTree = {
  packId: string
  version: string
  dependencies: DependencyNode[]
}
export type DependencyNode = {
  packId: string
  range: string
  optional?: boolean
  resolved?: string
  dependencies?: DependencyNode[]
}

/** A channel, where it points now. `manifestDigest` may be given to the next call as `ifMatch`. */
export type Channel = { packId: string; channel: string; version: string; manifestDigest: string }

/** A registry as its clients see it. Every call throws PacksError, with the code CANCELLED when its signal says so. */
export type Client = {
  readonly url: string
  /** What bundles are signed and verified with. */
  readonly keys: Keys
  readonly tokens: Tokens
  readonly quotas: Quotas
  readonly audit: Audit
  readonly scrubs: Scrubs
  /** Whether the registry answers and takes the credentials. Throws UNREACHABLE, UNAUTHORIZED. */
  ping(options?: Cancellable): Promise<void>
  /** Packs, page by page as they are consumed. */
  search(query?: SearchQuery, options?: Cancellable): AsyncGenerator<PackSummary, void, undefined>
  /**
   * A version of a pack: exact, the highest in a range, that of a channel, or `latest`; without `version` the latest,
   * or the newest that the runner can run. Throws PACK_UNKNOWN, VERSION_UNKNOWN, RUNNER_TOO_OLD.
   */
  pack(packId: string, options?: ForRunner & { version?: string | undefined }): Promise<Pack>
  /** All versions, the newest first. Throws PACK_UNKNOWN. */
  versions(packId: string, options?: ForRunner): Promise<PackVersion[]>
  /** What a version needs, resolved against what is published now. */
  dependencies(packId: string, version: string, options?: ForRunner): Promise<DependencyTree>
  /** Versions of other packs that need this one. */
  dependents(packId: string, version: string, options?: Cancellable): Promise<Dependent[]>
  /** Signatures, SBOMs and attestations of a version. */
  referrers(packId: string, version: string, options?: Cancellable): Promise<Referrer[]>
  /** The closure of the roots as a lock. `bytes`: its exact text, to be stored. Throws UNRESOLVABLE, which says why. */
  resolve(request: ResolveRequest, options?: Cancellable): Promise<{ lock: Lock; bytes: Uint8Array }>
  /**
   * Fetches every pack of a lock into `<into>/<packId>/`, verified, in the lock's order. Throws LOCK_INVALID before
   * anything is asked; DIGEST_MISMATCH, SIZE_MISMATCH. The first failure stops the others; files that are finished
   * stay, and the next pull goes on from there.
   */
  pull(lock: Lock, options: PullOptions): Promise<PulledPack[]>
  /** Fetches one pack, as `pack` or a lock describes it, into `<into>/<packId>/`, verified. */
  pullOne(pack: LockedPack | Pack, options: PullOptions): Promise<PulledPack>
  /** Publishes a version. Throws PACK_INVALID, VERSION_EXISTS, VERSION_SPENT, DEPENDENCY_INVALID, CONTENT_CHANGED. */
  publish(submission: Submission & { dryRun: true }, options?: UploadOptions): Promise<DryRun>
  publish(submission: Submission & { dryRun?: false }, options?: UploadOptions): Promise<Published>
  publish(submission: Submission, options?: UploadOptions): Promise<Published | DryRun>
  /** Says of a version that it is active, deprecated or yanked. `replacedBy`: the id of a pack, or `id@version`. */
  setState(
    packId: string,
    version: string,
    change: { state: PackState; message?: string | undefined; replacedBy?: string | undefined },
    options?: Cancellable,
  ): Promise<Pack>
  /**
   * Points a channel at a published version. `ifMatch`: the digest of the manifest that it must point at now.
   * Throws PRECONDITION_FAILED where it points elsewhere by now, CHANNEL_BACKWARDS where it names a newer version, unless
   * `allowOlder` says why that is meant.
   */
  setChannel(
    packId: string,
    channel: string,
    version: string,
    options?: Cancellable & { ifMatch?: string | undefined; allowOlder?: { reason: string } | undefined },
  ): Promise<Channel>
  /**
   * Deletes a version; its number is never used again. False where there was none (also where the answer of an earlier
   * try was lost). Throws DEPENDENTS_EXIST unless `force`.
   */
  remove(packId: string, version: string, options?: Cancellable & { force?: boolean | undefined }): Promise<boolean>
  /** Bundle files, as they leave. */
  readonly bundles: Bundles
  /** Bundle files that the registry makes in the background. */
  readonly exports: Exports
  /** Bundle files that come into the registry. */
  readonly imports: Imports
  /** Background work. */
  readonly jobs: Jobs
  /** Other registries that packs are pushed to or pulled from. */
  readonly mirrors: Mirrors
  /** What is removed by itself, and what never is. */
  readonly retention: Retention
  /** What happens, as it does. */
  readonly events: Events
  /** Where events are sent to. */
  readonly webhooks: Webhooks
}

type UploadOptions = Cancellable & { onProgress?: ((progress: UploadProgress) => void) | undefined }

/** A client of the registry at `url`. It opens nothing yet, and needs no closing. Throws REQUEST_INVALID. */
export function openClient(options: ClientOptions): Client {
  const connection = connectionOf(options)
  const settings = { cacheDir: options.cacheDir, concurrency: options.concurrency ?? 4 }
  return {
    url: connection.base,
    keys: keysOf(connection),
    tokens: tokensOf(connection),
    quotas: quotasOf(connection),
    audit: auditOf(connection),
    scrubs: scrubsOf(connection),
    async ping({ signal } = {}) {
      await ask(connection, { path: '/v2/', signal })
    },
    pull: (lock, pullOptions) => pull(connection, settings, lock, pullOptions),
    pullOne: (pack, pullOptions) => pullOne(connection, settings, pack, pullOptions),
    bundles: bundlesOf(connection),
    exports: exportsOf(connection),
    imports: importsOf(connection),
    jobs: jobsOf(connection),
    mirrors: mirrorsOf(connection),
    retention: retentionOf(connection),
    events: eventsOf(connection),
    webhooks: webhooksOf(connection),
    ...readsOf(connection),
    ...changesOf(connection),
  }
}

function connectionOf({
  url,
  credentials,
  attempts = 5,
  baseDelayMs = 200,
  idleTimeoutMs = 30_000,
  userAgent = 'packs-registry-client',
}: ClientOptions): Connection {
  const address = URL.canParse(url) ? new URL(url) : undefined
  if (!address || !/^https?:$/.test(address.protocol) || address.search || address.hash)
    throw new PacksError(
      'REQUEST_INVALID',
      `${JSON.stringify(url)} is not the address of a registry, such as https://packs.example.org`,
    )
  if (address.username || address.password)
    throw new PacksError('REQUEST_INVALID', 'credentials do not belong in the url; give them as credentials')
  return {
    base: address.origin + address.pathname.replace(/\/+$/, ''),
    authorization: authorizationOf(credentials),
    agents: { http: new http.Agent({ keepAlive: true }), https: new https.Agent({ keepAlive: true }) },
    ...{ attempts: Math.max(1, attempts), baseDelayMs, idleTimeoutMs, userAgent },
  }
}

function authorizationOf(credentials: ClientOptions['credentials']): string | undefined {
  if (!credentials) return undefined
  if ('token' in credentials) return `Bearer ${credentials.token}`
  const { username, password } = credentials
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`
}

function readsOf(connection: Connection) {
  return {
    search: (query = {}, options = {}) => search(connection, query, options),
    async pack(packId, { version, runner, signal } = {}) {
      const path = version === undefined ? packPath(packId) : packPath(packId, version, 'manifest')
      const call = { path: path + queryOf({ runner }), signal }
      return (await askFor<{ pack: Pack }>(connection, 'pack', call)).pack
    },
    async versions(packId, { runner, signal } = {}) {
      const call = { path: packPath(packId, 'versions') + queryOf({ runner }), signal }
      return (await askFor<{ versions: PackVersion[] }>(connection, 'versions', call)).versions
    },
    async dependencies(packId, version, { runner, signal } = {}) {
      const call = { path: packPath(packId, version, 'dependencies') + queryOf({ runner }), signal }
      return askFor<DependencyTree>(connection, 'dependencies', call)
    },
    async dependents(packId, version, { signal } = {}) {
      const call = { path: packPath(packId, version, 'dependents'), signal }
      return (await askFor<{ dependents: Dependent[] }>(connection, 'dependents', call)).dependents
    },
    async referrers(packId, version, { signal } = {}) {
      const call = { path: packPath(packId, version, 'referrers'), signal }
      return (await askFor<{ referrers: Referrer[] }>(connection, 'referrers', call)).referrers
    },
    async resolve(request, { signal } = {}) {
      const call = { method: 'POST' as const, path: '/resolve', body: jsonBody(request), signal }
      const { bytes, headers } = await ask(connection, call)
      requireWhole(bytes, headers['repr-digest'])
      return { lock: parseLock(bytes), bytes }
    },
  } satisfies Partial<Client>
}

/** Throws DIGEST_MISMATCH where the bytes are not those the registry sent. Source: RFC 9530, "Repr-Digest". */
function requireWhole(bytes: Uint8Array, header: string | string[] | undefined): void {
  const announced = /(?:^|[,\s])sha-256=:([A-Za-z0-9+/=]+):/.exec(String(header ?? ''))?.[1]
  if (announced === undefined || announced === createHash('sha256').update(bytes).digest('base64')) return
  throw new PacksError('DIGEST_MISMATCH', 'the lock was changed on its way from the registry; resolve again')
}

async function* search(connection: Connection, { pageSize, ...filters }: SearchQuery, { signal }: Cancellable) {
  const limit = pageSize === undefined ? undefined : String(pageSize)
  let after: string | undefined
  do {
    const call = { path: `/packs${queryOf({ ...filters, limit, after })}`, signal }
    const page = await askFor<{ packs: PackSummary[]; next?: string }>(connection, 'packs', call)
    yield* page.packs
    after = page.next
  } while (after !== undefined)
}

function queryOf(fields: Record<string, string | undefined>): string {
  const query = new URLSearchParams(Object.entries(fields).filter((entry): entry is [string, string] => !!entry[1]))
  return query.size > 0 ? `?${query}` : ''
}

function changesOf(connection: Connection) {
  return {
    // Which of the two it answers depends on `dryRun`, as the overloads say.
    publish: ((submission, options = {}) => publish(connection, submission, options)) as Client['publish'],
    async setState(packId, version, change, { signal } = {}) {
      const call = { method: 'PATCH' as const, path: packPath(packId, version), body: jsonBody(change), signal }
      return (await askFor<{ pack: Pack }>(connection, 'pack', call)).pack
    },
    setChannel: (packId, channel, version, options = {}) =>
      setChannel(connection, { packId, channel, version }, options),
    async remove(packId, version, { force, signal } = {}) {
      const path = packPath(packId, version) + queryOf({ force: force ? 'true' : undefined })
      return (await askFor<{ deleted: boolean }>(connection, 'deleted', { method: 'DELETE', path, signal })).deleted
    },
  } satisfies Partial<Client>
}

async function setChannel(
  connection: Connection,
  { packId, channel, version }: { packId: string; channel: string; version: string },
  { ifMatch, allowOlder, signal }: NonNullable<Parameters<Client['setChannel']>[3]>,
): Promise<Channel> {
  const headers = ifMatch === undefined ? {} : { 'if-match': `"${ifMatch}"` }
  const query = queryOf(allowOlder ? { allowOlder: 'true', reason: allowOlder.reason } : {})
  const call = { method: 'PUT' as const, path: packPath(packId, 'channels', channel) + query, headers, signal }
  try {
    return await askFor<Channel>(connection, 'manifestDigest', { ...call, body: jsonBody({ version }) })
  } catch (error) {
    if (!(error instanceof PacksError) || error.code !== 'PRECONDITION_FAILED') throw error
    // The answer to an earlier try may have been lost: what points there already needs no change. RFC 9110, 13.1.1.
    const found = { path: packPath(packId, channel, 'manifest'), signal }
    const { pack } = await askFor<{ pack: Pack }>(connection, 'pack', found)
    if (pack.version !== version) throw error
    return { packId, channel, version, manifestDigest: pack.manifestDigest }
  }
}
