import type { KeyObject } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { LRUCache } from 'lru-cache'
import { type Auth, openAuth } from './auth/open.ts'
import { openBlobStore } from './blobs/open.ts'
import type { BlobStore } from './blobs/store.ts'
import { timed } from './blobs/timed.ts'
import type { Config } from './config.ts'
import { type AuditEntry, insertEvents } from './db/audit.ts'
import { askedDistinct, askedOnce, batched } from './db/batch.ts'
import { type Arrival, findLinkedBlobs, linkArrivals } from './db/blobs.ts'
import { ask, askRead, askRelaxed, type Database, type Limits, learnTypes, openDatabase } from './db/client.ts'
import { findManifests, type ManifestQuestion } from './db/manifests.ts'
import { listPacks, type PackQuery } from './db/pack-list.ts'
import { findContents, findDescriptions, findVersions } from './db/pack-versions.ts'
import { openRelay, type Relay } from './db/relay.ts'
import { findLiveTokens, haveTokenKeys } from './db/tokens.ts'
import { findUploads, uploadSecret } from './db/uploads.ts'
import { Failure } from './errors.ts'
import { type Log, openLog } from './log.ts'
import { type Metrics, openMetrics } from './metrics.ts'
import type { Digest } from './oci/digest.ts'

/** `at`: when it was asked, in milliseconds. */
type KnownQuotas = { patterns: readonly RegExp[]; at: number }

/** What a rule or a handler needs of the world. Built once a process; passed, never imported. */
export type Deps = {
  config: Config
  log: Log
  metrics: Metrics
  db: Database
  /** Gives events that were written here their places. */
  relay: Relay
  auth: Auth
  blobs: BlobStore
  /** The statements that many requests ask at the same moment, joined into one. */
  together: ReturnType<typeof openTogether>
  /** What upload session ids are signed with. */
  uploadSecret: KeyObject
  /** Which repositories quotas are about, as far as this process knows. */
  quotas: KnownQuotas
  /** What private keys are encrypted with in the database: the first; the others open older ones. None: they are not. */
  keySecrets: readonly Buffer[]
  /** Bytes by their digest: manifests and small blobs. Never facts, so nothing in it can be out of date. */
  bytes: LRUCache<Digest, Buffer>
  /** The digest a tag had when it was last read: only a guess at which bytes need not be fetched again. */
  guesses: LRUCache<string, Digest>
}

/** How long an upload session lives after its last chunk. */
export const uploadLifeSeconds = 24 * 60 * 60

const cacheBytes = 64 * 1024 * 1024

/** How long what happened waits for more of its kind, where no answer waits for it. In milliseconds. */
const auditRestMs = 25

function openTogether(db: Database, { gcGraceSeconds, auth }: Config) {
  return {
    // Where many pull at once, they mostly pull the same.
    linkedBlob: batched((keys: Parameters<typeof findLinkedBlobs>[1]) =>
      askedDistinct(
        keys,
        (each) => askRead(db, (sql) => findLinkedBlobs(sql, each)),
        ({ repository, digest }) => `${repository} ${digest}`,
      ),
    ),
    manifest: batched((keys: ManifestQuestion[]) =>
      askedDistinct(
        keys,
        (each) => askRead(db, (sql) => findManifests(sql, each)),
        ({ repository, digest, tag, known }) => `${repository} ${digest ?? tag} ${known}`,
      ),
    ),
    packVersion: batched((keys: Parameters<typeof findVersions>[1]) => askRead(db, (sql) => findVersions(sql, keys))),
    apiToken: batched((keys: Parameters<typeof findLiveTokens>[1][number][]) =>
      askedDistinct(keys, (each) => askRead(db, (sql) => findLiveTokens(sql, each))),
    ),
    tokenKey: batched((kids: string[]) => askRead(db, (sql) => haveTokenKeys(sql, kids))),
    audit: batched(
      async (entries: AuditEntry[]) => {
        await askRelaxed(db, (relaxed) => insertEvents(relaxed, entries))
        return entries.map(() => undefined)
      },
      auth.mode === 'none' ? { restMs: auditRestMs } : { lanes: 2 },
    ),
    packContent: batched((keys: Parameters<typeof findContents>[1]) => askRead(db, (sql) => findContents(sql, keys))),
    packDescription: batched((keys: Parameters<typeof findDescriptions>[1]) =>
      askRead(db, (sql) => findDescriptions(sql, keys)),
    ),
    // Nearly everybody asks for the first page. One that takes long keeps others waiting, so several are under way.
    packList: batched(
      (queries: PackQuery[]) => askedOnce(queries, (query) => askRead(db, (sql) => listPacks(sql, query))),
      { lanes: 4 },
    ),
    upload: batched((keys: Parameters<typeof findUploads>[1]) => askRead(db, (sql) => findUploads(sql, keys))),
    // Work that takes turns in this process.
    turn: batched(async (works: (() => Promise<unknown>)[]) => Promise.all(works.map((work) => work())), { most: 1 }),
    // Two at once: while one waits for the disk, the next is on its way, and PostgreSQL flushes both together.
    arrival: batched((arrivals: Arrival[]) => linkTogether(db, arrivals, gcGraceSeconds), { lanes: 2 }),
  }
}

/** One that has no room keeps no other from being linked: its answer is the Failure. */
async function linkTogether(db: Database, arrivals: Arrival[], graceSeconds: number): Promise<(boolean | Failure)[]> {
  try {
    return await ask(db, (sql) => linkArrivals(sql, arrivals, graceSeconds))
  } catch (error) {
    if (!(error instanceof Failure) || error.key !== 'QUOTA_EXCEEDED') throw error
    const [only, ...more] = arrivals
    if (!only || more.length === 0) return [error]
    const linked: (boolean | Failure)[] = []
    for (const arrival of arrivals) linked.push(...(await linkTogether(db, [arrival], graceSeconds)))
    return linked
  }
}

/**
 * Opens everything a process needs; `databaseUrl` is that of the embedded server where none is configured. `limits`: of
 * the database, where they are not to be the usual ones.
 */
export async function openDeps(
  config: Config,
  databaseUrl: string,
  log: Log = openLog(config.logLevel),
  limits: Partial<Limits> = {},
): Promise<Deps> {
  const keySecrets = await readSecrets(config.keyEncryptionFile)
  const auth = await openAuth(config.auth, log)
  const metrics = openMetrics()
  const blobs = timed(await openBlobStore(config.blobStore), metrics)
  const db = openDatabase(databaseUrl, { max: config.databasePool, limits })
  db.onAnswer = (seconds) => metrics.database.observe(seconds)
  const relay = openRelay(db, (error) => log.warn({ error }, 'events wait to be relayed'))
  db.onEvents = relay.ring
  metrics.sources.pool = () => db.use
  await ask(db, () => learnTypes(db))
  return {
    uploadSecret: await askRead(db, uploadSecret),
    config,
    log,
    metrics,
    db,
    relay,
    auth,
    blobs,
    together: openTogether(db, config),
    quotas: { patterns: [], at: 0 },
    keySecrets,
    bytes: new LRUCache({ maxSize: cacheBytes, sizeCalculation: (bytes) => bytes.length + 200 }),
    guesses: new LRUCache({ max: 20_000 }),
  }
}

/** A secret a line. Throws an Error in words, without any of them, where one is none. */
async function readSecrets(file: string | undefined): Promise<Buffer[]> {
  if (file === undefined) return []
  const text = await readFile(file, 'utf8').catch((cause) => {
    throw new Error(`KEY_ENCRYPTION_FILE ${file} cannot be used: ${cause.message}`, { cause })
  })
  const lines = text.split(/\r?\n/).filter(Boolean)
  if (lines.length > 0 && lines.every((line) => line.length >= 32)) return lines.map((line) => Buffer.from(line))
  throw new Error(
    `KEY_ENCRYPTION_FILE ${file} cannot be used: each line has to be a secret of 32 characters or more, as "openssl rand -hex 32" makes one`,
  )
}

export async function closeDeps(deps: Deps): Promise<void> {
  deps.auth.close()
  await deps.together.audit.settle()
  await deps.relay.close()
  await Promise.all([deps.db.close(), deps.blobs.close()])
}
