import { patternOf } from '../auth/glob.ts'
import { ask, askRead } from '../db/client.ts'
import { publishMs } from '../db/import-publish.ts'
import { overQuota } from '../db/overrun.ts'
import * as rows from '../db/quotas.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import type { RepositoryName } from '../oci/name.ts'

// How much the repositories of a glob may hold. What is too much is refused by the statement that would make it visible
// (migration 14), whichever way it came. What stands here only saves a client from sending what would be refused: each
// process knows which repositories there are quotas for, as of a moment ago, and asks further for those alone. So a
// registry without quotas asks nothing more than before.

/** How old what a process knows may be, in milliseconds. */
const freshMs = 5_000
/**
 * Whoever did not see that a quota was set is done by then. Nothing that adds content takes longer than to publish an
 * import; the minute is for its commit. Measured sooner, a quota would not know of an import that was under way.
 */
const settleSeconds = publishMs / 1000 + 60
const everySeconds = 24 * 60 * 60
/** To add up what millions of rows hold takes its time. */
const measureMs = 300_000

/** What a quota allows and what is there, as it is told to others. Times are RFC 3339. */
export type Quota = {
  repositories: string
  maxBytes?: number
  maxVersions?: number
  bytes: number
  versions: number
  setBy: string
  setAt: string
}

function quotaOf({ glob, maxBytes, maxVersions, bytes, versions, setBy, setAt }: rows.QuotaRow): Quota {
  return {
    repositories: glob,
    ...(maxBytes === null ? {} : { maxBytes }),
    ...(maxVersions === null ? {} : { maxVersions }),
    ...{ bytes, versions, setBy, setAt: setAt.toISOString() },
  }
}

/** Every quota with what is used of it, by glob. */
export async function listQuotas(deps: Deps): Promise<Quota[]> {
  return (await askRead(deps.db, rows.listQuotas)).map(quotaOf)
}

/** Throws QUOTA_UNKNOWN. */
export async function findQuota(deps: Deps, glob: string): Promise<Quota> {
  const row = await askRead(deps.db, (sql) => rows.findQuota(sql, glob))
  if (row) return quotaOf(row)
  throw new Failure('QUOTA_UNKNOWN', {
    detail: `there is no quota for ${glob}; "packs quota list" shows those there are`,
  })
}

export type QuotaRequest = {
  glob: string
  maxBytes: number | undefined
  maxVersions: number | undefined
  setBy: string
}

/**
 * Sets a quota, and measures what is there already: that may be more, which keeps what comes out and nothing else.
 * `isNew`: there was none of this glob.
 */
export async function setQuota(deps: Deps, request: QuotaRequest): Promise<{ quota: Quota; isNew: boolean }> {
  const { glob } = request
  // First it is there, then it is measured: what comes in between is counted beside it.
  const isNew = await ask(deps.db, (sql) => rows.upsertQuota(sql, { ...request, pattern: patternOf(glob) }))
  await measure(deps, glob)
  deps.quotas.at = 0
  return { quota: await findQuota(deps, glob), isNew }
}

/** False where there was none. */
export async function removeQuota(deps: Deps, glob: string): Promise<boolean> {
  return await ask(deps.db, (sql) => rows.deleteQuota(sql, glob))
}

/** Folds in what has come, and measures again what is due for it. Harmless in several processes at once. */
export async function tendQuotas(deps: Deps): Promise<{ measured: number }> {
  await ask(deps.db, rows.foldQuotas)
  const due = await ask(deps.db, (sql) => rows.quotasToMeasure(sql, { settleSeconds, everySeconds }))
  for (const glob of due) await measure(deps, glob)
  return { measured: due.length }
}

async function measure(deps: Deps, glob: string): Promise<void> {
  await ask(
    deps.db,
    (sql) =>
      sql.begin(async (tx) => {
        // Also for the lock: somebody else may be measuring it.
        await tx`
          select set_config(name, ${String(measureMs)}, true) from unnest('{statement_timeout,lock_timeout}'::text[]) as name`
        await rows.lockQuota(tx, glob)
        await rows.measureQuota(tx, glob)
      }),
    { answerMs: measureMs },
  )
}

/**
 * Throws QUOTA_EXCEEDED where so many more bytes have no room in a repository, as far as this process knows. `digest`: of
 * the content, where it is known; what is there already takes no room.
 */
export async function requireRoom(
  deps: Deps,
  repository: RepositoryName,
  bytes: number,
  digest?: string,
): Promise<void> {
  if (Date.now() - deps.quotas.at > freshMs) await refresh(deps)
  if (!deps.quotas.patterns.some((pattern) => pattern.test(repository))) return
  const overrun = await askRead(deps.db, (sql) => rows.findOverrun(sql, { repository, bytes, digest }))
  if (overrun) throw overQuota(overrun)
}

async function refresh({ db, quotas }: Deps): Promise<void> {
  quotas.at = Date.now()
  quotas.patterns = (await askRead(db, rows.quotaPatterns)).map((pattern) => new RegExp(pattern))
}
