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

import http from 'node:http'
import https from 'node:https'
import { type Audit, auditOf } from './audit.ts'
import { type Bundles, bundlesOf } from './bundles.ts'
import { type Changes, changesOf } from './changes.ts'
import { ask, type Connection } from './connection.ts'
import { type Events, eventsOf } from './events.ts'
import { type Exports, exportsOf } from './exports.ts'
import { PacksError } from './failure.ts'
import { type Imports, importsOf } from './imports.ts'
import { type Jobs, jobsOf } from './jobs.ts'
import { type Keys, keysOf } from './keys.ts'
import { type Lock, type LockedPack, parseLock } from './lock.ts'
import { type Mirrors, mirrorsOf } from './mirrors.ts'
import type { Pack } from './pack.ts'
import { type PulledPack, type PullOptions, pull, pullOne } from './pull.ts'
import { type Quotas, quotasOf } from './quotas.ts'
import { type Reads, readsOf } from './reads.ts'
import { type Retention, retentionOf } from './retention.ts'
import type { OnWait } from './retry.ts'
import { type Scrubs, scrubsOf } from './scrub.ts'
import { type Tokens, tokensOf } from './tokens.ts'
import { type Webhooks, webhooksOf } from './webhooks.ts'

export type { Audit, AuditCheck, AuditEvent, AuditQuery } from './audit.ts'
export type { BundlePlan, BundleProblem, BundleRequest, Bundles, PlannedBundle } from './bundles.ts'
export type { Channel } from './changes.ts'
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
export type { DependencyNode, DependencyTree, ResolveRequest, SearchQuery } from './reads.ts'
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
  /** Told before each pause: what failed, and in how many milliseconds it is tried again. */
  onWait?: OnWait
  /** How long no byte may move before a connection counts as dead, in milliseconds: 30,000. There is no other time-out. */
  idleTimeoutMs?: number
  /** How many files one pull fetches at a time: 4. */
  concurrency?: number
  userAgent?: string
}

type Cancellable = { signal?: AbortSignal | undefined }
/** A registry as its clients see it. Every call throws PacksError, with the code CANCELLED when its signal says so. */
export type Client = Reads &
  Changes & {
    readonly url: string
    /** What bundles are signed and verified with. */
    readonly keys: Keys
    readonly tokens: Tokens
    readonly quotas: Quotas
    readonly audit: Audit
    readonly scrubs: Scrubs
    /** Whether the registry answers and takes the credentials. Throws UNREACHABLE, UNAUTHORIZED. */
    ping(options?: Cancellable): Promise<void>
    /**
     * Fetches every pack of a lock into `<into>/<packId>/`, verified, in the lock's order. Throws LOCK_INVALID before
     * anything is asked; DIGEST_MISMATCH, SIZE_MISMATCH. The first failure stops the others; files that are finished
     * stay, and the next pull goes on from there.
     */
    pull(lock: Lock, options: PullOptions): Promise<PulledPack[]>
    /** Fetches one pack, as `pack` or a lock describes it, into `<into>/<packId>/`, verified. */
    pullOne(pack: LockedPack | Pack, options: PullOptions): Promise<PulledPack>
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
  onWait,
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
    ...{ attempts: Math.max(1, attempts), baseDelayMs, onWait, idleTimeoutMs, userAgent },
  }
}

function authorizationOf(credentials: ClientOptions['credentials']): string | undefined {
  if (!credentials) return undefined
  if ('token' in credentials) return `Bearer ${credentials.token}`
  const { username, password } = credentials
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`
}
